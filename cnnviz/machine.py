"""What a machine does to a run: memory that runs out, a graphics card that goes away."""

import logging
from collections.abc import Callable
from typing import TypeVar

# What errors for want of memory say, on any device; their types differ from release to release of PyTorch's.
NO_MEMORY = ("out of memory", "DefaultCPUAllocator", "bad_alloc", "ALLOC_FAILED", "Cannot allocate", "failed to map")
LOST = ("CUDA error", "CUDA driver error", "CUDNN_STATUS", "CUBLAS_STATUS", "CUSOLVER_STATUS", "HIP error", "MPS error")
Result = TypeVar("Result")
LOG = logging.getLogger("cnnviz")


def out_of_memory(error: BaseException) -> bool:
    """Whether this is a device, or the computer, that has no memory left."""
    return isinstance(error, MemoryError) or _line(error, NO_MEMORY) is not None


def device_lost(error: BaseException) -> bool:
    """Whether this is a graphics card that failed, after which nothing in this process can use it."""
    return isinstance(error, RuntimeError) and not out_of_memory(error) and _line(error, LOST) is not None


def fault_of_machine(error: BaseException) -> str | None:
    """What happened and what to do, in one line, if the machine is at fault."""
    if out_of_memory(error):
        said = _line(error, NO_MEMORY)
        reason = f" ({said.rstrip('.')})" if said else ""
        return f"memory ran out{reason}; take a smaller --size or --batch, fewer layers, or free some memory."
    if device_lost(error):
        return f"the graphics card failed ({_line(error, LOST)}); give the same command again, or with --device cpu."
    return None


class Room:
    """How many images at a time there is memory for, as far as is known."""

    def __init__(self) -> None:
        self._most: int | None = None

    def used(self, work: Callable[[int], Result], batch: int) -> Result:
        """What `work` gives with `batch` images at a time; if memory runs out with half as many, and so on.

        Raises:
            RuntimeError, MemoryError: if there is not even room for one.
        """
        batch = batch if self._most is None else min(batch, self._most)
        while True:
            try:
                return work(batch)
            except (RuntimeError, MemoryError) as error:
                if batch == 1 or not out_of_memory(error):
                    raise
            batch = self._most = batch // 2
            LOG.warning("memory ran out: going on with %d images at a time", batch)


def _line(error: BaseException, marks: tuple[str, ...]) -> str | None:
    """The line of an error's text with one of the marks."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if any(mark in line for mark in marks)), None)
