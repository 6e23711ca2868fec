"""Whether an image succeeded: scored as a person gets it, against pictures that nobody optimised.

An image is judged at 8 bits a colour, without transforms, in float32, by the network as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from cnnviz.errors import PictureError
from cnnviz.isolation import exact
from cnnviz.networks.network import Network
from cnnviz.pictures.reading import picture_files, read_picture
from cnnviz.synthesis.objectives import Objective
from cnnviz.synthesis.parametrisations import Fourier, Size, noise
from cnnviz.synthesis.views import View, Viewer

Status = Literal["ok", "weak", "dead"]
Result = TypeVar("Result")
NOISES = 64  # half of them white, half with the spectrum of natural pictures
FEWEST, LARGE = 4, 256  # pixels a side
MOST = 1024  # pictures of a folder to compare with; of more, as many are taken, evenly spread
OK_FROM = 95.0  # per cent of the references that a score must exceed
BATCH = 16


@dataclass(frozen=True)
class Judgement:
    """What is known of a finished image.

    Attributes:
        score: of the image as shown.
        mean, maximum: over the positions of what the filter gives behind its ReLU; of a class, both its probability;
            NaN where the objective is about no single unit.
        percentile: per cent of the references with a lower score.
        status: "dead" if the filter fires nowhere in its image; "weak" if a twentieth of the references or more do as
            well; "ok" otherwise.
    """

    score: float
    mean: float
    maximum: float
    percentile: float
    status: Status


@dataclass(frozen=True)
class References:
    """Images (R, C, H, W) in [0, 1] that nobody optimised, and what they are, for people."""

    images: Tensor
    text: str


def noise_references(channels: int, size: Size) -> References:
    """Noise, the same at every call: white, and with the spectrum of natural pictures."""
    most = round(NOISES * LARGE**2 / (size[0] * size[1]))  # of large ones fewer, or they would fill the memory
    seeds = range(max(FEWEST, min(most, NOISES)) // 2)
    white = (0.5 + 0.2 * noise(seeds, (channels, *size))).clamp(0, 1)
    spectra = noise([-1 - seed for seed in seeds], (channels, size[0], size[1] // 2 + 1, 2))
    natural = Fourier(0.1 * spectra, size)().detach()
    return References(torch.cat([white, natural]), f"{2 * len(seeds)} noise images")


def natural_references(folder: Path, channels: int, size: Size) -> References:
    """Pictures of a folder, their centres cut to (height, width); what is no picture is passed over.

    Raises:
        PictureError: if there is no picture in the folder.
    """
    files = picture_files(folder)
    if len(files) > MOST:
        files = [files[round(row)] for row in np.linspace(0, len(files) - 1, MOST)]
    images = []
    for path in files:
        try:
            images.append(_cut(read_picture(path).image, channels, size))
        except PictureError:
            continue
    if not images:
        raise PictureError(f"there is no picture in {folder} that can be read; give a folder of photographs.")
    return References(torch.stack(images), f"{len(images)} pictures in {folder.name}")


def _cut(image: Pillow.Image, channels: int, size: Size) -> Tensor:
    factor = max(size[0] / image.height, size[1] / image.width)
    sides = (max(size[1], round(image.width * factor)), max(size[0], round(image.height * factor)))
    left, top = (sides[0] - size[1]) // 2, (sides[1] - size[0]) // 2
    resized = image.convert("L" if channels == 1 else "RGB").resize(sides, Pillow.Resampling.BILINEAR)
    cut = resized.crop((left, top, left + size[1], top + size[0]))
    return torch.from_numpy(np.array(cut, dtype=np.float32).reshape(*size, -1) / 255).permute(2, 0, 1)


def as_shown(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [0, 1] as 8 bits make them, float32."""
    return (images.detach().float().clamp(0, 1) * 255).round() / 255


class Judge:
    """Judges images of one objective and size; before the first one, nothing is copied and nothing runs.

    Args:
        count: how many images the job has.
        batch: how many images the network is shown at a time.
    """

    def __init__(
        self, network: Network, objective: Objective, references: References, count: int, batch: int = BATCH
    ) -> None:
        self.network, self.objective, self.count, self.batch = network, objective, count, batch
        self.references = references.images

    @cached_property
    def _viewer(self) -> Viewer:
        images = self.references[:1].to(self.network.device)
        return Viewer(self.network, self.objective.layers, images, elided=False)

    def scores(self, images: Tensor, rows: Tensor) -> Tensor:
        """(N,): of images as they are."""
        return torch.cat(self._results(images, rows, self._score))

    def __call__(self, images: Tensor, rows: Tensor) -> list[Judgement]:
        """Judge images (N, C, H, W) that are as shown; `rows` (N,) are their places in the job."""
        parts = self._results(images, rows, lambda view: (self._score(view), self._fired(view)))
        scores, fired = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        percentiles = (self._reference_scores[rows] < scores[:, None]).double().mean(1) * 100
        numbers = zip(scores.tolist(), fired.tolist(), percentiles.tolist(), strict=True)
        return [
            Judgement(score, mean, maximum, percentile, _status(maximum, percentile))
            for score, (mean, maximum), percentile in numbers
        ]

    def _score(self, view: View) -> Tensor:
        return self.objective.score(view).cpu()

    def _fired(self, view: View) -> Tensor:
        if self.objective.unit is None:
            return torch.full((len(view.rows), 2), torch.nan)
        values = self.objective.unit(view).cpu().reshape(len(view.rows), -1).clamp(min=0)
        return torch.stack([values.mean(1), values.amax(1)], 1)

    @torch.no_grad()
    def _results(self, images: Tensor, rows: Tensor, look: Callable[[View], Result]) -> list[Result]:
        """What `look` gives for the views of images, `batch` of them at a time."""
        parts = zip(torch.split(images, self.batch), torch.split(rows, self.batch), strict=True)
        with exact():
            return [look(self._viewer(part.to(self.network.device), some)) for part, some in parts]

    @cached_property
    def _reference_scores(self) -> Tensor:
        """(count, R): what each image of the job would score if it were each of the references."""

        def look(view: View) -> Tensor:
            return torch.stack([self._score(view.of(torch.full((len(view.rows),), row))) for row in range(self.count)])

        return torch.cat(self._results(self.references, torch.zeros(len(self.references), dtype=torch.long), look), 1)


def _status(maximum: float, percentile: float) -> Status:
    if maximum == 0:
        return "dead"
    return "ok" if percentile > OK_FROM else "weak"
