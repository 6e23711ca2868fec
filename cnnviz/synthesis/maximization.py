"""Images that excite a network, with the evidence that they do.

`maximize` maximises any objective, `filter_images` the filters of a layer, `class_images` classes. Each gives a
`Synthesis`. What they share is in `Settings`; a progress bar takes the `Job` (`filter_job`, `class_job`), runs it
itself, and has `collect` make the `Synthesis`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
from torch import Tensor, nn

from cnnviz.errors import LayerError, ShapeError, several, whole_number
from cnnviz.networks.inputs import show
from cnnviz.networks.layer_names import PRE
from cnnviz.networks.network import Network, check_network
from cnnviz.networks.predictions import class_index
from cnnviz.synthesis.filter_objectives import filter_objective, objective_of, recipe_for
from cnnviz.synthesis.jobs import Job, SynthesisProgress, seed_of
from cnnviz.synthesis.objective_text import parse_objective
from cnnviz.synthesis.objectives import Objective, Score, likeness, logit
from cnnviz.synthesis.recipes import DEFAULT
from cnnviz.synthesis.results import Synthesis
from cnnviz.synthesis.settings import Settings, canvas, check_number, check_settings, prepare, side_pair

NAMED = 4  # classes at most in a title
_PER_IMAGE = {"filters", "classes", "seeds"}  # settings with an entry per image


def maximize(
    network: Network,
    objective: Objective | str | Score,
    *,
    seeds: Sequence[int] | None = None,
    start: Tensor | None = None,
    **settings: Unpack[Settings],
) -> Synthesis:
    """Images that score high.

    Args:
        network: a `Network`; make one of a plain ``nn.Module`` by `cnnviz.wrap`.
        objective: what for; see `cnnviz.synthesis.objectives`. Also in words, see `cnnviz.synthesis.objective_text`, or
            a plain function from a `cnnviz.synthesis.views.View` to scores (N,).
        seeds: one per image, whole numbers from 0; 0, 1, 2, ... by default, as many as the objective is for.
        start: (N, C, H, W) in [0, 1], images to start from instead of noise; their size is then the images'.
        settings: steps, size and so on; `cnnviz.synthesis.settings.Settings` lists them, with units and defaults.

    Raises:
        UnknownNameError, LayerError, ShapeError: if a name, a setting, a layer, a channel or a size does not fit the
            network.
        PictureError: if the folder of references has no image.
    """
    check_network(network)
    check_settings(settings, ("seeds", "start"))
    if seeds is not None:
        seeds = [whole_number(seed, "a seed") for seed in several(seeds, int | np.integer, "seeds are given by number")]
    if isinstance(objective, str):
        if start is not None or len(seeds or [0]) != 1:
            raise ShapeError("an objective in words is for one image from noise; for others, make an Objective.")
        return finished(objective_job(network, objective, seed=(seeds or [0])[0], **settings))
    size = side_pair(settings.get("size")) or network.input_size
    if start is not None:
        start = _images(network, start)
        size = start.shape[2], start.shape[3]
    objective = objective_of(network, objective, size)
    wanted = objective.count or (1 if start is None else len(start))
    seeds = range(wanted) if seeds is None else seeds
    count = len(seeds)
    if count == 1:
        settings.setdefault("batch", 1)
    labels, title = tuple(map(str, range(count))), f"{network.name}: {objective.text}"
    return finished(prepare(network, objective, seeds, labels, title, {}, start=start, **settings))


def _images(network: Network, start: object) -> Tensor:
    """(N, C, H, W), on the CPU, images to start from."""
    if not isinstance(start, Tensor):
        raise ShapeError(f"images to start from are a tensor (N, C, H, W) in [0, 1], not a {type(start).__name__}.")
    return show(network, start).images.cpu()


def filter_images(
    network: Network,
    layer: str | nn.Module,
    filters: int | Sequence[int] | None = None,
    *,
    seed: int = 0,
    diverse: int = 1,
    **settings: Unpack[Settings],
) -> Synthesis:
    """Feature visualization: for each filter of a layer an image that maximises its mean activation.

    The mean is of the values behind the activation that follows the layer, over the positions that padding does not
    reach if these are half of all at least. A filter that does not fire is woken by the gradient before its activation.

    Args:
        network: a `Network`; make one of a plain ``nn.Module`` by `cnnviz.wrap`.
        layer: a name from ``network.layers``, with feature maps, or the module itself. With ``:pre`` at its end, as in
            ``block4_conv2:pre``, the mean is of the values before the activation, over all positions.
        filters: their numbers, all by default.
        seed: a whole number from 0; each filter draws from (seed, layer, number).
        diverse: how many images of each filter, next to each other, that are to differ: during optimization, the
            similarity of their Gram matrices at the layer is taken off their scores.
        settings: steps, size and so on; `cnnviz.synthesis.settings.Settings` lists them, with units and defaults.

    Raises:
        UnknownNameError, LayerError, ShapeError, PictureError: as `maximize`.
    """
    check_network(network)
    check_settings(settings, ("seed", "diverse"))
    return finished(filter_job(network, layer, filters, seed=seed, diverse=diverse, **settings))


def class_images(
    network: Network,
    classes: int | str | Sequence[int | str],
    *,
    seed: int = 0,
    alone: bool = False,
    **settings: Unpack[Settings],
) -> Synthesis:
    """What a class looks like to the network: for each an image that maximises its logit - 0.5 x the runner-up's logit.

    Such images fool the network: they are like no photograph, and it is surer of them than of any (Nguyen et al. 2015,
    *Deep Neural Networks are Easily Fooled*). The recipe is "soft" by default.

    Args:
        network: a `Network`; make one of a plain ``nn.Module`` by `cnnviz.wrap`.
        classes: their numbers or names; see `cnnviz.class_index`.
        seed: a whole number from 0; each class draws from (seed, number).
        alone: whether to maximise the logit alone, as Simonyan et al. (2014) do.
        settings: steps, size and so on; `cnnviz.synthesis.settings.Settings` lists them, with units and defaults.

    Raises:
        ShapeError, UnknownNameError: if there is no such class.
    """
    check_network(network)
    check_settings(settings, ("seed", "alone"))
    return finished(class_job(network, classes, seed=seed, alone=alone, **settings))


def filter_job(
    network: Network,
    layer: str | nn.Module,
    filters: int | Sequence[int] | None = None,
    *,
    seed: int = 0,
    diverse: int = 1,
    first: int | None = None,
    **settings: Unpack[Settings],
) -> Job:
    """The job of `filter_images`, not yet run; without `filters` it is for the first ones, if it is said how many."""
    check_network(network)
    check_number("diverse", diverse)
    layer = network.layer_name(layer)
    own = network.filters_of(layer)
    size, response = canvas(network, own.module, side_pair(settings.get("size")))
    count = response.shape[1]
    if filters is None:
        filters = range(count)[:first]
    else:
        filters = [
            whole_number(number, "a filter")
            for number in several(filters, int | np.integer, "filters are given by number")
        ]
    wrong = [number for number in filters if not 0 <= number < count]
    if wrong or len(filters) == 0:
        given = f"has no filter {wrong[0]}" if wrong else "is asked for no filter"
        raise ShapeError(f"{layer} of {network.name} {given}; its {count} filters are 0 to {count - 1}.")
    images = [(number, copy) for number in filters for copy in range(diverse)]
    numbers = [number for number, _ in images]
    path = network.qualified(own.plain)
    seeds = [seed_of(seed, path, number, *([copy] if copy else [])) for number, copy in images]
    labels = [f"{number}" if diverse == 1 else f"{number} ({copy + 1})" for number, copy in images]
    which = f"filter {filters[0]}" if len(filters) == 1 else f"filters {ranges(filters)}"
    title = f"Feature visualization: {own.name}, {which} of {count}"
    objective, text = filter_objective(own, numbers, response, size)
    record = {"command": "filters", "objective": text, "layer": own.name, "filters": numbers, "seed": seed}
    settings["size"] = size
    settings.setdefault("recipe", recipe_for(response) if diverse == 1 else DEFAULT)
    if diverse == 1:
        return prepare(network, objective, seeds, labels, title, record, **settings)
    batch = settings["batch"] = settings.get("batch") or diverse
    if batch % diverse:
        raise ShapeError(
            f"the {diverse} images of a filter are optimized together; a batch of {batch} would part them."
        )
    record["diverse"] = diverse
    alike = likeness(own.module, diverse, objective)
    return prepare(network, objective, seeds, labels, title, record, penalty=alike, **settings)


def objective_job(network: Network, text: str, *, seed: int = 0, **settings: Unpack[Settings]) -> Job:
    """The job of an image that maximises an objective in words, such as "block4_conv3:12 + block4_conv3:88@center".

    Args:
        text: see `cnnviz.synthesis.objective_text`.
        seed: of the image.
        settings: see `Settings`; the image is as large as the largest that one of the layers asks for.

    Raises:
        UnknownNameError, LayerError, ShapeError: if the text is no objective, or a layer, filter or position does not
            exist.
    """
    check_network(network)
    terms, given = parse_objective(text), side_pair(settings.get("size"))
    sizes = [canvas(network, network.filters_of(term.layer).module, given)[0] for term in terms]
    size = settings["size"] = max(sizes)
    objective = objective_of(network, text, size)
    title = f"Feature visualization: {text}"
    record = {"command": "objective", "objective": text, "seed": seed}
    return prepare(network, objective, [seed_of(seed, text)], [text], title, record, **{"batch": 1} | settings)


def recorded_layer(network: Network, layer: str, objective: object) -> str:
    """The name of a layer whose filters a record says were drawn.

    Images from before the objective was the mean after the activation show what enters it: their records say so, or
    say nothing.
    """
    entering = network.filters_of(layer).plain + PRE
    return entering if entering in network.names and objective in (None, f"mean of {entering}") else layer


def ranges(numbers: Sequence[int]) -> str:
    """Numbers for people: "0-15, 41"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def class_job(
    network: Network,
    classes: int | str | Sequence[int | str],
    *,
    seed: int = 0,
    alone: bool = False,
    **settings: Unpack[Settings],
) -> Job:
    """The job of `class_images`, not yet run."""
    check_network(network)
    numbers = [
        class_index(network, name)
        for name in several(classes, str | int | np.integer, "classes are given by name or number")
    ]
    seeds = [seed_of(seed, "logits", number) for number in numbers]
    objective = logit(numbers, outputs=network.outputs)
    if not alone:
        margin = logit(numbers, versus="runner-up", outputs=network.outputs)
        objective = replace(0.5 * objective + 0.5 * margin, unit=objective.unit)
    settings.setdefault("recipe", "soft")
    labels = tuple(network.label(number) for number in numbers)
    named = ", ".join(labels) if len(labels) <= NAMED else f"{len(labels)} classes"
    title = f"Class visualization: {named}"
    maximised = "logit" if alone else "logit - 0.5 x runner-up logit"
    record = {"command": "classimage", "objective": maximised, "classes": numbers, "seed": seed, "alone": alone}
    return prepare(network, objective, seeds, labels, title, record, **settings)


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
    settings["precision"] = images[-1].precision
    for name in _PER_IMAGE & settings.keys():
        settings[name] = [settings[name][row] for row in rows]
    return Synthesis(
        network=job.network,
        synthesized=images,
        references=progress.references,
        title=job.title if len(rows) == len(job.seeds) else f"{job.title} ({len(rows)} are finished)",
        settings=settings,
    )
