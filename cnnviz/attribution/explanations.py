"""Attributions of an image with their evidence, and how they are shown; `cnnviz.explain` makes them.

explanation = cnnviz.explain(network, "cat.jpg", ["tabby"], methods=["grad-cam"])
explanation.save("why.png")
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Unpack

import numpy as np
from torch import Tensor

from cnnviz.attribution.evidence import (
    LARGE_GAP,
    RANDOM_ORDERS,
    STEPS,
    Curves,
    Reference,
    Standing,
    mean_of,
    unmoved,
)
from cnnviz.attribution.explainer import Target
from cnnviz.attribution.heatmaps import full_scale, heat, is_flat
from cnnviz.attribution.methods import METHODS
from cnnviz.errors import ShapeError
from cnnviz.networks.inputs import Shown, unseen_dimmed
from cnnviz.networks.layer_names import split_use
from cnnviz.networks.network import Network
from cnnviz.networks.overlays import ALPHA, enlargement_of, overlaid, photograph, placed
from cnnviz.networks.provenance import record
from cnnviz.pictures.colours import SIGNED, UNSIGNED, Pixels, colour_map, painted
from cnnviz.pictures.drawings import PAPER
from cnnviz.pictures.sheets import ACROSS, WIDER_THAN_HIGH, ColourBar, Layout, Sheet, Tile, layout_settings, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALONE, MOST_AMONG_OTHERS, AMONG_OTHERS = 420, 380, 210  # pixels; the long side of an image
SEAM = 2  # pixels, between a map and its overlay
NARROWEST = 180  # pixels; of an image, for the evidence to be legible below two of them
PAIR_ASPECT = 1.7  # width to height of a map and its overlay with the evidence below
ROUNDING = 1e-4  # of the largest value: attributions that differ by no more coincide
NO_BETTER = "no better than chance"


class Scaled(Protocol):
    """A map by a method, as its colours are told: an `Attribution`, or the mean of several."""

    @property
    def method(self) -> str: ...

    @property
    def scale(self) -> float: ...

    @property
    def flat(self) -> bool: ...


@dataclass(frozen=True)
class Evidence:
    """How far an attribution can be believed; None for what was not measured.

    Attributes:
        curves: probability while pixels are removed and inserted in the map's order.
        reference: the areas of orders that know nothing of the network.
        blurred: whether insertion begins from the blurred image, rather than from the baseline.
        gap: by what share of the difference of scores the attributions miss it, for methods that promise it.
        sanity: rank correlation with the maps of ever more randomized networks, by the lowest random layer; None where
            one of the maps is flat.
        infidelity, sensitivity: see `cnnviz.attribution.evidence`.
        inapplicable: why a check that was asked for does not apply to the method, by its name in `row`.
    """

    curves: Curves | None = None
    reference: Reference | None = None
    blurred: bool = False
    gap: float | None = None
    sanity: Mapping[str, float | None] | None = None
    infidelity: float | None = None
    sensitivity: float | None = None
    inapplicable: Mapping[str, str] = field(default_factory=dict)

    @property
    def unmoved(self) -> bool:
        """Whether the map fails the sanity check: it hardly changes when the network is randomized.

        That is if the mean of its correlations exceeds 0.5.
        """
        return bool(self.sanity) and unmoved((self.sanity or {}).values())

    @property
    def large_gap(self) -> bool | None:
        """Whether the completeness gap exceeds 5 %; None if there is none."""
        return None if self.gap is None else self.gap > LARGE_GAP

    @property
    def standings(self) -> tuple[Standing, Standing] | None:
        """Of deletion and of insertion, against random orders; see `Reference.standings`. None if not measured."""
        return self.reference.standings(self.curves) if self.curves and self.reference else None

    @property
    def better_than_random(self) -> bool | None:
        """Whether deletion or insertion, or both, are better than random orders; None if not measured.

        The other one may be worse: see `standings`.
        """
        return self.standings and "better" in self.standings

    def row(self) -> dict[str, object]:
        """Numbers by name, those that there are; None for checks that do not apply to the method."""
        numbers: dict[str, object] = {
            "completeness_gap": self.gap,
            "completeness_gap_large": self.large_gap,
            "infidelity": self.infidelity,
            "max_sensitivity": self.sensitivity,
        }
        if self.sanity:
            numbers["sanity"] = dict(self.sanity)
            numbers["sanity_mean"] = mean_of(self.sanity.values())
            numbers["sanity_fails"] = self.unmoved
        if self.curves and self.reference and self.standings:
            for place, name in enumerate(("deletion_auc", "insertion_auc")):
                numbers[name] = getattr(self.curves, name)
                numbers[f"{name}_random"] = self.reference.random[place]
                numbers[f"{name}_random_spread"] = self.reference.spread[place]
                numbers[f"{name}_centre"] = self.reference.centre and self.reference.centre[place]
            numbers["auc_of"] = "score" if self.reference.values else "probability"
            numbers["deletion_better"], numbers["insertion_better"] = (
                standing == "better" for standing in self.standings
            )
            numbers["insertion_from"] = "blurred image" if self.blurred else "baseline"
            numbers["better_than_random"] = self.better_than_random
        return {name: value for name, value in numbers.items() if value is not None or name in self.inapplicable}


@dataclass(frozen=True)
class Attribution:
    """What one method says of one class.

    Attributes:
        method: a key of `cnnviz.attribution.methods.METHODS`.
        target: the class, and the one it is held against, if any.
        probability: of the class, in [0, 1]; None where outputs are values, or summed over a region, which have none.
        score: what is attributed: its logit, or the sum of its logits over a region; or the difference of two.
        values: as captum gives them, float32, on the CPU: (C, H, W), or (1, H', W') of a layer.
        contributions: the same shape; what each value contributes, so that they add up. They are `values` but for
            occlusion, feature ablation, LIME and KernelSHAP, which repeat the effect of a whole region at each of its
            values; see `cnnviz.attribution.evidence.contributions`. Completeness and infidelity are theirs.
        heat: (H, W), a map of what the network saw, in units of `values`; see `cnnviz.attribution.heatmaps.heat`.
        layers: that the method looked at: one, several whose maps have been averaged, or none.
        evidence: how far to believe it.
        versus_probability: of the class it is held against, if any; None as `probability`.
    """

    method: str
    target: Target
    probability: float | None
    score: float
    values: Tensor
    contributions: Tensor
    heat: Tensor
    layers: tuple[str, ...]
    evidence: Evidence
    versus_probability: float | None = None

    @property
    def layer(self) -> str | None:
        """The layer that was looked at; None where it was none or several."""
        return self.layers[0] if len(self.layers) == 1 else None

    @property
    def scale(self) -> float:
        """The size of a value of the map that the last colour stands for."""
        return full_scale(self.heat)

    @property
    def total(self) -> float:
        """The sum of the contributions."""
        return self.contributions.double().sum().item()

    @property
    def flat(self) -> bool:
        """Whether the map is the same everywhere: nothing in the image mattered more than anything else."""
        return is_flat(self.heat)


@dataclass(frozen=True, repr=False)
class Explanation:
    """Attributions of one image.

    Attributes:
        network, shown: the network, and what it saw.
        attributions: class by class, method by method.
        baseline: the reference input, in words.
        settings: what was asked for.
        region: over how much of the network's output scores are summed, in words; empty where there is no region.
    """

    network: Network
    shown: Shown
    attributions: tuple[Attribution, ...]
    baseline: str
    settings: Mapping[str, object] = field(default_factory=dict)
    region: str = ""

    def sheet(self, *, alpha: float = ALPHA, cmap: str = UNSIGNED, **layout: Unpack[Layout]) -> Sheet:
        """Map and overlay of every attribution, its evidence beneath; with the image where there is only one.

        Args:
            alpha: opacity of the largest values in overlays, in [0, 1].
            cmap: one of matplotlib's colour maps, for maps without a sign.
            layout: columns, tile (the width of a tile in pixels), title, captions and dpi; see `Layout`.

        Raises:
            UnknownNameError: if there is no such colour map.
            ShapeError: if a number is out of range.
        """
        look = look_settings(alpha, cmap)
        return explanation_sheet(
            self, self._record(**look, **layout_settings(layout)), alpha=alpha, cmap=cmap, **layout
        )

    def figure(self, *, alpha: float = ALPHA, cmap: str = UNSIGNED, **layout: Unpack[Layout]) -> "Figure":
        """The sheet as a matplotlib figure; arguments as for `sheet`."""
        return self.sheet(alpha=alpha, cmap=cmap, **layout).figure()

    def overlay(self, number: int = 0, *, alpha: float = ALPHA, cmap: str = UNSIGNED) -> Sheet:
        """The overlay of one map, in the image's own resolution."""
        look = look_settings(alpha, cmap)
        return Sheet(overlay(self, number, alpha=alpha, cmap=cmap), self._record(overlay=number, **look))

    def save(self, path: str | Path, *, alpha: float = ALPHA, cmap: str = UNSIGNED, **layout: Unpack[Layout]) -> Path:
        """Write the sheet; arguments as for `sheet`, endings as for `Sheet.save`."""
        return self.sheet(alpha=alpha, cmap=cmap, **layout).save(path)

    def label(self, attribution: Attribution) -> str:
        """The class, or the two classes, in words."""
        return class_label(self.network, attribution.target)

    def described(self, attribution: Attribution) -> str:
        """The class, or the two classes, each with its probability or output: "tabby (p = 11.8%)"."""
        own, other = attribution.target.index, attribution.target.versus
        if attribution.probability is None:
            return f"{self.label(attribution)} (score {attribution.score:.4g})"
        text = f"{self.network.label(own)} (p = {attribution.probability:.1%})"
        if other is None:
            return text
        return f"{text} versus {self.network.label(other)} (p = {attribution.versus_probability:.1%})"

    def rows(self) -> list[dict[str, object]]:
        """A plain dictionary for each attribution, its evidence included."""
        return [
            {
                "method": attribution.method,
                "fit": self.shown.settings.get("fit"),
                "class": attribution.target.index,
                "label": self.network.label(attribution.target.index),
                "versus": None if attribution.target.versus is None else self.network.label(attribution.target.versus),
                "probability": attribution.probability,
                "versus_probability": attribution.versus_probability,
                "score": attribution.score,
                "layer": attribution.layer,
                "use": attribution.layer and split_use(attribution.layer)[1],
                "uses": attribution.layer and self.network.uses(attribution.layer),
                "layers": list(attribution.layers),
                "sum": attribution.total,
                "scale": attribution.scale,
                "flat": attribution.flat,
                **attribution.evidence.row(),
            }
            for attribution in self.attributions
        ]

    def _record(self, **more: object) -> dict[str, object]:
        return record(
            "saliency",
            self.network,
            picture=self.shown.names[0],
            sha256=self.shown.sha256,
            settings={**self.settings, **self.shown.settings, **more},
            results={"sum": [attribution.total for attribution in self.attributions]},
        )

    def __repr__(self) -> str:
        methods = ", ".join(dict.fromkeys(attribution.method for attribution in self.attributions))
        labels = ", ".join(dict.fromkeys(self.label(attribution) for attribution in self.attributions))
        return f"Explanation({labels} of {self.network.name} by {methods})"

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def class_label(network: Network, target: Target) -> str:
    """A class, or a class and the one it is held against, in words."""
    versus = "" if target.versus is None else f" versus {network.label(target.versus)}"
    return f"{network.label(target.index)}{versus}"


def look_settings(alpha: float, cmap: str) -> dict[str, object]:
    """What a record keeps of how maps are drawn: nothing if it is as usual."""
    if not 0 <= alpha <= 1:
        raise ShapeError(f"alpha must be in [0, 1], not {alpha}.")
    return {name: value for name, value, usual in (("alpha", alpha, ALPHA), ("cmap", cmap, UNSIGNED)) if value != usual}


def explanation_sheet(
    explanation: Explanation, made: Mapping[str, object], *, alpha: float, cmap: str, **layout: Unpack[Layout]
) -> Sheet:
    """A tile per attribution, a column per class if there are several; see `Explanation.sheet`."""
    attributions, width = explanation.attributions, layout.get("tile")
    classes = list(dict.fromkeys(attribution.target for attribution in attributions))
    alone = len(attributions) == 1
    if alone:
        columns = 3
    elif len(classes) > 1:
        columns = len(classes)
    else:
        columns = max(1, round((len(attributions) * WIDER_THAN_HIGH / PAIR_ASPECT) ** 0.5))
    columns = layout.get("columns") or columns
    side = ALONE if alone else min(MOST_AMONG_OTHERS, max(AMONG_OTHERS, ACROSS // (2 * columns)))
    size = _size(explanation, side, width if alone or width is None else (width - SEAM) // 2)
    pairs = [_painted(explanation, attribution, size, alpha=alpha, cmap=cmap) for attribution in attributions]
    if alone:
        (attribution,), ((drawn, over),) = attributions, pairs
        tiles = [
            Tile(photograph(explanation.shown, size), explanation.shown.names[0]),
            Tile(
                drawn,
                METHODS[attribution.method].title,
                scale_text(attribution),
                below=_evidence(explanation, attribution),
            ),
            Tile(over, "overlay"),
        ]
    else:
        between = np.full((size[0], SEAM, 3), PAPER, dtype=np.uint8)
        tiles = [
            Tile(
                np.hstack([drawn, between, over]),
                _title(explanation, attribution),
                scale_text(attribution),
                below=_evidence(explanation, attribution),
            )
            for attribution, (drawn, over) in zip(attributions, pairs, strict=True)
        ]
        tiles = [tile for row in range(len(tiles) // len(classes)) for tile in tiles[row :: len(tiles) // len(classes)]]
    picture = None if alone else unseen_dimmed(explanation.shown, 0)
    bars = colour_bars(attributions, cmap, _direction(explanation))
    return sheet(
        tiles,
        lines=_lines(explanation),
        picture=picture,
        colour_bars=bars,
        made=made,
        factor=1,
        **(layout | {"columns": columns, "tile": None}),
    )


def overlay(explanation: Explanation, number: int, *, alpha: float, cmap: str) -> Pixels:
    """The overlay of one map, in the image's own resolution."""
    size = (explanation.shown.pictures[0].shape[0], explanation.shown.pictures[0].shape[1])
    return _painted(explanation, explanation.attributions[number], size, alpha=alpha, cmap=cmap)[1]


def _painted(
    explanation: Explanation, attribution: Attribution, size: tuple[int, int], *, alpha: float, cmap: str
) -> tuple[Pixels, Pixels]:
    """The map alone, and over the image."""
    shown, scale, signed = explanation.shown, attribution.scale, METHODS[attribution.method].signed
    if attribution.layers:
        coarse = heat(attribution.values[None], attribution.method, attribution.values.shape[1:])[0]
        values = placed(coarse, shown, size, mode="bicubic")
    else:
        values = placed(attribution.heat, shown, size, mode=enlargement_of(shown))
    over = overlaid(shown, values, scale, signed=signed, alpha=alpha, cmap=cmap)
    return painted(values, scale, signed=signed, cmap=cmap), over


def _size(explanation: Explanation, side: int, given: int | None) -> tuple[int, int]:
    """(height, width) of each image: of the width given, or with `side` as its long side."""
    height, width = explanation.shown.pictures[0].shape[:2]
    factor = given / width if given else max(side / max(height, width), NARROWEST / width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _title(explanation: Explanation, attribution: Attribution) -> str:
    several = len({attribution.target for attribution in explanation.attributions}) > 1
    title = METHODS[attribution.method].title
    return f"{explanation.network.label(attribution.target.index)}: {title}" if several else title


def scale_text(scaled: Scaled) -> str:
    """What the colours of a map reach, for people: "±0.3", "0 to 12", or "flat"."""
    if scaled.flat:
        return "flat"
    return f"{'±' if METHODS[scaled.method].signed else '0 to '}{scaled.scale:.2g}"


def _evidence(explanation: Explanation, attribution: Attribution) -> list[str]:
    """Lines of evidence, each with what to compare it with."""
    evidence = attribution.evidence
    lines = curve_lines(evidence)
    if evidence.better_than_random is False:
        lines.append(NO_BETTER)
    if evidence.gap is not None:
        lines.append(f"completeness gap {evidence.gap:.1%}" + _gap_note(explanation, attribution))
    if evidence.sanity:
        lines.append(f"network randomized: {_sanity(evidence.sanity)}")
    if evidence.infidelity is not None:
        lines.append(f"infidelity {evidence.infidelity:.2g}")
    if evidence.sensitivity is not None:
        lines.append(f"max-sensitivity {evidence.sensitivity:.0%}")
    return lines + [f"{name}: {reason}" for name, reason in evidence.inapplicable.items()]


def curve_lines(evidence: Evidence) -> list[str]:
    """Deletion and insertion, each with random orders and how it compares with them; nothing if not measured."""
    if not evidence.curves or not evidence.reference:
        return []
    chance, lines = evidence.reference, []
    areas = evidence.curves.deletion_auc, evidence.curves.insertion_auc
    for place, standing in enumerate(chance.standings(evidence.curves)):
        name, unit = ("deletion", "insertion")[place], " (score)" * chance.values
        compared = _random_text(chance, place)
        if chance.centre is not None:
            compared += f", centre {chance.text(chance.centre[place])}"
        lines.append(f"{name} AUC{unit} {chance.text(areas[place])} ({compared}): {standing}")
    return lines


def _random_text(chance: Reference, place: int) -> str:
    """The mean of random orders and their standard deviation, of deletion (0) or insertion (1)."""
    random, spread = chance.random[place], chance.spread[place]
    return f"random {random:.4g} ± {spread:.2g}" if chance.values else f"random {100 * random:.1f} ± {spread:.1%}"


def _gap_note(explanation: Explanation, attribution: Attribution) -> str:
    """Whether the completeness gap is large, and what makes it smaller, where something does."""
    if not attribution.evidence.large_gap:
        return ""
    steps = METHODS[attribution.method].options.get("steps")
    if steps is None:
        return ": large"
    given = explanation.settings.get("options", {})
    if steps.quick is None or (isinstance(given, Mapping) and "steps" in given):
        return ": large; take more steps"
    return ": large" if explanation.settings.get("precise") else ": large; use --precise"


def _sanity(correlations: Mapping[str, float | None]) -> str:
    """Their mean, how many maps are flat and left out, and the verdict."""
    mean, numbers = mean_of(correlations.values()), list(correlations.values())
    if mean is None:
        return "all maps flat, not measurable"
    flat = f" ({numbers.count(None)} of {len(numbers)} maps flat, left out)" if None in numbers else ""
    return f"mean correlation {mean:.2f}{flat}" + ": fails the sanity check" * unmoved(numbers)


def _lines(explanation: Explanation) -> list[str]:
    classes = {attribution.target: attribution for attribution in explanation.attributions}
    named = ", ".join(explanation.described(attribution) for attribution in classes.values())
    lines = [
        f"Attribution: {named}",
        f"{explanation.shown.names[0]}, {explanation.shown.words}; {explanation.network.name},"
        f" weights: {explanation.network.weights}",
    ]
    if explanation.region:
        lines.append(f"score: sum of the class's outputs over the outlined region, {explanation.region}")
    measured = next((each for each in explanation.attributions if each.evidence.curves), None)
    lines += given_lines(explanation, compared=measured is not None)
    if measured is not None:
        start = "the blurred image (RISE)" if measured.evidence.blurred else "the baseline"
        precise = explanation.settings.get("precise")
        steps, centre = (f"{STEPS} steps", ", centre first") if precise else (f"up to {STEPS} steps", "")
        lines += [
            f"AUC (area under the curve): mean {_curve_quantity(explanation, measured)} over {steps}",
            "deletion AUC: most important pixels removed first (lower is better)",
            f"insertion AUC: most important pixels inserted first into {start} (higher is better)",
            f"for comparison: random order (mean ± standard deviation of {RANDOM_ORDERS}){centre}",
        ]
    return [*lines, *_coinciding(explanation)]


def _curve_quantity(explanation: Explanation, measured: Attribution) -> str:
    """What falls while pixels are removed; of two classes that are compared it is the first one's."""
    if measured.probability is None:
        return "score of the class (a sum, not a probability)" if explanation.region else "output of the class"
    if measured.target.versus is None:
        return "probability of the class"
    labels = dict.fromkeys(explanation.network.label(each.target.index) for each in explanation.attributions)
    return f"probability of {' or '.join(labels)}"


def _direction(explanation: Explanation) -> tuple[str, str]:
    """What negative and positive attributions mean."""
    targets = {attribution.target for attribution in explanation.attributions}
    return direction_of(explanation.network, targets, explanation.attributions[0].target.versus)


def given_lines(explanation: Explanation, *, compared: bool) -> list[str]:
    """A line about the baseline and the layers, or none.

    Args:
        compared: whether anything besides the methods uses the baseline.
    """
    attributions = explanation.attributions
    compared = compared or any(METHODS[attribution.method].baseline for attribution in attributions)
    layers = dict.fromkeys(layer for attribution in attributions for layer in attribution.layers)
    parts = [f"baseline: {explanation.baseline}"] if compared else []
    title = "layer" if len(layers) == 1 else "mean over layers"
    parts += [f"{title}: {', '.join(map(explanation.network.titled, layers))}"] if layers else []
    return ["; ".join(parts)] if parts else []


def direction_of(network: Network, targets: Collection[Target | None], versus: int | None) -> tuple[str, str]:
    """What negative and positive attributions mean: for the class, or for either of two that are compared.

    Args:
        targets: the classes; None is each image's own class.
        versus: the class they are compared with, if any.
    """
    if versus is None:
        return "decreases", "increases the class score"
    only = next(iter(targets)) if len(targets) == 1 else None
    return f"in favour of {network.label(versus)}", f"in favour of {network.label(only.index) if only else 'the class'}"


def colour_bars(maps: Sequence[Scaled], cmap: str, direction: tuple[str, str]) -> list[ColourBar]:
    """What the colours of maps mean; with numbers where there is only one map.

    Args:
        direction: what negative and positive values mean.
    """
    kinds = {METHODS[scaled.method].signed for scaled in maps}
    numbers = len(maps) == 1
    scale = f"{maps[0].scale:.2g}"
    bars = []
    if True in kinds:
        low, high = (f"-{scale}, ", f"{scale}, ") if numbers else ("", "")
        bars.append(ColourBar(colour_map(SIGNED), f"{low}{direction[0]}", f"{high}{direction[1]}"))
    if False in kinds:
        low, high = ("0", scale) if numbers else ("low", "to high")
        bars.append(ColourBar(colour_map(cmap), f"importance (unsigned), {low}", high))
    return bars


def _coinciding(explanation: Explanation) -> list[str]:
    """Methods whose attributions of the same class are equal."""
    pairs = [
        (METHODS[first.method].title, METHODS[second.method].title)
        for first, second in combinations(explanation.attributions, 2)
        if first.target == second.target and not first.flat and _equal(first.values, second.values)
    ]
    return [f"{first} and {second} coincide on this network" for first, second in dict.fromkeys(pairs)]


def _equal(first: Tensor, second: Tensor) -> bool:
    """Whether attributions are the same but for rounding."""
    return first.shape == second.shape and bool((first - second).abs().max() <= ROUNDING * first.abs().max())
