"""Whether an image succeeded: scored as a person gets it, against images that nobody optimised.

An image is judged at 8 bits a colour, without transforms, in float32, by the network as it is. References are looked
at in the job's numbers first, and those that come near enough to count again in float32.
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
from cnnviz.pictures.reading import Picture, picture_files, read_picture
from cnnviz.synthesis.objectives import Objective
from cnnviz.synthesis.parametrisations import Fourier, Size, noise
from cnnviz.synthesis.patterns import patterns
from cnnviz.synthesis.views import View, Viewer

Status = Literal["ok", "weak", "dead"]
Result = TypeVar("Result")
PHOTOGRAPHS = Path(__file__).with_name("photographs")
NOISES = 16  # half of them white, half with the spectrum of natural images
MOST = 1024  # images of a folder to compare with; of more, as many are taken, evenly spread
BATCH = 16
ROUNDING = 1e-4  # by which scores of the same image differ with the shape of a batch
NEAR = 0.05  # share of the highest score within which bfloat16 leaves open which of two is higher


@dataclass(frozen=True)
class Judgement:
    """What is known of a finished image.

    Attributes:
        score: of the image as shown.
        mean, maximum: over the positions of what the filter gives behind its ReLU; of a class, both its probability;
            NaN where the objective is about no single unit.
        percentile: per cent of the references with a lower score.
        best: the reference that scores highest, and
        best_score: how high.
        status: "dead" if the filter fires nowhere in its image; "weak" if a reference scores more; "ok" otherwise.
    """

    score: float
    mean: float
    maximum: float
    percentile: float
    best: str
    best_score: float
    status: Status


@dataclass(frozen=True)
class References:
    """Images that nobody optimised.

    Attributes:
        images: (R, C, H, W) in [0, 1].
        names: R, a name for each.
        patterns: how many at the front are simple patterns.
        text: what they are, for people.
    """

    images: Tensor
    names: tuple[str, ...]
    patterns: int
    text: str


def references_for(channels: int, size: Size, own: Path | Picture | None = None) -> References:
    """What a synthesized image is judged against.

    Simple patterns (see `cnnviz.synthesis.patterns`), noise, photographs that come with cnnviz, and the user's own.

    Args:
        own: a folder of images, or a single one.

    Raises:
        PictureError: if there is no image in the folder.
    """
    simple = patterns(channels, size)
    named = simple | noise_images(channels, size)
    counts = [f"{len(simple)} simple patterns", f"{NOISES} noise images"]
    if channels in (1, 3):
        photographs = natural_images(PHOTOGRAPHS, channels, size)
        named |= photographs
        counts.append(f"{len(photographs)} photographs")
    if isinstance(own, Path):
        images = natural_images(own, channels, size)
        named |= images
        counts.append(f"{len(images)} images in {own.name}")
    elif own is not None:
        named[own.name] = _cut(own.image, channels, size)
        counts.append(own.name)
    return References(torch.stack([*named.values()]), tuple(named), len(simple), ", ".join(counts))


def noise_images(channels: int, size: Size) -> dict[str, Tensor]:
    """Noise by name, the same at every call: white, and with the spectrum of natural images."""
    seeds = range(NOISES // 2)
    white = (0.5 + 0.2 * noise(seeds, (channels, *size))).clamp(0, 1)
    spectra = noise([-1 - seed for seed in seeds], (channels, size[0], size[1] // 2 + 1, 2))
    natural = Fourier(0.1 * spectra, size)().detach()
    named = {"white noise": white, "noise with a natural spectrum": natural}
    return {f"{name} {seed}": images[seed] for name, images in named.items() for seed in seeds}


def natural_images(folder: Path, channels: int, size: Size) -> dict[str, Tensor]:
    """Images of a folder by file name, their centres cut to (height, width); what is no image is passed over.

    Raises:
        PictureError: if there is no image in the folder.
    """
    files = picture_files(folder)
    if len(files) > MOST:
        files = [files[round(row)] for row in np.linspace(0, len(files) - 1, MOST)]
    images = {}
    for path in files:
        try:
            images[path.name] = _cut(read_picture(path).image, channels, size)
        except PictureError:
            continue
    if not images:
        raise PictureError(f"there is no image in {folder} that can be read; give a folder of photographs.")
    return images


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
        dtype: what the network computes in where it needs not be exact.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        references: References,
        count: int,
        batch: int = BATCH,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.network, self.objective, self.count, self.batch, self.dtype = network, objective, count, batch, dtype
        self.references = references
        self._exact = torch.full((len(references.images),), dtype == torch.float32)

    def scores(self, images: Tensor, rows: Tensor) -> Tensor:
        """(N,): of images as they are."""
        return torch.cat(self._results(self._viewer, images, rows, self._score))

    def __call__(self, images: Tensor, rows: Tensor) -> list[Judgement]:
        """Judge images (N, C, H, W) that are as shown; `rows` (N,) are their places in the job."""
        parts = self._results(self._viewer, images, rows, lambda view: (self._score(view), self._fired(view)))
        scores, fired = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        references = self._exact_near(rows, slice(None), scores)
        percentiles = (references < scores[:, None]).double().mean(1) * 100
        highest, places = references.max(1)
        numbers = (tensor.tolist() for tensor in (scores, fired, percentiles, highest, places))
        return [
            Judgement(
                score, mean, maximum, percentile, self.references.names[place], best, _status(score, maximum, best)
            )
            for score, (mean, maximum), percentile, best, place in zip(*numbers, strict=True)
        ]

    def best_patterns(self, rows: Tensor) -> Tensor:
        """(N, C, H, W): for images of the job the simple pattern that scores highest."""
        scores = self._exact_near(rows, slice(self.references.patterns))
        return self.references.images[scores.argmax(1)]

    def _exact_near(self, rows: Tensor, some: slice, scores: Tensor | None = None) -> Tensor:
        """(N, R): what some references score, exact where they are near the highest of them, or near `scores` (N,)."""
        known = self._reference_scores[rows, some]
        highest = known.amax(1, keepdim=True)
        near = known >= highest - NEAR * highest.abs()
        if scores is not None:
            near |= (known - scores[:, None]).abs() <= NEAR * highest.abs()
        asked = torch.zeros_like(self._exact)
        asked[some] = near.any(0)
        asked &= ~self._exact
        if asked.any():
            self._reference_scores[:, asked] = self._scored(self._viewer, self.references.images[asked])
            self._exact |= asked
        return self._reference_scores[rows, some]

    @cached_property
    def _viewer(self) -> Viewer:
        return self._looking(torch.float32)

    def _looking(self, dtype: torch.dtype) -> Viewer:
        images = self.references.images[:1].to(self.network.device)
        return Viewer(self.network, self.objective.layers, images, dtype=dtype, elided=False)

    @cached_property
    def _reference_scores(self) -> Tensor:
        """(count, R): what each image of the job would score if it were each of the references."""
        viewer = self._viewer if self.dtype == torch.float32 else self._looking(self.dtype)
        return self._scored(viewer, self.references.images)

    def _scored(self, viewer: Viewer, images: Tensor) -> Tensor:
        def look(view: View) -> Tensor:
            return torch.stack([self._score(view.of(torch.full((len(view.rows),), row))) for row in range(self.count)])

        return torch.cat(self._results(viewer, images, torch.zeros(len(images), dtype=torch.long), look), 1)

    def _score(self, view: View) -> Tensor:
        return self.objective.score(view).cpu()

    def _fired(self, view: View) -> Tensor:
        if self.objective.unit is None:
            return torch.full((len(view.rows), 2), torch.nan)
        values = self.objective.unit(view).cpu().reshape(len(view.rows), -1).clamp(min=0)
        return torch.stack([values.mean(1), values.amax(1)], 1)

    @torch.no_grad()
    def _results(self, viewer: Viewer, images: Tensor, rows: Tensor, look: Callable[[View], Result]) -> list[Result]:
        """What `look` gives for the views of images, `batch` of them at a time."""
        parts = zip(torch.split(images, self.batch), torch.split(rows, self.batch), strict=True)
        with exact():
            return [look(viewer(part.to(self.network.device), some)) for part, some in parts]


def _status(score: float, maximum: float, best: float) -> Status:
    if maximum == 0:
        return "dead"
    return "ok" if score >= best - ROUNDING * abs(best) else "weak"
