"""Simple images that nobody optimised: plain colours and stripes, for early layers are best served by these."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cnnviz.synthesis.parametrisations import Size

COLOURS = {
    "black": (0, 0, 0),
    "white": (1, 1, 1),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "cyan": (0, 1, 1),
    "magenta": (1, 0, 1),
    "yellow": (1, 1, 0),
}
# complementary colours
PAIRS: tuple[tuple[str, str], ...] = (("black", "white"), ("red", "cyan"), ("green", "magenta"), ("blue", "yellow"))
WIDTHS = (1, 2, 3, 4, 8)  # of a stripe, in pixels
DIRECTIONS = 8


def patterns(channels: int, size: Size) -> dict[str, Tensor]:
    """Plain colours and stripes by name, (C, H, W) in [0, 1]: 168 of three channels, 42 of others, without colours."""
    colours = {name: _plain(name, channels) for name in COLOURS}
    pairs = PAIRS
    if channels != 3:
        colours, pairs = {name: colours[name] for name in PAIRS[0]}, PAIRS[:1]
    named = {f"plain {name}": colour.expand(channels, *size) for name, colour in colours.items()}
    for width in WIDTHS:
        for direction, bands in enumerate(_bands(width, size)):
            for dark, light in pairs:
                name = f"{dark} and {light} stripes, {width} px, {180 * direction / DIRECTIONS:g} degrees"
                named[name] = torch.where(bands, colours[light], colours[dark])
    return named


def _plain(name: str, channels: int) -> Tensor:
    values = COLOURS[name] if channels == 3 else channels * COLOURS[name][:1]
    return torch.tensor(values, dtype=torch.float32).view(channels, 1, 1)


def _bands(width: int, size: Size) -> Iterator[Tensor]:
    """(H, W) for each direction: where the light stripes are."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    for direction in range(DIRECTIONS):
        angle = math.pi * direction / DIRECTIONS
        across = columns * math.cos(angle) + rows * math.sin(angle) + 1e-4  # not on a border by rounding
        yield (across / width).floor() % 2 == 1
