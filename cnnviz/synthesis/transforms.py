"""Small random movements of an image, drawn ahead of the ascent, so that it must please the network from everywhere.

A `Transform` draws a 2 x 3 matrix per step from one image's own generator: where the network looks, in pixels from the
canvas's centre, x before y. Transforms follow one another as their matrices multiply (`draws`), and however many there
are, the image is sampled once (`warp`). To add one, write a function that returns a `Transform`.

What lies beyond the canvas is the canvas mirrored, or grey; painted black, it would frame every image.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Transform = Callable[[torch.Generator, int], Tensor]
Outside = Literal["reflection", "grey"]
GREY = 0.5


def jitter(pixels: float, *, whole: bool = False) -> Transform:
    """Shifts by up to so many pixels in each direction; by whole ones, that sampling does not blur, if asked for."""

    def draw(draws: torch.Generator, steps: int) -> Tensor:
        shifts = (2 * torch.rand(steps, 2, generator=draws) - 1) * pixels
        shifts = shifts.round() if whole else shifts
        return torch.cat([torch.eye(2).expand(steps, 2, 2), shifts[:, :, None]], 2)

    return draw


def scale(low: float, high: float) -> Transform:
    """Enlarges by a factor in [low, high]; below 1 it shrinks."""

    def draw(draws: torch.Generator, steps: int) -> Tensor:
        factors = low + (high - low) * torch.rand(steps, generator=draws)
        return torch.eye(2, 3) / factors[:, None, None]

    return draw


def rotate(degrees: float) -> Transform:
    """Turns by up to so many degrees in both directions."""

    def draw(draws: torch.Generator, steps: int) -> Tensor:
        angles = (2 * torch.rand(steps, generator=draws) - 1) * math.radians(degrees)
        cosines, sines = angles.cos(), angles.sin()
        rows = (cosines, -sines, 0 * sines, sines, cosines, 0 * sines)
        return torch.stack(rows, 1).reshape(steps, 2, 3)

    return draw


def zoom(first: float, last: float, size: tuple[int, int]) -> Transform:
    """Looks at a random part of a canvas of (height, width); the part's share of a side goes from `first` to `last`."""

    def draw(draws: torch.Generator, steps: int) -> Tensor:
        shares = torch.linspace(first, last, steps)
        room = (
            (1 - shares[:, None] / 2) * torch.tensor([size[1], size[0]]) / 2
        )  # a little over the edge, or it is seldom seen
        centres = (2 * torch.rand(steps, 2, generator=draws) - 1) * room
        return torch.cat([torch.eye(2) * shares[:, None, None], centres[:, :, None]], 2)

    return draw


def draws(transforms: Sequence[Transform], seeds: Sequence[int], steps: int) -> Tensor | None:
    """The matrices of all transforms one after the other: (steps, N, 2, 3) for N seeds; None without transforms."""
    if not transforms:
        return None
    return torch.stack([_product(transforms, seed, steps) for seed in seeds], 1)


def _product(transforms: Sequence[Transform], seed: int, steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    bottom = torch.tensor([[[0.0, 0.0, 1.0]]]).expand(steps, 1, 3)
    product = torch.eye(3).expand(steps, 3, 3)
    for transform in transforms:
        product = product @ torch.cat([transform(generator, steps), bottom], 1)
    return product[:, :2]


def warp(
    images: Tensor, matrices: Tensor, size: tuple[int, int] | None = None, outside: Outside = "reflection"
) -> Tensor:
    """What the network sees of images through matrices: one bilinear sampling.

    Args:
        images: (N, C, H, W) in [0, 1].
        matrices: (N, 2, 3), from what is seen to the image, in pixels of the image from its centre.
        size: (height, width) of what is seen, if it is to be enlarged; that of the image by default.
        outside: what lies beyond the image.

    Returns:
        (N, C, height, width); with the identity and no other size, the images themselves.
    """
    height, width = images.shape[2:]
    in_x = torch.stack([matrices[:, 0, 0], matrices[:, 0, 1] * (height / width), matrices[:, 0, 2] * (2 / width)], 1)
    in_y = torch.stack([matrices[:, 1, 0] * (width / height), matrices[:, 1, 1], matrices[:, 1, 2] * (2 / height)], 1)
    shares = torch.stack([in_x, in_y], 1)  # of half the image, as affine_grid counts
    grid = functional.affine_grid(shares, [*images.shape[:2], *(size or (height, width))], align_corners=False)
    if outside == "grey":
        return functional.grid_sample(images - GREY, grid, padding_mode="zeros", align_corners=False) + GREY
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
