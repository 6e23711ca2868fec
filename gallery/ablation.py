"""What each part of a recipe is worth: ``python gallery/ablation.py``, which prints the table in ablation.md.

The same filters of vgg16-mini, chosen by seed over its five blocks, are drawn by every recipe and by the default with
one part changed at a time. Every image is scored at 8 bits as it is, and under changes that no recipe trains on.
"""

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import click
import torch
from PIL import Image as Pillow
from PIL import ImageFilter
from torch import Tensor
from torch.nn import functional

import cnnviz
from cnnviz.networks.network import Network
from cnnviz.synthesis import recipes
from cnnviz.synthesis.judgement import as_shown
from cnnviz.synthesis.parametrisations import Fourier, noise
from cnnviz.synthesis.recipes import Recipe
from cnnviz.synthesis.results import Synthesis
from cnnviz.synthesis.transforms import jitter, rotate, scale
from cnnviz.synthesis.views import Viewer

LAYERS = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3")


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


def smaller(image: Tensor) -> Tensor:
    return functional.interpolate(image[None], scale_factor=0.9, mode="bilinear", antialias=True)[0]


HELD_OUT: Mapping[str, Callable[[Tensor], Tensor]] = {
    "JPEG 75": through_pillow(jpeg),
    "blur 1 px": through_pillow(lambda image: image.filter(ImageFilter.GaussianBlur(1))),
    "shift 3": shifted,
    "size 0.9": smaller,
}


def spectrum(decay: float = 1.5, decorrelated: bool = True) -> dict[str, Any]:
    """The default's image with another frequency scale, or without decorrelated colours."""

    def image(seeds: Any, channels: int, size: tuple[int, int], start: None) -> Fourier:
        assert start is None
        return Fourier(0.01 * noise(seeds, (channels, size[0], size[1] // 2 + 1, 2)), size, decay, decorrelated)

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
    default = recipes.fourier()
    changed = partial(replace, default)
    return {name: recipe() for name, recipe in recipes.RECIPES.items()} | {
        "no transforms": changed(transforms=lambda _: ()),
        "twice the shifts": changed(**moved(shift=1 / 8)),
        "turned by up to 5 degrees": changed(**moved(degrees=5)),
        "scaled by up to 10 %": changed(**moved(scales=0.1)),
        "turned and scaled": changed(**moved(degrees=5, scales=0.1)),
        "no decorrelated colours": changed(**spectrum(decorrelated=False)),
        "no frequency scale": changed(**spectrum(decay=0)),
        "frequency scale ** 1": changed(**spectrum(decay=1)),
        "frequency scale ** 2": changed(**spectrum(decay=2)),
        "as lucid: rate 0.05, scale ** 1": changed(rate=0.05, **spectrum(decay=1)),
        "seen 1.5 x enlarged": changed(enlarged=1.5),
        "grey outside": changed(outside="grey"),
        "rate 0.15": changed(rate=0.15),
        "rate 0.6": changed(rate=0.6),
        "128 steps": changed(steps={"default": 128}),
        "512 steps": changed(steps={"default": 512}),
    }


@dataclass
class Measured:
    """Of one variant, per filter: scores as shown and under each change; high-frequency shares; statuses; seconds."""

    shown: Tensor
    kept: dict[str, Tensor]
    fine: Tensor
    dead: int
    seconds: float


@torch.no_grad()
def scores_under(network: Network, found: Synthesis, change: Callable[[Tensor], Tensor], layer: str) -> Tensor:
    images = torch.stack([change(image) for image in found.images])
    view = Viewer(network, [layer], images, elided=False)(as_shown(images))
    return view.mean(layer, torch.tensor([int(label) for label in found.labels]))


def fine_share(images: Tensor) -> Tensor:
    """(N,): share of an image's energy, its mean apart, at more than half the Nyquist frequency."""
    spectra = torch.fft.fft2(images - images.mean((2, 3), keepdim=True)).abs().square().sum(1)
    rows, columns = (torch.fft.fftfreq(side) for side in images.shape[2:])
    high = (rows[:, None].square() + columns.square()).sqrt() > 0.25
    return (spectra * high).sum((1, 2)) / spectra.sum((1, 2)).clamp(min=1e-12)


def measure(network: Network, recipe: Recipe, chosen: Mapping[str, list[int]]) -> Measured:
    shown, fine, dead, seconds = [], [], 0, 0.0
    kept: dict[str, list[Tensor]] = {name: [] for name in HELD_OUT}
    for layer, filters in chosen.items():
        started = time.perf_counter()
        found = cnnviz.filter_images(network, layer, filters, recipe=recipe, tries=1)
        seconds += time.perf_counter() - started
        shown.append(found.scores)
        fine.append(fine_share(found.images))
        dead += found.status.count("dead")
        for name, change in HELD_OUT.items():
            kept[name].append(scores_under(network, found, change, network.before_relu(layer)))
    return Measured(
        torch.cat(shown), {name: torch.cat(parts) for name, parts in kept.items()}, torch.cat(fine), dead, seconds
    )


def drawn(network: Network, count: int, seed: int) -> dict[str, list[int]]:
    """Filters by layer: as many of each as evenly as may be."""
    generator = torch.Generator().manual_seed(seed)
    chosen = {}
    for number, layer in enumerate(LAYERS):
        filters = network.layers[network.before_relu(layer)].out_channels
        wanted = count * (number + 1) // len(LAYERS) - count * number // len(LAYERS)
        chosen[layer] = sorted(torch.randperm(filters, generator=generator)[:wanted].tolist())
    return chosen


@click.command()
@click.option("--filters", "count", default=64, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, help="Measure these variants; the default always.")
def main(count: int, seed: int, only: tuple[str, ...]) -> None:
    """Print the table of the ablation."""
    torch.set_num_threads(1)
    network = cnnviz.load("vgg16-mini")
    chosen = drawn(network, count, seed)
    print(f"| recipe | as shown | {' | '.join(HELD_OUT)} | mean kept | fine | dead | seconds |")
    print("|---|" + "---|" * (len(HELD_OUT) + 5))
    yardstick: Tensor | None = None
    for name, recipe in variants().items():
        if only and name not in (*only, "fourier"):
            continue
        measured = measure(network, recipe, chosen)
        yardstick = measured.shown.clamp(min=1e-3) if yardstick is None else yardstick
        ratios = [(each / yardstick).median().item() for each in (measured.shown, *measured.kept.values())]
        ratios.append(sum(ratios[1:]) / len(HELD_OUT))
        cells = [*(f"{ratio:.2f}" for ratio in ratios), f"{measured.fine.median():.1%}", f"{measured.dead / count:.0%}"]
        print(f"| {name} | {' | '.join(cells)} | {measured.seconds / count:.2f} |", flush=True)


if __name__ == "__main__":
    main()
