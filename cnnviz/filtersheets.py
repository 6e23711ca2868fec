"""Synthesized images as pictures: a sheet for reading, a film of how they came about."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnnviz.errors import ShapeError
from cnnviz.files import whole_file
from cnnviz.jobs import frame_distance
from cnnviz.pictures import Pixels
from cnnviz.sheets import Sheet, Tile, columns_for, enlargement, sheet

if TYPE_CHECKING:
    from cnnviz.synthesis import Synthesis

NARROWEST = 150  # pixels: a label, a score and a status side by side
ALONE = 640  # pixels; the width of an image that has no neighbours
FRAME_MS, LAST_MS = 90, 2500
WIDEST_FILM = 600  # pixels


def filters_sheet(found: "Synthesis", made: Mapping[str, object]) -> Sheet:
    """A tile per image; see `Synthesis.sheet`."""
    factor = _factor(found.images)
    notes = [f"{value} {status}" for value, status in zip(_values(found), found.status, strict=True)]
    tiles = [
        Tile(_enlarged(drawable(image), factor), label, note)
        for image, label, note in zip(found.images, found.labels, notes, strict=True)
    ]
    picture = found.picture[2] if found.picture else None
    return sheet(tiles, lines=_lines(found), picture=picture, made=made, factor=1)


def save_film(found: "Synthesis", path: Path) -> Path:
    """Write an animated GIF: the sheet's tiles from the first step to the last."""
    if not found.films or not found.films[0]:
        raise ShapeError("no images on the way were kept; ask for the film before the images are made (film=True).")
    length = max(map(len, found.films))
    frames = [_strip(found, number, length) for number in range(length)]
    with whole_file(path) as file:
        durations = [FRAME_MS] * (length - 1) + [LAST_MS]
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)
    return path


def _strip(found: "Synthesis", number: int, length: int) -> Image.Image:
    """One frame; an image that has settled stands still, and the last frame is the image itself."""
    last = number == length - 1
    states = [
        image if last else frames[min(number, len(frames) - 1)].float() / 255
        for image, frames in zip(found.images, found.films, strict=True)
    ]
    columns = columns_for(len(states), 1)
    factor = max(1, min(_factor(found.images), WIDEST_FILM // (columns * found.images.shape[3])))
    tiles = [Tile(_enlarged(drawable(image), factor), label) for image, label in zip(states, found.labels, strict=True)]
    steps = found.settings["steps"]
    step = steps if last else number * frame_distance(steps) + 1
    drawn = sheet(tiles, lines=[found.title, f"after step {step} of {steps}"], factor=1)
    return Image.fromarray(drawn.pixels).quantize(method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _values(found: "Synthesis") -> list[str]:
    """What stands below each image: a class's probability, or the score."""
    if found.settings["command"] == "classimage":
        return [f"{probability:.1%}" for probability in found.fired[:, 0].tolist()]
    return [_short(score) for score in found.scores.tolist()]


def _lines(found: "Synthesis") -> list[str]:
    height, width = found.images.shape[2:]
    used = found.settings
    value = "the probability that the network gives it" if used["command"] == "classimage" else "its score as shown"
    again = sum(tries > 1 for tries in found.tries)
    failed = ", ".join(
        f"{found.status.count(state)} {state} ({meaning})"
        for state, meaning in (("weak", "no better than these"), ("dead", "never fires"))
        if state in found.status
    )
    return [
        found.title,
        f"recipe {used['recipe']}, {used['steps']} steps, {width} x {height} px, {used['precision']}"
        + (f", seed {used['seed']}" if "seed" in used else "")
        + (f"; {again} made more than once" if again else ""),
        f"maximised: {used['objective']}; compared with {found.references}" + (f"; {failed}" if failed else ""),
        f"weights: {found.network.weights}; below each image its name, {value}, and its status",
    ]


def drawable(image: Tensor) -> Pixels:
    """(C, H, W) in [0, 1] as (H, W, 3), 0 to 255; grey if it has not three channels."""
    values = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return np.broadcast_to(values[..., : 3 if values.shape[2] >= 3 else 1], (*values.shape[:2], 3))


def _factor(images: Tensor) -> int:
    """By how much to enlarge images (N, C, H, W): as sheets do, and so far that the labels fit."""
    count, _, height, width = images.shape
    wanted = enlargement(max(height, width), columns_for(count, width / height)) if count > 1 else ALONE // width
    return max(1, wanted, math.ceil(NARROWEST / width))


def _enlarged(pixels: Pixels, factor: int) -> Pixels:
    """Smoothly: an image's own pixels are no more than samples."""
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC))


def _short(score: float) -> str:
    return f"{score:.0f}" if 100 <= abs(score) < 1e5 else f"{score:.2g}"
