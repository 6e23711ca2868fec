"""How long a sheet of 512 maps takes, against 512 matplotlib subplots with tiles of the same size.

Run it with ``python tests/benchmarks/sheets.py``: the two in turn, three times each, medians and their ratio.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

import cnnviz
from cnnviz.features.maps import FeatureMaps
from cnnviz.pictures.sheets import columns_for, enlargement

CHANNELS, SIDE, ROUNDS = 512, 14, 3


def measured() -> FeatureMaps:
    torch.manual_seed(0)
    network = cnnviz.wrap(nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU()), name="net", input_size=SIDE)
    return cnnviz.feature_maps(network, torch.rand(3, SIDE, SIDE), "1")


def subplots(maps: FeatureMaps, path: Path) -> None:
    """What a notebook does: a subplot per map, a title each, no axes."""
    columns = columns_for(CHANNELS, 1)
    tile = SIDE * enlargement(SIDE, columns) / 100  # inches at 100 dots an inch
    figure = Figure(figsize=(columns * tile, CHANNELS / columns * tile), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(CHANNELS // columns, columns).ravel()
    for channel, axis in enumerate(axes):
        axis.imshow(maps.maps[0, channel].numpy(), cmap="viridis", interpolation="nearest")
        axis.set_title(str(channel), fontsize=6)
        axis.axis("off")
    figure.savefig(path)


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    torch.set_num_threads(1)
    maps = measured()
    with TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "sheet.png"), Path(folder, "subplots.png")
        maps.sheet().save(ours)  # fonts and colour maps are loaded once
        pairs = [
            (seconds(lambda: maps.sheet().save(ours)), seconds(lambda: subplots(maps, theirs))) for _ in range(ROUNDS)
        ]
    sheet, figure = (median(times) for times in zip(*pairs, strict=True))
    print(
        f"{CHANNELS} maps composed and saved: sheet {sheet:.2f} s, subplots {figure:.2f} s,"
        f" ratio 1 to {figure / sheet:.0f}"
    )


if __name__ == "__main__":
    main()
