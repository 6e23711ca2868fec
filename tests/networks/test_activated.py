"""The activation behind a layer, in whatever way a network is written, against the forward pass written out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.errors import LayerError
from cnnviz.networks.activated import Activated
from cnnviz.networks.activations import capture, response
from cnnviz.networks.network import Network
from cnnviz.networks.receptive_fields import unpadded


class Written(nn.Module):
    """Two convolutions, a batch norm, and a tail that the test writes."""

    def __init__(self, tail: Callable[["Written", Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.shared = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.tail = tail

    def forward(self, images: Tensor) -> Tensor:
        first = self.shared(self.first(images))
        return self.tail(self, first, self.second(first)).flatten(1)[:, :5]


TAILS: dict[str, tuple[Callable[[Written, Tensor, Tensor], Tensor], str | None]] = {
    "a module used twice": (lambda own, _, maps: own.shared(maps), "relu"),
    "a function": (lambda _, __, maps: functional.gelu(maps), "gelu"),
    "a method": (lambda _, __, maps: maps.tanh(), "tanh"),
    "written into what it is given": (lambda _, __, maps: functional.relu(maps, inplace=True), "relu"),
    "called by keyword": (lambda _, __, maps: torch.relu(input=maps), "relu"),
    "behind batch norm": (lambda own, _, maps: functional.leaky_relu(own.norm(maps), 0.2), "leaky_relu"),
    "behind the sum of a residual block": (lambda own, first, maps: functional.relu(own.norm(maps) + first), "relu"),
    "behind a sum in place": (lambda own, first, maps: own.norm(maps).add_(first).relu_(), "relu"),
    "behind a pool": (lambda _, __, maps: functional.max_pool2d(maps, 2).relu(), "relu"),
    "clamped": (lambda _, __, maps: maps.clamp(min=0), "clamp"),
    "none, for a convolution comes first": (lambda own, _, maps: own.second(maps).relu(), None),
    "none, at the end of the network": (lambda _, __, maps: maps, None),
    "none, and written into": (lambda _, __, maps: maps.add_(1), None),
}


def wrapped(tail: str) -> tuple[Network, Written]:
    module = Written(TAILS[tail][0]).eval()
    return cnnviz.wrap(module, name="net", input_size=12), module


@pytest.mark.parametrize("tail", TAILS)
def test_what_goes_in_and_comes_out_is_what_the_network_computes(tail: str) -> None:
    network, module = wrapped(tail)
    images = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        first = module.first(images).relu()
        maps = module.second(first)
        expected = maps if TAILS[tail][1] is None else TAILS[tail][0](module, first, maps.clone())
        copy = network.twin()
        point = Activated(copy.layers["second"])
        activation = capture(copy, images, {point: "second"})[point]
    assert activation.name == TAILS[tail][1]
    torch.testing.assert_close(activation.after, expected)
    if activation.name == "relu":
        torch.testing.assert_close(activation.before.relu(), expected)


def test_layers_that_end_with_their_activation_are_their_own(mini: Network) -> None:
    behind, itself = (response(mini, layer, (64, 64)) for layer in ("block2_conv1:pre", "block2_conv1"))
    assert behind == itself
    assert behind.activation == "relu"
    assert response(mini, "block2_pool", (64, 64)).activation is None


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.used(images).mean((2, 3))


def test_several_layers_at_once_and_one_that_does_not_run() -> None:
    network, _ = wrapped("behind the sum of a residual block")
    copy = network.twin()
    names = {copy.layers["first"]: "first", **{Activated(copy.layers[name]): name for name in ("first", "second")}}
    outputs = capture(copy, torch.rand(1, 3, 12, 12), names)
    first, second = (outputs[Activated(copy.layers[name])] for name in ("first", "second"))
    torch.testing.assert_close(first.after, outputs[copy.layers["first"]].relu())
    assert second.name == "relu"
    with pytest.raises(LayerError, match="'idle' of idle does not run"):
        response(cnnviz.wrap(Idle(), name="idle", input_size=8), "idle", (8, 8))


@pytest.mark.parametrize("layer", ["block1_conv2", "block2_conv2", "block3_conv3"])
def test_positions_without_padding_are_those_that_what_surrounds_the_image_does_not_reach(
    mini: Network, layer: str
) -> None:
    size, margin, depth = (64, 80), 32, int(mini.qualified(layer).split(".")[1])
    known = response(mini, layer, size)
    positions = known.shape[2], known.shape[3]
    stride = size[0] // positions[0]
    image = (torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) - mini.mean) / mini.std
    parts = []
    for value in (0.0, 50.0):
        maps = mini.module.features[:depth](functional.pad(image, (margin,) * 4, value=value))
        rows, columns = (slice(margin // stride, margin // stride + count) for count in positions)
        parts.append(maps[0, :, rows, columns])
    untouched = torch.isclose(*parts, rtol=1e-4, atol=1e-4).all(0)
    expected = torch.zeros_like(untouched)
    region = unpadded(known.field, size, positions)
    assert region is not None
    expected[region] = True
    assert torch.equal(untouched, expected)
