"""One channel per image of a convolution and of what follows it, against all channels by PyTorch."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import cnnviz
from cnnviz.networks.activated import Call
from cnnviz.synthesis.views import DeferredConvolution

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "3 x 3": {"kernel_size": 3, "padding": 1},
    "1 x 1": {"kernel_size": 1},
    "without padding or bias": {"kernel_size": 3, "bias": False},
    "oblong and dilated": {"kernel_size": (3, 5), "padding": (2, 1), "dilation": (2, 1)},
    "with a stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "mirrored": {"kernel_size": 7, "stride": (2, 1), "padding": 3, "padding_mode": "reflect"},
    "periodic": {"kernel_size": 3, "padding": "same", "padding_mode": "circular", "dilation": 2},
    "as large as the image": {"kernel_size": (12, 14)},
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_one_channel_per_image_is_that_of_all(kind: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    module, slopes = nn.Conv2d(5, 7, **CONVOLUTIONS[kind]).double(), torch.rand(7, dtype=torch.float64)
    given = torch.randn(4, 5, 12, 14, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    channels, images = torch.tensor([3, 0, 6, 3]), torch.arange(4)
    path = [Call("prelu", functional.prelu, (slopes,), {})]
    before, after = DeferredConvolution(module, given, ["x"], path, {}).activation(channels)
    expected = module(given)
    torch.testing.assert_close(before, expected[images, channels].float(), rtol=1e-6, atol=1e-6)
    activated = functional.prelu(expected, slopes)[images, channels]
    torch.testing.assert_close(after, activated.float(), rtol=1e-6, atol=1e-6)
    weights = torch.rand_like(activated)
    (gradient,), (wanted,) = (
        torch.autograd.grad((maps * weights).sum(), given) for maps in (after.double(), activated)
    )
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-6)


class OneChannel(nn.Module):
    """A convolution of one channel, its batch norm, and a ReLU that writes into what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 1, 3), nn.BatchNorm2d(1), nn.Linear(1, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(functional.relu(self.norm(self.conv(images)), inplace=True).mean((2, 3)))


def test_one_channel_with_batch_norm_and_what_enters_a_relu_that_writes_in_place() -> None:
    torch.manual_seed(1)
    network = cnnviz.wrap(OneChannel().eval(), name="one", input_size=16)
    after = cnnviz.filter_images(network, "conv", [0, 0, 0], steps=2, size=16)
    before = cnnviz.filter_images(network, "conv:pre", [0], steps=2, size=16)
    images = torch.cat([after.images[:1], before.images])
    entering = network.module.norm(network.module.conv((images - network.mean) / network.std))[:, 0]
    assert after.scores[0].item() == pytest.approx(entering[0].relu().mean().item(), rel=1e-4)
    assert before.scores[0].item() == pytest.approx(entering[1].mean().item(), rel=1e-4)
