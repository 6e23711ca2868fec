"""A gallery that is killed at ten random moments and goes on, against one that is left alone.

As a script, for the whole built-in network: ``OMP_NUM_THREADS=1 python tests/long_runs/interrupted.py FOLDER`` (some
time: it is drawn twice); with ``--filters 0-3 --steps 4`` for a part of it.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import click

import cnnviz
from cnnviz.cli.values import channels
from cnnviz.galleries.building import build_gallery
from cnnviz.networks.network import Network
from tests.support.galleries import differences

TIMES = 10


def killed_and_continued(folder: Path, total: int, network: Network, **settings: Any) -> int:
    """Kill builds of `total` filters, each when it has drawn some more and a moment later, and let the last one finish.

    Gives how many were still at work when they were killed.
    """
    draws, caught = random.Random(0), 0
    for enough in sorted(draws.sample(range(total), TIMES)):
        child = os.fork()
        if not child:
            build_gallery(network, folder, **settings)
            os._exit(0)
        while len(list(folder.glob("images/*/*.png"))) < enough:
            time.sleep(0.001)
        time.sleep(draws.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        caught += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    build_gallery(network, folder, **settings)
    return caught


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--layers", default="")
@click.option("--filters", type=channels)
@click.option("--steps", default=64)
def main(folder: Path, layers: str, filters: tuple[int, ...] | None, steps: int) -> None:
    settings = {"layers": [name for name in layers.split(",") if name], "filters": filters, "steps": steps}
    network = cnnviz.load("vgg16-mini")
    total = build_gallery(network, folder / "alone", **settings).count
    caught = killed_and_continued(folder / "killed", total, network, **settings)
    found = differences(folder / "alone", folder / "killed")
    click.echo(f"{total} filters, killed at work {caught} times: {found or 'no difference'}")


if __name__ == "__main__":
    main()
