"""Methods compared: how much of each map falls where it should, and how little the network has to do with it."""

from typing import TYPE_CHECKING

import numpy as np

from cnnviz.methods import METHODS
from cnnviz.pictures import Pixels
from cnnviz.pointing import CHANCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnviz.comparison import Comparison

BARS, CORRELATIONS, VERDICT = "#3b6fb6", "Oranges", "#b03020"
DARK = 0.6  # a correlation from which on its number is written in white
WIDTH, ROW, REST = 12.0, 0.32, 1.9  # inches; the height of one method, and of all else
DOTS = 110  # per inch


def chart(found: "Comparison") -> Pixels:
    """(H, W, 3): a row per method, the best at the top: its share, and at the right its correlations, if any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, REST + ROW * len(found.methods)), dpi=DOTS, layout="constrained")
    panels = figure.subplots(1, 2 if found.pictures else 1, sharey=True, squeeze=False)[0]
    names = sorted(found.methods, key=lambda name: found.methods[name].share or 0)
    _shares(panels[0], found, names)
    if found.pictures:
        _correlations(panels[1], found, names)
    figure.suptitle(f"Methods of attribution on {found.network.name} ({found.network.weights})")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels: Pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    return pixels


def _shares(axes: "Axes", found: "Comparison", names: list[str]) -> None:
    shares = [100 * (found.methods[name].share or 0) for name in names]
    within = [100 * (found.methods[name].within or 0) for name in names]
    axes.barh(range(len(names)), shares, xerr=within, color=BARS, ecolor="black", capsize=2)
    axes.axvline(100 * CHANCE, color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), [METHODS[name].title for name in names])
    axes.set_xlim(0, 100)
    axes.set_title("Does the heat fall on the right one of two pictures?", fontsize=10)
    axes.set_xlabel(f"% of positive attribution; dashed: knowing nothing\n{found.grids} pairs, 95 % intervals")


def _correlations(axes: "Axes", found: "Comparison", names: list[str]) -> None:
    rows = [list(found.methods[name].means.values()) for name in names]
    layers = list(found.methods[names[0]].means)
    axes.imshow(np.array(rows), cmap=CORRELATIONS, vmin=0, vmax=1, aspect="auto", origin="lower")
    for row, name in enumerate(names):
        for column, value in enumerate(rows[row]):
            ink = "white" if value > DARK else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
        if found.methods[name].unmoved:
            axes.text(len(layers) - 0.4, row, "unmoved", va="center", color=VERDICT, fontsize=8)
    axes.set_xticks(range(len(layers)), layers, fontsize=8)
    axes.set_title("Does the map change when the network is randomized?", fontsize=10)
    axes.set_xlabel(f"random from this layer up; rank correlation of the maps\nmean of {found.pictures} pictures")
