"""How a synthesis is set up: from what a caller asks for to a `Job`."""

import hashlib
import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast, get_args

import numpy as np
import torch
from torch import Tensor

from cnnviz.errors import (
    LayerError,
    PictureError,
    ShapeError,
    UnknownNameError,
    check_keywords,
    check_whole,
    choose,
    path_of,
)
from cnnviz.networks.activations import Response, response
from cnnviz.networks.devices import fast_dtype, memory_of
from cnnviz.networks.inputs import check_side
from cnnviz.networks.network import Network, count_parameters
from cnnviz.networks.receptive_fields import Field
from cnnviz.pictures.reading import Picture
from cnnviz.synthesis.costs import step_memory
from cnnviz.synthesis.jobs import Job
from cnnviz.synthesis.judgement import natural_images
from cnnviz.synthesis.objectives import Objective
from cnnviz.synthesis.parametrisations import Size, natural_magnitudes
from cnnviz.synthesis.recipes import DEFAULT, RECIPES, Preset, Recipe, maco
from cnnviz.synthesis.views import Viewer

Precision = Literal["auto", "float32", "bfloat16"]
TRIES = 4
# Of more, the memory would be full at once.
MOST = {"steps": 100_000, "batch": 1024, "tries": 100, "filters": 100_000, "diverse": 64}
BATCH_ON_GPU, BATCH_OF_SMALL, SMALL = 64, 4, 10_000_000  # images at a time; weights of a network that is small
SMALLEST, FIELDS, GRAIN = 64, 1.3, 16  # pixels; receptive fields; sides are multiples of so many pixels


class Settings(TypedDict, total=False):
    """What `cnnviz.filter_images`, `cnnviz.class_images` and `cnnviz.maximize` can be told, as keywords.

    recipe: a name from `cnnviz.synthesis.recipes.RECIPES`, or a `Recipe`; "natural" by default, "soft" for classes, and
        "early" for filters whose receptive field is at most 24 pixels.
    preset: "draft", "default" or "fine": how many steps the recipe takes, 64, 256 or 1024 in most.
    steps: how many instead, 1 to 100,000.
    size: side, or (height, width), 1 to 4096 pixels; the network's own by default, and for the filters of a layer 1.3
        receptive fields, at least 64 pixels, at most the network's.
    batch: images at a time, 1 to 1024. By default 64 on a GPU, or as many as half its memory has room for; on a
        processor 1, or 4 if the network has less than ten million weights. Every batch is filled up to that shape, so
        that an image is the same whatever is made with it; a single one then costs as much as a batch.
    precision: what the network computes in: "float32", "bfloat16", or "auto", the default: bfloat16 where the device
        multiplies in it, also on processors (AVX-512 BF16, AMX), and float32 elsewhere. Images are judged in float32.
        Other precisions, as other devices, give slightly different images.
    references: a folder of images, or an image, to compare the scores with, besides simple patterns, noise and
        photographs; none by default.
    spectrum: a folder of images whose mean spectrum the recipe "maco" holds; that of the photographs that come with
        cnnviz by default.
    tries: how often an image may be made until it is "ok", 1 to 100; 4 by default.
    film: whether to keep images on the way, for an animation; False by default.
    """

    recipe: str | Recipe
    preset: Preset
    steps: int | None
    size: int | tuple[int, int] | None
    batch: int | None
    precision: Precision
    references: str | Path | Picture | None
    spectrum: str | Path | None
    tries: int
    film: bool


def check_settings(settings: Settings, others: Sequence[str] = ()) -> None:
    """Notice settings that there are none of, and values that nobody can have meant.

    Public functions begin with it: a keyword that they have not could mean something to the functions that they call.

    Args:
        others: the function's own keywords, for the error.

    Raises:
        UnknownNameError: if there is no such setting, recipe, preset or precision.
        ShapeError: if a number is none, or out of range.
        PictureError: if references or spectrum are not given by their path.
    """
    check_keywords(settings, Settings, "setting", others)
    if not isinstance(settings.get("recipe"), Recipe):
        choose(settings.get("recipe", DEFAULT), RECIPES, "recipe")
    choose(settings.get("preset", "default"), get_args(Preset), "preset")
    choose(settings.get("precision", "auto"), get_args(Precision), "precision")
    side_pair(settings.get("size"))
    check_number("tries", settings.get("tries", TRIES))
    for name, number in (("steps", settings.get("steps")), ("batch", settings.get("batch"))):
        if number is not None:
            check_number(name, number)
    for images in (settings.get("references"), settings.get("spectrum")):
        if images is not None and not isinstance(images, Picture):
            path_of(images, "a folder of images", PictureError)


def prepare(
    network: Network,
    objective: Objective,
    seeds: Sequence[int],
    labels: Sequence[str],
    title: str,
    record: dict[str, Any],
    *,
    start: Tensor | None = None,
    penalty: Objective | None = None,
    **settings: Unpack[Settings],
) -> Job:
    """A job to maximise an objective, not yet run.

    Args:
        seeds, labels: one per image.
        title: what the images are.
        record: what images' records say besides, or instead: another command and objective, what the images are of.
        start: (N, C, H, W) in [0, 1], images to start from.
        penalty: what is subtracted during optimization, and not when they are judged.

    Raises:
        UnknownNameError, ShapeError, PictureError: as `check_settings`.
        ShapeError: if objective, seeds and starts are for different numbers of images.
    """
    check_settings(settings)
    settings = cast("Settings", {name: _plain(value) for name, value in settings.items()})
    counts = {len(seeds), objective.count or len(seeds), len(seeds) if start is None else len(start)}
    if len(counts) > 1 or not seeds:
        starts = "" if start is None else f" and {len(start)} starts"
        given = f"an objective for {objective.count or 'any number of'} images, with {len(seeds)} seeds{starts}"
        raise ShapeError(f"{given}; they must agree, and there must be one at least.")
    named = settings.get("recipe", DEFAULT)
    size = side_pair(settings.get("size")) or network.input_size
    if start is not None:
        size = start.shape[2], start.shape[3]
    spectrum = settings.get("spectrum")
    recipe = _recipe(named, spectrum, network.channels, size)
    steps = settings.get("steps")
    if steps is None:
        steps = recipe.steps[choose(settings.get("preset", "default"), recipe.steps, "preset")]
    precision, tries = settings.get("precision", "auto"), settings.get("tries", TRIES)
    dtypes = {"auto": fast_dtype(network.device), "float32": torch.float32, "bfloat16": torch.bfloat16}
    dtype = dtypes[precision]
    if precision == "auto" and not _computes_in(dtype, network, objective, size):
        dtype = torch.float32
    batch = settings.get("batch")
    if batch is None:
        batch = _batch(network, objective, size, dtype)
    references = settings.get("references")
    recorded = {
        "command": "maximize",
        "objective": objective.text,
        "recipe": named if isinstance(named, str) else f"own ({recipe.rate:g} a step, enlarged {recipe.enlarged:g} x)",
        "steps": steps,
        "size": list(size),
        "precision": str(dtype).removeprefix("torch."),
        "tries": tries,
        "references": _name(references),
        "spectrum": _name(spectrum),
        "start": None if start is None else hashlib.sha256(start.cpu().contiguous().numpy().tobytes()).hexdigest(),
        "seeds": list(seeds),
    }
    return Job(
        network=network,
        objective=objective,
        recipe=recipe,
        steps=steps,
        size=size,
        seeds=seeds,
        labels=labels,
        title=title,
        batch=batch,
        dtype=dtype,
        tries=tries,
        settings={name: _plain(value) for name, value in (recorded | record).items()},
        start=start,
        penalty=penalty,
        references=Path(references) if isinstance(references, str) else references,
        film=settings.get("film", False),
    )


def _plain(value: Any) -> Any:
    """Numbers of NumPy's and PyTorch's as Python's, which alone can be written into a record."""
    return value.item() if isinstance(value, np.generic) or (isinstance(value, Tensor) and not value.ndim) else value


def _name(images: str | Path | Picture | None) -> str | None:
    """What a record calls a folder of images, or an image."""
    if images is None:
        return None
    return images.name if isinstance(images, Picture) else Path(images).resolve().name


def _recipe(named: str | Recipe, spectrum: str | Path | None, channels: int, size: Size) -> Recipe:
    recipe = named if isinstance(named, Recipe) else RECIPES[named]()
    if spectrum is None:
        return recipe
    if named != "maco":
        raise UnknownNameError("a folder for the mean spectrum goes with the recipe 'maco' only.")
    images = torch.stack([*natural_images(Path(spectrum), channels, size).values()])
    return maco(natural_magnitudes(channels, size, images))


def canvas(network: Network, layer: str, size: Size | None = None) -> tuple[Size, Response]:
    """(height, width) in pixels of an image for the filters of a layer, and what the layer gives for it.

    The size is 1.3 receptive fields, if that is not too much: below 64 pixels there is little to see, and more than the
    network was made for means little to it.

    Args:
        size: to be taken instead, if given.

    Raises:
        LayerError: if the layer gives no feature maps.
        ShapeError: if the network cannot take images of the size given.
    """
    own = response(network, layer, size or network.input_size)
    if len(own.shape) != 4:
        raise LayerError(f"layer {layer!r} has no feature maps; for what classes look like, take `cnnviz classimage`.")
    wanted = size or _size_for(network, own.field)
    if wanted == (size or network.input_size):
        return wanted, own
    try:
        return wanted, response(network, layer, wanted)
    except ShapeError:  # it takes its own size only, and looks at it before the layer
        return network.input_size, own


def _size_for(network: Network, field: Field | None) -> Size:
    """So many receptive fields as show the filter, no more than the network's own size."""
    height, width = network.input_size
    largest = math.inf if field is None else max(span.size for span in field.spans)
    if math.isinf(largest):
        return height, width
    side = max(SMALLEST, GRAIN * math.ceil(FIELDS * largest / GRAIN))
    return min(side, height), min(side, width)


def _batch(network: Network, objective: Objective, size: Size, dtype: torch.dtype) -> int:
    """On a processor, only networks that leave it idle gain from several images at a time.

    On a GPU it depends on the memory that it has, not on what is free just now: another batch gives other pixels.
    """
    if not network.independent:
        return 1
    if network.device.type == "cpu":
        return BATCH_OF_SMALL if count_parameters(network) < SMALL else 1
    memory = memory_of(network.device)
    return BATCH_ON_GPU if memory is None else fitting(memory, step_memory(network, objective, size, dtype))


def fitting(memory: int, image: int) -> int:
    """The largest batch, a power of two up to `BATCH_ON_GPU`, of which half the memory of a GPU has room.

    Args:
        memory: of the GPU, in bytes.
        image: bytes of activations of one image; with their gradients and room to work in it takes three times that.
    """
    room = memory // 2 // (3 * image)
    return max(1, min(BATCH_ON_GPU, 2 ** (room.bit_length() - 1) if room else 1))


@torch.no_grad()
def _computes_in(dtype: torch.dtype, network: Network, objective: Objective, size: Size) -> bool:
    """Whether the network works in these numbers: one that makes float32 of its own on the way does not in others."""
    try:
        Viewer(network, objective.layers, torch.full((1, network.channels, *size), 0.5), dtype=dtype)
    except ShapeError:
        return False
    return True


def side_pair(size: int | tuple[int, int] | None) -> Size | None:
    """(height, width) of a side or a pair.

    Raises:
        ShapeError: if it is neither, there is not a pixel, or there are more than memory could hold.
    """
    if size is None:
        return None
    sides: list[Any] = list(size) if isinstance(size, Sequence | np.ndarray) and np.ndim(size) == 1 else [size, size]
    if len(sides) != 2 or isinstance(size, str):
        raise ShapeError(f"the size is a side or (height, width) in pixels, not {size!r}.")
    for side in sides:
        check_side(side)
    return operator.index(sides[0]), operator.index(sides[1])


def check_number(name: str, number: int) -> None:
    """Notice a number that nobody can have meant.

    Raises:
        ShapeError: if it is not a whole number from 1 to what `MOST` says.
    """
    check_whole(number, name, MOST[name])
