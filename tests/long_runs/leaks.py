"""Memory over 200 calls of every public function and every method of attribution, one after the other in one process.

    OMP_NUM_THREADS=1 python tests/long_runs/leaks.py [NAME ...]

Before each look at the process's resident memory, Python's garbage is collected and glibc gives back what it keeps
(`malloc_trim`). The first 20 calls fill caches and import; what comes on top by the last call, as a share, is the
growth, and more than 2 % is a leak: the script ends with status 1. Objects are those that Python's collector knows.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import click
import torch

from tests.support.visualizers import CALLS, Scene, scene

FIRST, MOST = 20, 0.02


def measured() -> tuple[int, int, int]:
    """Resident bytes, live tensors, and live objects."""
    gc.collect()
    known = gc.get_objects()
    tensors, objects = sum(issubclass(type(each), torch.Tensor) for each in known), len(known)
    del known
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), tensors, objects


def called(call: Callable[[Scene], bytes], at: Scene, times: int) -> None:
    for _ in range(times):
        call(at)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(CALLS)))
@click.option("--calls", default=200, show_default=True, type=click.IntRange(min=FIRST + 1))
def main(names: tuple[str, ...], calls: int) -> None:
    torch.set_num_threads(1)
    leaks, numbers = [], f"MB after {FIRST} | MB after {calls} | growth | tensors | objects"
    click.echo(f"| call | {numbers} |\n|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        at = scene(Path(folder))
        for name in names or CALLS:
            called(CALLS[name], at, FIRST)
            before = measured()
            called(CALLS[name], at, calls - FIRST)
            after = measured()
            growth = after[0] / before[0] - 1
            leaks += [name] if growth > MOST else []
            changes = " | ".join(f"{now} ({now - then:+})" for then, now in zip(before[1:], after[1:], strict=True))
            click.echo(f"| {name} | {before[0] / 1e6:.1f} | {after[0] / 1e6:.1f} | {growth:+.2%} | {changes} |")
    sys.exit(f"memory grows: {', '.join(leaks)}" if leaks else 0)


if __name__ == "__main__":
    main()
