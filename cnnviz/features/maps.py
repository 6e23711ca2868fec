"""Feature maps: what the channels of a layer make of an image, with their statistics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args, overload

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn

from cnnviz.errors import LayerError, ShapeError, choose
from cnnviz.networks.activations import layer_maps
from cnnviz.networks.arrangements import Grid
from cnnviz.networks.inputs import Fit, Shown, Source, Sources, as_it_is, show, unseen_dimmed
from cnnviz.networks.network import Network, as_network, forward_pass
from cnnviz.networks.overlays import overlaid, placed
from cnnviz.networks.provenance import record
from cnnviz.pictures.colours import FEATURES, SIGNED, Pixels, colour_map, painted_between
from cnnviz.pictures.sheets import (
    ColourBar,
    Layout,
    Sheet,
    Tile,
    alike,
    columns_for,
    layout_settings,
    sheet,
    slide_columns,
    tile_side,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MAP_SIDE, CAPTION, HEADING, PADDING = 1.4, 0.22, 0.45, 0.15  # inches, of figures
BAR_GAP, BAR_WIDTH, BAR_SPACE = 0.05, 0.08, 0.55
NARROWEST_FIGURE = 5.0
Scale = Literal["channel", "shared"]
Order = Literal["mean", "max"]
Maps = NDArray[np.float32]
OneLayer = str | nn.Module
Layers = list[str] | list[nn.Module] | tuple[OneLayer, ...]


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
        """Shape (C, H, W), min, max and mean of one image's maps, number and share of silent channels, and the fit."""
        maps, silent = self.maps[image], int(self.silent[image].sum())
        return {
            "shape": list(maps.shape),
            "min": maps.min().item(),
            "max": maps.max().item(),
            "mean": maps.mean().item(),
            "silent": silent,
            "silent_fraction": silent / len(maps),
            "fit": self.shown.settings.get("fit"),
        }

    def sheet(
        self,
        channels: Sequence[int] | None = None,
        *,
        image: int = 0,
        scale: Scale = "channel",
        cmap: str | None = None,
        overlay: bool = False,
        **layout: Unpack[Layout],
    ) -> Sheet:
        """The maps as one image.

        Args:
            channels: which, in the order of their tiles; all by default.
            image: which of the N images.
            scale: "channel" lets each map use all colours; "shared" uses one scale for all, its numbers in the header.
            cmap: one of matplotlib's colour maps. By default viridis; for maps with values below 0 red and blue, which
                diverge around zero.
            overlay: whether to lay the maps over the image, zero being transparent.
            layout: columns, tile (the width of a tile in pixels), title, captions and dpi; see `Layout`.

        Raises:
            ShapeError: if there is no such channel or image, or a number of the layout is out of range.
            UnknownNameError: if there is no such scale or colour map.
        """
        return maps_sheet(
            self, self._channels(channels), image=image, scale=scale, cmap=cmap, overlay=overlay, layout=layout
        )

    def figure(
        self,
        channels: Sequence[int] | None = None,
        *,
        image: int = 0,
        scale: Scale = "channel",
        cmap: str | None = None,
        columns: int | None = None,
        title: str | None = None,
    ) -> "Figure":
        """The maps as a matplotlib figure with colour bars as tall as the maps; arguments as for `sheet`.

        For the sheet itself as a figure, take ``sheet().figure()``.
        """
        return maps_figure(
            self, self._channels(channels), image=image, scale=scale, cmap=cmap, columns=columns, title=title
        )

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """The maps for NumPy: ``np.asarray(maps)`` is (N, C, H, W), float32."""
        return np.array(self.maps.numpy(), dtype, copy=copy)

    def _channels(self, channels: Sequence[int] | None) -> Sequence[int]:
        return range(self.maps.shape[1]) if channels is None else [int(channel) for channel in channels]

    def __repr__(self) -> str:
        count, channels, height, width = self.maps.shape
        silent = f"{int(self.silent.sum())} inactive"
        return f"FeatureMaps({self.layer} of {self.network.name}, {count} x {channels} x {height} x {width}, {silent})"

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def maps_sheet(
    features: FeatureMaps,
    channels: Sequence[int],
    *,
    image: int,
    scale: Scale,
    cmap: str | None,
    overlay: bool,
    layout: Layout,
) -> Sheet:
    """A tile per channel; see `FeatureMaps.sheet`."""
    maps = _chosen(features, channels, image, scale)
    if maps.shape[1:] == (1, 1):
        scale = "shared"  # a single value has no range of its own
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
            **({"overlay": True} if overlay else {}),
            **({} if features.grid is None else {"grid": list(features.grid)}),
            **features.shown.settings,
            **layout_settings(layout),
        },
        results={"mean": features.mean[image, list(channels)].tolist()},
    )
    signed, palette = _palette(features, image, cmap)
    low, high = _ranges(maps, scale, signed=signed)
    if overlay:
        size = _overlay_size(features, image, len(channels), layout)
        layout = layout | {"tile": None}
        pictures = [
            _overlaid(features, values, extent, size, image, signed=signed, palette=palette)
            for values, extent in zip(maps, high.flatten().tolist(), strict=True)
        ]
    else:
        pictures = list(painted_between(maps, low, high, palette))
    inactive = features.silent[image, list(channels)].tolist()
    tops = (np.abs(maps) if signed and scale == "channel" else maps).max((1, 2))
    notes = [
        "inactive" if none else f"= {top}" if flat else top
        for none, flat, top in zip(inactive, maps.min((1, 2)) == maps.max((1, 2)), alike(tops.tolist()), strict=True)
    ]
    tiles = [
        Tile(pixels, str(channel), note, none and not overlay)
        for pixels, channel, note, none in zip(pictures, channels, notes, inactive, strict=True)
    ]
    return sheet(
        tiles,
        lines=_lines(
            features, channels, image, "m" if signed and scale == "channel" else "maximum", hatched=not overlay
        ),
        picture=unseen_dimmed(features.shown, image),
        colour_bars=[_colour_bar(low, high, scale, palette, signed=signed, overlay=overlay)],
        made=made,
        factor=1 if overlay else None,
        **layout,
    )


def _palette(features: FeatureMaps, image: int, cmap: str | None) -> tuple[bool, str]:
    """Whether colours diverge around zero, and the name of the colour map; of all maps of a layer alike."""
    signed = cmap is None and bool(features.minimum[image].min() < 0)
    return signed, SIGNED if signed else cmap or FEATURES


def _colour_bar(low: Maps, high: Maps, scale: Scale, palette: str, *, signed: bool, overlay: bool) -> ColourBar:
    colours = colour_map(palette)
    if scale == "shared":
        first = 0.0 if overlay and not signed else low.min()
        return ColourBar(colours, f"{first:.4g}", f"{high.max():.4g}, the same for all maps")
    if signed:
        return ColourBar(colours, "-m", "m, the largest |activation| of each map; white: 0")
    return ColourBar(colours, "0" if overlay else "per-map minimum", "per-map maximum")


def _overlay_size(features: FeatureMaps, image: int, count: int, layout: Layout) -> tuple[int, int]:
    """(height, width) of the photograph in each tile."""
    height, width = features.shown.pictures[image].shape[:2]
    columns = layout.get("columns") or columns_for(count, width / height)
    factor = (layout.get("tile") or math.floor(tile_side(columns)) * width / max(height, width)) / width
    return max(1, round(height * factor)), max(1, round(width * factor))


def _overlaid(
    features: FeatureMaps, values: Maps, extent: float, size: tuple[int, int], image: int, *, signed: bool, palette: str
) -> Pixels:
    """One map over the image."""
    enlarged = placed(torch.from_numpy(values), features.shown, size, image=image, mode="bicubic")
    return overlaid(features.shown, enlarged, extent, signed=signed, cmap=palette, image=image)


def maps_figure(
    features: FeatureMaps,
    channels: Sequence[int],
    *,
    image: int,
    scale: Scale,
    cmap: str | None,
    columns: int | None,
    title: str | None,
) -> "Figure":
    """Axes per channel with a colour bar each, or one for all; see `FeatureMaps.figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    signed, palette = _palette(features, image, cmap)
    colour_map(palette)  # raises if there is none of that name
    maps = _chosen(features, channels, image, scale)
    low, high = _ranges(maps, scale, signed=signed)
    aspect = maps.shape[2] / maps.shape[1]
    map_width, map_height = (MAP_SIDE, MAP_SIDE / aspect) if aspect > 1 else (MAP_SIDE * aspect, MAP_SIDE)
    bar = BAR_SPACE if scale == "channel" else PADDING
    cell_width, cell_height = map_width + bar, map_height + CAPTION

    def size(columns: int) -> tuple[float, float]:
        width = max(columns * cell_width + (BAR_SPACE if scale == "shared" else 0), NARROWEST_FIGURE) + 2 * PADDING
        return width, math.ceil(len(channels) / columns) * cell_height + HEADING + PADDING

    columns = min(columns or slide_columns(len(channels), size), len(channels))
    width, height = size(columns)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)

    def axes_at(left: float, top: float, across: float, down: float) -> "Axes":
        return figure.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))

    for number, (values, channel) in enumerate(zip(maps, channels, strict=True)):
        left, top = PADDING + number % columns * cell_width, HEADING + number // columns * cell_height + CAPTION
        axes = axes_at(left, top, map_width, map_height)
        drawn = axes.imshow(
            values,
            cmap=palette,
            vmin=low[number].item(),
            vmax=high[number].item(),
            interpolation="nearest",
            aspect="auto",
        )
        axes.set_title(f"channel {channel}", fontsize=8, pad=3)
        axes.set_xticks([])
        axes.set_yticks([])
        if scale == "channel":
            _bar(figure, drawn, axes_at(left + map_width + BAR_GAP, top, BAR_WIDTH, map_height))
    if scale == "shared":
        grid_height = height - HEADING - PADDING - cell_height + map_height
        place = axes_at(PADDING + columns * cell_width, HEADING + CAPTION, BAR_WIDTH, grid_height)
        _bar(figure, drawn, place)
    heading = _lines(features, channels, image)[0] if title is None else title
    figure.text(PADDING / width, 1 - PADDING / height, heading, fontsize=10, va="top", parse_math=False)
    return figure


def _bar(figure: "Figure", drawn: "AxesImage", place: "Axes") -> None:
    """A colour bar with its two ends, and zero if that is between them."""
    low, high = drawn.get_clim()
    ticks = [low, 0.0, high] if low < 0 < high else [low, high]
    figure.colorbar(drawn, cax=place, ticks=ticks, format="%.3g")
    place.tick_params(labelsize=6, length=2, pad=1)


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


def _ranges(maps: Maps, scale: Scale, *, signed: bool) -> tuple[Maps, Maps]:
    """What the first and the last colour stand for, per map: (C, 1, 1) each; as far below zero as above if signed."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    if scale == "shared":
        low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
    extent = np.maximum(-low, high)
    return (-extent, extent) if signed else (low, high)


def _lines(
    features: FeatureMaps, channels: Sequence[int], image: int, noted: str = "maximum", *, hatched: bool = True
) -> list[str]:
    """The title and what else stands above the tiles, below which stand the channel and what is `noted` of it."""
    count, height, width = features.maps.shape[1:]
    inactive = int(features.silent[image].sum())
    number = str(count) if len(channels) == count else f"{len(channels)} of {count}"
    drawn = " and hatched" if hatched and features.silent[image, list(channels)].any() else ""
    some = f", {inactive} of {count} channels inactive (all zero){drawn}" if inactive else ""
    before = ", before any activation function" if _is_before_activation(features, image) else ""
    return [
        f"Feature maps: {features.network.titled(features.layer)} ({number} channels)",
        f"{features.shown.names[image]}, {features.shown.words}",
        f"{features.network.name}, weights: {features.network.weights}",
        f"maps {width} x {height}{before}{some}; below each map: channel (left) and {noted} (right)",
    ]


def _is_before_activation(features: FeatureMaps, image: int) -> bool:
    """Whether these are what a convolution or a batch norm gives, and negative values, which a ReLU would take away."""
    module = features.network.module.get_submodule(features.network.qualified(features.layer))
    return isinstance(module, nn.Conv2d | nn.BatchNorm2d) and bool(features.minimum[image].min() < 0)


@overload
def feature_maps(
    network: nn.Module,
    picture: Source,
    layer: OneLayer,
    *,
    fit: Fit = ...,
    size: int | None = ...,
    grid: Grid | None = ...,
) -> FeatureMaps: ...


@overload
def feature_maps(
    network: nn.Module,
    picture: Source,
    layer: Layers,
    *,
    fit: Fit = ...,
    size: int | None = ...,
    grid: Grid | None = ...,
) -> dict[str, FeatureMaps]: ...


@overload
def feature_maps(
    network: nn.Module,
    picture: Sources,
    layer: OneLayer,
    *,
    fit: Fit = ...,
    size: int | None = ...,
    grid: Grid | None = ...,
) -> list[FeatureMaps]: ...


@overload
def feature_maps(
    network: nn.Module,
    picture: Sources,
    layer: Layers,
    *,
    fit: Fit = ...,
    size: int | None = ...,
    grid: Grid | None = ...,
) -> list[dict[str, FeatureMaps]]: ...


def feature_maps(
    network: nn.Module,
    picture: Source | Sources,
    layer: OneLayer | Layers,
    *,
    fit: Fit = "crop",
    size: int | None = None,
    grid: Grid | None = None,
) -> Any:
    """The feature maps of one layer for an image, channels first however the layer arranges them.

    Of a list of layers it is a dictionary of their maps, by name, from one forward pass; of a list of images a list of
    what one of them gives.

    Args:
        network: a `Network`; or any ``nn.Module``, to which a tensor is then given as it is, without normalisation.
        picture: a file, a PIL image, an array (H, W) or (H, W, C) of uint8, uint16 or real numbers in [0, 1], or a
            tensor (C, H, W) or (N, C, H, W) in [0, 1]; or a list or tuple of these.
        layer: a name from ``network.layers``, or the module itself, which then goes by PyTorch's name; or a list or
            tuple of these.
        fit: what to show of an image that is no tensor, "whole" or "crop"; see `cnnviz.networks.inputs`.
        size: short side, in pixels, of what the network sees; the network's own by default.
        grid: (rows, columns) of a transformer's tokens; by default as its first convolution gave them, or a square.

    Raises:
        UnknownNameError: if there is no such layer or fit.
        LayerError: if the layer gives no feature maps, not one set for each image, or values that are not finite; or
            the list of layers is empty.
        ShapeError: if the network cannot take a tensor of that shape, or an image of that size.
        PictureError: if the image cannot be read.
    """
    if isinstance(picture, list | tuple):
        return [feature_maps(network, one, layer, fit=fit, size=size, grid=grid) for one in picture]
    layers = list(layer) if isinstance(layer, list | tuple) else [layer]
    if not layers:
        raise LayerError("this list of layers is empty; name at least one.")
    if isinstance(network, Network):
        shown = show(network, picture, fit=fit, size=size)
    elif isinstance(picture, Tensor) and picture.ndim >= 3:
        network = as_network(network, picture if picture.ndim > 3 else picture[None])
        shown = as_it_is(network, picture)
    else:
        raise ShapeError("a plain nn.Module is shown tensors (N, C, H, W); for image files, cnnviz.wrap() it first.")
    names = [network.layer_name(one) for one in layers]
    maps = maps_of_layers(network, shown, names, grid)
    return maps if isinstance(layer, list | tuple) else maps[names[0]]


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
