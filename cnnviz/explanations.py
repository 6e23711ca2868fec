"""Attributions of a picture with their evidence, and how they are shown; `cnnviz.explain` makes them.

found = cnnviz.explain(network, "cat.jpg", ["tabby"], methods=["grad-cam"])
found.save("why.png")
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from cnnviz.evidence import Curves, Reference, unmoved
from cnnviz.explainers import Target
from cnnviz.explanationsheets import explanation_sheet, overlay
from cnnviz.heatmaps import full_scale
from cnnviz.inputs import Shown
from cnnviz.network import Network
from cnnviz.provenance import record
from cnnviz.sheets import Sheet


@dataclass(frozen=True)
class Evidence:
    """How far an attribution can be believed; None for what was not asked for or makes no sense.

    Attributes:
        curves: probability while pixels are taken away and put back in the map's order.
        reference: the areas that orders reach which know nothing of the network.
        gap: by what share of the difference of scores the attributions miss it, for methods that promise it.
        sanity: rank correlation with the maps of ever more randomized networks, by the lowest random layer.
        infidelity, sensitivity: see `cnnviz.metrics`.
    """

    curves: Curves | None = None
    reference: Reference | None = None
    gap: float | None = None
    sanity: Mapping[str, float] | None = None
    infidelity: float | None = None
    sensitivity: float | None = None

    @property
    def unmoved(self) -> bool:
        """Whether the map hardly changes when the network is randomized: it does not explain the network."""
        return bool(self.sanity) and unmoved((self.sanity or {}).values())

    def row(self) -> dict[str, object]:
        """Numbers by name, those that there are."""
        found: dict[str, object] = {
            "completeness_gap": self.gap,
            "sanity": self.sanity and dict(self.sanity),
            "infidelity": self.infidelity,
            "max_sensitivity": self.sensitivity,
        }
        if self.curves and self.reference:
            for number, name in enumerate(("deletion_auc", "insertion_auc")):
                found[name] = getattr(self.curves, name)
                found[f"{name}_random"] = self.reference.random[number]
                found[f"{name}_centre"] = self.reference.centre[number]
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Attribution:
    """What one method says of one class.

    Attributes:
        method: a key of `cnnviz.methods.METHODS`.
        target: the class, and the one it is held against, if any.
        probability: of the class, in [0, 1].
        score: what is attributed: its logit, or the difference of two.
        values: as captum gives them, float32, on the CPU: (C, H, W), or (1, H', W') of a layer.
        heat: (H, W), the same as a map of what the network saw.
        layer: that the method looked at, if it looks at one.
        evidence: how far to believe it.
    """

    method: str
    target: Target
    probability: float
    score: float
    values: Tensor
    heat: Tensor
    layer: str | None
    evidence: Evidence

    @property
    def scale(self) -> float:
        """The size of a value that the last colour stands for."""
        return full_scale(self.heat)

    @property
    def flat(self) -> bool:
        """Whether the map is the same everywhere: nothing in the picture mattered more than anything else."""
        return bool((self.heat == self.heat.flatten()[0]).all())


@dataclass(frozen=True, repr=False)
class Explanation:
    """Attributions of one picture.

    Attributes:
        network, shown: the network, and what it saw.
        attributions: class by class, method by method.
        baseline: what stood for nothing to be seen, in words.
        settings: what was asked for.
    """

    network: Network
    shown: Shown
    attributions: tuple[Attribution, ...]
    baseline: str
    settings: Mapping[str, object] = field(default_factory=dict)

    def sheet(self) -> Sheet:
        """Map and overlay of every attribution, its evidence beneath; with the picture where there is only one."""
        return explanation_sheet(self, self._made())

    def overlay(self, number: int = 0) -> Sheet:
        """One map laid over the picture, in the picture's own resolution."""
        return Sheet(overlay(self, number), self._made(overlay=number))

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
                "method": one.method,
                "class": one.target.index,
                "label": self.network.label(one.target.index),
                "versus": None if one.target.versus is None else self.network.label(one.target.versus),
                "probability": one.probability,
                "score": one.score,
                "layer": one.layer,
                "sum": one.values.double().sum().item(),
                "scale": one.scale,
                "flat": one.flat,
                **one.evidence.row(),
            }
            for one in self.attributions
        ]

    def _made(self, **more: object) -> dict[str, object]:
        return record(
            "saliency",
            self.network,
            picture=self.shown.names[0],
            sha256=self.shown.sha256,
            settings={**self.settings, **self.shown.settings, **more},
            results={"sum": [one.values.double().sum().item() for one in self.attributions]},
        )

    def __repr__(self) -> str:
        methods = ", ".join(dict.fromkeys(one.method for one in self.attributions))
        labels = ", ".join(dict.fromkeys(self.label(one) for one in self.attributions))
        return f"Explanation({labels} of {self.network.name} by {methods})"

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()
