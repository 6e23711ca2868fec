"""A gallery's folder as static pages: the network in blocks, a page per layer, a page per filter.

    index.html                        the network, the first filters of each layer
    layers/block4_conv2.html          all filters of a layer, to be sorted and filtered
    filters/block4_conv2/0041.html    one filter: feature visualization, top activating images, curves, weights, command
    site/                             the style, the script, the strips

All links are relative and nothing comes from elsewhere, so the folder works as it is, from a disk or from any server.
What a page says of a filter it takes from the folder alone; an image that is not as planned counts as not drawn yet.
"""

import io
import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnviz.errors import OutputError
from cnnviz.files import whole_file
from cnnviz.galleries.plan import LayerPlan, Plan
from cnnviz.galleries.store import EXAMPLES, Store, example_complete, file_name, read_examples, read_lines
from cnnviz.networks.layer_names import block_of
from cnnviz.networks.provenance import model_words
from cnnviz.web import charts
from cnnviz.web.templating import HERE, STATES, TIMES, environment

if TYPE_CHECKING:
    from jinja2 import Environment

PREVIEW = 24  # filters of each layer on the start page
TILE_PIXELS, SMALLEST_TILE, LARGEST_TILE = 2_200_000, 20, 128  # of all strips together; a side
INPUTS = 6  # of a filter, the strongest
STRIP_QUALITY = 60
GLYPH = 96  # pixels that stand for the side of the input where maps are drawn to scale


@dataclass(frozen=True)
class Filter:
    """A filter as pages show it: its number, its page and its image from the top folder, its record if it is drawn."""

    number: int
    page: str
    image: str
    record: Mapping[str, Any] | None

    @property
    def status(self) -> str:
        return self.record["status"] if self.record else "missing"


@dataclass(frozen=True)
class Layer:
    """A layer as pages show it; `examples` holds, by filter, its top activating images."""

    plan: LayerPlan
    page: str
    strip: str
    filters: Sequence[Filter]
    examples: Mapping[int, Mapping[str, Any]]

    @property
    def name(self) -> str:
        return self.plan.layer

    @property
    def preview(self) -> Sequence[Filter]:
        """The filters on the start page, which are also the tiles of the strip."""
        return self.filters[:PREVIEW]

    @property
    def counts(self) -> Counter[str]:
        """Filters by status."""
        return Counter(filter_.status for filter_ in self.filters)

    @property
    def dead(self) -> str:
        """The share of the filters drawn that are dead."""
        drawn = len(self.filters) - self.counts["missing"]
        if not drawn:
            return "not drawn yet"
        share = 100 * self.counts["dead"] / drawn
        return f"{share:.2g} % dead" if share else "none dead"


@dataclass(frozen=True)
class Group:
    """Layers that are drawn in one box, and the size of their maps relative to the input, if it is known."""

    name: str
    maps: str
    glyph: tuple[float, float] | None
    layers: Sequence[Layer]


def write_site(store: Store) -> Path:
    """Write the pages of a gallery into its folder, and take away those of filters that it no longer has.

    Returns:
        The start page.

    Raises:
        OutputError: if there is no gallery, one of its images is damaged, or a page cannot be written.
    """
    site = _Site(store)
    site.write_start()
    for place, layer in enumerate(site.layers):
        site.write_layer(place)
        for number in range(len(layer.filters)):
            site.write_filter(layer, number)
    site.remove_stale()
    return store.folder / "index.html"


def command(plan: Plan, layer: LayerPlan, number: int, batch: int) -> str:
    """The command line that draws a filter again.

    Args:
        batch: filters at a time, which may be less than planned where memory did not do.
    """
    settings = layer.settings
    words = ["cnnviz", "filters", "--layer", layer.layer, "--filters", number, *model_words(plan.network)]
    words += ["--recipe", settings["recipe"], "--steps", settings["steps"], "--size", _by(settings["size"])]
    words += ["--seed", settings["seed"], "--batch", batch, "--precision", settings["precision"]]
    return shlex.join(map(str, words))


def _by(size: Sequence[int]) -> str:
    """Height and width as the command line takes them."""
    return "x".join(map(str, size))


class _Site:
    """The pages of one gallery; remembers what it wrote."""

    def __init__(self, store: Store) -> None:
        self.store, self.plan = store, store.planned()
        store.check_inside()
        self.examples = _examples(store, self.plan)
        self.layers = [self._layer(layer) for layer in self.plan.layers]
        self.by_name = {layer.name: {filter_.number: filter_ for filter_ in layer.filters} for layer in self.layers}
        self.templates = _templates()
        self.written: set[Path] = set()

    def write_start(self) -> None:
        previews = sum(len(layer.preview) for layer in self.layers)
        side = math.isqrt(TILE_PIXELS // previews)
        side = min(max(side, SMALLEST_TILE), LARGEST_TILE)
        for layer in self.layers:
            self._write_strip(layer, side)
        for static in sorted((HERE / "static").iterdir()):
            self._write(f"site/{static.name}", static.read_bytes())
        settings = (layer.settings for layer in self.plan.layers)
        self._render(
            "index.html",
            "start.html",
            groups=_groups(self.layers, self.plan.network["input_size"]),
            layers=len(self.layers),
            side=side,
            recipes=dict.fromkeys(f"{chosen['recipe']}, {chosen['steps']} steps" for chosen in settings),
            counts=sum((layer.counts for layer in self.layers), Counter[str]()),
        )

    def write_layer(self, place: int) -> None:
        around = {"before": _at(self.layers, place - 1), "after": _at(self.layers, place + 1)}
        self._render(self.layers[place].page, "layer.html", layer=self.layers[place], **around)

    def write_filter(self, layer: Layer, place: int) -> None:
        current = layer.filters[place]
        record = current.record or {}
        example = layer.examples.get(current.number)
        tiles = self.store.example_strip(layer.name, current.number) if example and example.get("file") else None
        batch = record.get("batch", layer.plan.settings["batch"])
        known = self.by_name.get(layer.plan.inputs or "", {})
        self._render(
            current.page,
            "filter.html",
            layer=layer,
            filter=current,
            before=_at(layer.filters, place - 1),
            after=_at(layer.filters, place + 1),
            curve=charts.optimization_curve(record["curve"]) if record.get("curve") else None,
            histogram=charts.histogram(**example["histogram"], reached=record.get("max")) if example else None,
            example=example,
            tiles=self.store.name(tiles) if tiles and tiles.is_file() else None,
            inputs=[(number, weight, known.get(number)) for number, weight in record.get("inputs", ())[:INPUTS]],
            command=command(self.plan, layer.plan, current.number, batch),
        )

    def remove_stale(self) -> None:
        """Pages and strips of what the plan no longer has."""
        pages = [*self._below("layers", "*.html"), *self._below("filters", "*.html"), *self._below("site", "*.webp")]
        for path in pages:
            if path not in self.written:
                path.unlink(missing_ok=True)
        for folder in self._below("filters", "*"):
            if folder.is_dir():
                with suppress(OSError):  # it is not empty
                    folder.rmdir()

    def _below(self, part: str, pattern: str) -> list[Path]:
        """Files and folders, as far as they are there: another `cnnviz gallery site` may be taking some away."""
        paths = (Path(here, name) for here, *names in os.walk(self.store.folder / part) for name in chain(*names))
        return sorted(path for path in paths if path.match(pattern))

    def _layer(self, layer: LayerPlan) -> Layer:
        name, records = file_name(layer.layer), self.store.records(layer.layer)
        filters = []
        for number in layer.filters:
            path, record = self.store.image(layer.layer, number), records.get(number)
            drawn = record and record.get("key") == self.plan.key(layer, number) and path.is_file()
            image = self.store.name(path)
            filters.append(Filter(number, f"filters/{name}/{number:04d}.html", image, record if drawn else None))
        lines = read_lines(self.store.example_lines(layer.layer)) if self.examples else {}
        known = {number: line for number, line in lines.items() if example_complete(line)}
        return Layer(layer, f"layers/{name}.html", f"site/strips/{name}.webp", filters, known)

    def _write_strip(self, layer: Layer, side: int) -> None:
        """The first filters of a layer as one image of tiles."""
        files = [self.store.folder / filter_.image if filter_.record else None for filter_ in layer.preview]
        buffer = io.BytesIO()
        charts.strip(files, side).save(buffer, "WEBP", quality=STRIP_QUALITY)
        self._write(layer.strip, buffer.getvalue())

    def _render(self, page: str, template: str, **values: Any) -> None:
        root = "../" * page.count("/")
        shared = {"root": root, "network": self.plan.network, "summary": self.examples, "states": STATES}
        text = self.templates.get_template(template).render(shared, **values)
        self._write(page, text.encode() + b"\n")

    def _write(self, file: str, content: bytes) -> None:
        path = self.store.folder / file
        if _content(path) != content:  # to replace a file takes longer than to make a page
            with whole_file(path) as open_file:
                open_file.write(content)
        self.written.add(path)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _examples(store: Store, plan: Plan) -> Mapping[str, Any] | None:
    """What is known of the top activating images, if there are any, found with the same weights."""
    path = store.folder / EXAMPLES
    if not path.is_file():
        return None
    try:
        data = read_examples(path)
        return data if data["seen"] == plan.seen else None
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot read {path} ({error}); delete it, or find the natural examples again.") from error


def _groups(layers: Sequence[Layer], input_size: Sequence[int]) -> list[Group]:
    """The blocks of a network like VGG; of another one, layers with maps of the same size."""
    blocks = [block_of(layer.name) for layer in layers]
    gathered: dict[str, list[Layer]] = {}
    for layer, block in zip(layers, blocks, strict=True):
        gathered.setdefault(block if block and all(blocks) else _maps(layer), []).append(layer)
    return [_group(name, some, input_size) for name, some in gathered.items()]


def _group(name: str, layers: Sequence[Layer], input_size: Sequence[int]) -> Group:
    shares = [min(1.0, side / most) for side, most in zip(layers[0].plan.shape[1:], input_size, strict=True)]
    sides = [max(2, round(GLYPH * share)) for share in shares]
    return Group(name, _maps(layers[0]), (sides[0], sides[1]) if all(shares) else None, layers)


def _maps(layer: Layer) -> str:
    height, width = layer.plan.shape[1:]
    return f"{height} {TIMES} {width}" if height and width else "of unknown size"


def _at(items: Sequence[Any], place: int) -> Any:
    """The item at a place, or None beyond either end."""
    return items[place] if 0 <= place < len(items) else None


def _pair(value: Sequence[float | str] | None) -> str:
    """A receptive field or stride, for people."""
    if value is None:
        return "unknown"
    return "full input" if "all" in value else f" {TIMES} ".join(f"{side:g}" for side in value) + " px"


def _templates() -> "Environment":
    pages = environment()
    pages.filters |= {"pair": _pair, "by": _by}
    return pages
