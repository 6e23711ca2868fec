"""Jobs with a progress bar, that keep what is finished when interrupted."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cnnviz.cli.terminal import echo, printable
from cnnviz.errors import fault_of_machine

if TYPE_CHECKING:
    from rich.console import Console

    from cnnviz.networks.progress import Progress
    from cnnviz.synthesis.jobs import Job
    from cnnviz.synthesis.results import Synthesis


def run(job: "Job", deliver: "Callable[[Synthesis], None]", *, quiet: bool) -> None:
    """Run a job and hand over what it made; after Ctrl-C, or if the machine fails, whatever of it is finished.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        RuntimeError, MemoryError: if the machine failed.
    """
    from cnnviz.networks.provenance import describe
    from cnnviz.synthesis.maximization import collect

    describe(job.network)  # kept by the network from now on; from a graphics card that fails it could not be read
    progress = None
    try:
        with bar("", "images", quiet=quiet) as draw:
            for progress in job.run():
                draw(progress)
    except (KeyboardInterrupt, RuntimeError, MemoryError) as error:
        if progress and progress.finished and (isinstance(error, KeyboardInterrupt) or fault_of_machine(error)):
            echo(f"keeping the {progress.finished} of {progress.count} images that are finished", err=True)
            deliver(collect(job, progress))
        raise
    assert progress is not None
    deliver(collect(job, progress))


@contextmanager
def waiting(text: str, *, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Say on a terminal that something takes its time; what is given may be told what it is now, and the share done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = _console()
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        yield lambda now, share: bar.update(
            task, description=printable(now), completed=share, total=1 if share else None
        )


@contextmanager
def bar(text: str, things: str, *, quiet: bool) -> "Iterator[Callable[[Progress], None]]":
    """Show on a terminal how far work is that makes so many things, once it says so; and, anywhere, want of memory."""
    began: tuple[int, float] | None = None
    with waiting(text, quiet=quiet) as say:

        def draw(progress: "Progress") -> None:
            nonlocal began
            began = began or (progress.finished, time.monotonic())
            rate = 60 * progress.share * (progress.count - began[0]) / max(1.0, time.monotonic() - began[1])
            say(f"{progress.finished} of {progress.count} {things}, {rate:.0f} a minute", progress.share)
            if progress.batch is not None:
                echo(f"memory ran out: going on with {progress.batch} {things} at a time", err=True)

        yield draw


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)
