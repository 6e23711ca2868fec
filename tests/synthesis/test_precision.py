"""What ascents compute in: asked for, or what the machine is fast in and the network can do."""

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.networks.network import Network
from tests.support.networks import SmallVGG

LAYER = "block2_conv1"
FEW = {"steps": 12, "size": 32, "tries": 1}


@pytest.fixture
def network() -> Network:
    torch.manual_seed(7)
    return cnnviz.wrap(SmallVGG().eval(), name="small", input_size=32)


def test_float32_is_the_default(network: Network) -> None:
    images = cnnviz.filter_images(network, LAYER, [0, 1], **FEW)
    asked = cnnviz.filter_images(network, LAYER, [0, 1], precision="float32", **FEW)
    assert images.settings["precision"] == "float32"
    assert torch.equal(images.images, asked.images)


@pytest.mark.usefixtures("bfloat16")
def test_bfloat16_is_where_the_processor_is_fast_in_it(network: Network) -> None:
    images = cnnviz.filter_images(network, LAYER, [0, 1], **FEW)
    asked = cnnviz.filter_images(network, LAYER, [0, 1], precision="bfloat16", **FEW)
    exact = cnnviz.filter_images(network, LAYER, [0, 1], precision="float32", **FEW)
    assert images.settings["precision"] == "bfloat16"
    assert torch.equal(images.images, asked.images)
    assert not torch.equal(images.images, exact.images)
    assert (images.scores > images.starts).all()
    maps = cnnviz.activations(network, images.images, [LAYER])[LAYER][[0, 1], [0, 1], 2:14, 2:14]  # without padding
    torch.testing.assert_close(maps.mean((1, 2)), images.scores)  # what is judged is judged in float32


class Mixed(nn.Module):
    """Makes float32 of its own on the way, and so cannot compute in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images).relu()
        return self.second(maps + torch.linspace(0, 1, images.shape[-1] - 2)).mean((2, 3))


@pytest.mark.usefixtures("bfloat16")
def test_what_cannot_compute_in_bfloat16_computes_in_float32() -> None:
    torch.manual_seed(0)
    network = cnnviz.wrap(Mixed().eval(), name="mixed", input_size=16)
    assert cnnviz.filter_images(network, "second", [0], steps=2, tries=1).settings["precision"] == "float32"
    assert cnnviz.filter_images(network, "first", [0], steps=2, tries=1).settings["precision"] == "bfloat16"
