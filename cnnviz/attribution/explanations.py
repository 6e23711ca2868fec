"""Attributions of an image with their evidence, and how they are shown; `cnnviz.explain` makes them.

explanation = cnnviz.explain(network, "cat.jpg", ["tabby"], methods=["grad-cam"])
explanation.save("why.png")
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from cnnviz.attribution.evidence import RANDOM_ORDERS, STEPS, Curves, Reference, mean_of, unmoved
from cnnviz.attribution.explainer import Target
from cnnviz.attribution.heatmaps import full_scale, overlaid, placed
from cnnviz.attribution.methods import METHODS
from cnnviz.networks.inputs import Shown, unseen_dimmed
from cnnviz.networks.layer_names import split_use
from cnnviz.networks.network import Network
from cnnviz.networks.predictions import said
from cnnviz.networks.provenance import record
from cnnviz.pictures.colours import Pixels, colours_of, painted
from cnnviz.pictures.sheets import PAPER, ColourBar, Sheet, Tile, sheet

ALONE, AMONG_OTHERS = 420, 210  # pixels; the long side of an image
SEAM = 2  # pixels, between a map and its overlay
NARROWEST = 180  # pixels; of an image, for the evidence to be legible below two of them
ACROSS = 3  # attributions side by side, if they are of one class


@dataclass(frozen=True)
class Evidence:
    """How far an attribution can be believed; None for what was not asked for or makes no sense.

    Attributes:
        curves: probability while pixels are removed and inserted in the map's order.
        reference: the areas of orders that know nothing of the network.
        blurred: whether insertion begins from the blurred image, rather than from the baseline.
        gap: by what share of the difference of scores the attributions miss it, for methods that promise it.
        sanity: rank correlation with the maps of ever more randomized networks, by the lowest random layer; None where
            one of the maps is flat.
        infidelity, sensitivity: see `cnnviz.attribution.evidence`.
    """

    curves: Curves | None = None
    reference: Reference | None = None
    blurred: bool = False
    gap: float | None = None
    sanity: Mapping[str, float | None] | None = None
    infidelity: float | None = None
    sensitivity: float | None = None

    @property
    def unmoved(self) -> bool:
        """Whether the map hardly changes when the network is randomized: it does not explain the network."""
        return bool(self.sanity) and unmoved((self.sanity or {}).values())

    def row(self) -> dict[str, object]:
        """Numbers by name, those that there are."""
        numbers: dict[str, object] = {
            "completeness_gap": self.gap,
            "sanity": self.sanity and dict(self.sanity),
            "infidelity": self.infidelity,
            "max_sensitivity": self.sensitivity,
        }
        if self.curves and self.reference:
            for place, name in enumerate(("deletion_auc", "insertion_auc")):
                numbers[name] = getattr(self.curves, name)
                numbers[f"{name}_random"] = self.reference.random[place]
                numbers[f"{name}_random_spread"] = self.reference.spread[place]
                numbers[f"{name}_centre"] = self.reference.centre and self.reference.centre[place]
            numbers["insertion_from"] = "blurred image" if self.blurred else "baseline"
        return {name: value for name, value in numbers.items() if value is not None}


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
        return bool((self.heat == self.heat.flatten()[0]).all())


@dataclass(frozen=True, repr=False)
class Explanation:
    """Attributions of one image.

    Attributes:
        network, shown: the network, and what it saw.
        attributions: class by class, method by method.
        baseline: what stood for nothing to be seen, in words.
        settings: what was asked for.
        region: over how much of the network's output scores are summed, in words; empty where there is no region.
    """

    network: Network
    shown: Shown
    attributions: tuple[Attribution, ...]
    baseline: str
    settings: Mapping[str, object] = field(default_factory=dict)
    region: str = ""

    def sheet(self) -> Sheet:
        """Map and overlay of every attribution, its evidence beneath; with the image where there is only one."""
        return explanation_sheet(self, self._record())

    def overlay(self, number: int = 0) -> Sheet:
        """One map laid over the image, in the image's own resolution."""
        return Sheet(overlay(self, number), self._record(overlay=number))

    def save(self, path: str | Path) -> Path:
        """Write the sheet; see `Sheet.save`."""
        return self.sheet().save(path)

    def label(self, attribution: Attribution) -> str:
        """The class, or the two classes, in words."""
        own, other = attribution.target.index, attribution.target.versus
        return self.network.label(own) + ("" if other is None else f" rather than {self.network.label(other)}")

    def rows(self) -> list[dict[str, object]]:
        """A plain dictionary for each attribution, its evidence included."""
        return [
            {
                "method": attribution.method,
                "class": attribution.target.index,
                "label": self.network.label(attribution.target.index),
                "versus": None if attribution.target.versus is None else self.network.label(attribution.target.versus),
                "probability": attribution.probability,
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


def explanation_sheet(explanation: Explanation, made: Mapping[str, object]) -> Sheet:
    """A tile per attribution, a column per class if there are several; see `Explanation.sheet`."""
    alone = len(explanation.attributions) == 1
    height, width = _size(explanation, ALONE if alone else AMONG_OTHERS)
    pairs = [_painted(explanation, attribution, (height, width)) for attribution in explanation.attributions]
    if alone:
        (attribution,), ((heat, over),) = explanation.attributions, pairs
        own = Image.fromarray(unseen_dimmed(explanation.shown, 0)).resize((width, height), Image.Resampling.LANCZOS)
        tiles = [
            Tile(np.asarray(own), explanation.shown.names[0]),
            Tile(heat, METHODS[attribution.method].title, _note(attribution), below=_evidence(attribution)),
            Tile(over, "laid over the image"),
        ]
        columns = 3
    else:
        between = np.full((height, SEAM, 3), PAPER, dtype=np.uint8)
        painted_pairs = zip(explanation.attributions, pairs, strict=True)
        tiles = [
            Tile(
                np.hstack([heat, between, over]),
                _title(explanation, attribution),
                _note(attribution),
                below=_evidence(attribution),
            )
            for attribution, (heat, over) in painted_pairs
        ]
        classes = list(dict.fromkeys(attribution.target for attribution in explanation.attributions))
        columns = len(classes) if len(classes) > 1 else min(len(tiles), ACROSS)
        tiles = [tile for row in range(len(tiles) // len(classes)) for tile in tiles[row :: len(tiles) // len(classes)]]
    picture = None if alone else unseen_dimmed(explanation.shown, 0)
    return sheet(
        tiles,
        lines=_lines(explanation),
        picture=picture,
        colour_bars=_bars(explanation),
        made=made,
        factor=1,
        columns=columns,
    )


def overlay(explanation: Explanation, number: int) -> Pixels:
    """One map laid over the image, in the image's own resolution."""
    attribution = explanation.attributions[number]
    values = placed(attribution.heat, explanation.shown, explanation.shown.pictures[0].shape[:2])
    return overlaid(explanation.shown, values, attribution.scale, signed=METHODS[attribution.method].signed)


def _painted(explanation: Explanation, attribution: Attribution, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    values, signed = placed(attribution.heat, explanation.shown, size), METHODS[attribution.method].signed
    return painted(values, attribution.scale, signed=signed), overlaid(
        explanation.shown, values, attribution.scale, signed=signed
    )


def _size(explanation: Explanation, side: int) -> tuple[int, int]:
    height, width = explanation.shown.pictures[0].shape[:2]
    factor = max(side / max(height, width), NARROWEST / width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _title(explanation: Explanation, attribution: Attribution) -> str:
    several = len({attribution.target for attribution in explanation.attributions}) > 1
    title = METHODS[attribution.method].title
    return f"{explanation.network.label(attribution.target.index)}: {title}" if several else title


def _note(attribution: Attribution) -> str:
    if attribution.flat:
        return "flat"
    return f"{'±' if METHODS[attribution.method].signed else '0 to '}{attribution.scale:.2g}"


def _evidence(attribution: Attribution) -> list[str]:
    """Lines of evidence, each with what to hold it against."""
    evidence = attribution.evidence
    lines = []
    if evidence.curves and evidence.reference:
        for number, name in enumerate(("deletion", "insertion")):
            own = getattr(evidence.curves, f"{name}_auc")
            random, spread = evidence.reference.random[number], evidence.reference.spread[number]
            values = attribution.probability is None
            chance = f"random {random:.4g} ± {spread:.2g}" if values else f"random {100 * random:.1f} ± {spread:.1%}"
            if evidence.reference.centre is not None:
                centre = evidence.reference.centre[number]
                chance += f", centre {centre:.4g}" if values else f", centre {centre:.1%}"
            lines.append(f"{name} AUC {own:.4g} ({chance})" if values else f"{name} AUC {own:.1%} ({chance})")
    if evidence.gap is not None:
        lines.append(f"sums up to the score but for {evidence.gap:.1%}")
    if evidence.sanity:
        lines.append(f"network randomized: {_sanity(evidence.sanity)}")
    if evidence.infidelity is not None:
        lines.append(f"infidelity {evidence.infidelity:.2g}")
    if evidence.sensitivity is not None:
        lines.append(f"max-sensitivity {evidence.sensitivity:.0%}")
    return lines


def _sanity(correlations: Mapping[str, float | None]) -> str:
    """Their mean, how many maps are flat and left out, and the verdict."""
    mean, numbers = mean_of(correlations.values()), list(correlations.values())
    if mean is None:
        return "all maps flat, not measurable"
    flat = f" ({numbers.count(None)} of {len(numbers)} maps flat, left out)" if None in numbers else ""
    return f"mean correlation {mean:.2f}{flat}" + ": fails the sanity check" * unmoved(numbers)


def _lines(explanation: Explanation) -> list[str]:
    classes = {attribution.target: attribution for attribution in explanation.attributions}
    named = ", ".join(
        f"{explanation.label(attribution)} ({said(attribution.probability, attribution.score)})"
        for attribution in classes.values()
    )
    part = {"cropped": "its centre", "squeezed": "squeezed", "whole": "whole"}.get(
        explanation.shown.how, explanation.shown.how
    )
    height, width = explanation.shown.images.shape[2:]
    layers = dict.fromkeys(layer for attribution in explanation.attributions for layer in attribution.layers)
    compared = any(
        METHODS[attribution.method].baseline or attribution.evidence.curves for attribution in explanation.attributions
    )
    lines = [
        f"Why {named}?",
        f"{explanation.shown.names[0]}, {part}, shown to {explanation.network.name} ({explanation.network.weights})"
        f" at {width} x {height} px",
    ]
    if explanation.region:
        lines.append(f"score: sum of the class's outputs over the outlined region, {explanation.region}")
    if compared or layers:
        parts = [f"nothing to be seen is: {explanation.baseline}"] if compared else []
        title = "layer" if len(layers) == 1 else "mean over layers"
        parts += [f"{title}: {', '.join(map(explanation.network.titled, layers))}"] if layers else []
        lines.append("; ".join(parts))
    curves = [attribution.evidence for attribution in explanation.attributions if attribution.evidence.curves]
    if curves:
        start = "the blurred image (RISE)" if curves[0].blurred else "the baseline"
        precise = explanation.settings.get("precise")
        steps, centre = (f"{STEPS} steps", ", centre first") if precise else (f"up to {STEPS} steps", "")
        lines += [
            f"deletion AUC: most important pixels removed first, {steps} (lower is better)",
            f"insertion AUC: inserted into {start} (higher is better)",
            f"baselines: random order (mean ± standard deviation of {RANDOM_ORDERS}){centre}",
        ]
    return lines


def _bars(explanation: Explanation) -> list[ColourBar]:
    kinds = {METHODS[attribution.method].signed for attribution in explanation.attributions}
    numbers = len(explanation.attributions) == 1
    scale = f"{explanation.attributions[0].scale:.2g}"
    bars = []
    if True in kinds:
        low, high = (f"-{scale}, against", f"{scale}, for the class") if numbers else ("against", "for the class")
        bars.append(ColourBar(colours_of(signed=True), low, high))
    if False in kinds:
        low, high = ("0", f"{scale}") if numbers else ("0, without sign", "most")
        bars.append(ColourBar(colours_of(signed=False), low, high))
    return bars
