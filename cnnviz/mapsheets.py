"""Feature maps as pictures: a sheet for reading, a matplotlib figure with axes and colour bars for papers."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cnnviz.errors import ShapeError, UnknownNameError
from cnnviz.pictures import Pixels, colour_map
from cnnviz.provenance import record
from cnnviz.sheets import ColourBar, Sheet, Tile, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnnviz.featuremaps import FeatureMaps
    from cnnviz.inputs import Shown

Scale = Literal["channel", "shared"]
Maps = NDArray[np.float32]


def maps_sheet(found: "FeatureMaps", channels: Sequence[int], *, image: int, scale: Scale, cmap: str) -> Sheet:
    """A tile per channel; see `FeatureMaps.sheet`."""
    maps, colours = _chosen(found, channels, image, scale), colour_map(cmap)
    if maps.shape[1:] == (1, 1):
        scale = "shared"  # a single value has no range of its own
    low, high = _ranges(maps, scale)
    painted = colours[_levels(maps, low, high)]
    silent = found.silent[image, list(channels)].tolist()
    each = zip(painted, channels, silent, maps.min((1, 2)), maps.max((1, 2)), strict=True)
    tiles = [
        Tile(pixels, str(channel), "silent" if hatched else _note(bottom, top), hatched)
        for pixels, channel, hatched, bottom, top in each
    ]
    bar = ColourBar(colours, "lowest of each map", "highest of each map")
    if scale == "shared":
        bar = ColourBar(colours, f"{low.min():.4g}", f"{high.max():.4g}, the same for all maps")
    made = record(
        "featuremaps",
        found.network,
        picture=found.shown.names[image],
        sha256=found.shown.sha256,
        settings={
            "layer": found.layer,
            "channels": list(channels),
            "scale": scale,
            "cmap": cmap,
            **found.shown.settings,
        },
        results={"mean": found.mean[image, list(channels)].tolist()},
    )
    picture = unseen_dimmed(found.shown, image)
    return sheet(tiles, lines=_lines(found, channels, image), picture=picture, colour_bars=[bar], made=made)


def maps_figure(found: "FeatureMaps", channels: Sequence[int], *, image: int, scale: Scale, cmap: str) -> "Figure":
    """Axes per channel with a colour bar each, or one for all; see `FeatureMaps.figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colour_map(cmap)  # raises if there is none of that name
    maps = _chosen(found, channels, image, scale)
    low, high = _ranges(maps, scale)
    columns = math.ceil(math.sqrt(len(channels) * 1.25))
    rows = math.ceil(len(channels) / columns)
    figure = Figure(figsize=(2.2 * columns + 0.8, 1.9 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, values, channel, bottom, top in zip(axes, maps, channels, low, high, strict=False):
        drawn = axis.imshow(values, cmap=cmap, vmin=bottom, vmax=top, interpolation="nearest")
        axis.set_title(f"channel {channel}", fontsize=9)
        axis.tick_params(labelsize=7)
        if scale == "channel":
            figure.colorbar(drawn, ax=axis).ax.tick_params(labelsize=7)
    for axis in axes[len(channels) :]:
        axis.set_axis_off()
    if scale == "shared":
        figure.colorbar(drawn, ax=axes, label="activation")
    figure.suptitle(_lines(found, channels, image)[0], fontsize=10)
    return figure


def unseen_dimmed(shown: "Shown", image: int) -> Pixels:
    """The picture, with whatever the network did not see of it nearly white."""
    pixels = shown.pictures[image]
    left, top, right, bottom = (round(edge) for edge in shown.seen)
    dimmed = (255 - (255 - pixels.astype(np.uint16)) // 4).astype(np.uint8)
    dimmed[max(top, 0) : bottom, max(left, 0) : right] = pixels[max(top, 0) : bottom, max(left, 0) : right]
    return dimmed


def _chosen(found: "FeatureMaps", channels: Sequence[int], image: int, scale: Scale) -> Maps:
    if scale not in ("channel", "shared"):
        raise UnknownNameError(f"no scale named {scale!r}; take 'channel' or 'shared'.")
    if not 0 <= image < len(found.maps):
        raise ShapeError(f"there is no image {image}; there are {len(found.maps)}, counted from 0.")
    count = found.maps.shape[1]
    wrong = [channel for channel in channels if not 0 <= channel < count]
    if wrong:
        raise ShapeError(f"{found.layer} has no channel {wrong[0]}; its {count} channels are 0 to {count - 1}.")
    if not channels:
        raise ShapeError(f"no channels to draw; name at least one of 0 to {count - 1}.")
    return found.maps[image, list(channels)].numpy()


def _ranges(maps: Maps, scale: Scale) -> tuple[Maps, Maps]:
    """What the darkest and the brightest colour stand for, per map."""
    if scale == "shared":
        return np.full(len(maps), maps.min()), np.full(len(maps), maps.max())
    return maps.min((1, 2)), maps.max((1, 2))


def _levels(maps: Maps, low: Maps, high: Maps) -> NDArray[np.uint8]:
    """Values as steps of a colour map, 0 to 255; a map without any range in the middle."""
    low, high = low[:, None, None], high[:, None, None]
    span = np.where(high > low, high - low, np.inf).astype(np.float64)
    levels = np.rint((maps - low) / span * 255)
    return np.where(np.isinf(span), 128, levels).astype(np.uint8)


def _note(low: float, high: float) -> str:
    """The highest value in two digits, which fit beneath the smallest tile; "= 1.3" if there is no other."""
    number = f"{high:.0f}" if 100 <= abs(high) < 1e5 else f"{high:.2g}"
    return f"= {number}" if low == high else number


def _lines(found: "FeatureMaps", channels: Sequence[int], image: int) -> list[str]:
    count, height, width = found.maps.shape[1:]
    seen_height, seen_width = found.shown.images.shape[2:]
    picture_height, picture_width = found.shown.pictures[image].shape[:2]
    silent = int(found.silent[image].sum())
    number = f"all {count}" if len(channels) == count else f"{len(channels)} of {count}"
    how = found.shown.how
    hatched = ", drawn hatched" if found.silent[image, list(channels)].any() else ""
    return [
        f"{found.layer} of {found.network.name}: what {number} channels see",
        f"{found.shown.names[image]}, {picture_width} x {picture_height} px, shown to the network {how} as"
        f" {seen_width} x {seen_height}",
        f"maps of {width} x {height}; {silent} of the layer's {count} are silent: zero everywhere{hatched}",
        f"weights: {found.network.weights}; below each map its channel and its highest value",
    ]
