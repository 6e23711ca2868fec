"""What a report measures of one image in one network, and how.

`Findings` holds all of it, `Depth` the feature maps of one layer, `Fired` its most active channels.
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
from cnnviz.networks.activations import response
from cnnviz.networks.inputs import Fit, Shown
from cnnviz.networks.layers import Layer, convolutions, last_of_each_block, layer_table
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
RECTIFIERS = {"relu", "relu6", "hardtanh", "clamp", "clamp_min", "threshold", "_threshold"}  # if nothing is below 0


@dataclass(frozen=True)
class Depth:
    """The feature maps of one layer, measured.

    Attributes:
        maps: of the layer, behind its activation if it has one, and their statistics.
        row: of the table of layers.
        activation: the function behind the layer, "relu"; None where there is none.
        zeros: fraction of zeros among all values of all maps, in [0, 1].
        edges: correlation with the image's edges; see `likeness`.
        turned: the same with the edge map rotated by 180 degrees: the chance level.
    """

    maps: FeatureMaps
    row: Layer
    activation: str | None
    zeros: float
    edges: float | None
    turned: float | None

    @property
    def layer(self) -> str:
        return self.maps.layer

    @property
    def rectified(self) -> bool:
        """Whether the maps come out of a ReLU; elsewhere zeros and inactive channels say nothing."""
        return self.activation in RECTIFIERS and bool((self.maps.minimum >= 0).all())


@dataclass(frozen=True)
class Fired:
    """The channels of a layer that the image activates most.

    Attributes:
        depth: the layer.
        channels: their numbers, by mean activation, the most active first.
        cuts: for each, the receptive field of its maximum, cut out of the image; None if it is inactive.
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
        explanation: attribution of the most probable classes; None if no method is right about the network.
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
    """The mean absolute Pearson correlation of the non-constant maps with the edges.

    A map is correlated over its positions with the edges averaged down to its size: a position stands for the mean of
    its share of the pixels (``adaptive_avg_pool2d``). Inactive maps, and others that are constant, correlate with
    nothing and do not count.

    Args:
        maps: (C, h, w).
        edges: (H, W).

    Returns:
        In [0, 1]; None if all maps are constant, or the edges are.
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
    """The feature maps of layers, behind their activations, in the order in which they run.

    They are the last convolution of each block of the VGG family; elsewhere the last one to run at each size of the
    maps.

    Args:
        edges: (H, W), of what the network was shown; see `edges_of`.
    """
    rows = {row.name: row for row in layer_table(network)}
    names = last_of_each_block(network, convolutions(network), rows.values())
    turned = edges.flip(0, 1)
    return tuple(
        Depth(
            maps=maps,
            row=rows[network.qualified(layer)],
            activation=response(network, layer, (shown.images.shape[2], shown.images.shape[3])).activation,
            zeros=(maps.maps == 0).double().mean().item(),
            edges=likeness(maps.maps[0], edges),
            turned=likeness(maps.maps[0], turned),
        )
        for layer, maps in maps_of_layers(network, shown, names, activated=True).items()
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
    """The channels of a depth that the image activates most, and their feature visualizations.

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
    crops = cut_out(network, depth.row, maps.maps.shape[2:], list(places.values()), lambda _: picture)
    cuts = dict(zip(places, crops, strict=True))
    size = _image_size(network, depth.layer)
    job = filter_job(
        network, depth.layer, channels, seed=seed, preset="draft", steps=steps, size=size, references=picture
    )
    for progress in job.run():
        tell(f"feature visualization: {depth.layer}", progress.share)
    return Fired(
        depth,
        tuple(channels),
        cuts=tuple(map(cuts.get, channels)),
        images=collect(job, progress),
    )


def _uneven(rows: Tensor) -> Tensor:
    """Which rows (N, P) do not have the same value everywhere, (N,)."""
    return rows.amax(1) - rows.amin(1) > EVEN * rows.abs().amax(1)


def _image_size(network: Network, layer: str) -> Size:
    (height, width), _ = canvas(network, layer)
    return (min(height, LARGEST), min(width, LARGEST)) if network.takes_any_size else (height, width)
