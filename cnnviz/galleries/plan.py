"""What a gallery is to hold: which filters of which layers, how each is drawn, and what all of it takes.

A `Request` leaves things open, a `Plan` nothing; `chunks` are what is left to draw of it, and `estimate` says what it
takes. A `Plan` is plain data; ``gallery.json`` holds it. The key of a filter is a hash of everything that determines
its image: another network, recipe, number of steps, size, seed, precision or batch gives another key, and only what
has another key than its record is drawn again.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cnnviz.errors import OutputError, ShapeError
from cnnviz.files import is_list, is_real, is_text, is_whole
from cnnviz.galleries.wiring import Wiring
from cnnviz.networks.layers import Layer, all_convolutions, layer_table
from cnnviz.networks.network import Network
from cnnviz.networks.provenance import describe, fingerprint_in
from cnnviz.synthesis.costs import step_cost
from cnnviz.synthesis.maximization import filter_job, recorded_layer
from cnnviz.synthesis.settings import canvas

FORMAT = 1  # of the folder
MOST_FILTERS = 10**6  # of a layer
LEAST_CHUNK = 16  # filters at a time: what fails among them is made again together
COMPUTED = ("structure", "mean", "std")  # what of a network determines what it computes, beside its weights
SETTINGS = ("seed", "recipe", "steps", "size", "batch", "precision", "tries", "objective")


@dataclass(frozen=True)
class LayerPlan:
    """One layer of a gallery.

    Attributes:
        layer: its name, as it was asked for.
        filters: the numbers of those that are drawn.
        settings: how, with nothing left to choose: what `cnnviz.synthesis.maximization.filter_job` is given.
        shape: (C, H, W) of its maps at the network's input size.
        receptive_field, step: (height, width) in input pixels; "all" where everything counts; None if unknown.
        inputs: the layer whose maps its convolution is given, if that is plain.
        flops: floating-point operations of one step for one image.
        place: when it runs, among all layers.
    """

    layer: str
    filters: tuple[int, ...]
    settings: Mapping[str, Any]
    shape: tuple[int, int, int]
    receptive_field: tuple[float | str, float | str] | None
    step: tuple[float | str, float | str] | None
    inputs: str | None
    flops: int
    place: int


@dataclass(frozen=True)
class Plan:
    """A whole gallery: the network, as images record it, and its layers in the order in which they run."""

    network: Mapping[str, Any]
    layers: tuple[LayerPlan, ...]

    def key(self, layer: LayerPlan, number: int) -> str:
        """What identifies the image of a filter: the sha256 of all that determines it."""
        return digest(
            {
                "network": self._computing(COMPUTED),
                "layer": layer.layer,
                "filter": number,
                "settings": dict(layer.settings),
            }
        )

    @property
    def seen(self) -> str:
        """What identifies what the network makes of an image: the sha256 of all that determines it."""
        return digest(self._computing((*COMPUTED, "input_size")))

    def _computing(self, names: Iterable[str]) -> dict[str, Any]:
        """What of the network keys are made of; its fingerprint by its first name, or galleries would be drawn anew."""
        return {"sha256": self.network["fingerprint"]} | {name: self.network[name] for name in names}

    @property
    def count(self) -> int:
        """How many filters there are."""
        return sum(len(layer.filters) for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "network": dict(self.network), "layers": [asdict(layer) for layer in self.layers]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Plan":
        """The plan in the contents of a ``gallery.json``.

        Raises:
            OutputError: if it is no such thing, or from a later version.
        """
        try:
            if data["format"] > FORMAT:
                raise OutputError("this gallery was made by a later version of cnnviz; install that one.")
            plan = Plan(_network_from(data["network"]), tuple(_layer_from(layer) for layer in data["layers"]))
            if not plan.layers:
                raise ValueError("it has no filters")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OutputError(f"gallery.json is no plan of a gallery ({type(error).__name__}: {error}).") from error
        return plan


def digest(data: object) -> str:
    """The sha256, in hexadecimal, of something plain enough for JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Request:
    """What a gallery is asked to hold.

    Attributes:
        layers: names of layers; all convolutions if empty.
        filters: their numbers, in every layer as far as it has them; all if None.
        settings: of `cnnviz.synthesis.settings.Settings`, the recipe by its name, and "seed".
    """

    layers: tuple[str, ...] = ()
    filters: tuple[int, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def make_plan(network: Network, request: Request) -> Plan:
    """A plan with nothing left to choose, for the device that `network` is on.

    Raises:
        UnknownNameError, LayerError, ShapeError: if a layer, a filter or a setting does not fit the network.
    """
    return Plan(describe(network), plan_layers(network, request))


def plan_layers(network: Network, request: Request) -> tuple[LayerPlan, ...]:
    """The layers of a plan; the network may be one without numbers. Errors as `make_plan`."""
    rows = {row.name: (place, row) for place, row in enumerate(layer_table(network))}
    wiring = Wiring(network, all_convolutions(network))
    names = dict.fromkeys(map(network.called, request.layers or all_convolutions(network)))
    layers = [
        _layer_plan(network, name, request, wiring, *rows.get(network.qualified(name), (len(rows), None)))
        for name in names
    ]
    if not any(layer.filters for layer in layers):
        most = max(layer.shape[0] for layer in layers)
        raise ShapeError(f"none of the filters asked for exists; the widest of these layers has 0 to {most - 1}.")
    return _in_order(layer for layer in layers if layer.filters)


def joined(before: Plan | None, now: Plan) -> Plan:
    """A gallery that grows: layers of both, filters of both; how a layer is drawn is decided by the later plan."""
    if before is None:
        return now
    asked = {layer.layer: layer for layer in now.layers}
    kept = [layer for layer in before.layers if layer.layer not in asked]
    for layer in before.layers:
        if layer.layer in asked:
            both = tuple(sorted({*layer.filters, *asked[layer.layer].filters}))
            asked[layer.layer] = replace(asked[layer.layer], filters=both)
    return Plan(now.network, _in_order([*kept, *asked.values()]))


@dataclass(frozen=True)
class Chunk:
    """Filters of one layer that are drawn together."""

    layer: str
    filters: tuple[int, ...]
    settings: Mapping[str, Any]
    keys: tuple[str, ...]
    flops: int

    @property
    def cost(self) -> int:
        """What the chunk counts for, if every filter succeeds at once."""
        return len(self.filters) * int(self.settings["steps"]) * self.weight

    @property
    def weight(self) -> int:
        """What one step of one filter counts for in how far a build is."""
        return max(1, self.flops)


def chunks(plan: Plan, done: Mapping[str, set[int]]) -> Iterator[Chunk]:
    """What is left to draw.

    Args:
        done: by layer, the filters that are.
    """
    for layer in plan.layers:
        left = [number for number in layer.filters if number not in done.get(layer.layer, set())]
        length = chunk_length(int(layer.settings["batch"]))
        for start in range(0, len(left), length):
            numbers = tuple(left[start : start + length])
            keys = tuple(plan.key(layer, number) for number in numbers)
            yield Chunk(layer.layer, numbers, layer.settings, keys, layer.flops)


def chunk_length(batch: int) -> int:
    """How many filters are drawn together at most, with so many images at a time."""
    return batch * math.ceil(LEAST_CHUNK / batch)


@dataclass(frozen=True)
class Estimate:
    """What a plan takes, if every filter succeeds at the first try.

    Attributes:
        filters: how many.
        flops: floating-point operations of all steps, an addition and a multiplication each counted.
        pixels: bytes of all images, uncompressed; PNG files take about half to three quarters.
    """

    filters: int
    flops: int
    pixels: int


def estimate(layers: Sequence[LayerPlan]) -> Estimate:
    """What some layers of a plan take."""
    parts = [(layer, len(layer.filters), layer.settings) for layer in layers]
    flops = sum(count * int(settings["steps"]) * layer.flops for layer, count, settings in parts)
    pixels = sum(count * settings["size"][0] * settings["size"][1] * 3 for _, count, settings in parts)
    return Estimate(sum(count for _, count, _ in parts), flops, pixels)


def _layer_plan(
    network: Network, layer: str, request: Request, wiring: Wiring, place: int, row: Layer | None
) -> LayerPlan:
    given = dict(request.settings)
    drawn = recorded_layer(network, layer, given.pop("objective")) if "objective" in given else layer
    job = filter_job(network, drawn, [0], **given)
    if row and len(row.output) == 3:
        count, rows, columns = row.output
    else:
        count, rows, columns = canvas(network, network.filters_of(layer).module)[1].shape[1:]
    settings = {name: job.settings.get(name) for name in SETTINGS} | {"batch": job.batch}
    wanted = range(count) if request.filters is None else request.filters
    if min(wanted, default=0) < 0:
        raise ShapeError(f"filters are counted from 0; there is no {min(wanted)}.")
    return LayerPlan(
        layer=layer,
        filters=tuple(number for number in sorted(set(wanted)) if number < count),
        settings=settings,
        shape=(count, rows, columns),
        receptive_field=_plain(row.receptive_field) if row else None,
        step=_plain(row.step) if row else None,
        inputs=wiring.inputs(layer),
        flops=step_cost(network, job.objective, job.size),
        place=place,
    )


def _in_order(layers: Iterable[LayerPlan]) -> tuple[LayerPlan, ...]:
    return tuple(sorted(layers, key=lambda layer: layer.place))


def _network_from(data: Mapping[str, Any]) -> Mapping[str, Any]:
    kept = {name: value for name, value in data.items() if name != "sha256"} | {"fingerprint": fingerprint_in(data)}
    data = {"weights_sha256": None, "outputs": None} | kept  # earlier galleries have neither
    texts = all(is_text(data[name]) for name in ("name", "weights", "fingerprint", "structure"))
    texts = texts and all(is_text(data[name] or "") for name in ("weights_sha256", "outputs"))
    sides = is_list(data["input_size"], lambda side: is_whole(side, 1), 2)
    if not (texts and sides and all(is_list(data[name], is_real) for name in ("mean", "std"))):
        raise ValueError("its network makes no sense")
    return data


def _layer_from(data: Mapping[str, Any]) -> LayerPlan:
    pairs = {name: None if data[name] is None else tuple(data[name]) for name in ("receptive_field", "step")}
    layer = LayerPlan(**{**data, **pairs, "filters": tuple(data["filters"]), "shape": tuple(data["shape"])})
    settings = layer.settings
    sensible = (
        is_text(layer.layer),
        layer.inputs is None or is_text(layer.inputs),
        bool(layer.filters) and all(is_whole(number, below=MOST_FILTERS) for number in layer.filters),
        is_list(data["shape"], is_whole, 3),
        all(data[name] is None or is_list(data[name], _is_length, 2) for name in ("receptive_field", "step")),
        is_whole(layer.flops) and is_whole(layer.place),
        is_list(settings["size"], lambda side: is_whole(side, 1), 2),
        all(is_whole(settings[name], 1) for name in ("steps", "batch", "tries")),
        isinstance(settings["seed"], int),
        is_text(settings["recipe"]) and is_text(settings["precision"]),
    )
    if not all(sensible):
        raise ValueError(f"layer {layer.layer!r} makes no sense")
    return layer


def _is_length(value: object) -> bool:
    return value == "all" or is_real(value)


def _plain(pair: tuple[float, float] | None) -> tuple[float | str, float | str] | None:
    """JSON knows no infinity."""
    if pair is None:
        return None
    return tuple("all" if math.isinf(side) else side for side in pair)  # type: ignore[return-value]
