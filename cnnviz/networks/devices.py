"""Which devices there are, which numbers they are fast in, and how much fits into their memory."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from cnnviz.errors import ModelError, out_of_memory

Result = TypeVar("Result")
LOG = logging.getLogger("cnnviz")


def devices() -> list[str]:
    """The devices that PyTorch computes on here, the fastest first."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, there in here.items() if there]


def check_device(device: str | torch.device) -> torch.device:
    """A device, if PyTorch computes on it here.

    Args:
        device: such as "cuda:1"; "auto" for the fastest there is.

    Raises:
        ModelError: says which devices there are.
    """
    if device == "auto":
        return torch.device(devices()[0])
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError):  # a word of no kind of device
        known = None
    cards = torch.cuda.device_count() if known is not None and known.type == "cuda" else 1
    if known is None or known.type not in devices() or (known.index or 0) >= cards:
        raise ModelError(f"PyTorch finds no device {str(device)!r} here; there is {' and '.join(devices())}.")
    return known


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies in it, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    native = device.type == "cpu" and any(probe() for probe in probes if probe)
    return torch.bfloat16 if native else torch.float32


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory that a graphics card has of its own; None of other devices."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def halved(batch: int, error: BaseException) -> int:
    """Half of a batch that failed: what to go on with, if it was for want of memory.

    Raises:
        BaseException: `error` itself, if it was not, or if there is not even room for one.
    """
    if batch == 1 or not out_of_memory(error):
        raise error
    return batch // 2


class MemoryLimit:
    """How many images at a time there is memory for, as far as is known."""

    def __init__(self) -> None:
        self._most: int | None = None

    def run(self, work: Callable[[int], Result], batch: int) -> Result:
        """What `work` gives with `batch` images at a time; if memory runs out with half as many, and so on.

        Raises:
            RuntimeError, MemoryError: if there is not even room for one.
        """
        batch = batch if self._most is None else min(batch, self._most)
        while True:
            try:
                return work(batch)
            except (RuntimeError, MemoryError) as error:
                half = halved(batch, error)
            batch = self._most = half
            LOG.warning("memory ran out: going on with %d images at a time", batch)
