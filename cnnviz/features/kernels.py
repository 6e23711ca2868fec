"""A first layer's kernels, drawn as they are: the only filters that can be read without synthesis."""

from typing import Unpack

import numpy as np
import torch
from torch import nn

from cnnviz.errors import LayerError
from cnnviz.networks.layers import layer_table
from cnnviz.networks.network import Network, check_network
from cnnviz.networks.provenance import record
from cnnviz.pictures.colours import drawable
from cnnviz.pictures.sheets import Layout, Sheet, Tile, alike, layout_settings, sheet


def kernel_sheet(network: Network, layer: str | nn.Module | None = None, **layout: Unpack[Layout]) -> Sheet:
    """The weights of a convolution over colours, or over grey values, as a tile per filter.

    Grey is zero. Each kernel is scaled by its largest weight, so brightness is not to be compared between kernels.

    Args:
        network: a `Network`; make one of a plain ``nn.Module`` by `cnnviz.wrap`.
        layer: a convolution, or the batch norm or ReLU behind it, by its name or as its module; the network's first
            convolution by default.
        layout: columns, tile (the width of a tile in pixels), title, captions and dpi; see `Layout`.

    Raises:
        UnknownNameError: if there is no such layer, or no such keyword of the layout.
        LayerError: if there is no convolution, or one over more than three channels, whose weights are no colours, or
            one whose weights are not finite.
    """
    check_network(network)
    layer = None if layer is None else network.layer_name(layer)
    name = _convolution(network, layer)
    shown = layer or network.name_of(name).plain
    convolution = network.layers[name]
    assert isinstance(convolution, nn.Conv2d)
    channels = convolution.in_channels
    if channels not in (1, 3):
        raise LayerError(
            f"the kernels of {shown} are over {channels} channels, not colours; only those of a first layer can"
            f" be drawn as they are. For what its filters look for, take `cnnviz filters --layer {shown}`."
        )
    weight = convolution.weight.float().cpu().numpy()
    if not np.isfinite(weight).all():
        raise LayerError(f"the kernels of {shown} are not finite; look for NaN among the weights of {network.name}.")
    count, _, height, width = weight.shape
    largest = np.abs(weight).max(axis=(1, 2, 3))
    values = 0.5 + 0.5 * weight / np.maximum(largest, np.finfo(np.float32).tiny)[:, None, None, None]
    tiles = [
        Tile(drawable(torch.from_numpy(kernel)), str(number), size)
        for number, (kernel, size) in enumerate(zip(values, alike(largest.tolist()), strict=True))
    ]
    lines = [
        f"Kernels: {shown} ({count} kernels, {width} x {height}, {'RGB' if channels == 3 else 'grey'})",
        f"{network.name}, weights: {network.weights}",
        "grey: zero; below each kernel: its number and largest absolute weight, by which it is scaled",
    ]
    made = record("kernels", network, settings={"layer": shown, **layout_settings(layout)})
    return sheet(tiles, lines=lines, made=made, **layout)


def _convolution(network: Network, layer: str | None) -> str:
    """The convolution that runs last up to a layer, or first of all."""
    rows = [row.name for row in layer_table(network) if row.output]
    if layer is not None:
        name = network.qualified(layer)
        rows = rows[: rows.index(name) + 1][::-1] if name in rows else []
    convolution = next((row for row in rows if isinstance(network.layers[row], nn.Conv2d)), None)
    if convolution is None:
        raise LayerError(f"{layer or network.name} has no convolution whose kernels could be drawn.")
    return convolution
