"""What each part of a recipe is worth: ``python gallery/ablation.py``, which prints the tables in ablation.md.

The same filters of a network, chosen by seed over its five blocks, are drawn by every recipe and by the default with
one part changed at a time. Every image is scored at 8 bits as it is, and under changes that no recipe trains on.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import torch
from PIL import Image as Pillow
from PIL import ImageFilter
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.networks.network import Network
from cnnviz.pictures.colours import drawable
from cnnviz.pictures.sheets import Tile, sheet
from cnnviz.synthesis import recipes
from cnnviz.synthesis.judgement import PHOTOGRAPHS, as_shown, natural_images
from cnnviz.synthesis.maximization import filter_job
from cnnviz.synthesis.objectives import total_variation
from cnnviz.synthesis.optimisers import Adam, AdamW
from cnnviz.synthesis.parametrisations import BRIGHTEST, DARKEST, Fourier, Size, frequencies, noise, painted
from cnnviz.synthesis.recipes import Recipe
from cnnviz.synthesis.results import Synthesis
from cnnviz.synthesis.transforms import jitter, rotate, scale
from cnnviz.synthesis.views import Viewer

LAYERS = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3")
DEEP = LAYERS[2:]  # those that "early" does not draw
SHARES = (14, 14, 14, 14, 8)  # of 64 filters: those of the last block take most of the time
CLIPPED = 0.5 / 255  # from black or white, in units of the [0, 1] range
SHOWN, TILE = 8, 128  # filters of a block on a sheet, and their side in pixels


def through_pillow(change: Callable[[Pillow.Image], Pillow.Image]) -> Callable[[Tensor], Tensor]:
    def changed(image: Tensor) -> Tensor:
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        values = torch.frombuffer(bytearray(change(Pillow.fromarray(pixels)).tobytes()), dtype=torch.uint8)
        return values.reshape(pixels.shape).permute(2, 0, 1).float() / 255

    return changed


def jpeg(image: Pillow.Image) -> Pillow.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Pillow.open(file).convert("RGB")


def shifted(image: Tensor) -> Tensor:
    padded = functional.pad(image[None], (3, 0, 3, 0), mode="reflect")[0]
    return padded[:, : image.shape[1], : image.shape[2]]


def resized(image: Tensor, factor: float) -> Tensor:
    return functional.interpolate(image[None], scale_factor=factor, mode="bilinear", antialias=True)[0]


HELD_OUT: Mapping[str, Callable[[Tensor], Tensor]] = {
    "JPEG 75": through_pillow(jpeg),
    "blur 1 px": through_pillow(lambda image: image.filter(ImageFilter.GaussianBlur(1))),
    "shift 3": shifted,
    "size 0.9": partial(resized, factor=0.9),
    "size 2": partial(resized, factor=2.0),
}
DECIDING = ("JPEG 75", "blur 1 px", "shift 3", "size 0.9")  # their mean is what a recipe keeps


def spectrum(
    decay: float = 1.25, decorrelated: bool = True, parametrisation: type[Fourier] = Fourier
) -> dict[str, Any]:
    """The default's image with another frequency scale, other colours, or drawn in another way."""

    def image(seeds: Sequence[int], channels: int, size: Size, start: Tensor | None) -> Fourier:
        parts = 0.01 * noise(seeds, (channels, size[0], size[1] // 2 + 1, 2))
        image = parametrisation(parts, size, decay, decorrelated)
        return image if start is None else image.start_from(start)

    return {"image": image}


class CoarseToFine(Fourier):
    """Frequencies are let in from the lowest up, all of them after half of the usual steps."""

    steps = 0

    def forward(self) -> Tensor:
        highest = 0.08 + 0.63 * 2 * self.steps / recipes.STEPS["default"]
        seen = (frequencies(self.size) <= highest).to(self.scale)
        return painted(torch.view_as_complex(self.parts) * self.scale * seen, self.size, self.colours)

    def project(self) -> None:
        self.steps += 1


class ColoursOfPhotographs(Fourier):
    """Colours are mixed the way they vary in the photographs that come with cnnviz."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        photographs = torch.stack([*natural_images(PHOTOGRAPHS, 3, (224, 224)).values()])
        covariance = photographs.clamp(DARKEST, BRIGHTEST).logit().transpose(0, 1).flatten(1).cov()
        values, vectors = torch.linalg.eigh(covariance)
        matrix = (vectors * values.sqrt()).flip(1)
        self.colours = matrix / matrix.norm(dim=0).max()


class NormalisedGradients(AdamW):
    """Each image's gradient has the same size at every step, as in Keras' example."""

    def move(self, parameter: nn.Parameter, gradient: Tensor, rate: float) -> None:
        size = gradient.square().flatten(1).mean(1).sqrt().clamp(min=1e-20)
        super().move(parameter, gradient / size.view(-1, *(1,) * (gradient.ndim - 1)), rate)


def moved(*, shift: float = 1 / 16, scales: float = 0, degrees: float = 0) -> dict[str, Any]:
    """The default's transforms with other extents."""
    return {
        "transforms": lambda size: (
            jitter(shift * min(size)),
            scale(1 - scales, 1 + scales),
            rotate(degrees),
            jitter(shift / 2 * min(size)),
        )
    }


def variants() -> dict[str, Recipe | None]:
    """The default, which is "early" in the first layers, every recipe, and "natural" with a part changed."""
    changed = partial(replace, recipes.natural())
    decay = recipes.WEIGHT_DECAY
    return (
        {"default": None}
        | {name: recipe() for name, recipe in recipes.RECIPES.items()}
        | {
            **{f"{steps} steps": changed(steps={"default": steps}) for steps in (64, 128, 512, 1024)},
            "rate 1": changed(rate=1.0),
            "rate 2": changed(rate=2.0),
            "rate 8": changed(rate=8.0),
            "rate 1, not falling": changed(rate=1.0, falling=False),
            "no weight decay, rate 0.3": changed(rate=0.3, optimiser=Adam),
            "half the weight decay": changed(optimiser=partial(AdamW, weight_decay=decay / 2)),
            "twice the weight decay": changed(optimiser=partial(AdamW, weight_decay=decay * 2)),
            "gradients normalised": changed(optimiser=partial(NormalisedGradients, weight_decay=decay)),
            "no transforms": changed(transforms=lambda _: ()),
            "twice the shifts": changed(**moved(shift=1 / 8)),
            "scaled by up to 10 %": changed(**moved(scales=0.1)),
            "turned and scaled": changed(**moved(degrees=5, scales=0.1)),
            "no decorrelated colours": changed(**spectrum(decorrelated=False)),
            "colours of photographs": changed(**spectrum(parametrisation=ColoursOfPhotographs)),
            "frequency scale ** 1": changed(**spectrum(decay=1)),
            "frequency scale ** 1.5": changed(**spectrum(decay=1.5)),
            "frequency scale ** 1.5, rate 3": changed(rate=3.0, **spectrum(decay=1.5)),
            "frequency scale ** 2": changed(**spectrum(decay=2)),
            "coarse to fine": changed(**spectrum(parametrisation=CoarseToFine)),
            "total variation, 20": changed(penalty=20.0 * total_variation()),
            "total variation, 200": changed(penalty=200.0 * total_variation()),
            "noise of 0.1": changed(noise=0.1),
            "seen 1.5 x enlarged": changed(enlarged=1.5),
            "seen at three quarters": changed(enlarged=0.75),
        }
    )


@dataclass
class Measured:
    """Of one variant in one layer.

    Attributes:
        shown, kept, fine, clipped: per filter, scores as shown and under each change, and shares of energy and pixels.
        colours, frequencies: distances from photographs.
        dead: how many filters fire nowhere.
        seconds: of all.
        images: (N, C, H, W).
    """

    shown: Tensor
    kept: dict[str, Tensor]
    fine: Tensor
    clipped: Tensor
    colours: float
    frequencies: float
    dead: int
    seconds: float
    images: Tensor


@torch.no_grad()
def scores_under(network: Network, synthesis: Synthesis, change: Callable[[Tensor], Tensor], layer: str) -> Tensor:
    """(N,): mean activations over the positions that count in images of the changed size."""
    images = as_shown(torch.stack([change(image) for image in synthesis.images])).to(network.device)
    filters = [int(label) for label in synthesis.labels]
    objective = filter_job(network, layer, filters, size=(images.shape[2], images.shape[3])).objective
    viewer = Viewer(network, objective.layers, images, elided=False)
    rows = torch.arange(len(images))
    return torch.cat([objective.score(viewer(images[row : row + 1], rows[row : row + 1])).cpu() for row in rows])


def fine_share(images: Tensor) -> Tensor:
    """(N,): share of an image's energy, its mean apart, at more than half the Nyquist frequency."""
    spectra = torch.fft.fft2(images - images.mean((2, 3), keepdim=True)).abs().square().sum(1)
    rows, columns = (torch.fft.fftfreq(side) for side in images.shape[2:])
    high = (rows[:, None].square() + columns.square()).sqrt() > 0.25
    return (spectra * high).sum((1, 2)) / spectra.sum((1, 2)).clamp(min=1e-12)


def colour_distance(images: Tensor, others: Tensor) -> float:
    """Frechet distance between the normal distributions that fit the colours of pixels, in units of [0, 1]."""
    (mean, root, covariance), (other_mean, _, other) = (_colours(values) for values in (images, others))
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    squared = (mean - other_mean).square().sum() + covariance.trace() + other.trace() - 2 * cross
    return squared.clamp(min=0).sqrt().item()


def _colours(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pixels = images.double().transpose(0, 1).flatten(1)
    covariance = pixels.cov()
    values, vectors = torch.linalg.eigh(covariance)
    return pixels.mean(1), vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T, covariance


def frequency_distance(images: Tensor, others: Tensor) -> float:
    """Mean difference between the logarithms (to base 10) of amplitudes, by frequency."""
    return (_amplitudes(images) - _amplitudes(others)).abs().mean().item()


def _amplitudes(images: Tensor) -> Tensor:
    rows, columns = (torch.fft.fftfreq(side) for side in images.shape[2:])
    rings = ((rows[:, None].square() + columns.square()).sqrt() * 32).round().clamp(max=16).long()
    amplitudes = torch.fft.fft2(images - images.mean((2, 3), keepdim=True), norm="ortho").abs().mean((0, 1))
    return torch.stack([amplitudes[rings == ring].mean() for ring in range(1, 17)]).log10()


def measure(network: Network, recipe: Recipe | None, layer: str, filters: Sequence[int]) -> Measured:
    chosen = {} if recipe is None else {"recipe": recipe}
    started = time.perf_counter()
    synthesis = cnnviz.filter_images(network, layer, filters, tries=1, **chosen)
    seconds = time.perf_counter() - started
    images = synthesis.images
    photographs = torch.stack([*natural_images(PHOTOGRAPHS, 3, (images.shape[2], images.shape[3])).values()])
    return Measured(
        shown=synthesis.scores,
        kept={name: scores_under(network, synthesis, change, layer) for name, change in HELD_OUT.items()},
        fine=fine_share(images),
        clipped=((images - 0.5).abs() > 0.5 - CLIPPED).float().mean((1, 2, 3)),
        colours=colour_distance(images, photographs),
        frequencies=frequency_distance(images, photographs),
        dead=synthesis.status.count("dead"),
        seconds=seconds,
        images=images,
    )


def drawn(network: Network, count: int, seed: int, layers: tuple[str, ...]) -> dict[str, list[int]]:
    """Filters by layer, `count` in all."""
    generator = torch.Generator().manual_seed(seed)
    chosen = {}
    for layer, share in zip(LAYERS, SHARES, strict=True):
        filters = network.layers[network.filters_of(layer).module].out_channels
        some = torch.randperm(filters, generator=generator)[: round(count * share / sum(SHARES))]
        if layer in layers:
            chosen[layer] = sorted(some.tolist())
    return chosen


def row(measured: Mapping[str, Measured], default: Mapping[str, Measured]) -> list[str]:
    """The cells of one variant: scores in units of what the default reaches for the same filter, medians."""
    layers = [measured[layer] for layer in measured]
    units = {layer: default[layer].shown.clamp(min=1e-3) for layer in measured}
    kept = {
        layer: torch.stack([each.kept[change] for change in DECIDING]).mean(0) / units[layer]
        for layer, each in measured.items()
    }
    shown = torch.cat([each.shown / units[layer] for layer, each in measured.items()])
    under = {
        change: torch.cat([each.kept[change] / units[layer] for layer, each in measured.items()]) for change in HELD_OUT
    }
    cells = [f"{ratios.median():.2f}" for ratios in (shown, *under.values(), torch.cat([*kept.values()]))]
    cells += [f"{kept[layer].median():.2f}" if layer in kept else "" for layer in LAYERS]
    cells.append(f"{torch.cat([each.clipped for each in layers]).mean():.1%}")
    cells += [f"{fmean(each.colours for each in layers):.3f}", f"{fmean(each.frequencies for each in layers):.2f}"]
    cells.append(f"{torch.cat([each.fine for each in layers]).median():.1%}")
    cells += [f"{sum(each.dead for each in layers)}", f"{sum(each.seconds for each in layers) / len(shown):.2f}"]
    return cells


HEADS = [
    "variant",
    "as shown",
    *HELD_OUT,
    "kept",
    *(layer.partition("_")[0] for layer in LAYERS),
    *("clipped", "colours", "frequencies", "fine", "dead", "s"),
]


@click.command()
@click.option("--model", default="vgg16", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--layers", default=",".join(LAYERS), show_default=True, help="Those to draw filters of.")
@click.option("--filters", "count", default=64, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, help="Measure these variants; the default always.")
@click.option("--sheets", type=click.Path(path_type=Path), help="A folder for a sheet per variant.")
def main(
    model: str, device: str, layers: str, count: int, seed: int, only: tuple[str, ...], sheets: Path | None
) -> None:
    """Print a table of the ablation; parts of the recipe are changed in the last three blocks, where it is used."""
    torch.set_num_threads(1)
    network = cnnviz.load(model, device=device)
    chosen = drawn(network, count, seed, tuple(layers.split(",")))
    print(f"| {' | '.join(HEADS)} |\n|{len(HEADS) * '---|'}")
    default: dict[str, Measured] = {}
    for name in {"default": None} | dict.fromkeys(only or variants()):
        everywhere = name == "default" or name in recipes.RECIPES
        measured = {
            layer: measure(network, variants()[name], layer, numbers)
            for layer, numbers in chosen.items()
            if everywhere or layer in DEEP
        }
        default = default or measured
        print(f"| {name} | {' | '.join(row(measured, default))} |", flush=True)
        if sheets:
            save_sheet(measured, chosen, f"{network.name}: {name}", sheets / f"{model}-{name.replace(' ', '_')}.webp")


def save_sheet(measured: Mapping[str, Measured], chosen: Mapping[str, list[int]], title: str, path: Path) -> None:
    """Eight filters of each layer."""
    tiles = [
        Tile(drawable(resized(image, TILE / image.shape[1])), f"{layer} {number}")
        for layer, each in measured.items()
        for number, image in list(zip(chosen[layer], each.images, strict=True))[:SHOWN]
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(tiles, lines=[title], factor=1, columns=SHOWN).save(path)


if __name__ == "__main__":
    main()
