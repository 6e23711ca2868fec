"""Images that start from an image or aim at one: DeepDream and feature inversion."""

import operator
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnviz.networks.activations import activations
from cnnviz.networks.inputs import Shown, Source, show, unseen_dimmed
from cnnviz.networks.network import Network, check_network, forward_pass
from cnnviz.networks.progress import Progress
from cnnviz.synthesis.ascent import Augmentation, Step, ascend
from cnnviz.synthesis.jobs import Job, seed_of
from cnnviz.synthesis.judgement import as_shown
from cnnviz.synthesis.maximization import collect
from cnnviz.synthesis.objectives import Objective, match, total_variation
from cnnviz.synthesis.objectives import layer as everything_of
from cnnviz.synthesis.optimisers import GradientAscent
from cnnviz.synthesis.parametrisations import Parametrisation, PixelImage, Size
from cnnviz.synthesis.recipes import Recipe, fourier, pixel
from cnnviz.synthesis.results import Synthesis, joined
from cnnviz.synthesis.settings import check_number, prepare
from cnnviz.synthesis.transforms import draws
from cnnviz.synthesis.views import Viewer

OCTAVES, OCTAVE = 3, 1.4  # scales at which an image is dreamt over, and the factor between them
SMALLEST = 48  # pixels; the short side of the first octave
_KEPT = "fraction of activation energy reconstructed"
DREAM_SIZE = 2  # times the network's own, where it takes any


@dataclass(frozen=True, kw_only=True)
class ImageProgress(Progress):
    """How far a dream or an inversion is, counted in steps at all scales, or of all layers, together.

    Attributes:
        image: at the scale, or of the layer, at hand, as it is so far.
        synthesis: the result, once there is one.
    """

    image: Parametrisation
    synthesis: Synthesis | None = None


def dream(
    network: Network,
    picture: Source,
    layer: str | nn.Module,
    *,
    size: int | None = None,
    steps: int = 20,
    seed: int = 0,
) -> Synthesis:
    """An image in which a layer sees more and more of what it already sees: DeepDream.

    From small to large, the image maximises the layer's mean squared activation; the detail that was lost by making it
    small is put back at the next scale.

    Args:
        picture: as for `cnnviz.feature_maps`.
        layer: a name from ``network.layers``, or the module itself.
        size: short side of the result in pixels; twice the network's own by default.
        steps: at each of three scales.
        seed: of the small shifts on the way.

    Raises:
        PictureError, UnknownNameError, LayerError, ShapeError: if image, layer or size do not fit.

    References:
        Mordvintsev, Olah and Tyka (2015), *Inceptionism: Going Deeper into Neural Networks*.
    """
    return _result(dream_steps(network, picture, layer, size=size, steps=steps, seed=seed))


def dream_steps(
    network: Network,
    picture: Source,
    layer: str | nn.Module,
    *,
    size: int | None = None,
    steps: int = 20,
    seed: int = 0,
) -> Iterator[ImageProgress]:
    """The same as `dream`, step by step; arguments and errors are its own.

    Yields:
        After each step, and once more with the result.
    """
    check_network(network)
    layer = network.layer_name(layer)
    check_number("steps", steps)
    if size is None and network.takes_any_size and not isinstance(picture, Tensor):
        size = DREAM_SIZE * min(network.input_size)
    shown = show(network, picture, fit="whole", size=size)
    original = shown.images[:1].cpu()
    sides = _octaves(original, network.takes_any_size)
    total, start = steps * len(sides), _resized(original, sides[0])
    for octave, (side, larger) in enumerate(pairwise(sides)):
        for step in _optimized(network, layer, start, steps, seed_of(seed, layer, octave)):
            yield ImageProgress(octave * steps + step.number + 1, total, 0, 1, image=step.image)
        lost = _resized(original, larger) - _resized(_resized(original, side), larger)
        start = (_resized(step.image().detach().cpu(), larger) + lost).clamp(0, 1)
    job = _job(network, layer, everything_of(layer), _dreaming(), steps, seed_of(seed, layer), start=start)
    for progress in job.run():
        if progress.step is not None:
            image = progress.step.image
            yield ImageProgress(total - steps + progress.step.number + 1, total, 0, 1, image=image)
    viewer = Viewer(network, [layer], original, elided=False)
    with torch.no_grad():
        before = everything_of(layer).score(viewer(as_shown(original).to(network.device))).item()
    synthesis = collect(job, progress)
    images = tuple(replace(dreamt, start=before) for dreamt in synthesis.synthesized)
    settings = {"command": "dream", "recipe": "dream", "layer": layer, "seed": operator.index(seed)}
    synthesis = _about(shown, replace(synthesis, synthesized=images), f"DeepDream: {layer}", settings)
    yield ImageProgress(total, total, 1, 1, image=image, synthesis=synthesis)


def invert(
    network: Network,
    picture: Source,
    layers: str | nn.Module | Sequence[str | nn.Module],
    *,
    size: int | None = None,
    steps: int = 384,
    seed: int = 0,
) -> Synthesis:
    """What layers keep of an image: from noise, an image whose maps at a layer are like the image's; one per layer.

    The score is 1 less the share of the maps' energy that is missed: 1 for maps that are equal.

    Args:
        picture: as for `cnnviz.feature_maps`.
        layers: one or more, by their names or as modules, from ``network.layers``.
        size: short side, in pixels, of what the network is shown; the network's own by default.
        steps: how many.
        seed: of the noise.

    Raises:
        PictureError, UnknownNameError, LayerError, ShapeError: if image, layers or size do not fit.

    References:
        Mahendran and Vedaldi (2015), *Understanding Deep Image Representations by Inverting Them*; the parametrisation
        is that of Olah et al. (2017).
    """
    return _result(invert_steps(network, picture, layers, size=size, steps=steps, seed=seed))


def invert_steps(
    network: Network,
    picture: Source,
    layers: str | nn.Module | Sequence[str | nn.Module],
    *,
    size: int | None = None,
    steps: int = 384,
    seed: int = 0,
) -> Iterator[ImageProgress]:
    """The same as `invert`, step by step; arguments and errors are its own.

    Yields:
        After each step, and once more with the result.
    """
    check_network(network)
    shown = show(network, picture, fit="whole", size=size)
    images = shown.images[:1]
    with torch.no_grad(), forward_pass(network, images):
        maps = activations(network, images, layers)
    names, inversions = list(maps), list[Synthesis]()
    total = steps * len(names)
    for place, layer in enumerate(names):
        seeded, sides = seed_of(seed, layer), images.shape[2:]
        job = _job(network, layer, match(layer, maps[layer]), _inverting(), steps, seeded, size=sides)
        for progress in job.run():
            if progress.step is not None:
                done, image = place * steps + progress.step.number + 1, progress.step.image
                yield ImageProgress(done, total, place, len(names), image=image)
        inversions.append(collect(job, progress))
    settings = {
        "command": "invert",
        "recipe": "invert",
        "objective": _KEPT,
        "layers": names,
        "seed": operator.index(seed),
    }
    synthesis = _about(shown, joined(inversions), f"Feature inversion: {', '.join(names)}", settings)
    yield ImageProgress(total, total, len(names), len(names), image=image, synthesis=synthesis)


def _result(running: Iterator[ImageProgress]) -> Synthesis:
    synthesis = deque(running, maxlen=1).pop().synthesis
    assert synthesis is not None
    return synthesis


def _job(
    network: Network,
    layer: str,
    objective: Objective,
    recipe: Recipe,
    steps: int,
    seed: int,
    *,
    start: Tensor | None = None,
    size: Sequence[int] | None = None,
) -> Job:
    """The job of one image, named after the layer."""
    return prepare(
        network,
        objective,
        [seed],
        [layer],
        layer,
        {},
        start=start,
        recipe=recipe,
        steps=steps,
        size=None if size is None else (size[0], size[1]),
        batch=1,
        precision="float32",
        tries=1,
    )


def _about(shown: Shown, synthesis: Synthesis, title: str, settings: dict[str, Any]) -> Synthesis:
    """The same as a synthesis about an image."""
    return replace(
        synthesis,
        title=title,
        settings={**synthesis.settings, **settings, **shown.settings},
        picture=(shown.names[0], shown.sha256, unseen_dimmed(shown, 0)),
    )


def _optimized(network: Network, layer: str, start: Tensor, steps: int, seed: int) -> Iterator[Step]:
    """One octave of a dream."""
    recipe, image = _dreaming(), PixelImage(start).to(network.device)
    matrices = draws(recipe.transforms((start.shape[2], start.shape[3])), [seed], steps)
    yield from ascend(
        network,
        everything_of(layer),
        image,
        steps=steps,
        rate=recipe.rate,
        optimiser=recipe.optimiser,
        augmentation=Augmentation(matrices),
    )


def _dreaming() -> Recipe:
    """Small equal steps of the image's own pixels, with random jitter."""
    return replace(pixel(), optimiser=GradientAscent, rate=0.006, penalty=None)


def _inverting() -> Recipe:
    """A spectrum seen as it stands, for positions matter; total variation fills in what the layer does not see."""
    return replace(fourier(), transforms=lambda _: (), penalty=0.5 * total_variation())


def _octaves(picture: Tensor, any_size: bool) -> list[Size]:
    """(height, width) of each scale, the smallest first; only one where the network takes no other."""
    height, width = picture.shape[2:]
    factors = [OCTAVE**-number for number in reversed(range(OCTAVES))] if any_size else [1.0]
    sides = [(round(height * factor), round(width * factor)) for factor in factors]
    return [side for side in sides if min(side) >= SMALLEST or side == sides[-1]]


def _resized(images: Tensor, size: Size) -> Tensor:
    return functional.interpolate(images, size, mode="bilinear", antialias=True)
