"""Methods of attribution compared on images where the truth is known: `compare_methods`.

comparison = cnnviz.compare_methods(network, "photographs", methods=["grad-cam", "guided-backprop"])
print(comparison.table())
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cnnviz.attribution.attribute import check_methods
from cnnviz.attribution.evidence import mean_of, sanity, unmoved
from cnnviz.attribution.explainer import explainer
from cnnviz.attribution.methods import METHODS, methods_named
from cnnviz.attribution.pointing_game import (
    CELLS,
    CONFIDENCE,
    Cells,
    Example,
    check_cells,
    compared_map,
    examples,
    grids_of,
    pointing_game,
)
from cnnviz.attribution.suitability import able
from cnnviz.errors import PictureError, path_of
from cnnviz.networks.inputs import check_side
from cnnviz.networks.network import Network, check_network
from cnnviz.networks.predictions import check_labels
from cnnviz.networks.provenance import record
from cnnviz.pictures.drawings import figure_pixels
from cnnviz.pictures.sheets import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS, CORRELATIONS, VERDICT = "#3b6fb6", "Oranges", "#b03020"
DARK = 0.6  # a correlation from which on its number is written in white
WIDTH, ROW, REST = 12.0, 0.32, 1.9  # inches; the height of one method, and of all else
DOTS = 110  # per inch
Watch = Callable[[str, float], None]
WITHIN = 1.96  # standard errors on either side of a mean: 95 % of a normal distribution


@dataclass(frozen=True)
class Compared:
    """What was measured of one method.

    Attributes:
        shares: of its positive attribution, how much fell on the correct image of each grid, in [0, 1], float64
            (grids,), without grids where nothing was positive.
        correlations: by lowest random layer, the rank correlation of every image's map with that of the randomized
            network, float64 (pictures,), NaN where one of the maps is flat; the last layer is the lowest of all.
    """

    shares: Tensor
    correlations: Mapping[str, Tensor]

    @property
    def share(self) -> float | None:
        """The mean of `shares`."""
        return self.shares.mean().item() if len(self.shares) else None

    @property
    def within(self) -> float | None:
        """Half of the 95 % interval of `share`, by the normal approximation."""
        count = len(self.shares)
        return WITHIN * self.shares.std().item() / count**0.5 if count > 1 else None

    @property
    def unmoved(self) -> bool:
        """Whether maps hardly change when the network is randomized: they do not explain the network."""
        return bool(self.correlations) and unmoved(self.means.values())

    @property
    def means(self) -> dict[str, float | None]:
        """The mean of `correlations`, by lowest random layer, over the maps that are not flat; None if all are."""
        return {
            layer: mean_of(None if math.isnan(value) else value for value in values.tolist())
            for layer, values in self.correlations.items()
        }

    @property
    def flat(self) -> int:
        """How many correlations there are not, because a map is flat."""
        return sum(int(values.isnan().sum()) for values in self.correlations.values())

    def row(self) -> dict[str, object]:
        """Its numbers by name."""
        return {
            "grids": len(self.shares),
            "share": self.share,
            "within": self.within,
            "correlations": self.means,
            "flat": self.flat,
            "unmoved": self.unmoved if self.correlations else None,
        }


@dataclass(frozen=True, repr=False)
class Comparison:
    """What was measured of several methods.

    Attributes:
        network: that was explained.
        methods: what was measured, by method.
        grids, pictures: how many grids of images were shown, and on how many images the network was randomized.
        settings: what was asked for.
        cells: (rows, columns) of a grid.
    """

    network: Network
    methods: Mapping[str, Compared]
    grids: int
    pictures: int
    settings: Mapping[str, object] = field(default_factory=dict)
    cells: Cells = CELLS

    def rows(self) -> list[dict[str, object]]:
        """A plain dictionary for each method."""
        return [{"method": name, **compared.row()} for name, compared in self.methods.items()]

    def table(self) -> str:
        """Markdown: for each method the mean share with its 95 % interval, and mean correlations by random layer.

        Maps that are flat are left out of the means; "flat" stands where all are.
        """
        layers = next(iter(self.methods.values())).correlations
        rows = [["method", "on the correct image", "grids", *layers]]
        rows.append(["---"] * len(rows[0]))
        for name, compared in self.methods.items():
            share = "-" if compared.share is None else f"{compared.share:.1%}"
            within = "" if compared.within is None else f" ± {compared.within:.1%}"
            means = ["flat" if value is None else f"{value:.2f}" for value in compared.means.values()]
            rows.append([METHODS[name].title, f"{share}{within}", str(len(compared.shares)), *means])
        return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)

    def sheet(self) -> Sheet:
        """A bar for every method."""
        results = {"share": [compared.share or 0.0 for compared in self.methods.values()]}
        made = record("evidence", self.network, settings=self.settings, results=results)
        return Sheet(figure_pixels(self.figure()), made, self.figure)

    def figure(self) -> "Figure":
        """The sheet as a matplotlib figure."""
        return chart(self)

    def save(self, path: str | Path) -> Path:
        """Write the sheet; see `Sheet.save`."""
        return self.sheet().save(path)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.methods)} on {self.network.name}, {self.grids} grids)"

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def chart(comparison: Comparison) -> "Figure":
    """A row per method, the best at the top: its share, and at the right its correlations, if any."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, REST + ROW * len(comparison.methods)), dpi=DOTS, layout="constrained")
    panels = figure.subplots(1, 2 if comparison.pictures else 1, sharey=True, squeeze=False)[0]
    names = sorted(comparison.methods, key=lambda name: comparison.methods[name].share or 0)
    _shares(panels[0], comparison, names)
    if comparison.pictures:
        _correlations(panels[1], comparison, names)
    figure.suptitle(f"Attribution methods: {comparison.network.name} ({comparison.network.weights})")
    return figure


def _shares(axes: "Axes", comparison: Comparison, names: list[str]) -> None:
    shares = [100 * (comparison.methods[name].share or 0) for name in names]
    within = [100 * (comparison.methods[name].within or 0) for name in names]
    axes.barh(range(len(names)), shares, xerr=within, color=BARS, ecolor="black", capsize=2)
    rows, columns = comparison.cells
    axes.axvline(100 / (rows * columns), color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), [METHODS[name].title for name in names])
    axes.set_xlim(0, 100)
    axes.set_title("Grid pointing game: attribution on the correct image", fontsize=10)
    axes.set_xlabel(
        f"% of positive attribution; dashed: chance\n{comparison.grids} grids of {rows} x {columns}, 95 % intervals"
    )


def _correlations(axes: "Axes", comparison: Comparison, names: list[str]) -> None:
    means = [comparison.methods[name].means.values() for name in names]
    rows = [[math.nan if value is None else value for value in row] for row in means]
    layers = list(comparison.methods[names[0]].means)
    axes.imshow(np.array(rows), cmap=CORRELATIONS, vmin=0, vmax=1, aspect="auto", origin="lower")
    for row, name in enumerate(names):
        for column, value in enumerate(rows[row]):
            ink = "white" if value > DARK else "black"
            text = "flat" if math.isnan(value) else f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
        if comparison.methods[name].unmoved:
            axes.text(len(layers) - 0.4, row, "fails", va="center", color=VERDICT, fontsize=8)
    axes.set_xticks(range(len(layers)), layers, fontsize=8)
    axes.set_title("Randomization check: correlation with the randomized network", fontsize=10)
    flat = ", flat maps left out" * any(comparison.methods[name].flat for name in names)
    axes.set_xlabel(
        f"randomized from this layer up; rank correlation of maps,\nmean of {comparison.pictures} images{flat};"
        " fails: hardly changed"
    )


def compare_methods(
    network: Network,
    folder: str | Path,
    *,
    methods: str | Sequence[str] = "all",
    grids: int = 250,
    cells: Cells = CELLS,
    pictures: int = 50,
    confidence: float = CONFIDENCE,
    size: int | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Comparison:
    """Play the grid pointing game (`pointing_game`) and randomize the network (`cnnviz.attribution.evidence`).

    Args:
        folder: of images, as `cnnviz.attribution.pointing_game.examples` takes it.
        methods: one or more of `cnnviz.attribution.methods.METHODS`, or "all" that are right about this network.
        grids: grids of images that are shown; fewer if the folder has not enough images.
        cells: (rows, columns) of a grid, each cell an image of another class; (3, 3) in Boehle et al. (2021).
        pictures: on which the maps of the network and of the randomized one are compared; none if 0.
        confidence: the least probability of the right class, in [0, 1], for an image to take part.
        size: short side, in pixels, of each image as the network sees it; the network's own by default.
        seed: of the choice of images, the random networks, and methods that draw random numbers.
        watch: called with what is being done, and the share of it that is done.

    Raises:
        PictureError: if there are not as many images of different classes that the network is sure of as cells.
        ShapeError: if the network takes no images of the size of a grid.
        UnknownNameError, ModelError, ShapeError: as `attribute` and `examples`.
    """
    check_network(network)
    check_cells(cells)
    folder = path_of(folder, "a folder of images", PictureError)
    named, ready = methods_named(methods), explainer(network)
    names = able(ready.structure) if named is None else named
    check_labels(network, ready.structure.classes)
    check_methods(ready, names, None)
    height, width = network.input_size if size is None else (size, size)
    grid_height, grid_width = cells[0] * height, cells[1] * width
    check_side(min(height, width))
    check_side(max(grid_height, grid_width))
    ready.logits(torch.zeros(1, network.channels, grid_height, grid_width, device=network.device))
    recognised: list[Example] = []
    stream = _kept(examples(network, folder, confidence=confidence, size=size, seed=seed), recognised, watch)
    count = cells[0] * cells[1]
    chosen = list(islice(grids_of(stream, count), grids))
    shown = [*recognised, *islice(stream, max(0, pictures - len(recognised)))][:pictures]
    if not chosen:
        raise PictureError(
            f"{network.name} is right about {len(recognised)} images in {Path(folder).name} with at least"
            f" {confidence:.0%}; {count} of different classes are needed. Lower the confidence or give more images."
        )
    shares = pointing_game(network, chosen, names, cells=cells, seed=seed, watch=watch)
    correlations = _randomized(network, shown, names, seed, watch)
    settings = {
        "folder": Path(folder).resolve().name,
        "methods": names,
        "grids": grids,
        "cells": list(cells),
        "pictures": pictures,
        "confidence": confidence,
        "size": size,
        "seed": seed,
    }
    compared = {name: Compared(shares[name][~shares[name].isnan()], correlations[name]) for name in names}
    return Comparison(network, compared, len(chosen), len(shown), settings, cells)


def _kept(stream: Iterator[Example], recognised: list[Example], watch: Watch | None) -> Iterator[Example]:
    """The same examples, noted down as they come."""
    for example in stream:
        recognised.append(example)
        if watch:
            watch(f"{len(recognised)} images that are recognised", 0)
        yield example


def _randomized(
    network: Network, shown: Sequence[Example], names: Sequence[str], seed: int, watch: Watch | None
) -> dict[str, dict[str, Tensor]]:
    """By method and lowest random layer, a correlation for each image."""
    again = [partial(compared_map, name, example.image, example.index, seed) for name in names for example in shown]
    stages = sanity(network, [make(network) for make in again], again, seed, watch)
    by_method = {
        layer: torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64).view(
            len(names), -1
        )
        for layer, values in stages.items()
        if values
    }
    return {name: {layer: values[row] for layer, values in by_method.items()} for row, name in enumerate(names)}
