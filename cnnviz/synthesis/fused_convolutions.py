"""Convolutions that add their bias and apply the ReLU behind them in one kernel, not in three passes over memory.

Only where a plain ``nn.Sequential`` runs an ``nn.Conv2d`` and an ``nn.ReLU`` right behind it, which nobody listens to:
then nobody sees what is between the two. Everything else runs as it is.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

Kernel = Callable[[Tensor, nn.Conv2d], Tensor]
CLOSE = 8  # units in the last place by which a kernel may differ from what it stands for


def fuse(module: nn.Module, device: torch.device) -> None:
    """Let the ``nn.Sequential`` in a module, nobody else's, run convolutions together with the ReLUs behind them.

    Only on devices that have a kernel for it.
    """
    if device.type not in KERNELS:
        return
    for part in module.modules():
        if type(part) is nn.Sequential and "forward" not in vars(part):
            part.__class__ = _Fused


class _Fused(nn.Sequential):
    """A sequence that runs pairs of convolution and ReLU as one."""

    def forward(self, values: Tensor) -> Tensor:
        modules, place = list(self), 0
        while place < len(modules):
            module, behind = modules[place], modules[place + 1] if place + 1 < len(modules) else None
            if _is_pair(module, behind) and _fits(values, module):
                values = _ConvolutionAndReLU.apply(values, module)
                place += 2
            else:
                values = module(values)
                place += 1
        return values


def _is_pair(module: nn.Module, behind: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    if type(module) is not nn.Conv2d or type(behind) is not nn.ReLU:
        return False
    padded = isinstance(module.padding, tuple) and module.padding_mode == "zeros"
    return padded and not any(
        part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in (module, behind)
    )


def _fits(values: object, module: nn.Conv2d) -> bool:
    if not isinstance(values, Tensor) or values.ndim != 4 or values.dtype != module.weight.dtype:
        return False
    return values.device == module.weight.device and fused_kernel(values.device, values.dtype) is not None


class _ConvolutionAndReLU(torch.autograd.Function):
    """The ReLU of a convolution whose weights stay as they are; its gradient needs nothing but the result."""

    @staticmethod
    def forward(context: Any, values: Tensor, module: nn.Conv2d) -> Tensor:
        kernel = fused_kernel(values.device, values.dtype)
        assert kernel is not None
        after = kernel(values, module)
        context.save_for_backward(values, after)
        context.module = module
        return after

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (values, after), module = context.saved_tensors, context.module
        passed = torch.ops.aten.threshold_backward(gradients[0], after, 0)
        back, _, _ = torch.ops.aten.convolution_backward(
            passed,
            values,
            module.weight,
            None if module.bias is None else module.bias.shape,
            *(module.stride, module.padding, module.dilation, False, (0, 0), module.groups),
            (True, False, False),
        )
        return back, None


@lru_cache(maxsize=32)
@torch.no_grad()
def fused_kernel(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """The kernel for a device and its numbers; None if there is none, or it gives something else than the plain ones.

    Each is tried once on a small convolution, for which are there depends on how PyTorch was built.
    """
    kernel = KERNELS.get(device.type)
    if kernel is None:
        return None
    module = nn.Conv2d(16, 16, 3, padding=1, device="meta").to_empty(device=device).to(dtype)
    module.weight.copy_(_between(module.weight.shape))
    assert module.bias is not None
    module.bias.copy_(_between(module.bias.shape))
    values = _between((2, 16, 8, 8)).to(device, dtype).contiguous(memory_format=torch.channels_last)
    plain = module(values).relu().float()
    try:
        differs = (kernel(values, module).float() - plain).abs().max()
    except (RuntimeError, AttributeError, NotImplementedError):
        return None
    return kernel if differs <= CLOSE * torch.finfo(dtype).eps * plain.max() else None


def _between(shape: tuple[int, ...]) -> Tensor:
    """Numbers from -1 to 1 in no order, without a generator."""
    return torch.arange(1, torch.Size(shape).numel() + 1).float().sin().view(shape)


def _cudnn(values: Tensor, module: nn.Conv2d) -> Tensor:
    assert isinstance(module.padding, tuple)
    return torch.cudnn_convolution_relu(
        values, module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups
    )


KERNELS: dict[str, Kernel] = {"cuda": _cudnn}  # by kind of device; on processors oneDNN's saves no time
