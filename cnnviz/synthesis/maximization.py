"""Images that excite a network, with the evidence that they do.

`maximize` climbs any objective, `filter_images` the filters of a layer, `class_images` classes. Each gives a
`Synthesis`. What they share is in `Settings`; a progress bar takes the `Job` (`filter_job`, `class_job`), runs it
itself, and has `collect` make the `Synthesis`.
"""

import operator
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from torch import Tensor

from cnnviz.errors import LayerError, ModelError, ShapeError
from cnnviz.networks.network import Network
from cnnviz.networks.predictions import class_index
from cnnviz.synthesis.jobs import Job, SynthesisProgress, seed_of
from cnnviz.synthesis.objectives import Objective, channel, logit
from cnnviz.synthesis.results import Synthesis
from cnnviz.synthesis.settings import Settings, canvas, prepare, side_pair

_PER_IMAGE = {"filters", "classes", "seeds"}  # settings with an entry per image


def maximize(
    network: Network,
    objective: Objective,
    *,
    seeds: Sequence[int] | None = None,
    start: Tensor | None = None,
    **settings: Unpack[Settings],
) -> Synthesis:
    """Images that score high.

    Args:
        objective: what for; see `cnnviz.synthesis.objectives`.
        seeds: one per image; 0, 1, 2, ... by default, as many as the objective is for.
        start: (N, C, H, W) in [0, 1], pictures to start from instead of noise; their size is then the images'.
        settings: see `Settings`.

    Raises:
        UnknownNameError, LayerError, ShapeError: if a name, a layer, a channel or a size does not fit the network.
        PictureError: if the folder of references has no picture.
    """
    _check(network)
    wanted = objective.count or (1 if start is None else len(start))
    seeds = range(wanted) if seeds is None else seeds
    count = len(seeds)
    if count == 1:
        settings.setdefault("batch", 1)
    labels, title = tuple(map(str, range(count))), f"{network.name}: {objective.text}"
    return finished(prepare(network, objective, seeds, labels, title, {}, start=start, **settings))


def filter_images(
    network: Network,
    layer: str,
    filters: int | Sequence[int] | None = None,
    *,
    seed: int = 0,
    **settings: Unpack[Settings],
) -> Synthesis:
    """What filters of a layer look for: for each an image that maximises its mean activation.

    ``blockX_convY`` is optimised before its ReLU, where a filter that does not fire still has a gradient.

    Args:
        layer: a name from ``network.layers``, with feature maps.
        filters: their numbers, all by default.
        seed: each filter draws from (seed, layer, number).
        settings: see `Settings`.

    Raises:
        UnknownNameError, LayerError, ShapeError, PictureError: as `maximize`.
    """
    return finished(filter_job(network, layer, filters, seed=seed, **settings))


def class_images(
    network: Network,
    classes: int | str | Sequence[int | str],
    *,
    seed: int = 0,
    alone: bool = False,
    **settings: Unpack[Settings],
) -> Synthesis:
    """What a class looks like to the network: for each an image that maximises its logit less half the runner-up's.

    Such images fool the network: they are like no photograph, and it is surer of them than of any (Nguyen et al. 2015,
    *Deep Neural Networks are Easily Fooled*). The recipe is "soft" by default.

    Args:
        classes: their numbers or names; see `cnnviz.class_index`.
        alone: whether to maximise the logit alone, as Simonyan et al. (2014) do.
        settings: see `Settings`.

    Raises:
        ShapeError, UnknownNameError: if there is no such class.
    """
    return finished(class_job(network, classes, seed=seed, alone=alone, **settings))


def filter_job(
    network: Network,
    layer: str,
    filters: int | Sequence[int] | None = None,
    *,
    seed: int = 0,
    first: int | None = None,
    **settings: Unpack[Settings],
) -> Job:
    """The job of `filter_images`, not yet run; without `filters` it is for the first ones, if it is said how many."""
    _check(network)
    climbed = network.before_relu(layer)
    settings["size"], count = canvas(network, climbed, side_pair(settings.get("size")))
    filters = [filters] if isinstance(filters, int) else filters
    filters = range(count)[:first] if filters is None else [operator.index(number) for number in filters]
    wrong = [number for number in filters if not 0 <= number < count]
    if wrong or len(filters) == 0:
        given = f"has no filter {wrong[0]}" if wrong else "is asked for no filter"
        raise ShapeError(f"{layer} of {network.name} {given}; its {count} filters are 0 to {count - 1}.")
    seeds = [seed_of(seed, network.qualified(layer), number) for number in filters]
    number = f"all {count}" if len(filters) == count else f"{len(filters)} of {count}"
    what = f"filter {filters[0]} looks" if len(filters) == 1 else f"{number} filters look"
    labels, title = tuple(map(str, filters)), f"{layer} of {network.name}: what {what} for"
    record = {"command": "filters", "objective": f"mean of {climbed}", "layer": layer, "filters": list(filters)}
    objective = channel(climbed, list(filters))
    return prepare(network, objective, seeds, labels, title, record | {"seed": seed}, **settings)


def class_job(
    network: Network,
    classes: int | str | Sequence[int | str],
    *,
    seed: int = 0,
    alone: bool = False,
    **settings: Unpack[Settings],
) -> Job:
    """The job of `class_images`, not yet run."""
    _check(network)
    numbers = [class_index(network, name) for name in ([classes] if isinstance(classes, str | int) else classes)]
    seeds = [seed_of(seed, "logits", number) for number in numbers]
    objective = logit(numbers)
    if not alone:
        margin = logit(numbers, versus="runner-up")
        objective = replace(0.5 * objective + 0.5 * margin, unit=objective.unit)
    settings.setdefault("recipe", "soft")
    labels = tuple(network.label(number) for number in numbers)
    title = f"{network.name}: what it takes for {labels[0] if len(numbers) == 1 else f'{len(numbers)} classes'}"
    climbed = "logit" if alone else "logit less half the runner-up's"
    record = {"command": "classimage", "objective": climbed, "classes": numbers, "seed": seed, "alone": alone}
    return prepare(network, objective, seeds, labels, title, record, **settings)


def _check(network: Network) -> None:
    """Not everything that is a module can be climbed: sizes and colours must be known."""
    if not isinstance(network, Network):
        raise ModelError(f"a {type(network).__name__} has to become a network of cnnviz's first, by cnnviz.wrap().")


def finished(job: Job) -> Synthesis:
    """Run a job to its end."""
    return collect(job, deque(job.run(), maxlen=1).pop())


def collect(job: Job, progress: SynthesisProgress) -> Synthesis:
    """What a job has made so far.

    Raises:
        LayerError: if that is nothing.
    """
    rows = sorted(progress.images)
    if not rows:
        raise LayerError(f"no image of {job.network.name} is finished yet.")
    images = tuple(progress.images[row] for row in rows)
    batches = [image.batch for image in images]
    settings = job.settings | {"batch": batches[0] if len(set(batches)) == 1 else batches}
    for name in _PER_IMAGE & settings.keys():
        settings[name] = [settings[name][row] for row in rows]
    return Synthesis(
        network=job.network,
        synthesized=images,
        references=progress.references,
        title=job.title if len(rows) == len(job.seeds) else f"{job.title} ({len(rows)} are finished)",
        settings=settings,
    )
