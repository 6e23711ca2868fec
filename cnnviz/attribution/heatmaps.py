"""Attributions as maps: one number per pixel."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional

from cnnviz.attribution.methods import METHODS, method_named

FULL = 0.995  # the share of a map's values, by size, that is not brighter than the last colour


def heat(attributions: Tensor, method: str, size: Sequence[int]) -> Tensor:
    """Attributions as maps: (N, C, H', W') to (N, height, width).

    Signed attributions of a pixel's colour channels add up; of unsigned ones the largest counts (Simonyan et al. 2013).
    Occlusion, feature ablation, LIME and KernelSHAP repeat the effect of a whole region at each of its values: there
    the map is that effect, in units of the score, and colour channels do not add up. Maps of a layer are enlarged
    linearly.
    """
    kind = METHODS[method_named(method)]
    if kind.regions is not None:
        maps = attributions[:, :1]
    elif kind.signed:
        maps = attributions.sum(1, keepdim=True)
    else:
        maps = attributions.abs().amax(1, keepdim=True)
    if maps.shape[2:] != tuple(size):
        maps = functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
    return maps[:, 0]


def is_flat(heat: Tensor) -> bool:
    """Whether a map is the same everywhere: nothing in the image mattered more than anything else."""
    return bool((heat == heat.flatten()[0]).all())


def full_scale(heat: Tensor) -> float:
    """The value that the last colour stands for; 0 if the map is flat zero."""
    sizes = heat.abs().flatten().float()
    scale = np.quantile(sizes.cpu().numpy(), FULL).item()
    return scale or sizes.max().item()
