"""Feature maps: what the channels of a layer make of a picture, with their statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from cnnviz.errors import LayerError, ShapeError
from cnnviz.hooks import activations
from cnnviz.inputs import Fit, Shown, Source, as_it_is, show
from cnnviz.mapsheets import Scale, maps_figure, maps_sheet
from cnnviz.network import Network, forward_pass, wrap
from cnnviz.sheets import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Order = Literal["mean", "max"]


@dataclass(frozen=True, repr=False)
class FeatureMaps:
    """What one layer gives for one or more pictures.

    Attributes:
        network: the network that was looked into.
        layer: the layer's name, as it was asked for.
        shown: what the network saw.
        maps: (N, C, H, W), float32, on the CPU.
    """

    network: Network
    layer: str
    shown: Shown
    maps: Tensor

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
        """Channels of one image from the most to the least active, by mean or maximal activation."""
        values = self.mean if by == "mean" else self.maximum
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
        cmap: str = "viridis",
    ) -> Sheet:
        """The maps as one picture.

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
        cmap: str = "viridis",
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


def feature_maps(
    network: nn.Module,
    picture: Source,
    layer: str,
    *,
    fit: Fit = "whole",
    size: int | None = None,
) -> FeatureMaps:
    """The feature maps of one layer for a picture.

    Args:
        network: a `Network`; or any ``nn.Module``, to which a tensor is then given as it is, without normalisation.
        picture: a file, a PIL image, an array (H, W, 3), uint8, or a tensor (C, H, W) or (N, C, H, W) in [0, 1].
        layer: a name from ``network.layers``.
        fit: what to show of a picture that is no tensor, "whole" or "crop"; see `cnnviz.inputs`.
        size: short side, in pixels, of what the network sees; the network's own by default.

    Raises:
        UnknownNameError: if there is no such layer.
        LayerError: if the layer gives no feature maps, or maps with values that are not finite.
        ShapeError: if the network cannot take a tensor of that shape, or a picture of that size.
        PictureError: if the picture cannot be read.
    """
    if isinstance(network, Network):
        shown = show(network, picture, fit=fit, size=size)
    elif isinstance(picture, Tensor) and picture.ndim >= 3:
        height, width = picture.shape[-2:]
        network = wrap(network, name=type(network).__name__, input_size=(height, width))
        shown = as_it_is(network, picture)
    else:
        raise ShapeError("a plain nn.Module is shown tensors (N, C, H, W); for picture files, cnnviz.wrap() it first.")
    return maps_of_layers(network, shown, [layer])[layer]


@torch.no_grad()
def maps_of_layers(network: Network, shown: Shown, layers: Sequence[str]) -> dict[str, FeatureMaps]:
    """The feature maps of several layers from one forward pass, by the names asked for; errors as `feature_maps`."""
    with forward_pass(network, shown.images):
        outputs = activations(network, shown.images, layers)
    return {layer: FeatureMaps(network, layer, shown, _checked(layer, output)) for layer, output in outputs.items()}


def _checked(layer: str, output: Tensor) -> Tensor:
    if output.ndim != 4:
        shape = " x ".join(map(str, output.shape[1:]))
        raise LayerError(
            f"layer {layer!r} gives no feature maps but {shape} numbers; choose a convolution, ReLU or pool."
        )
    maps = output.detach().float().cpu()
    if not maps.isfinite().all():
        raise LayerError(f"layer {layer!r} gives values that are not finite; look for NaN among the weights before it.")
    return maps
