"""What a report measures of one image in one network, and how.

`Findings` holds all of it, `Depth` what becomes of the image at one layer, `Fired` the channels that it excites most.
To add a measure of depth, give `Depth` an attribute, fill it in `depths_of`, and follow it in
`cnnviz.web.report_sentences.MEASURES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cnnviz.attribution.attribute import check_methods
from cnnviz.attribution.comparison import Watch
from cnnviz.attribution.explainer import explainer
from cnnviz.attribution.explanations import Explanation
from cnnviz.errors import LayerError, ModelError
from cnnviz.features.crops import Cut, Place, cut_out
from cnnviz.features.maps import FeatureMaps, maps_of_layers
from cnnviz.networks.inputs import Fit, Shown
from cnnviz.networks.layer_names import block_of
from cnnviz.networks.layers import Layer, convolutions, layer_table
from cnnviz.networks.network import Network
from cnnviz.networks.predictions import Prediction
from cnnviz.pictures.reading import Picture
from cnnviz.synthesis.maximization import collect, filter_job
from cnnviz.synthesis.parametrisations import Size
from cnnviz.synthesis.results import Synthesis
from cnnviz.synthesis.settings import canvas

FIT: Fit = "crop"  # `cut_out` cuts parts out of images that were shown like this
LARGEST = 128  # pixels a side of synthesized images: they are shown small
EVEN = 1e-5  # of the largest value: what differs by less differs by rounding


@dataclass(frozen=True)
class Depth:
    """What one layer makes of the image.

    Attributes:
        maps: of the layer, behind its activation if it has one, and their statistics.
        row: of the table of layers.
        zeros: share of zeros among all values of all maps, in [0, 1].
        edges: how much the maps look like the image's edges; see `likeness`.
        turned: the same with the edges turned by 180 degrees, which are not in their places: what chance gives.
    """

    maps: FeatureMaps
    row: Layer
    zeros: float
    edges: float | None
    turned: float | None

    @property
    def layer(self) -> str:
        return self.maps.layer

    @property
    def signed(self) -> bool:
        """Whether values lie below zero, as those behind a ReLU do not: then zeros say nothing."""
        return bool((self.maps.minimum < 0).any())


@dataclass(frozen=True)
class Fired:
    """The channels of a layer that the image excites most.

    Attributes:
        depth: the layer.
        channels: their numbers, by mean activation, the most excited first.
        cuts: for each, the part of the image where it fired most; None if it is silent.
        images: for each, what was synthesized for it.
    """

    depth: Depth
    channels: tuple[int, ...]
    cuts: tuple[Cut | None, ...]
    images: Synthesis


@dataclass(frozen=True, repr=False)
class Findings:
    """All that is measured of one image in one network.

    Attributes:
        network, shown: the network, and what it saw.
        predictions: the most probable classes, the first one first.
        edges: (H, W), of what the network saw; see `edges_of`.
        depths: in the order in which they run.
        explanation: why the most probable classes came out; None if no method is right about the network.
        refused: by method, why it is left out.
        fired: at the last depths.
        made: how the report was made.
    """

    network: Network
    shown: Shown
    predictions: tuple[Prediction, ...]
    edges: Tensor
    depths: tuple[Depth, ...]
    explanation: Explanation | None
    refused: Mapping[str, str]
    fired: tuple[Fired, ...]
    made: Mapping[str, Any]


def edges_of(image: Tensor) -> Tensor:
    """The edges of an image: how steep its grey values are, by Sobel's operator.

    Grey is 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601), or the mean where there are not three colours. The
    differences [-1, 0, 1] along either axis are smoothed by [1, 2, 1] along the other; beyond the border the outermost
    pixels are repeated. An edge is the root of the sum of both squares.

    Args:
        image: (C, H, W) in [0, 1].

    Returns:
        (H, W), float32, at least 0, on the CPU.
    """
    image = image.detach().float().cpu()
    weights = torch.tensor([0.299, 0.587, 0.114]) if len(image) == 3 else torch.full((len(image),), 1 / len(image))
    grey = functional.pad((weights[:, None, None] * image).sum(0)[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    across, down = grey[:, 2:] - grey[:, :-2], grey[2:] - grey[:-2]  # the difference first: even grey gives exactly 0
    across = across[:-2] + 2 * across[1:-1] + across[2:]
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return torch.hypot(across, down)


def likeness(maps: Tensor, edges: Tensor) -> float | None:
    """How much maps look like edges: the mean, over the maps that are not even, of |Pearson's correlation|.

    A map is correlated over its positions with the edges averaged down to its size: a position stands for the mean of
    its share of the pixels (``adaptive_avg_pool2d``). Silent maps, and others that are the same everywhere, correlate
    with nothing and do not count.

    Args:
        maps: (C, h, w).
        edges: (H, W).

    Returns:
        In [0, 1]; None if all maps are even, or the edges are.
    """
    size = (maps.shape[1], maps.shape[2])
    there = functional.adaptive_avg_pool2d(edges[None].double(), size).flatten(1)
    here = maps.double().flatten(1)
    here = here[_uneven(here)]
    if not len(here) or not _uneven(there).item():
        return None
    here, there = (values - values.mean(1, keepdim=True) for values in (here, there))
    correlations = (here * there).sum(1) / (here.square().sum(1) * there.square().sum()).sqrt()
    return correlations.abs().mean().item()


def depths_of(network: Network, shown: Shown, edges: Tensor) -> tuple[Depth, ...]:
    """What layers, and the activations behind them, make of the image, in the order in which they run.

    They are the last convolution of each block of the VGG family; elsewhere the last one to run at each size of the
    maps.

    Args:
        edges: (H, W), of what the network was shown; see `edges_of`.
    """
    rows = {row.name: row for row in layer_table(network)}
    last: dict[object, str] = {}
    for name in convolutions(network):
        group = block_of(name) if name in network.names else rows[name].output[1:]
        last.pop(group, None)  # a size that comes back counts where it comes last
        last[group] = name
    turned = edges.flip(0, 1)
    return tuple(
        Depth(
            maps=maps,
            row=rows[network.qualified(layer)],
            zeros=(maps.maps == 0).double().mean().item(),
            edges=likeness(maps.maps[0], edges),
            turned=likeness(maps.maps[0], turned),
        )
        for layer, maps in maps_of_layers(network, shown, list(last.values()), activated=True).items()
    )


def refusals(network: Network, methods: Sequence[str]) -> dict[str, str]:
    """By method, why it would be wrong about the network, or has nothing to look at."""
    reasons = {}
    for name in methods:
        try:
            check_methods(explainer(network), [name], None)
        except (ModelError, LayerError) as error:
            reasons[name] = str(error)
    return reasons


def fired_at(depth: Depth, picture: Picture, filters: int, steps: int | None, seed: int, tell: Watch) -> Fired:
    """The channels of a depth that the image excites most, and what they look for.

    Args:
        filters: how many, at most.
        steps: of the images; those of the preset "draft" if None.
        tell: called with what is being done, and the share of it that is done.
    """
    maps, network = depth.maps, depth.maps.network
    channels = maps.order()[:filters]
    places = {
        channel: Place(0, divmod(int(maps.maps[0, channel].argmax()), maps.maps.shape[3]))
        for channel in channels
        if not maps.silent[0, channel]
    }
    cuts = dict(zip(places, cut_out(network, depth.row, list(places.values()), lambda _: picture), strict=True))
    size = _image_size(network, depth.layer)
    job = filter_job(
        network, depth.layer, channels, seed=seed, preset="draft", steps=steps, size=size, references=picture
    )
    for progress in job.run():
        tell(f"what {depth.layer} looks for", progress.share)
    return Fired(depth, tuple(channels), tuple(cuts.get(channel) for channel in channels), collect(job, progress))


def _uneven(rows: Tensor) -> Tensor:
    """Which rows (N, P) do not have the same value everywhere, (N,)."""
    return rows.amax(1) - rows.amin(1) > EVEN * rows.abs().amax(1)


def _image_size(network: Network, layer: str) -> Size:
    (height, width), _ = canvas(network, layer)
    return (min(height, LARGEST), min(width, LARGEST)) if network.takes_any_size else (height, width)
