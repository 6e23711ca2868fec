"""The mean of several images' attributions: where a network looks for a class, whatever the image.

explanations = cnnviz.explain(network, ["a.jpg", "b.jpg"], "tabby")
cnnviz.mean_attribution(explanations).save("mean.png")
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from torch import Tensor

from cnnviz.attribution.explainer import Target
from cnnviz.attribution.explanations import (
    Explanation,
    class_label,
    colour_bars,
    direction_of,
    given_lines,
    look_settings,
    scale_text,
)
from cnnviz.attribution.heatmaps import full_scale, is_flat
from cnnviz.attribution.methods import METHODS
from cnnviz.errors import ShapeError
from cnnviz.networks.network import Network
from cnnviz.networks.overlays import ALPHA
from cnnviz.networks.provenance import record
from cnnviz.pictures.colours import UNSIGNED, painted
from cnnviz.pictures.drawings import is_small
from cnnviz.pictures.sheets import Layout, Sheet, Tile, layout_settings, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN_CLASS = "the most probable class of each image"
LISTED = 6  # names of images that a header has room for


@dataclass(frozen=True)
class MeanMap:
    """The mean of one method's maps.

    Attributes:
        method: a key of `cnnviz.attribution.methods.METHODS`.
        target: the class, and the one it is held against, if any; None where each image had its own class.
        heat: (H, W), float64, on the CPU: the mean at each pixel of the input, of values with their signs where the
            method has signs.
    """

    method: str
    target: Target | None
    heat: Tensor

    @property
    def scale(self) -> float:
        """The size of a value of the map that the last colour stands for."""
        return full_scale(self.heat)

    @property
    def flat(self) -> bool:
        """Whether the map is the same everywhere."""
        return is_flat(self.heat)


@dataclass(frozen=True, repr=False)
class MeanAttribution:
    """The means of several images' attributions.

    Attributes:
        network: that saw all of them.
        maps: class by class, method by method.
        images: names and the sha256 of their files, where there are files.
        first: the explanation of the first image; the others were asked for alike.
    """

    network: Network
    maps: tuple[MeanMap, ...]
    images: tuple[tuple[str, str | None], ...]
    first: Explanation

    @property
    def title(self) -> str:
        """Of how many images, and for which class: "mean of 12 images, class tabby"."""
        labels = dict.fromkeys(map(self._label, self.maps))
        own = self.maps[0].target is None
        classes = "" if own else "class " if len(labels) == 1 else "classes "
        count = "1 image" if len(self.images) == 1 else f"{len(self.images)} images"
        return f"mean of {count}, {classes}{', '.join(labels)}"

    def sheet(self, *, cmap: str = UNSIGNED, **layout: Unpack[Layout]) -> Sheet:
        """The mean map of every method.

        Args:
            cmap: one of matplotlib's colour maps, for maps without a sign.
            layout: columns, tile (the width of a tile in pixels), title, captions and dpi; see `Layout`.

        Raises:
            UnknownNameError: if there is no such colour map.
            ShapeError: if a number is out of range.
        """
        made = self._record(**look_settings(ALPHA, cmap), **layout_settings(layout))
        classes = len({mean.target for mean in self.maps})
        if classes > 1 and layout.get("columns") is None:
            layout["columns"] = len(self.maps) // classes  # a row for each class
        direction = direction_of(self.network, {mean.target for mean in self.maps}, self._versus)
        tiles = []
        for mean in self.maps:
            kind = METHODS[mean.method]
            pixels = painted(mean.heat.float().numpy(), mean.scale, signed=kind.signed, cmap=cmap)
            tiles.append(
                Tile(pixels, f"{self._label(mean)}: {kind.title}" if classes > 1 else kind.title, scale_text(mean))
            )
        return sheet(
            tiles,
            lines=self._lines(),
            colour_bars=colour_bars(self.maps, cmap, direction),
            made=made,
            smooth=not is_small(tiles[0].pixels),
            **layout,
        )

    def figure(self, *, cmap: str = UNSIGNED, **layout: Unpack[Layout]) -> "Figure":
        """The sheet as a matplotlib figure; arguments as for `sheet`."""
        return self.sheet(cmap=cmap, **layout).figure()

    def save(self, path: str | Path, *, cmap: str = UNSIGNED, **layout: Unpack[Layout]) -> Path:
        """Write the sheet; arguments as for `sheet`, endings as for `Sheet.save`."""
        return self.sheet(cmap=cmap, **layout).save(path)

    def rows(self) -> list[dict[str, object]]:
        """A plain dictionary for each mean; class and label are None where each image had its own class."""
        return [
            {
                "method": mean.method,
                "class": None if mean.target is None else mean.target.index,
                "label": None if mean.target is None else self.network.label(mean.target.index),
                "versus": None if self._versus is None else self.network.label(self._versus),
                "scale": mean.scale,
                "flat": mean.flat,
            }
            for mean in self.maps
        ]

    @property
    def _versus(self) -> int | None:
        return self.first.attributions[0].target.versus

    def _label(self, mean: MeanMap) -> str:
        if mean.target is not None:
            return class_label(self.network, mean.target)
        return OWN_CLASS if self._versus is None else f"{OWN_CLASS} versus {self.network.label(self._versus)}"

    def _lines(self) -> list[str]:
        names = [name for name, _ in self.images]
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        region = ["score: sum of the class's outputs over a region"] if self.first.region else []
        return [
            f"Attribution: {self.title}",
            f"{', '.join(names[:LISTED])}{more}",
            f"{self.first.shown.words}; {self.network.name}, weights: {self.network.weights}",
            *region,
            *given_lines(self.first, compared=False),
        ]

    def _record(self, **more: object) -> dict[str, object]:
        targets = dict.fromkeys(mean.target for mean in self.maps if mean.target is not None)
        settings: Mapping[str, object] = {
            **self.first.settings,
            **self.first.shown.settings,
            "classes": [target.index for target in targets] or None,
            "mean": [{"name": name, "sha256": sha256} for name, sha256 in self.images],
        }
        results = {"mean": [mean.heat.mean().item() for mean in self.maps]}
        return record("saliency", self.network, settings={**settings, **more}, results=results)

    def __repr__(self) -> str:
        methods = ", ".join(dict.fromkeys(mean.method for mean in self.maps))
        return f"MeanAttribution({self.title} of {self.network.name} by {methods})"

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def mean_attribution(explanations: Iterable[Explanation]) -> MeanAttribution:
    """The mean of each method's maps over several images, pixel by pixel of the network's input.

    Maps of methods with signs keep them, so that what increases the score in one image and decreases it in another
    cancels out. Maps are in the units of their scores, and none is scaled.

    Args:
        explanations: as `explain` gives them for a list of images, asked for alike: of the same classes, or of one
            class each, such as each image's most probable one. An iterator is taken one by one, and none is kept but
            the first.

    Raises:
        ShapeError: if there is none, or they differ in network, methods, input size, or in more than one class; or they
            are no explanations.
    """
    if not isinstance(explanations, Iterable):
        raise ShapeError(f"a mean is of a list of explanations, not of a {type(explanations).__name__}.")
    sums: list[Tensor] = []
    images: list[tuple[str, str | None]] = []
    first, own = None, False
    for explanation in explanations:
        if not isinstance(explanation, Explanation):
            raise ShapeError(f"a mean is of explanations, as cnnviz.explain gives them, not {explanation!r:.40}.")
        first = first or explanation
        own = _own_classes(first, explanation) or own
        maps = [attribution.heat.double() for attribution in explanation.attributions]
        sums = [total + heat for total, heat in zip(sums, maps, strict=True)] if sums else maps
        images.append((explanation.shown.names[0], explanation.shown.sha256))
    if first is None:
        raise ShapeError("there is no explanation to take the mean of; give at least one.")
    means = (
        MeanMap(attribution.method, None if own else attribution.target, total / len(images))
        for attribution, total in zip(first.attributions, sums, strict=True)
    )
    return MeanAttribution(first.network, tuple(means), tuple(images), first)


def _own_classes(first: Explanation, other: Explanation) -> bool:
    """Whether two explanations, whose mean can be taken, are of different classes.

    Raises:
        ShapeError: if their mean cannot be taken.
    """
    kinds, others = ([attribution.method for attribution in one.attributions] for one in (first, other))
    if first.network is not other.network or kinds != others:
        raise ShapeError("a mean is of explanations by one network and the same methods; these differ.")
    (height, width), size = (one.attributions[0].heat.shape for one in (first, other))
    if (height, width) != size:
        raise ShapeError(
            f"a mean is of inputs of one size; {first.shown.names[0]} is {width} x {height} px and"
            f" {other.shown.names[0]} {size[1]} x {size[0]} px. Take the center crop (fit crop)."
        )
    targets, others_targets = ([attribution.target for attribution in one.attributions] for one in (first, other))
    if targets != others_targets and len({*targets}) > 1:
        raise ShapeError(
            "a mean over images is of classes that are the same for all, or of one class each; name the classes, or"
            " leave out how many."
        )
    return targets != others_targets
