"""A gallery whose building is killed ten times and goes on, against one that is left alone.

Each build is killed by SIGKILL at one of its dealings with files, drawn at random: as it opens a file, when the file is
there and still empty, before its mode is set, before it is moved to its place, before it is removed.

As a script, for the whole built-in network: ``python tests/long_runs/interrupted.py FOLDER`` (some time: it is drawn
twice); with ``--filters 0-3 --steps 4`` for a part of it; with ``--small`` for a network that draws in no time.
"""

import os
import random
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no other threads
sys.path.insert(0, str(Path(__file__).parents[2]))

import click

import cnnviz
from cnnviz import files
from cnnviz.cli.values import channels
from cnnviz.galleries.building import build_gallery
from cnnviz.galleries.store import Store
from cnnviz.networks.network import Network
from tests.support.galleries import differences
from tests.support.networks import SmallVGG

TIMES = 10
DEALINGS = {"open", "os.chmod", "os.mkdir", "os.remove", "os.rename"}  # as Python's audit hooks call them


class Dealings:
    """Counts what this process does with the files of a folder, and kills it at a certain one."""

    def __init__(self, folder: Path, last: int | None) -> None:
        self.folder, self.last, self.count = str(folder), last, 0
        self._private = files._private
        files._private = self._opened
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in DEALINGS and str(arguments[0]).startswith(self.folder):
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)

    def _opened(self, name: str, flags: int) -> int:
        descriptor = self._private(name, flags)
        self._note("open", (name,))
        return descriptor


def built(network: Network, folder: Path, settings: dict[str, Any], last: int | None = None) -> tuple[int, int]:
    """Build in a fork, which is killed at its `last` dealing with files; gives its status and how many it had.

    This process itself builds nothing: it would have threads then, and could not fork any more.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        dealings = Dealings(folder, last)
        build_gallery(network, folder, **settings)
        os.write(writer, str(dealings.count).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as count:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(count.read() or 0)


def killed_and_continued(network: Network, folder: Path, settings: dict[str, Any], count: int) -> int:
    """Kill builds, that have `count` dealings with files if left alone, and let the last one finish.

    Gives how many were killed.
    """
    draws = random.Random(0)
    ends = [built(network, folder, settings, draws.randint(1, count // TIMES))[0] for _ in range(TIMES)]
    assert built(network, folder, settings)[0] == 0
    return ends.count(-signal.SIGKILL)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--small", is_flag=True)
@click.option("--layers", default="")
@click.option("--filters", type=channels)
@click.option("--steps", default=64)
def main(folder: Path, small: bool, layers: str, filters: tuple[int, ...] | None, steps: int) -> None:
    settings = {"layers": [name for name in layers.split(",") if name], "filters": filters, "steps": steps}
    import_module("torch._dynamo")  # as optimisers do: once, for all forks
    if small:
        network = cnnviz.wrap(SmallVGG([4, "M", 6, "M", 10, "M"]), name="small", input_size=32)
    else:
        network = cnnviz.load("vgg16-mini")
    status, count = built(network, folder / "alone", settings)
    assert status == 0
    caught = killed_and_continued(network, folder / "killed", settings, count)
    total = Store(folder / "alone").planned().count
    found = differences(folder / "alone", folder / "killed")
    click.echo(f"{total} filters, killed at work {caught} times: {found or 'no difference'}")


if __name__ == "__main__":
    main()
