"""The layer table against the textbook's formulas, published figures, and what really changes when a pixel does."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.errors import ShapeError
from cnnviz.models import outline
from cnnviz.networks.layers import Layer, all_convolutions, layer_table
from cnnviz.networks.network import Network, count_parameters
from tests.support.networks import LeNet, SmallVGG


def convolutions(table: list[Layer]) -> list[Layer]:
    return [row for row in table if row.kind == "Conv2d" and row.output]


def test_vgg16_has_the_published_figures() -> None:
    network = outline("vgg16")
    table = convolutions(layer_table(network))
    assert count_parameters(network) == 138_357_544
    assert [row.receptive_field[0] for row in table] == [3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196]
    assert [row.output[1] for row in table] == [224, 224, 112, 112, 56, 56, 56, 28, 28, 28, 14, 14, 14]
    assert [row.step[0] for row in table] == [1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 16, 16, 16]
    assert [row.alias for row in table][:2] == ["block1_conv1:pre", "block1_conv2:pre"]


# Parameters as torchvision documents them; fields as in Araujo et al. (2019), "Computing Receptive Fields of
# Convolutional Neural Networks", for the last convolution's map (AlexNet's before its last pool).
PUBLISHED = {
    "alexnet": (61_100_840, 163, 16, (256, 13, 13)),
    "resnet18": (11_689_512, 435, 32, (512, 7, 7)),
    "inception_v3": (27_161_264, 1311, 32, (192, 8, 8)),
    "googlenet": (6_624_904, 379, 32, (128, 7, 7)),
    "squeezenet1_0": (1_248_424, 155, 16, (1000, 13, 13)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_other_networks_have_the_published_figures(name: str) -> None:
    parameters, field, step, shape = PUBLISHED[name]
    network = outline(name)
    table = layer_table(network)
    last = convolutions(table)[-1]
    assert count_parameters(network) == sum(row.parameters for row in table) == parameters
    assert max(row.receptive_field[0] for row in convolutions(table)) == field
    assert (last.step[0], last.output) == (step, shape)
    assert all(row.receptive_field is not None for row in table if row.output)
    assert [row.output[0] for row in table if row.output][-1] == 1000


def test_lenet_by_hand(lenet: LeNet) -> None:
    network = cnnviz.wrap(lenet, name="lenet", input_size=28)
    rows = {row.name: row for row in layer_table(network)}
    assert [row.output for row in rows.values()] == [(6, 28, 28), (16, 10, 10), (120,), (84,), (10,)]
    assert [row.parameters for row in rows.values()] == [156, 2416, 48120, 10164, 850]
    assert [row.receptive_field for row in rows.values()][:3] == [(5, 5), (14, 14), (math.inf, math.inf)]
    assert rows["conv2"].step == (2, 2)


class Everything(nn.Module):
    """Kinds of rows: tied weights, a module used twice, a tuple, sublayers beside a parameter, what does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(1, 2))
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.same = nn.Conv2d(4, 5, (3, 5), padding="same", dilation=(2, 3))
        self.valid = nn.Conv2d(5, 5, 3, padding="valid", bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.tied = nn.Conv2d(5, 5, 3, padding=1)
        self.tied.weight = self.valid.weight
        self.pair, self.list = Pair(tuple), Pair(list)
        self.scaled = Scaled()
        self.top = nn.Sequential(nn.Flatten(), nn.Linear(5, 2))
        self.idle, self.nothing = nn.Linear(2, 3), nn.Sequential(nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool(self.relu(self.stem(images)))
        maps = self.relu(self.tied(self.norm(self.valid(self.same(maps)))))
        return self.top(self.scaled(self.list(self.pair(maps)[0])[0]))


class Pair(nn.Module):
    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, maps: Tensor) -> Any:
        return self.kind([maps, maps.mean()])


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor, self.mean = nn.Parameter(torch.ones(5, 1, 1)), nn.AdaptiveAvgPool2d(1)
        self.rest = nn.Linear(3, 3)

    def forward(self, maps: Tensor) -> Tensor:
        return self.mean(maps) * self.factor


def test_every_number_of_the_table_by_hand() -> None:
    module = Everything()
    network = cnnviz.wrap(module, name="net", input_size=(64, 48))
    inf, none = (math.inf, math.inf), (None, None, None)
    whole = (inf, inf, (-math.inf, -math.inf))  # field, step, start
    assert layer_table(network, (16, 20)) == [
        Layer("stem", "", "Conv2d", (3, 5), (2, 1), (1, 2), (4, 8, 20), 184, (3, 5), (2, 1), (-1, -2)),
        Layer("relu", "", "ReLU", *none, (4, 8, 20), 0, (3, 5), (2, 1), (-1, -2)),
        Layer("pool", "", "MaxPool2d", (2, 2), (2, 2), (0, 0), (4, 4, 10), 0, (5, 6), (4, 2), (-1, -2)),
        Layer("same", "", "Conv2d", (3, 5), (1, 1), (2, 6), (5, 4, 10), 305, (21, 30), (4, 2), (-9, -14), (2, 3)),
        Layer("valid", "", "Conv2d", (3, 3), (1, 1), (0, 0), (5, 2, 8), 225, (29, 34), (4, 2), (-9, -14)),
        Layer("norm", "", "BatchNorm2d", *none, (5, 2, 8), 10, (29, 34), (4, 2), (-9, -14)),
        Layer("tied", "", "Conv2d", (3, 3), (1, 1), (1, 1), (5, 2, 8), 5, (37, 38), (4, 2), (-13, -16)),
        Layer("pair", "", "Pair", *none, (5, 2, 8), 0, (37, 38), (4, 2), (-13, -16)),
        Layer("list", "", "Pair", *none, (5, 2, 8), 0, (37, 38), (4, 2), (-13, -16)),
        Layer("scaled.mean", "", "AdaptiveAvgPool2d", *none, (5, 1, 1), 0, *whole),
        Layer("scaled", "", "Scaled", *none, (5, 1, 1), 5, *whole),
        Layer("top.0", "", "Flatten", *none, (5,), 0, *whole),
        Layer("top.1", "", "Linear", *none, (2,), 12, *whole),
        Layer("scaled.rest", "", "Linear", *none, (), 12, None, None, None),
        Layer("idle", "", "Linear", *none, (), 9, None, None, None),
    ]
    own = layer_table(network)
    assert own == layer_table(network, (64, 48))
    assert own[0].output == (4, 32, 48)
    assert not any(part._forward_hooks for part in network.modules())


class Watched(nn.Module):
    """Keeps what it was given: kind of device and shape."""

    given: ClassVar[list[tuple[str, tuple[int, ...]]]] = []

    def forward(self, maps: Tensor) -> Tensor:
        self.given.append((maps.device.type, tuple(maps.shape)))
        return maps.mean((2, 3))


def test_nothing_is_computed_for_a_table() -> None:
    network = cnnviz.wrap(nn.Sequential(nn.Conv2d(1, 2, 3), Watched()), name="net", input_size=(9, 8))
    Watched.given.clear()
    layer_table(network)
    assert Watched.given == [("meta", (1, 2, 7, 6))]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_same_padding_of_an_even_window_begins_with_the_smaller_half() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, (4, 3), padding="same"), nn.AdaptiveAvgPool2d(1))
    row = layer_table(cnnviz.wrap(module, name="net", input_size=9))[0]
    assert (row.padding, row.start, row.receptive_field) == ((1, 1), (-1, -1), (4, 3))


def test_layers_of_the_vgg_family_have_both_names(small_vgg: SmallVGG) -> None:
    rows = layer_table(cnnviz.wrap(small_vgg, name="small", input_size=32))
    named = {row.name: row.alias for row in rows}
    assert named["features.0"] == ("" if "BatchNorm2d" in str(small_vgg) else "block1_conv1:pre")
    assert [row.alias for row in rows if row.kind == "MaxPool2d"] == [f"block{number}_pool" for number in range(1, 6)]
    assert named["classifier"] == ""


def test_all_convolutions_are_those_that_run(small_vgg: SmallVGG, lenet: LeNet) -> None:
    blocks = zip(range(1, 6), (2, 2, 3, 3, 3), strict=True)
    expected = [f"block{block}_conv{number + 1}" for block, count in blocks for number in range(count)]
    assert all_convolutions(cnnviz.wrap(small_vgg, name="small", input_size=32)) == expected
    small_vgg.pool = nn.Sequential(nn.Conv2d(10, 10, 1), nn.AdaptiveAvgPool2d(1))
    small_vgg.idle = nn.Conv2d(1, 1, 1)
    assert all_convolutions(cnnviz.wrap(small_vgg, name="small", input_size=32)) == [*expected, "pool.0"]
    lenet.idle = nn.Conv2d(1, 1, 1)
    assert all_convolutions(cnnviz.wrap(lenet, name="lenet", input_size=28)) == ["conv1", "conv2"]


@given(
    size=st.integers(12, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    channels=st.integers(1, 4),
)
@settings(max_examples=60)
def test_a_convolution_obeys_the_textbook(size: int, kernel: int, stride: int, padding: int, channels: int) -> None:
    module = nn.Sequential(nn.Conv2d(3, channels, kernel, stride, padding), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    row = layer_table(cnnviz.wrap(module, name="net", input_size=size))[0]
    side = (size - kernel + 2 * padding) // stride + 1
    assert row.output == (channels, side, side)
    assert row.parameters == channels * (kernel * kernel * 3 + 1)
    assert (row.receptive_field, row.step) == ((kernel, kernel), (stride, stride))


class Branches(nn.Module):
    """All that a tracer gets wrong: branches, a shared module, functional calls, odd windows, views of channels."""

    def __init__(self, first: int, second: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, (first, 1), padding=(first // 2, 0), stride=stride)
        self.right = nn.Conv2d(4, 4, second, padding=second // 2 * dilation, dilation=dilation, stride=stride)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.relu(self.stem(functional.pad(images, (1, 0, 2, 0))), inplace=True)
        maps = torch.cat([self.left(maps), functional.max_pool2d(self.right(maps), 3, 1, 1)], 1)
        n, c, h, w = maps.shape
        maps = maps.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        maps = maps.permute(0, 2, 3, 1)
        maps = functional.layer_norm(maps, maps.shape[-1:]).permute(0, 3, 1, 2)
        return self.head(maps).mean((2, 3))


@given(
    first=st.sampled_from([1, 3, 5]),
    second=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
)
@settings(max_examples=20)
def test_the_receptive_field_is_what_a_gradient_reaches(first: int, second: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    network = cnnviz.wrap(Branches(first, second, stride, dilation), name="net", input_size=41)
    rows = {row.name: row for row in layer_table(network)}
    for layer in ("left", "right", "head"):
        assert rows[layer].receptive_field == reached(network, layer)


def reached(network: Network, layer: str) -> tuple[int, int]:
    """How many rows and columns of pixels the middle of a map has a gradient to."""
    height, width = network.input_size
    touched = torch.zeros(height, width)
    for seed in range(6):  # a ReLU or a pool may hide a pixel from one image's gradient, hardly from six
        torch.manual_seed(seed)
        images = torch.rand(1, network.channels, height, width).requires_grad_()
        maps = cnnviz.activations(network, images, [layer])[layer]
        centre = maps.shape[2] // 2, maps.shape[3] // 2
        touched += torch.autograd.grad(maps[0, :, *centre].square().sum(), images)[0][0].abs().sum(0)
    return int((touched.sum(1) > 0).sum()), int((touched.sum(0) > 0).sum())


class Between(nn.Module):
    """Some function between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, (5, 1))
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.function(self.first(images))).mean((2, 3))


def _written_into(maps: Tensor) -> Tensor:
    changed = maps.clone()
    changed[:, 0] = functional.avg_pool2d(maps, 7, 1, 3)[:, 0]
    return changed


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {  # and whether its field must be known
    "relu": (torch.relu, True),
    "softmax over channels": (lambda maps: maps.softmax(1), True),
    "pool with indices": (lambda maps: functional.max_pool2d(maps, 3, 1, 1, return_indices=True)[0], True),
    "swapped axes": (lambda maps: maps.swapaxes(2, 3), False),
    "swapped and back": (lambda maps: maps.transpose(2, 3).relu().transpose(3, 2), True),
    "written into": (_written_into, True),
    "gated": (lambda maps: maps * maps.mean((2, 3), keepdim=True).sigmoid(), True),
    "transposed convolution": (
        lambda maps: functional.conv_transpose2d(maps, torch.ones(4, 4, 3, 3, device=maps.device), padding=1),
        False,
    ),
    "mixed columns": (lambda maps: torch.einsum("nchw->nch", maps)[..., None].expand_as(maps), False),
    "thinned out": (lambda maps: maps[:, :, ::2, ::2], False),
    "enlarged": (lambda maps: functional.interpolate(maps, scale_factor=2), False),
    "rolled": (lambda maps: maps.roll(3, 2), False),
    "normalised along rows": (lambda maps: maps.softmax(3), False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_receptive_field_is_right_or_said_to_be_unknown(name: str) -> None:
    function, must_be_known = FUNCTIONS[name]
    torch.manual_seed(0)
    network = cnnviz.wrap(Between(function), name="net", input_size=(24, 20))
    field = {row.name: row for row in layer_table(network)}["last"].receptive_field
    if field is None:
        assert not must_be_known
    else:
        size = zip(field, network.input_size, strict=True)
        assert tuple(min(side, whole) for side, whole in size) == reached(network, "last")


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return (maps if maps.sum().item() > 0 else -maps).mean((2, 3))


def test_a_network_that_looks_at_values_gets_a_table_too() -> None:
    network = cnnviz.wrap(LooksAtValues(), name="net", input_size=9)
    (row,) = layer_table(network)
    assert (row.output, row.receptive_field, row.start) == ((4, 7, 7), (3, 3), (0, 0))
    assert layer_table(network, (5, 9))[0].output == (4, 3, 7)
    with pytest.raises(ShapeError, match="cannot take an image of 9 x 2 px"):
        layer_table(network, (2, 9))
    assert not any(part._forward_hooks for part in network.modules())


def test_convnext_and_squeeze_and_excitation_are_followed() -> None:
    blocks = [3, 3, 9, 3]  # of one 7 x 7 convolution each, at steps of 4, 8, 16, 32, with a 2 x 2 one in between
    field = 4 + sum(6 * count * step for count, step in zip(blocks, [4, 8, 16, 32], strict=True)) + 4 + 8 + 16
    assert max(row.receptive_field[0] for row in convolutions(layer_table(outline("convnext_tiny")))) == field
    table = {row.name: row for row in layer_table(outline("mobilenet_v3_small"))}
    assert table["features.1.block.0.0"].receptive_field == (7, 7)
    assert table["features.1.block.1.fc1"].receptive_field == (math.inf, math.inf)


def test_what_cannot_be_followed_is_said_to_be_unknown() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3), nn.AdaptiveAvgPool2d(1))
    rows = layer_table(cnnviz.wrap(module, name="net", input_size=16))
    assert rows[0].receptive_field == (3, 3)
    assert rows[2].receptive_field is None


def test_a_size_that_the_network_cannot_take_is_refused(lenet: LeNet) -> None:
    with pytest.raises(ShapeError, match="cannot take an image of 8 x 8 px"):
        layer_table(cnnviz.wrap(lenet, name="lenet", input_size=28), (8, 8))


def test_a_plain_module_has_a_table_for_a_size(lenet: LeNet) -> None:
    assert cnnviz.layer_table(lenet, (28, 28)) == cnnviz.layer_table(cnnviz.wrap(lenet, name="le", input_size=28))
    with pytest.raises(ShapeError, match=r"input size of a plain LeNet is not known; give it as \(height, width\)"):
        cnnviz.layer_table(lenet)
