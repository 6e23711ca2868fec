"""Recipes: ways of making an image, put together from parametrisations, transforms, penalties and an optimiser.

Each function is one recipe; its docstring says what it is for and where it comes from, and `cnnviz filters --help`
shows the first line. To add one, write a function that returns a `Recipe` and enter it in `RECIPES`. Nothing heavy is
imported before a recipe is made.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cnnviz.synthesis.objectives import Objective
    from cnnviz.synthesis.optimisers import Optimiser
    from cnnviz.synthesis.parametrisations import Parametrisation, Size
    from cnnviz.synthesis.transforms import Outside, Transform

Preset = Literal["draft", "default", "fine"]
DEFAULT = "natural"
EARLY = 24  # pixels: filters with no larger receptive field are drawn by the recipe "early"
STEPS: Mapping[str, int] = {"draft": 64, "default": 256, "fine": 1024}
WEIGHT_DECAY = 0.04  # of "natural"
FEWER: Mapping[str, int] = {"draft": 64, "default": 128, "fine": 512}


@dataclass(frozen=True)
class Recipe:
    """How images are made.

    Attributes:
        image: from seeds, channels, size and, if they are to be images, the starts (N, C, H, W) to the images.
        optimiser, rate: what moves their parameters, and how far.
        steps: how many, by preset.
        transforms: from the size to what moves the network's eye.
        outside: what it sees beyond the edge.
        enlarged: by which factor images are enlarged for the network.
        penalty: what is subtracted from the objective.
        settles: whether an image is finished once its score stops rising.
        from_patterns: whether images begin from the simple pattern that scores highest instead of noise.
        falling: whether steps become smaller all the way, to nothing.
        views: how often each image is looked at in a step.
        noise: deviation of the noise that is added to what the network sees, in units of the [0, 1] range.
    """

    image: "Callable[[Sequence[int], int, Size, Tensor | None], Parametrisation]"
    optimiser: "Callable[[Iterable[nn.Parameter]], Optimiser]"
    rate: float
    steps: Mapping[str, int]
    transforms: "Callable[[Size], Sequence[Transform]]" = field(default=lambda _: ())
    outside: "Outside" = "reflection"
    enlarged: float = 1.0
    penalty: "Objective | None" = None
    settles: bool = False
    from_patterns: bool = False
    falling: bool = False
    views: int = 1
    noise: float = 0.0


def natural() -> Recipe:
    """A Fourier spectrum with weight decay, under random shifts: natural colours (default).

    As "fourier", but each step also takes a share of every frequency away, so that none outgrows what it is worth to
    the filter: an ascent with the prior that images have a spectrum of 1 / frequency ** 1.25. Steps can then be far
    larger, and find more of the score in fewer of them (gallery/ablation.md).
    """
    from cnnviz.synthesis.optimisers import AdamW

    decaying = partial(AdamW, weight_decay=WEIGHT_DECAY)
    return replace(fourier(decay=1.25), optimiser=decaying, rate=4.0, falling=True)


def fourier(decay: float = 1.5) -> Recipe:
    """A Fourier spectrum without weight decay, under random shifts: oversaturated colours.

    Olah et al. (2017), *Feature Visualization*, as in lucid, but for what an ablation decided (gallery/ablation.md):
    frequencies are scaled down by a higher power, which takes grain away, steps are larger, and images are shifted but
    neither turned nor scaled.

    Args:
        decay: the power of the frequency by which it is scaled down.
    """
    from cnnviz.synthesis.optimisers import Adam
    from cnnviz.synthesis.parametrisations import Fourier, noise
    from cnnviz.synthesis.transforms import jitter

    def image(seeds: "Sequence[int]", channels: int, size: "Size", start: "Tensor | None") -> "Parametrisation":
        image = Fourier(0.01 * noise(seeds, (channels, size[0], size[1] // 2 + 1, 2)), size, decay)
        return image if start is None else image.start_from(start)

    def transforms(size: "Size") -> "Sequence[Transform]":
        return jitter(min(size) / 16), jitter(min(size) / 32)

    return Recipe(image, Adam, 0.3, STEPS, transforms)


def soft() -> Recipe:
    """As fourier, with a smaller step size: the default for classes."""
    return replace(fourier(), rate=0.1)


def early() -> Recipe:
    """The best of 168 simple patterns, refined in pixel space: for the first layers.

    With a receptive field of a few pixels, the best images are patterns of single pixels. An ascent from noise seldom
    finds them, nor can a spectrum that is scaled down towards high frequencies show them.
    """
    from cnnviz.synthesis.optimisers import Adam
    from cnnviz.synthesis.parametrisations import PixelImage, noise
    from cnnviz.synthesis.transforms import jitter

    def image(seeds: "Sequence[int]", channels: int, size: "Size", start: "Tensor | None") -> "Parametrisation":
        return PixelImage(0.5 + 0.1 * noise(seeds, (channels, *size)) if start is None else start)

    def transforms(size: "Size") -> "Sequence[Transform]":
        return (jitter(min(size) / 8, whole=True),)

    return Recipe(image, Adam, 0.02, FEWER, transforms, from_patterns=True)


def erhan() -> Recipe:
    """Plain gradient ascent on pixels until the score settles (Erhan et al. 2009).

    Plain gradient ascent on the mean activation, with the contrast held as the norm is in Erhan et al. (2009),
    *Visualizing Higher-Layer Features of a Deep Network*. What comes out of deep layers is high-frequency noise that
    the network sees and people do not: the reason why all other recipes exist.
    """
    from cnnviz.synthesis.optimisers import GradientAscent
    from cnnviz.synthesis.parametrisations import PixelImage, noise

    def image(seeds: "Sequence[int]", channels: int, size: "Size", start: "Tensor | None") -> "Parametrisation":
        return PixelImage(0.5 + 0.1 * noise(seeds, (channels, *size)) if start is None else start, contrast=0.15)

    return Recipe(image, GradientAscent, 0.03, STEPS, settles=True)


def pixel() -> Recipe:
    """Pixels with a total-variation penalty: the recipe of most tutorials.

    Total variation as in Mahendran and Vedaldi (2015), *Understanding Deep Image Representations by Inverting Them*;
    small shifts as in Mordvintsev et al. (2015), *Inceptionism*.
    """
    from cnnviz.synthesis.objectives import total_variation
    from cnnviz.synthesis.optimisers import Adam
    from cnnviz.synthesis.parametrisations import PixelImage, noise
    from cnnviz.synthesis.transforms import jitter

    def image(seeds: "Sequence[int]", channels: int, size: "Size", start: "Tensor | None") -> "Parametrisation":
        return PixelImage(0.5 + 0.05 * noise(seeds, (channels, *size)) if start is None else start)

    def transforms(size: "Size") -> "Sequence[Transform]":
        return (jitter(min(size) / 16),)

    return Recipe(image, Adam, 0.02, STEPS, transforms, penalty=20.0 * total_variation())


def maco(magnitudes: "Tensor | None" = None) -> Recipe:
    """The phases of a natural spectrum, over 32 crops a step: for classes (Fel et al. 2023).

    Fel et al. (2023), *Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization*:
    crops of half the image down to a twentieth, noise of deviation 0.08, Nadam with rate 1, 256 steps.

    Args:
        magnitudes: (C, H, W // 2 + 1), of natural images, as `natural_magnitudes` gives them; by default those of the
            photographs that come with cnnviz.
    """
    import torch

    from cnnviz.synthesis.judgement import PHOTOGRAPHS, natural_images
    from cnnviz.synthesis.optimisers import NAdam
    from cnnviz.synthesis.parametrisations import Phases, natural_magnitudes, noise
    from cnnviz.synthesis.transforms import zoom

    def image(seeds: "Sequence[int]", channels: int, size: "Size", start: "Tensor | None") -> "Parametrisation":
        held = magnitudes
        if held is None:
            photographs = natural_images(PHOTOGRAPHS, channels, size).values() if channels in (1, 3) else ()
            held = natural_magnitudes(channels, size, torch.stack([*photographs]) if photographs else None)
        image = Phases(torch.pi * noise(seeds, held.shape), held, size)
        return image if start is None else image.start_from(start)

    def transforms(size: "Size") -> "Sequence[Transform]":
        return (zoom(0.5, 0.05, size),)

    return Recipe(image, NAdam, 1.0, STEPS, transforms, views=32, noise=0.08)


def summary(recipe: Callable[[], Recipe]) -> str:
    """The first line of a recipe's docstring."""
    return (recipe.__doc__ or "\n").splitlines()[0]


RECIPES: Mapping[str, Callable[[], Recipe]] = {
    "natural": natural,
    "early": early,
    "fourier": fourier,
    "soft": soft,
    "erhan": erhan,
    "pixel": pixel,
    "maco": maco,
}
