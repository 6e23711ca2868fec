"""The grid pointing game (Boehle et al. 2021): a truth for attributions that needs nobody's eye.

Two pictures of different classes stand side by side, and a method is asked why one of the classes came out. What speaks
for it is in that class's half; a method that knows nothing puts 50 % of its heat there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cnnviz.attribution.attribute import attribute
from cnnviz.attribution.explainer import Explainer, explainer
from cnnviz.attribution.heatmaps import heat
from cnnviz.attribution.methods import METHODS
from cnnviz.errors import PictureError
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network
from cnnviz.networks.predictions import class_index
from cnnviz.pictures.reading import picture_files

CONFIDENCE = 0.8


@dataclass(frozen=True)
class Example:
    """A picture's file, what the network is shown of it (1, C, H, W), its class and that class's probability."""

    path: Path
    image: Tensor
    index: int
    probability: float


def examples(
    network: Network,
    folder: str | Path,
    *,
    confidence: float = CONFIDENCE,
    size: int | None = None,
    seed: int = 0,
) -> Iterator[Example]:
    """Pictures of a folder, in an order drawn by `seed`, found as they are asked for.

    Args:
        folder: pictures in folders named after their classes, by label, number or WordNet id; or right in it, which are
            then taken for what the network is sure they are. What cannot be read is passed over.
        confidence: the least probability, in [0, 1], that the network must give to the right class, which must be its
            most probable one, when it sees the middle of the picture.
        size: of what it sees, in pixels; its own by default.

    Raises:
        PictureError: if there is no picture in the folder.
        UnknownNameError: if a folder of pictures is named after no class.
    """
    folder, ready = Path(folder), explainer(network)
    files = picture_files(folder)
    truth = {
        name: class_index(network, name) for name in sorted({_class_folder(folder, path) for path in files} - {""})
    }
    for row in torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist():
        example = _recognised(ready, network, files[row], size)
        if example is None or example.probability < confidence:
            continue
        if truth.get(_class_folder(folder, example.path), example.index) == example.index:
            yield example


def _class_folder(folder: Path, path: Path) -> str:
    """The name of the folder in `folder` that a picture lies in; empty if it lies right there."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _recognised(ready: Explainer, network: Network, path: Path, size: int | None) -> Example | None:
    """A picture with its most probable class; None if it cannot be read."""
    try:
        image = show(network, path, fit="crop", size=size).images
    except PictureError:
        return None
    probability, index = ready.probabilities(image)[0].max(0)
    return Example(path, image.cpu(), int(index), probability.item())


CHANCE = 0.5
Pair = tuple[Example, Example]


def pairs(examples: Iterable[Example]) -> Iterator[Pair]:
    """Pairs of different classes as they are found; no picture is in two of them."""
    waiting: list[Example] = []  # all of one class
    for example in examples:
        if waiting and waiting[0].index != example.index:
            yield waiting.pop(0), example
        else:
            waiting.append(example)


def pointing_game(
    network: Network,
    grids: Sequence[Pair],
    methods: Sequence[str],
    *,
    seed: int = 0,
    watch: Callable[[str, float], None] | None = None,
) -> dict[str, Tensor]:
    """For each method the share of positive attribution on the right half, in [0, 1].

    Every second grid asks for the class on the left, the others for the one on the right.

    Args:
        grids: pairs of pictures, all of one size.
        methods: keys of `cnnviz.attribution.methods.METHODS`.
        watch: called with what is being done, and the share of it that is done.

    Returns:
        By method, float64 (grids,); NaN where nothing at all was positive. Where a method has no signs, all that is not
        zero counts.

    Raises:
        ShapeError: if the network does not take images that are twice as wide.
        ModelError: as `attribute`.
    """
    shares: dict[str, list[float]] = {name: [] for name in methods}
    for number, grid in enumerate(grids):
        side = number % 2
        image = torch.cat([example.image for example in grid], 3)
        width = image.shape[3]
        half = slice(side * width // 2, (side + 1) * width // 2)
        for row, name in enumerate(methods):
            if watch:
                watch(f"two pictures, {METHODS[name].title}", (number + row / len(methods)) / len(grids))
            values = attribute(network, image.to(network.device), grid[side].index, method=name, seed=seed)
            warm = heat(values, name, image.shape[2:])[0].cpu().double().clamp(min=0)
            shares[name].append((warm[:, half].sum() / warm.sum()).item())
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in shares.items()}
