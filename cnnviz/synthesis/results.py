"""Synthesized images with what is known of them: a sheet for reading, a film of how they came about."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnnviz.errors import ShapeError
from cnnviz.files import whole_file
from cnnviz.networks.network import Network
from cnnviz.networks.provenance import record
from cnnviz.pictures.colours import Pixels, drawable
from cnnviz.pictures.sheets import Sheet, Tile, columns_for, enlargement, sheet
from cnnviz.synthesis.jobs import frame_distance
from cnnviz.synthesis.judgement import Status

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


@dataclass(frozen=True, repr=False)
class Synthesis:
    """N images and what is known of them.

    Attributes:
        network: that was climbed.
        images: (N, C, H, W), float32 in [0, 1], at the 8 bits that files have.
        starts, scores: (N,): of the images before the first step and in the end, as shown.
        fired: (N, 2): mean and maximum of what the filter gives behind its ReLU; of a class, its probability; NaN if
            it is about neither.
        percentiles: (N,): per cent of the references that score less.
        status: "ok", "weak" or "dead", N; see `cnnviz.synthesis.judgement.Judgement`.
        curves: N times (steps,): scores as the network saw the images on the way, moved about and less penalties.
        tries: how many each took, N.
        references: what the scores were compared with.
        labels: a name for each, N.
        title: what the images are.
        settings: everything that determines them.
        films: N times the images on the way, (C, H, W), uint8.
        picture: base name, sha256 and pixels (H', W', 3) of the picture the images are about, if there is one.
    """

    network: Network
    images: Tensor
    starts: Tensor
    scores: Tensor
    fired: Tensor
    percentiles: Tensor
    status: tuple[Status, ...]
    curves: tuple[Tensor, ...]
    tries: tuple[int, ...]
    references: str
    labels: tuple[str, ...]
    title: str
    settings: dict[str, Any]
    films: tuple[Sequence[Tensor], ...]
    picture: tuple[str, str | None, Pixels] | None = None

    def sheet(self) -> Sheet:
        """The images as one picture, below each its label, score and status."""
        name, sha256, _ = self.picture or (None, None, None)
        made = record(
            str(self.settings["command"]),
            self.network,
            settings=self.settings,
            picture=name,
            sha256=sha256,
            results={"score": self.scores.tolist()},
        )
        return filters_sheet(self, made)

    def save(self, path: str | Path) -> Path:
        """Write the sheet as a .png, .jpg or .webp, or, if `path` ends in .gif, the film of how the images came about.

        Raises:
            OutputError: if the file cannot be written there.
            ShapeError: for a film of which nothing was kept.
        """
        path = Path(path)
        return save_film(self, path) if path.suffix.lower() == ".gif" else self.sheet().save(path)

    def rows(self) -> list[dict[str, object]]:
        """What is known of each image, plain enough for JSON."""
        numbers = zip(self.labels, self.starts, self.scores, self.fired, self.percentiles, strict=True)
        rows: list[dict[str, object]] = [
            {"label": label, "start": start.item(), "score": score.item(), "percentile": percentile.item()}
            | ({} if mean.isnan() else {"mean": mean.item(), "max": highest.item()})
            for label, start, score, (mean, highest), percentile in numbers
        ]
        known = zip(rows, self.status, self.tries, strict=True)
        return [row | {"status": status, "tries": tries} for row, status, tries in known]

    def __repr__(self) -> str:
        states = ", ".join(f"{self.status.count(state)} {state}" for state in dict.fromkeys(self.status))
        return f"Synthesis({self.title}: {' x '.join(map(str, self.images.shape))}, {states})"

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def joined(parts: Sequence[Synthesis]) -> Synthesis:
    """One synthesis of several of one network and size; what is not counted by image is the first one's."""
    return replace(
        parts[0],
        images=torch.cat([part.images for part in parts]),
        starts=torch.cat([part.starts for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        fired=torch.cat([part.fired for part in parts]),
        percentiles=torch.cat([part.percentiles for part in parts]),
        status=tuple(chain.from_iterable(part.status for part in parts)),
        curves=tuple(chain.from_iterable(part.curves for part in parts)),
        tries=tuple(chain.from_iterable(part.tries for part in parts)),
        labels=tuple(chain.from_iterable(part.labels for part in parts)),
        films=tuple(chain.from_iterable(part.films for part in parts)),
    )
