"""What the threads of a process have in common, used without getting into each other's way and left as it was.

PyTorch's and NumPy's random generators have one user at a time. What is the same for all who want it, as quiet is, they
have together, and nobody waits.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock, RLock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_generators = RLock()


@contextmanager
def seeded(seed: int, device: "torch.device | None" = None) -> Iterator[None]:
    """Draw from the generators that everybody uses, those of the CPU and of a device; other threads wait meanwhile."""
    import torch

    card = device if device is not None and device.type == "cuda" else None
    with _generators, torch.random.fork_rng(devices=[card] if card else []):
        kept = np.random.get_state()  # noqa: NPY002 - captum's GradientSHAP takes no other
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every graphics card too
        np.random.seed(seed % 2**32)  # noqa: NPY002
        if card is not None:
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        elif device is not None and device.type == "mps":
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(kept)  # noqa: NPY002


class Together:
    """A state of the whole process: the first one in enters it, the last one out leaves it."""

    def __init__(self, state: Callable[[], AbstractContextManager[None]]) -> None:
        self._state, self._lock, self._inside = state, Lock(), 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._entered = self._state()
                self._entered.__enter__()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._entered.__exit__(None, None, None)


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    """On a graphics card convolutions of float32 numbers are just that."""
    import torch

    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


quiet, exact = Together(_without_warnings), Together(_without_tf32)
