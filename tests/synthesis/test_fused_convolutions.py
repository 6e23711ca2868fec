"""Convolution, bias and ReLU in one kernel, against PyTorch's three.

Graphics cards have such a kernel (cuDNN's); here it is oneDNN's, in the same place.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.networks.network import Network
from cnnviz.synthesis import fused_convolutions
from cnnviz.synthesis.fused_convolutions import KERNELS, fuse, fused_kernel

CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "3 x 3": {"kernel_size": 3, "padding": 1},
    "1 x 1 without bias": {"kernel_size": 1, "bias": False},
    "oblong, dilated, in groups": {"kernel_size": (3, 5), "padding": (2, 1), "dilation": (2, 1), "groups": 2},
    "with a stride": {"kernel_size": 3, "stride": (2, 1)},
}
needs_kernel = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch has no oneDNN here")


def onednn(values: Tensor, module: nn.Conv2d) -> Tensor:
    shape = module.padding, module.stride, module.dilation, module.groups
    return torch.ops.mkldnn._convolution_pointwise(values, module.weight, module.bias, *shape, "relu", [], "")


@pytest.fixture(autouse=True)
def kernel_of_processors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(KERNELS, "cpu", onednn)
    fused_kernel.cache_clear()
    yield
    fused_kernel.cache_clear()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[nn.Conv2d]:
    """The convolutions that run in one kernel with their ReLUs."""
    ran: list[nn.Conv2d] = []
    plain = fused_convolutions._ConvolutionAndReLU.apply
    monkeypatch.setattr(
        fused_convolutions._ConvolutionAndReLU,
        "apply",
        lambda values, module: (ran.append(module), plain(values, module))[1],
    )
    return ran


def with_gradient(module: nn.Module, values: Tensor) -> tuple[Tensor, Tensor]:
    given = values.clone().requires_grad_()
    output = module(given)
    weights = torch.arange(output.numel()).to(output).sin().view_as(output)
    return output.detach(), torch.autograd.grad((output * weights).sum(), given)[0]


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", KINDS)
def test_one_kernel_gives_what_three_give(
    kind: str, layout: torch.memory_format, dtype: torch.dtype, calls: list[nn.Conv2d]
) -> None:
    if fused_kernel(CPU, dtype) is None:
        pytest.skip(f"no kernel for {dtype}")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 8, **KINDS[kind]), nn.ReLU()).to(dtype).requires_grad_(False)
    values = torch.randn(3, 4, 11, 14).to(dtype).contiguous(memory_format=layout)
    expected = with_gradient(module, values)
    fuse(module, CPU)
    for own, wanted in zip(with_gradient(module, values), expected, strict=True):
        torch.testing.assert_close(own, wanted)
    assert len(calls) == 1


def hooked(module: nn.Sequential) -> None:
    module[0].register_forward_hook(lambda _, __, output: output + 1)


def hooked_behind(module: nn.Sequential) -> None:
    module[1].register_forward_pre_hook(lambda _, given: (given[0] - 0.5,))


def own_forward(module: nn.Sequential) -> None:
    module[0].forward = lambda given: given.repeat(1, 2, 1, 1)


def other_padding(module: nn.Sequential) -> None:
    module[0] = nn.Conv2d(4, 8, 3, padding="same", padding_mode="reflect").requires_grad_(False)


def other_activation(module: nn.Sequential) -> None:
    module[1] = nn.LeakyReLU()


@pytest.mark.parametrize("change", [hooked, hooked_behind, own_forward, other_padding, other_activation])
def test_what_somebody_looks_at_or_changes_runs_as_it_is(
    change: Callable[[nn.Sequential], None], calls: list[nn.Conv2d]
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU()).requires_grad_(False)
    change(module)
    values = torch.randn(2, 4, 9, 9)
    expected = module(values)
    fuse(module, CPU)
    assert torch.equal(module(values), expected)
    assert not calls


class TakesApart(nn.Module):
    """Runs the members of its sequence itself, and adds up what is before the ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))

    def forward(self, images: Tensor) -> Tensor:
        before = self.features[0](images)
        return (before.sum((1, 2, 3)) + self.features[2](self.features[1](before)).sum((1, 2, 3)))[:, None]


def test_a_network_that_runs_the_members_itself_sees_what_is_between(calls: list[nn.Conv2d]) -> None:
    module = TakesApart().requires_grad_(False)
    images = torch.rand(2, 3, 8, 8)
    expected = module(images)
    fuse(module, CPU)
    assert torch.equal(module(images), expected)
    assert not calls


@needs_kernel
@pytest.mark.parametrize("layer", ["block3_conv2", "block3_conv2:pre", "block2_conv1 + block3_conv1"])
def test_an_ascent_climbs_the_same_way(
    layer: str, mini: Network, calls: list[nn.Conv2d], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = " + ".join(f"{part}:3" for part in layer.split(" + "))
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))

    def climbed() -> Tensor:
        return [step.image().detach().clone() for step in cnnviz.ascend(mini, objective, images, steps=4)][-1]

    fused = climbed()
    ran = len(calls)
    monkeypatch.delitem(KERNELS, "cpu")
    torch.testing.assert_close(fused, climbed(), rtol=1e-5, atol=1e-5)
    assert len(calls) == ran
    assert (ran > 0) == ("+" not in layer)


def test_a_kernel_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KERNELS, "cpu", lambda values, module: module(values))
    assert fused_kernel(CPU, torch.float32) is None


def test_a_kernel_that_fails_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(values: Tensor, module: nn.Conv2d) -> Tensor:
        raise RuntimeError("not built in")

    monkeypatch.setitem(KERNELS, "cpu", fails)
    assert fused_kernel(CPU, torch.float32) is None
