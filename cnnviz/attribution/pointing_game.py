"""The grid pointing game (Boehle et al. 2021): a ground truth for attributions.

Images of different classes stand in a grid, and a method is asked why one of the classes came out. What increases its
score is in that class's cell: the score is the sum of positive attribution in the cell, divided by that in the whole
grid. A method that knows nothing scores 1 / cells: 25 % in a grid of 2 x 2.

References:
    Boehle et al. (2021), *Convolutional Dynamic Alignment Networks for Interpretable Classifications*.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cnnviz.attribution.attribute import attribute
from cnnviz.attribution.explainer import Explainer, explainer
from cnnviz.attribution.heatmaps import heat
from cnnviz.attribution.methods import METHODS, fixed_options
from cnnviz.errors import PictureError, ShapeError
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network
from cnnviz.networks.predictions import class_index
from cnnviz.pictures.reading import picture_files

CONFIDENCE = 0.8


@dataclass(frozen=True)
class Example:
    """An image's file, what the network is shown of it (1, C, H, W), its class and that class's probability."""

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
    """Images of a folder, in an order drawn by `seed`, found as they are asked for.

    Args:
        folder: images in folders named after their classes, by label, number or WordNet id; or right in it, which are
            then taken for what the network is sure they are. What cannot be read is passed over.
        confidence: the least probability, in [0, 1], that the network must give to the right class, which must be its
            most probable one, when it sees the middle of the image.
        size: of what it sees, in pixels; its own by default.

    Raises:
        PictureError: if there is no image in the folder.
        UnknownNameError: if a folder of images is named after no class.
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
    """The name of the folder in `folder` that an image lies in; empty if it lies right there."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _recognised(ready: Explainer, network: Network, path: Path, size: int | None) -> Example | None:
    """An image with its most probable class; None if it cannot be read."""
    try:
        image = show(network, path, fit="crop", size=size).images
    except PictureError:
        return None
    probability, index = ready.probabilities(image)[0].max(0)
    return Example(path, image.cpu(), int(index), probability.item())


Cells = tuple[int, int]  # rows and columns of a grid
CELLS: Cells = (2, 2)
Grid = tuple[Example, ...]  # row by row


def check_cells(cells: Cells) -> None:
    """Notice a grid in which nothing can be told apart.

    Raises:
        ShapeError: if there are not at least two cells.
    """
    if min(cells) < 1 or cells[0] * cells[1] < 2:
        raise ShapeError(f"a grid has at least two cells, such as 2 x 2 or 1 x 2; not {cells[0]} x {cells[1]}.")


def grids_of(examples: Iterable[Example], count: int) -> Iterator[Grid]:
    """Grids of `count` images, all of different classes, as they are found; no image is in two of them."""
    waiting: dict[int, list[Example]] = {}  # by class; of fewer classes than a grid has cells
    for example in examples:
        waiting.setdefault(example.index, []).append(example)
        if len(waiting) == count:
            yield tuple(own.pop(0) for own in waiting.values())
            waiting = {index: own for index, own in waiting.items() if own}


def compared_map(method: str, image: Tensor, index: int, seed: int, network: Network) -> Tensor:
    """(H, W): a class's map for one image (1, C, H, W), with the same number of steps for every class and network."""
    image = image.to(network.device)
    values = attribute(network, image, index, method=method, seed=seed, **fixed_options(method))
    return heat(values, method, image.shape[2:])[0].cpu()


def pointing_game(
    network: Network,
    grids: Sequence[Grid],
    methods: Sequence[str],
    *,
    cells: Cells = CELLS,
    seed: int = 0,
    watch: Callable[[str, float], None] | None = None,
) -> dict[str, Tensor]:
    """For each method the share of positive attribution in the cell of the class that is asked for, in [0, 1].

    One class is asked for in each grid, that of the first cell, the second and so on in turn: unlike those of all
    classes of one grid, which Boehle et al. (2021) take, such shares are independent of each other.

    Args:
        grids: images, all of one size, as many in each grid as it has cells.
        cells: (rows, columns) of a grid.
        methods: keys of `cnnviz.attribution.methods.METHODS`.
        watch: called with what is being done, and the share of it that is done.

    Returns:
        By method, float64 (grids,); NaN where nothing at all was positive. Where a method has no signs, all that is not
        zero counts.

    Raises:
        ShapeError: if the network does not take images of the size of a grid.
        ModelError: as `attribute`.
    """
    shares: dict[str, list[float]] = {name: [] for name in methods}
    for number, grid in enumerate(grids):
        asked, image = number % len(grid), _side_by_side(grid, cells[1])
        for place, name in enumerate(methods):
            if watch:
                watch(f"a grid of images, {METHODS[name].title}", (number + place / len(methods)) / len(grids))
            positive = compared_map(name, image, grid[asked].index, seed, network).double().clamp(min=0)
            row, column = divmod(asked, cells[1])
            own = positive.tensor_split(cells[0], 0)[row].tensor_split(cells[1], 1)[column]
            shares[name].append((own.sum() / positive.sum()).item())
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in shares.items()}


def _side_by_side(grid: Grid, columns: int) -> Tensor:
    """(1, C, rows * H, columns * W)."""
    rows = [grid[start : start + columns] for start in range(0, len(grid), columns)]
    return torch.cat([torch.cat([example.image for example in row], 3) for row in rows], 2)
