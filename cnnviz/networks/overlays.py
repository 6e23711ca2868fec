"""Maps of what a network saw, placed in the user's own image, and laid over it."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cnnviz.networks.inputs import Shown, unseen_dimmed
from cnnviz.pictures.colours import FEATURES, SIGNED, UNSIGNED, Pixels, Values, colour_map, coloured
from cnnviz.pictures.drawings import is_small, resized

ALPHA = 0.8  # the opacity of the largest values
SIGNED_SHARES = (0.55, 0.85)  # of the palette's halves that overlays use: white says nothing, and the ends are dark
DARKEST_UNSIGNED = 0.35  # share of the palette at which overlays begin
FADING = 0.8  # opacity is importance to this power
Enlargement = Literal["bilinear", "bicubic", "nearest"]


def placed(
    heat: Tensor, shown: Shown, size: tuple[int, int], *, image: int = 0, mode: Enlargement = "bilinear"
) -> Values:
    """A map (h, w) of what the network saw, in the coordinates of the image scaled to `size`: (height, width).

    NaN where the network saw nothing of the image. Bicubic interpolation stays within the map's range.
    """
    picture = shown.pictures[image]
    left, top, right, bottom = shown.seen
    rows, columns = (
        ((torch.arange(side) + 0.5) / side * full - start) / (end - start) * 2 - 1
        for side, full, start, end in (
            (size[0], picture.shape[0], top, bottom),
            (size[1], picture.shape[1], left, right),
        )
    )
    y, x = torch.meshgrid(rows.float(), columns.float(), indexing="ij")
    source = heat[None, None].float().cpu()
    values = functional.grid_sample(
        source, torch.stack([x, y], -1)[None], mode=mode, padding_mode="border", align_corners=False
    )[0, 0].clamp(source.min().item(), source.max().item())
    values[(x.abs() > 1) | (y.abs() > 1)] = torch.nan
    array: Values = values.numpy()
    return array


def enlargement_of(shown: Shown, image: int = 0) -> Enlargement:
    """How maps of a network's input are enlarged: as squares where the image is so small that its pixels are."""
    return "nearest" if is_small(shown.pictures[image]) else "bilinear"


def photograph(shown: Shown, size: tuple[int, int], image: int = 0) -> Pixels:
    """The image in another size (height, width), with whatever the network did not see of it nearly white."""
    pixels = unseen_dimmed(shown, image)
    return resized(pixels, *size, smooth=not is_small(pixels))


def overlaid(
    shown: Shown,
    values: Values,
    scale: float,
    *,
    signed: bool,
    alpha: float = ALPHA,
    cmap: str = UNSIGNED,
    image: int = 0,
) -> Pixels:
    """The image in its colours under those of a map, whose opacity follows the size of the values.

    Args:
        values: as `placed` gives them.
        scale: the size of a value that is drawn in the last colour, and with opacity `alpha`; zero is transparent.
        signed: whether values diverge around zero, in red and blue.
        alpha: in [0, 1].
        cmap: one of matplotlib's colour maps, for values without a sign.
    """
    share = np.clip(np.nan_to_num(values) / (scale or 1), -1 if signed else 0, 1)
    importance = np.abs(share)
    if signed:
        first, last = SIGNED_SHARES
        vivid = np.sign(share) * (first + (last - first) * importance)
        colours = coloured((vivid + 1) / 2, colour_map(SIGNED))
    else:
        colours = coloured(DARKEST_UNSIGNED + (1 - DARKEST_UNSIGNED) * importance, colour_map(cmap))
    opacity = alpha * importance[..., None] ** FADING
    mixed: Pixels = np.rint(photograph(shown, values.shape, image) * (1 - opacity) + colours * opacity).astype(np.uint8)
    return mixed


def map_over(shown: Shown, values: Tensor, size: tuple[int, int] | None = None) -> Pixels:
    """A feature map (h, w) in the colours of sheets over the image, its minimum transparent.

    Args:
        size: (height, width) of the result; the image's own by default.
    """
    low, high = values.min().item(), values.max().item()
    height, width, _ = shown.pictures[0].shape
    enlarged = placed(values, shown, size or (height, width), mode="bicubic")
    return overlaid(shown, enlarged - low, high - low, signed=False, cmap=FEATURES)
