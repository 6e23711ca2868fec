"""The grid pointing game (Boehle et al. 2021): a truth for attributions that needs nobody's eye.

Two pictures of different classes stand side by side, and a method is asked why one of the classes came out. What speaks
for it is in that class's half; a method that knows nothing puts 50 % of its heat there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from cnnviz.attribution import attribute, heat
from cnnviz.examples import Example
from cnnviz.methods import METHODS
from cnnviz.network import Network

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
        methods: keys of `cnnviz.methods.METHODS`.
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
        height, width = image.shape[2:]
        half = slice(side * width // 2, (side + 1) * width // 2)
        for row, name in enumerate(methods):
            if watch:
                watch(f"two pictures, {METHODS[name].title}", (number + row / len(methods)) / len(grids))
            values = attribute(network, image.to(network.device), grid[side].index, method=name, seed=seed)
            warm = heat(values, name, (height, width))[0].cpu().double().clamp(min=0)
            shares[name].append((warm[:, half].sum() / warm.sum()).item())
    return {name: torch.tensor(found, dtype=torch.float64) for name, found in shares.items()}
