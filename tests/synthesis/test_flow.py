"""What a step of an ascent asks of a device: nothing that would make it wait, and no more for more images.

Operations are counted as PyTorch hands them to a device, so what holds here holds on a graphics card.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cnnviz.networks.network import Network
from cnnviz.synthesis.maximization import filter_job
from cnnviz.synthesis.recipes import RECIPES

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "lift_fresh")  # values to the host, or from it
SETTLING = "erhan"  # stops when no score changes any more, so that it has to look at them


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        self.counts[str(func).split(".")[1]] += 1
        return func(*args, **(kwargs or {}))


def of_a_step(network: Network, recipe: str, batch: int) -> Counter[str]:
    """The operations of the third step; the first ones have what is done once."""
    job = filter_job(network, "block3_conv1", list(range(batch)), recipe=recipe, steps=6, batch=batch, size=48)
    steps = job.run()
    next(steps), next(steps)
    with Operations() as operations:
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    return operations.counts


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != SETTLING])
def test_a_step_does_not_wait_for_the_device(mini: Network, recipe: str) -> None:
    counts = of_a_step(mini, recipe, 2)
    assert counts["convolution"] >= 4
    assert not {name: count for name, count in counts.items() if name in WAITING}


def test_more_images_are_no_more_operations(mini: Network) -> None:
    assert of_a_step(mini, "natural", 2).total() == of_a_step(mini, "natural", 16).total()


def test_waiting_is_noticed() -> None:
    with Operations() as operations:
        torch.ones(2).sum().item()
        torch.tensor([1])
    assert {"_local_scalar_dense", "lift_fresh"} <= operations.counts.keys()
