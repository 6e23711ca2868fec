"""What each part of a recipe is worth: ``python gallery/ablation.py``, which prints the tables in ablation.md.

The same filters of a network, chosen by seed over its five blocks, are drawn by every recipe and by the default with
one part changed at a time. Every image is scored at 8 bits as it is, and under changes that no recipe trains on.
"""

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image as Pillow
from PIL import ImageFilter
from torch import Tensor
from torch.nn import functional

import cnnviz
from cnnviz.networks.network import Network
from cnnviz.pictures.colours import drawable
from cnnviz.pictures.sheets import Tile, sheet
from cnnviz.synthesis import recipes
from cnnviz.synthesis.judgement import PHOTOGRAPHS, as_shown, natural_images
from cnnviz.synthesis.maximization import filter_job
from cnnviz.synthesis.parametrisations import Fourier, noise
from cnnviz.synthesis.recipes import Recipe
from cnnviz.synthesis.results import Synthesis
from cnnviz.synthesis.transforms import jitter, rotate, scale
from cnnviz.synthesis.views import Viewer

LAYERS = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3")
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


def spectrum(decay: float = 1.5, decorrelated: bool = True) -> dict[str, Any]:
    """The default's image with another frequency scale, or without decorrelated colours."""

    def image(seeds: Any, channels: int, size: tuple[int, int], start: Tensor | None) -> Fourier:
        image = Fourier(0.01 * noise(seeds, (channels, size[0], size[1] // 2 + 1, 2)), size, decay, decorrelated)
        return image if start is None else image.start_from(start)

    return {"image": image}


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


def variants() -> dict[str, Recipe]:
    """Every recipe, and the default with a part changed."""
    changed = partial(replace, recipes.RECIPES[recipes.DEFAULT]())
    return {name: recipe() for name, recipe in recipes.RECIPES.items()} | {
        "rate 0.1": changed(rate=0.1),
        "rate 0.3": changed(rate=0.3),
        "rate 0.3, falling": changed(rate=0.3, falling=True),
        "rate 0.5, falling": changed(rate=0.5, falling=True),
        "no transforms": changed(transforms=lambda _: ()),
        "twice the shifts": changed(**moved(shift=1 / 8)),
        "scaled by up to 10 %": changed(**moved(scales=0.1)),
        "turned and scaled": changed(**moved(degrees=5, scales=0.1)),
        "no decorrelated colours": changed(**spectrum(decorrelated=False)),
        "frequency scale ** 1": changed(**spectrum(decay=1)),
        "frequency scale ** 2": changed(**spectrum(decay=2)),
        "as lucid: rate 0.05, scale ** 1": changed(rate=0.05, **spectrum(decay=1)),
        "seen 1.5 x enlarged": changed(enlarged=1.5),
        **{f"{steps} steps": changed(steps={"default": steps}) for steps in (32, 64, 96, 192, 256, 512)},
    }


@dataclass
class Measured:
    """Of one variant.

    Attributes:
        shown, kept, fine, clipped: per filter, scores as shown and under each change, and shares of energy and pixels.
        colours, frequencies: distances from photographs.
        dead: how many filters fire nowhere.
        seconds: of all.
        images: by layer.
    """

    shown: Tensor
    kept: dict[str, Tensor]
    fine: Tensor
    clipped: Tensor
    colours: float
    frequencies: float
    dead: int
    seconds: float
    images: dict[str, Tensor]


@torch.no_grad()
def scores_under(network: Network, synthesis: Synthesis, change: Callable[[Tensor], Tensor], layer: str) -> Tensor:
    """(N,): mean activations over the positions that count in images of the changed size."""
    images = as_shown(torch.stack([change(image) for image in synthesis.images]))
    filters = [int(label) for label in synthesis.labels]
    objective = filter_job(network, layer, filters, size=(images.shape[2], images.shape[3])).objective
    viewer = Viewer(network, objective.layers, images, elided=False)
    rows = torch.arange(len(images))
    return torch.cat([objective.score(viewer(images[row : row + 1], rows[row : row + 1])) for row in rows])


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


def measure(network: Network, recipe: Recipe, chosen: Mapping[str, list[int]]) -> Measured:
    shown, fine, clipped, distances, dead, seconds = [], [], [], [], 0, 0.0
    kept: dict[str, list[Tensor]] = {name: [] for name in HELD_OUT}
    images: dict[str, Tensor] = {}
    for layer, filters in chosen.items():
        started = time.perf_counter()
        synthesis = cnnviz.filter_images(network, layer, filters, recipe=recipe, tries=1)
        seconds += time.perf_counter() - started
        images[layer] = synthesis.images
        natural = torch.stack([*natural_images(PHOTOGRAPHS, 3, synthesis.images.shape[2:]).values()])
        distances.append([measure(synthesis.images, natural) for measure in (colour_distance, frequency_distance)])
        shown.append(synthesis.scores)
        fine.append(fine_share(synthesis.images))
        clipped.append(((synthesis.images - 0.5).abs() > 0.5 - CLIPPED).float().mean((1, 2, 3)))
        dead += synthesis.status.count("dead")
        for name, change in HELD_OUT.items():
            kept[name].append(scores_under(network, synthesis, change, layer))
    colours, frequencies = torch.tensor(distances).mean(0).tolist()
    scores = {name: torch.cat(parts) for name, parts in kept.items()}
    parts = (torch.cat(values) for values in (fine, clipped))
    return Measured(torch.cat(shown), scores, *parts, colours, frequencies, dead, seconds, images)


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


@click.command()
@click.option("--model", default="vgg16", show_default=True)
@click.option("--layers", default=",".join(LAYERS), show_default=True, help="Those to draw filters of.")
@click.option("--filters", "count", default=64, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, help="Measure these variants; the default always.")
@click.option("--sheets", type=click.Path(path_type=Path), help="A folder for a sheet per variant.")
def main(model: str, layers: str, count: int, seed: int, only: tuple[str, ...], sheets: Path | None) -> None:
    """Print a table of the ablation."""
    torch.set_num_threads(1)
    network = cnnviz.load(model)
    chosen = drawn(network, count, seed, tuple(layers.split(",")))
    total = sum(map(len, chosen.values()))
    print(f"| recipe | as shown | {' | '.join(HELD_OUT)} | kept | clipped | colours | frequencies | fine | dead | s |")
    print("|---|" + "---|" * (len(HELD_OUT) + 8))
    yardstick: Tensor | None = None
    listed = {recipes.DEFAULT: None} | dict.fromkeys(only or variants())
    for name in listed:
        measured = measure(network, variants()[name], chosen)
        yardstick = measured.shown.clamp(min=1e-3) if yardstick is None else yardstick
        ratios = [(scores / yardstick).median().item() for scores in (measured.shown, *measured.kept.values())]
        ratios.append(torch.stack([measured.kept[change] / yardstick for change in DECIDING]).mean(0).median().item())
        cells = [f"{ratio:.2f}" for ratio in ratios]
        cells += [f"{measured.clipped.mean():.1%}", f"{measured.colours:.3f}", f"{measured.frequencies:.2f}"]
        cells += [f"{measured.fine.median():.1%}", f"{measured.dead / total:.0%}", f"{measured.seconds / total:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        if sheets:
            save_sheet(measured, chosen, f"{model}: {name}", sheets / f"{model}-{name.replace(' ', '_')}.webp")


def save_sheet(measured: Measured, chosen: Mapping[str, list[int]], title: str, path: Path) -> None:
    """Eight filters of each layer."""
    tiles = [
        Tile(drawable(resized(image, TILE / image.shape[2])), f"{layer} {number}")
        for layer, numbers in chosen.items()
        for number, image in list(zip(numbers, measured.images[layer], strict=True))[:SHOWN]
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(tiles, lines=[title], factor=1, columns=SHOWN).save(path)


if __name__ == "__main__":
    main()
