"""Max pooling by DeepLift's rescale rule, exactly.

captum's own rule is not applied where a pool stands directly behind a ReLU module, and keeps one of several
contributions where windows overlap. Here the difference of a maximum from its reference goes to the two values it is
between, as in captum's rule, and contributions add up.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SAME = 1e-10  # differences from the reference that captum counts as none


def rescale_pools(module: nn.Module) -> None:
    """Put a `RescaledMaxPool2d` in the place of every max pool of `module`, whose modules are ours."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child) is nn.MaxPool2d:
                setattr(part, name, RescaledMaxPool2d(child))


class RescaledMaxPool2d(nn.Module):
    """A max pool of images and, in the second half of the batch, their references."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.windows = pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = _Rescaled.apply(maps, self.windows)
        return output


class _Rescaled(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, maps: Tensor, windows: tuple[Any, ...]) -> Tensor:
        output, places = functional.max_pool2d(maps, *windows, return_indices=True)
        context.save_for_backward(maps, output, places)
        return output

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        maps, output, places = context.saved_tensors
        (own, reference), multiplier = output.chunk(2), gradients[0].chunk(2)[0]
        higher = torch.maximum(own, reference)
        shares = torch.cat([multiplier * (higher - reference), multiplier * (own - higher)])
        contributions = sum(_put(shares, places, maps).chunk(2))
        plain = _put(torch.cat([multiplier, multiplier]), places, maps).chunk(2)[0]
        difference = torch.sub(*maps.chunk(2))
        same = difference.abs() < SAME
        multipliers = torch.where(same, plain, contributions / difference.masked_fill(same, 1))
        return torch.cat([multipliers, multipliers]), None


def _put(values: Tensor, places: Tensor, maps: Tensor) -> Tensor:
    """Values of windows at the places of their maxima in the maps, added up where these are the same."""
    flat = maps.new_zeros(maps.shape).flatten(2)
    return flat.scatter_add(2, places.flatten(2), values.flatten(2)).view(maps.shape)
