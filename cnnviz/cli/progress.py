"""Jobs with a progress bar, that keep what is finished when interrupted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cnnviz.cli.terminal import echo, printable
from cnnviz.errors import fault_of_machine

if TYPE_CHECKING:
    from rich.console import Console

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
    try:
        _with_bar(job, quiet=quiet)
    except (KeyboardInterrupt, RuntimeError, MemoryError) as error:
        if job.made and (isinstance(error, KeyboardInterrupt) or fault_of_machine(error)):
            echo(f"keeping the {len(job.made)} of {len(job.seeds)} images that are finished", err=True)
            deliver(collect(job))
        raise
    deliver(collect(job))


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


def _with_bar(job: "Job", *, quiet: bool) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = _console()
    columns = (
        BarColumn(),
        TextColumn("{task.fields[finished]} of {task.fields[images]} images"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=None, finished=0, images=len(job.seeds), rate="")
        batch = job.batch
        for progress in job.run():
            bar.update(task, completed=progress.done, total=progress.total, finished=progress.finished)
            speed = bar.tasks[0].speed
            if speed:
                bar.update(task, rate=f"{speed / job.steps * 60:.0f} a minute")
            if progress.batch < batch:
                batch = progress.batch
                echo(f"memory ran out: going on with {batch} images at a time", err=True)


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)
