"""Feature maps: what the channels of a layer make of an image, with their statistics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnviz.errors import LayerError, ShapeError, choose
from cnnviz.networks.activations import layer_maps
from cnnviz.networks.arrangements import Grid
from cnnviz.networks.inputs import Fit, Shown, Source, as_it_is, show, unseen_dimmed
from cnnviz.networks.network import Network, forward_pass, wrap
from cnnviz.networks.provenance import record
from cnnviz.pictures.colours import FEATURES, colour_map, painted_between
from cnnviz.pictures.sheets import ColourBar, Sheet, Tile, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scale = Literal["channel", "shared"]
Order = Literal["mean", "max"]
Maps = NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class FeatureMaps:
    """What one layer gives for one or more images.

    Attributes:
        network: the network that was looked into.
        layer: the layer's name, as it was asked for.
        shown: what the network saw.
        maps: (N, C, H, W), float32, on the CPU.
        grid: (rows, columns) of tokens, if they were asked for.
    """

    network: Network
    layer: str
    shown: Shown
    maps: Tensor
    grid: Grid | None = None

    @cached_property
    def minimum(self) -> Tensor:
        """(N, C): the smallest value of each map."""
        return self.maps.amin((2, 3))

    @cached_property
    def maximum(self) -> Tensor:
        """(N, C): the largest value of each map."""
        return self.maps.amax((2, 3))

    @cached_property
    def mean(self) -> Tensor:
        """(N, C): the mean over the positions of each map."""
        return self.maps.mean((2, 3))

    @cached_property
    def silent(self) -> Tensor:
        """(N, C), bool: whether a map is zero everywhere."""
        return (self.maps == 0).all(3).all(2)

    @property
    def silent_fraction(self) -> float:
        """Share of maps that are zero everywhere, in [0, 1]."""
        return self.silent.float().mean().item()

    def order(self, by: Order = "mean", image: int = 0) -> list[int]:
        """Channels of one image from the most to the least active, by mean or maximal activation.

        Raises:
            UnknownNameError: if there is no such order.
        """
        values = self.mean if choose(by, get_args(Order), "order") == "mean" else self.maximum
        return torch.argsort(values[image], descending=True, stable=True).tolist()

    def statistics(self, image: int = 0) -> dict[str, object]:
        """Shape (C, H, W), min, max and mean over one image's maps, and the number and share of silent channels."""
        maps, silent = self.maps[image], int(self.silent[image].sum())
        return {
            "shape": list(maps.shape),
            "min": maps.min().item(),
            "max": maps.max().item(),
            "mean": maps.mean().item(),
            "silent": silent,
            "silent_fraction": silent / len(maps),
        }

    def sheet(
        self,
        channels: Sequence[int] | None = None,
        *,
        image: int = 0,
        scale: Scale = "channel",
        cmap: str = FEATURES,
    ) -> Sheet:
        """The maps as one image.

        Args:
            channels: which, in the order of their tiles; all by default.
            image: which of the N images.
            scale: "channel" lets each map use all colours; "shared" uses one scale for all, its numbers in the header.
            cmap: one of matplotlib's colour maps.

        Raises:
            ShapeError: if there is no such channel or image.
            UnknownNameError: if there is no such scale or colour map.
        """
        return maps_sheet(self, self._channels(channels), image=image, scale=scale, cmap=cmap)

    def figure(
        self,
        channels: Sequence[int] | None = None,
        *,
        image: int = 0,
        scale: Scale = "channel",
        cmap: str = FEATURES,
    ) -> "Figure":
        """The maps as a matplotlib figure with axes in map positions and colour bars; arguments as for `sheet`.

        matplotlib draws slowly: choose the channels.
        """
        return maps_figure(self, self._channels(channels), image=image, scale=scale, cmap=cmap)

    def _channels(self, channels: Sequence[int] | None) -> Sequence[int]:
        return range(self.maps.shape[1]) if channels is None else [int(channel) for channel in channels]

    def __repr__(self) -> str:
        count, channels, height, width = self.maps.shape
        silent = f"{int(self.silent.sum())} silent"
        return f"FeatureMaps({self.layer} of {self.network.name}, {count} x {channels} x {height} x {width}, {silent})"

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def maps_sheet(features: FeatureMaps, channels: Sequence[int], *, image: int, scale: Scale, cmap: str) -> Sheet:
    """A tile per channel; see `FeatureMaps.sheet`."""
    maps = _chosen(features, channels, image, scale)
    if maps.shape[1:] == (1, 1):
        scale = "shared"  # a single value has no range of its own
    low, high = _ranges(maps, scale)
    pictures, colours = painted_between(maps, low, high, cmap), colour_map(cmap)
    silent = features.silent[image, list(channels)].tolist()
    rows = zip(pictures, channels, silent, maps.min((1, 2)), maps.max((1, 2)), strict=True)
    tiles = [
        Tile(pixels, str(channel), "silent" if hatched else _note(bottom, top), hatched)
        for pixels, channel, hatched, bottom, top in rows
    ]
    bar = ColourBar(colours, "lowest of each map", "highest of each map")
    if scale == "shared":
        bar = ColourBar(colours, f"{low.min():.4g}", f"{high.max():.4g}, the same for all maps")
    made = record(
        "featuremaps",
        features.network,
        picture=features.shown.names[image],
        sha256=features.shown.sha256,
        settings={
            "layer": features.layer,
            "channels": list(channels),
            "scale": scale,
            "cmap": cmap,
            **({} if features.grid is None else {"grid": list(features.grid)}),
            **features.shown.settings,
        },
        results={"mean": features.mean[image, list(channels)].tolist()},
    )
    picture = unseen_dimmed(features.shown, image)
    return sheet(tiles, lines=_lines(features, channels, image), picture=picture, colour_bars=[bar], made=made)


def maps_figure(features: FeatureMaps, channels: Sequence[int], *, image: int, scale: Scale, cmap: str) -> "Figure":
    """Axes per channel with a colour bar each, or one for all; see `FeatureMaps.figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colour_map(cmap)  # raises if there is none of that name
    maps = _chosen(features, channels, image, scale)
    low, high = _ranges(maps, scale)
    columns = math.ceil(math.sqrt(len(channels) * 1.25))
    rows = math.ceil(len(channels) / columns)
    figure = Figure(figsize=(2.2 * columns + 0.8, 1.9 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, values, channel, bottom, top in zip(axes, maps, channels, low.flat, high.flat, strict=False):
        drawn = axis.imshow(values, cmap=cmap, vmin=bottom, vmax=top, interpolation="nearest")
        axis.set_title(f"channel {channel}", fontsize=9)
        axis.tick_params(labelsize=7)
        if scale == "channel":
            figure.colorbar(drawn, ax=axis).ax.tick_params(labelsize=7)
    for axis in axes[len(channels) :]:
        axis.set_axis_off()
    if scale == "shared":
        figure.colorbar(drawn, ax=axes, label="activation")
    figure.suptitle(_lines(features, channels, image)[0], fontsize=10)
    return figure


def _chosen(features: FeatureMaps, channels: Sequence[int], image: int, scale: Scale) -> Maps:
    choose(scale, get_args(Scale), "scale")
    if not 0 <= image < len(features.maps):
        raise ShapeError(f"there is no image {image}; there are {len(features.maps)}, counted from 0.")
    count = features.maps.shape[1]
    wrong = [channel for channel in channels if not 0 <= channel < count]
    if wrong:
        raise ShapeError(f"{features.layer} has no channel {wrong[0]}; its {count} channels are 0 to {count - 1}.")
    if not channels:
        raise ShapeError(f"no channels to draw; name at least one of 0 to {count - 1}.")
    return features.maps[image, list(channels)].numpy()


def _ranges(maps: Maps, scale: Scale) -> tuple[Maps, Maps]:
    """What the darkest and the brightest colour stand for, per map: (C, 1, 1) each."""
    if scale == "shared":
        return np.full((len(maps), 1, 1), maps.min()), np.full((len(maps), 1, 1), maps.max())
    return maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)


def _note(low: float, high: float) -> str:
    """The highest value in two digits, which fit beneath the smallest tile; "= 1.3" if there is no other."""
    number = f"{high:.0f}" if 100 <= abs(high) < 1e5 else f"{high:.2g}"
    return f"= {number}" if low == high else number


def _lines(features: FeatureMaps, channels: Sequence[int], image: int) -> list[str]:
    count, height, width = features.maps.shape[1:]
    seen_height, seen_width = features.shown.images.shape[2:]
    picture_height, picture_width = features.shown.pictures[image].shape[:2]
    silent = int(features.silent[image].sum())
    number = f"all {count}" if len(channels) == count else f"{len(channels)} of {count}"
    how = features.shown.how
    hatched = ", drawn hatched" if features.silent[image, list(channels)].any() else ""
    return [
        f"{features.network.titled(features.layer)} of {features.network.name}: what {number} channels see",
        f"{features.shown.names[image]}, {picture_width} x {picture_height} px, shown to the network {how} as"
        f" {seen_width} x {seen_height}",
        f"maps of {width} x {height}; {silent} of the layer's {count} are silent: zero everywhere{hatched}",
        f"weights: {features.network.weights}; below each map its channel and its highest value",
    ]


def feature_maps(
    network: nn.Module,
    picture: Source,
    layer: str,
    *,
    fit: Fit = "whole",
    size: int | None = None,
    grid: tuple[int, int] | None = None,
) -> FeatureMaps:
    """The feature maps of one layer for an image, channels first however the layer arranges them.

    Args:
        network: a `Network`; or any ``nn.Module``, to which a tensor is then given as it is, without normalisation.
        picture: a file, a PIL image, an array (H, W, 3), uint8, or a tensor (C, H, W) or (N, C, H, W) in [0, 1].
        layer: a name from ``network.layers``.
        fit: what to show of an image that is no tensor, "whole" or "crop"; see `cnnviz.networks.inputs`.
        size: short side, in pixels, of what the network sees; the network's own by default.
        grid: (rows, columns) of a transformer's tokens; by default as its first convolution gave them, or a square.

    Raises:
        UnknownNameError: if there is no such layer or fit.
        LayerError: if the layer gives no feature maps, not one set for each image, or values that are not finite.
        ShapeError: if the network cannot take a tensor of that shape, or an image of that size.
        PictureError: if the image cannot be read.
    """
    if isinstance(network, Network):
        shown = show(network, picture, fit=fit, size=size)
    elif isinstance(picture, Tensor) and picture.ndim >= 3:
        height, width = picture.shape[-2:]
        channels, kind = picture.shape[-3], type(network).__name__
        network = wrap(network, name=kind, input_size=(height, width), channels=channels)
        shown = as_it_is(network, picture)
    else:
        raise ShapeError("a plain nn.Module is shown tensors (N, C, H, W); for image files, cnnviz.wrap() it first.")
    return maps_of_layers(network, shown, [layer], grid)[layer]


@torch.no_grad()
def maps_of_layers(
    network: Network, shown: Shown, layers: Sequence[str], grid: Grid | None = None, *, activated: bool = False
) -> dict[str, FeatureMaps]:
    """The feature maps of several layers from one forward pass, by the names asked for; errors as `feature_maps`.

    Args:
        activated: whether they are to be those behind the activation that follows a layer, if one does.
    """
    parts = [shown.images] if len(shown.images) == 1 or network.independent else torch.split(shown.images, 1)
    with forward_pass(network, shown.images):
        maps = [layer_maps(network, part, layers, grid, activated=activated) for part in parts]
    outputs = {layer: torch.cat([part[layer] for part in maps]) for layer in layers}
    return {
        layer: FeatureMaps(network, layer, shown, _checked(layer, output), grid) for layer, output in outputs.items()
    }


def _checked(layer: str, output: Tensor) -> Tensor:
    maps = output.float().cpu()
    if not maps.isfinite().all():
        raise LayerError(f"layer {layer!r} gives values that are not finite; look for NaN among the weights before it.")
    return maps
