"""Attributions as maps: one number per pixel, where in the user's own image it falls, and overlays."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cnnviz.attribution.methods import METHODS, method_named
from cnnviz.networks.inputs import Shown, unseen_dimmed
from cnnviz.pictures.colours import Pixels, Values, painted

FULL = 0.995  # the share of a map's values, by size, that is not brighter than the last colour
VIVID = 0.6  # of the full scale: the palest colour that is laid over an image, where white would mean nothing


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


def placed(heat: Tensor, shown: Shown, size: tuple[int, int]) -> Values:
    """A map (h, w) of what the network saw, in the coordinates of the image scaled to `size`: (height, width).

    NaN where the network saw nothing of the image.
    """
    picture = shown.pictures[0]
    left, top, right, bottom = shown.seen
    rows, columns = (
        ((torch.arange(side) + 0.5) / side * full - start) / (end - start) * 2 - 1
        for side, full, start, end in (
            (size[0], picture.shape[0], top, bottom),
            (size[1], picture.shape[1], left, right),
        )
    )
    y, x = torch.meshgrid(rows.float(), columns.float(), indexing="ij")
    values = functional.grid_sample(
        heat[None, None].float().cpu(), torch.stack([x, y], -1)[None], padding_mode="border", align_corners=False
    )[0, 0]
    values[(x.abs() > 1) | (y.abs() > 1)] = torch.nan
    array: Values = values.numpy()
    return array


def full_scale(heat: Tensor) -> float:
    """The value that the last colour stands for; 0 if the map is flat zero."""
    sizes = heat.abs().flatten().float()
    scale = np.quantile(sizes.cpu().numpy(), FULL).item()
    return scale or sizes.max().item()


def overlaid(shown: Shown, values: Values, scale: float, *, signed: bool) -> Pixels:
    """The image in grey, the map's colours laid over it the more densely the larger the values are."""
    height, width = values.shape
    picture = Image.fromarray(unseen_dimmed(shown, 0)).convert("L").resize((width, height), Image.Resampling.LANCZOS)
    grey = np.asarray(picture, dtype=np.float32)[..., None].repeat(3, 2)
    strength = np.nan_to_num(np.clip(np.abs(values) / (scale or 1), 0, 1))[..., None] ** 0.6
    vivid = np.sign(values) * np.maximum(np.abs(values), VIVID * scale) if signed else values
    colours = painted(vivid, scale, signed=signed)
    mixed: Pixels = np.rint(grey * (1 - 0.85 * strength) + colours * 0.85 * strength).astype(np.uint8)
    return mixed
