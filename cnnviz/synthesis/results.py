"""Synthesized images with what is known of them: sheets, and animations of the optimization."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from PIL import Image
from torch import Tensor

from cnnviz.errors import ShapeError, check_keywords
from cnnviz.files import whole_file
from cnnviz.networks.network import Network
from cnnviz.networks.provenance import record
from cnnviz.pictures.colours import Pixels, drawable
from cnnviz.pictures.drawings import is_small
from cnnviz.pictures.sheets import Layout, Sheet, Tile, alike, columns_for, enlargement, layout_settings, sheet
from cnnviz.synthesis.jobs import SynthesizedImage, frame_distance
from cnnviz.synthesis.judgement import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NARROWEST = 150  # pixels: a label, a score and a status side by side
ALONE = 640  # pixels; the width of an image that has no neighbours
FRAME_MS, LAST_MS = 90, 2500
WIDEST_FILM = 600  # pixels
LISTED = 3  # filters that failed, by name


def filters_sheet(synthesis: "Synthesis", recorded: Mapping[str, object], layout: Layout) -> Sheet:
    """A tile per image; see `Synthesis.sheet`."""
    images = synthesis.synthesized
    tiles = [
        Tile(drawable(image.image), image.label, note) for image, note in zip(images, _notes(synthesis), strict=True)
    ]
    return sheet(
        tiles,
        lines=_lines(synthesis),
        picture=synthesis.picture[2] if synthesis.picture else None,
        made=recorded,
        factor=_factor(images, layout.get("columns")),
        smooth=not is_small(tiles[0].pixels),
        **layout,
    )


def save_film(synthesis: "Synthesis", path: Path) -> Path:
    """Write an animated GIF: the sheet's tiles from the first step to the last."""
    length = max(map(len, synthesis.films))
    if not length:
        raise ShapeError("no images on the way were kept; ask for the film before the images are made (film=True).")
    frames = [_strip(synthesis, number, length) for number in range(length)]
    with whole_file(path) as file:
        durations = [FRAME_MS] * (length - 1) + [LAST_MS]
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)
    return path


def _strip(synthesis: "Synthesis", number: int, length: int) -> Image.Image:
    """One frame; an image that has settled stands still, and the last frame is the image itself."""
    last = number == length - 1
    images, steps = synthesis.synthesized, synthesis.settings["steps"]
    width = columns_for(len(images), 1) * images[0].image.shape[2]
    factor = max(1, min(_factor(images), WIDEST_FILM // width))
    states = [image.image if last else image.film[min(number, len(image.film) - 1)].float() / 255 for image in images]
    tiles = [Tile(drawable(state), image.label) for state, image in zip(states, images, strict=True)]
    step = steps if last else number * frame_distance(steps) + 1
    lines, smooth = [synthesis.title, f"after step {step} of {steps}"], not is_small(tiles[0].pixels)
    drawn = sheet(tiles, lines=lines, factor=factor, smooth=smooth)
    return Image.fromarray(drawn.pixels).quantize(method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _notes(synthesis: "Synthesis") -> list[str]:
    """What stands below each image: a class's probability, or the score; and the status, but of images about an image.

    Simple patterns say nothing of these: stripes may score more than a dream, which keeps to its image.
    """
    judgements = [image.judgement for image in synthesis.synthesized]
    if synthesis.settings["command"] == "classimage" and synthesis.network.outputs != "value":
        values = [f"{judgement.mean:.1%}" for judgement in judgements]
    else:
        values = alike([judgement.score for judgement in judgements])
    if synthesis.picture:
        return values
    return [f"{value} {judgement.status}" for value, judgement in zip(values, judgements, strict=True)]


def _lines(synthesis: "Synthesis") -> list[str]:
    height, width = synthesis.synthesized[0].image.shape[1:]
    used, network = synthesis.settings, synthesis.network
    again = sum(tries > 1 for tries in synthesis.tries)
    how = [f"{used['steps']} steps, {width} x {height} px, {used['precision']}"]
    how += [f", seed {used['seed']}"] if "seed" in used else []
    how += [f"; {again} optimized more than once"] if again else []
    how += [f"; {network.name}, weights: {network.weights}"]
    probable = used["command"] == "classimage" and network.outputs != "value"
    value = "probability of the class" if probable else f"score ({used['objective']})"
    if synthesis.picture:
        return [synthesis.title, f"image: {synthesis.picture[0]}", "".join(how), f"below: {value}"]
    return [
        synthesis.title,
        f"recipe {used['recipe']}, {''.join(how)}",
        f"below each image: {value}; ok: no less than the best of {synthesis.references}",
        *_failures(synthesis.synthesized),
    ]


def _failures(images: Sequence[SynthesizedImage]) -> list[str]:
    """What has beaten images, which fire nowhere, and which are what they were before the first step."""
    judged = [(image.label, image.judgement) for image in images]
    beaten = [
        f"{label} (score {found.score:.3g}; {found.best}: {found.best_score:.3g})"
        for label, found in judged
        if found.status == "weak"
    ]
    dead = [label for label, found in judged if found.status == "dead"]
    lines = [f"weak, something scores higher: {_listed(beaten)}"] if beaten else []
    lines += [f"dead, not activated by its image: {_listed(dead)}"] if dead else []
    same = [image.label for image in images if image.ok and not image.improved]
    return [*lines, f"as it began, for no step improved it: {_listed(same)}"] if same else lines


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts[:LISTED]) + (f" and {len(texts) - LISTED} more" if len(texts) > LISTED else "")


def _factor(images: Sequence[SynthesizedImage], columns: int | None = None) -> int:
    """By how much to enlarge images: as sheets do, and so far that the labels fit."""
    count, (height, width) = len(images), images[0].image.shape[1:]
    columns = columns or columns_for(count, width / height)
    wanted = enlargement(max(height, width), columns) if count > 1 else ALONE // width
    return max(1, wanted, math.ceil(NARROWEST / width))


@dataclass(frozen=True, repr=False)
class Synthesis:
    """N images and what is known of them.

    Attributes:
        network: whose objective was maximised.
        synthesized: N, each with what is known of it.
        references: what the scores were compared with.
        title: what the images are.
        settings: everything that determines them.
        picture: base name, sha256 and pixels (H', W', 3) of the image the images are about, if there is one.
    """

    network: Network
    synthesized: tuple[SynthesizedImage, ...]
    references: str
    title: str
    settings: dict[str, Any]
    picture: tuple[str, str | None, Pixels] | None = None

    @cached_property
    def images(self) -> Tensor:
        """(N, C, H, W), float32 in [0, 1], at the 8 bits that files have."""
        return torch.stack([image.image for image in self.synthesized])

    @property
    def starts(self) -> Tensor:
        """(N,), float32: scores of the images before the first step, as shown."""
        return torch.tensor([image.start for image in self.synthesized], dtype=torch.float32)

    @property
    def scores(self) -> Tensor:
        """(N,), float32: of the finished images, as shown."""
        return torch.tensor([image.judgement.score for image in self.synthesized], dtype=torch.float32)

    @property
    def fired(self) -> Tensor:
        """(N, 2), float32: mean and maximum of what the filter gives behind its ReLU; see `Judgement`."""
        judgements = (image.judgement for image in self.synthesized)
        return torch.tensor([[judgement.mean, judgement.maximum] for judgement in judgements], dtype=torch.float32)

    @property
    def percentiles(self) -> Tensor:
        """(N,), float64: per cent of the references that score less."""
        return torch.tensor([image.judgement.percentile for image in self.synthesized], dtype=torch.float64)

    @property
    def status(self) -> tuple[Status, ...]:
        """N: "ok", "weak" or "dead"; see `cnnviz.synthesis.judgement.Judgement`."""
        return tuple(image.judgement.status for image in self.synthesized)

    @property
    def curves(self) -> tuple[Tensor, ...]:
        """N times (steps,): scores as the network saw the images on the way, moved about and less penalties."""
        return tuple(image.curve for image in self.synthesized)

    @property
    def tries(self) -> tuple[int, ...]:
        """N: how many each took."""
        return tuple(image.tries for image in self.synthesized)

    @property
    def labels(self) -> tuple[str, ...]:
        """N: a name for each."""
        return tuple(image.label for image in self.synthesized)

    @property
    def films(self) -> tuple[Sequence[Tensor], ...]:
        """N times the images on the way, (C, H, W), uint8."""
        return tuple(image.film for image in self.synthesized)

    def sheet(self, **layout: Unpack[Layout]) -> Sheet:
        """The images as one image, below each its label, score and status.

        Args:
            layout: columns, tile (the width of a tile in pixels), title, captions and dpi; see `Layout`.

        Raises:
            ShapeError: if a number is out of range.
        """
        name, sha256, _ = self.picture or (None, None, None)
        recorded = record(
            str(self.settings["command"]),
            self.network,
            settings=self.settings | layout_settings(layout),
            picture=name,
            sha256=sha256,
            results={"score": self.scores.tolist()},
        )
        return filters_sheet(self, recorded, layout)

    def figure(self, **layout: Unpack[Layout]) -> "Figure":
        """The sheet as a matplotlib figure; arguments as for `sheet`."""
        return self.sheet(**layout).figure()

    def save(self, path: str | Path, **layout: Unpack[Layout]) -> Path:
        """Write the sheet, by the ending as `Sheet.save`; or, as a .gif, the animation of the optimization.

        Args:
            layout: as for `sheet`.

        Raises:
            OutputError: if the file cannot be written there.
            ShapeError: for an animation of which no frames were kept, or if a number of the layout is out of range.
        """
        check_keywords(layout, Layout, "layout option")
        path = Path(path)
        return save_film(self, path) if path.suffix.lower() == ".gif" else self.sheet(**layout).save(path)

    def rows(self) -> list[dict[str, object]]:
        """What is known of each image, plain enough for JSON."""
        return [_row(image) for image in self.synthesized]

    def __repr__(self) -> str:
        states = ", ".join(f"{self.status.count(state)} {state}" for state in dict.fromkeys(self.status))
        return f"Synthesis({self.title}: {' x '.join(map(str, self.images.shape))}, {states})"

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def joined(parts: Sequence[Synthesis]) -> Synthesis:
    """One synthesis of several of one network and size; what is not counted by image is the first one's."""
    images = chain.from_iterable(part.synthesized for part in parts)
    return replace(parts[0], synthesized=tuple(images))


def _row(image: SynthesizedImage) -> dict[str, object]:
    judgement = image.judgement
    row = {"label": image.label, "start": image.start, "score": judgement.score, "percentile": judgement.percentile}
    row |= {"best reference": judgement.best, "best reference's score": judgement.best_score}
    fired = {} if math.isnan(judgement.mean) else {"mean": judgement.mean, "max": judgement.maximum}
    return row | fired | {"status": judgement.status, "tries": image.tries}
