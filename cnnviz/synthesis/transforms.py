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


def is_turned(matrices: Tensor) -> bool:
    """Whether any of matrices (..., 2, 3) does more than to move and to scale; on a graphics card this waits for it."""
    return bool((matrices[..., 0, 1].any() | matrices[..., 1, 0].any()).item())


def warp(
    images: Tensor,
    matrices: Tensor,
    size: tuple[int, int] | None = None,
    outside: Outside = "reflection",
    *,
    turned: bool | None = None,
) -> Tensor:
    """What the network sees of images through matrices: one bilinear sampling, whose gradient is the same every time.

    Args:
        images: (N, C, H, W) in [0, 1].
        matrices: (N, 2, 3), from what is seen to the image, in pixels of the image from its centre.
        size: (height, width) of what is seen, if it is to be enlarged; that of the image by default.
        outside: what lies beyond the image.
        turned: what `is_turned` says of the matrices, if that is known.

    Returns:
        (N, C, height, width); with the identity and no other size, or shifted by whole pixels, the images' own values.
    """
    sampled = _turned if (is_turned(matrices) if turned is None else turned) else _straight
    if outside == "grey":
        return sampled(images - GREY, matrices, size or _size(images), zeros=True) + GREY
    return sampled(images, matrices, size or _size(images), zeros=False)


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _straight(images: Tensor, matrices: Tensor, size: tuple[int, int], *, zeros: bool) -> Tensor:
    """By rows and by columns: each is a product with a matrix of two weights a row, as is its gradient."""
    height, width = _size(images)
    rows, columns = _places(size[0], height, images), _places(size[1], width, images)
    down = _weights(rows * matrices[:, 1, 1:2] + matrices[:, 1, 2:] + height / 2, height, zeros)
    across = _weights(columns * matrices[:, 0, :1] + matrices[:, 0, 2:] + width / 2, width, zeros)
    return down[:, None] @ (images @ across[:, None].mT)


def _places(seen: int, length: int, images: Tensor) -> Tensor:
    """(seen,): where along a side of images the middles of what is seen of it lie, in pixels from the centre."""
    return (torch.arange(seen, dtype=images.dtype, device=images.device) + 0.5) * (length / seen) - length / 2


def _weights(places: Tensor, length: int, zeros: bool) -> Tensor:
    """(N, seen, length): what each pixel of an image counts for at places (N, seen), from its edge, along one side."""
    nearest = _inside(places, length, zeros)[:, :, None] - torch.arange(length, device=places.device)
    return (1 - nearest.abs()).clamp(min=0)


def _inside(places: Tensor, length: int, zeros: bool) -> Tensor:
    """Places, counted in pixels' middles; those beyond an edge mirrored at it, unless there are zeros."""
    if zeros:
        return places - 0.5
    places = places % (2 * length)
    return (torch.minimum(places, 2 * length - places) - 0.5).clamp(0, length - 1)


def _turned(images: Tensor, matrices: Tensor, size: tuple[int, int], *, zeros: bool) -> Tensor:
    """From the four pixels around each place.

    PyTorch's `grid_sample` does the same, but its gradient on a graphics card adds in any order, and so it is another
    one each time.
    """
    height, width = _size(images)
    rows, columns = _places(size[0], height, images), _places(size[1], width, images)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (height, width, 2), x before y
    x, y = (torch.einsum("nij,hwj->nihw", matrices[:, :, :2], grid) + matrices[:, :, 2, None, None]).unbind(1)
    x, y = _inside(x + width / 2, width, zeros), _inside(y + height / 2, height, zeros)
    each, colour = (
        torch.arange(count, device=images.device).view(shape)
        for count, shape in zip(images.shape[:2], ((-1, 1, 1, 1), (1, -1, 1, 1)), strict=True)
    )
    sampled = torch.zeros((), dtype=images.dtype, device=images.device)
    for left, top in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = x.floor() + left, y.floor() + top
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
        weight = weight * ((column >= 0) & (column < width) & (row >= 0) & (row < height))
        column, row = column.long().clamp(0, width - 1), row.long().clamp(0, height - 1)
        sampled = sampled + weight[:, None] * images[each, colour, row[:, None], column[:, None]]
    return sampled
