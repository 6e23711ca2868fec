"""Every command, interrupted at random moments: what it leaves is whole, and it says no more than that it was stopped.

As a script: ``python tests/long_runs/interruptions.py FOLDER --times 8`` (some minutes), or with ``--only`` for some of
the commands. Runs are forks of one process in which everything is imported; what happens to signals before that
``--fresh`` tries, with new processes.
"""

import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no other threads
sys.path.insert(0, str(Path(__file__).parents[2]))

import click
import numpy as np
from PIL import Image

import cnnviz
from cnnviz.__main__ import main as command_line
from cnnviz.cli import cli
from cnnviz.errors import PictureError
from cnnviz.galleries.verification import check
from cnnviz.pictures.records import read_record

CAT = Path(__file__).parents[2] / "gallery" / "photos" / "cat.jpg"
MINI = ("--model", "vgg16-mini")
BUILD = (
    *("gallery", "build", "g", "--layers", "block1_conv1,block2_conv1", "--filters", "0-5"),
    *("--steps", "4", "--size", "32", *MINI),
)
EXAMPLES = ("gallery", "examples", "g", "--images", "photos", *MINI)
COMMANDS = {
    "app": ("--no-browser", "--port", "PORT"),
    "classes": ("cat", *MINI),
    "classimage": ("tabby", "goldfish", "--steps", "4", "--size", "64", "-o", "out.png", *MINI),
    "dream": ("cat.jpg", "--layer", "block3_conv1", "--size", "64", "--steps", "2", "-o", "out.png", *MINI),
    "evidence": ("photos", "--method", "saliency", "--grids", "1", "--pictures", "1", "--confidence", "0", *MINI),
    "featuremaps": ("cat.jpg", "--layers", "all", "--save-arrays", "out.npz", "-o", "maps", *MINI),
    "filters": (
        *("--layer", "block1_conv2", "--filters", "0-3", "--steps", "3", "--batch", "2", "--size", "32"),
        *("--film", "out.gif", "--save-arrays", "out.npz", "-o", "out.png", *MINI),
    ),
    "gallery build": BUILD[2:],
    "gallery examples": EXAMPLES[2:],
    "gallery plan": ("--layers", "block1_conv1", *MINI),
    "gallery serve": ("g", "--no-browser", "--port", "0"),
    "gallery site": ("g",),
    "gallery status": ("g",),
    "gallery verify": ("g",),
    "inspect": ("made.png",),
    "invert": ("cat.jpg", "--layer", "block2_conv2", "--size", "64", "--steps", "8", "-o", "out.png", *MINI),
    "kernels": ("-o", "out.png", *MINI),
    "layers": MINI,
    "models": (),
    "predict": ("cat.jpg", *MINI),
    "report": ("cat.jpg", "--filters", "1", "--steps", "2", "-o", "out.html", *MINI),
    "rerun": ("made.png", "--picture", "cat.jpg", "-o", "again.png"),
    "saliency": (
        *("cat.jpg", "--method", "grad-cam,smoothgrad", "--overlay", "over.png", "--save-arrays", "out.npz"),
        *("-o", "out.png", *MINI),
    ),
    "weights": (),
}
DRAWN = ("featuremaps", "cat.jpg", "--layer", "block1_conv1", "-o", "made.png", *MINI)
GALLERY = (BUILD, EXAMPLES, ("gallery", "site", "g"))
BEFORE = {  # what has to be there before a command makes sense
    "inspect": (DRAWN,),
    "rerun": (DRAWN,),
    **dict.fromkeys(("gallery examples", "gallery serve", "gallery site", "gallery status", "gallery verify"), GALLERY),
}
SERVERS = ("app", "gallery serve")  # which end by nothing else
LONGEST = 8.0  # seconds after which a server is interrupted
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True)
class Ran:
    """How a run ended: its status as a shell tells it, what it wrote to stderr, and how long it took."""

    status: int
    said: str
    seconds: float


def leaves(group: click.Group, before: str = "") -> Iterator[str]:
    """Every command that can be given."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from leaves(command, f"{before}{name} ")
        else:
            yield before + name


def forked(folder: Path, words: Sequence[str], moment: float | None = None, how: int = signal.SIGINT) -> Ran:
    """Run a command line in a fork, and send it a signal after `moment` seconds."""
    began = time.monotonic()
    child = os.fork()
    if not child:
        _become(folder, words)
    return _watched(folder, child, began, moment, how)


def fresh(folder: Path, words: Sequence[str], moment: float | None = None, how: int = signal.SIGINT) -> Ran:
    """The same in a new process, which has nothing imported."""
    began = time.monotonic()
    with (folder.parent / "stderr").open("wb") as said:
        line = [sys.executable, "-m", "cnnviz", *words]
        hearing = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        child = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=said, **hearing).pid
    return _watched(folder, child, began, moment, how)


def _become(folder: Path, words: Sequence[str]) -> None:
    """Turn this fork into a process that runs a command line."""
    status = 1
    try:
        os.chdir(folder)
        for stream, file in ((1, os.devnull), (2, folder.parent / "stderr")):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.argv = ["cnnviz", *words]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command_line()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0
    except BaseException:  # noqa: BLE001 - what Python would print
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _watched(folder: Path, child: int, began: float, moment: float | None, how: int) -> Ran:
    if moment is not None:
        time.sleep(moment)
        os.kill(child, how)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = (folder.parent / "stderr").read_text(errors="replace")
    return Ran(status if status >= 0 else 128 - status, said, time.monotonic() - began)


def faults_in(folder: Path) -> list[str]:
    """Files that are not whole, or should not be there."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            try:
                _read(path)
            except (OSError, ValueError, SyntaxError, PictureError, AssertionError) as error:
                found.append(f"{path.relative_to(folder)}: {error!r}")
    return found


def _read(path: Path) -> None:
    assert not path.name.endswith(".partial")
    if path.suffix == ".png":
        read_record(path)
    elif path.suffix in (".jpg", ".gif", ".webp"):
        with Image.open(path) as image:
            for frame in range(getattr(image, "n_frames", 1)):
                image.seek(frame)
                image.load()
    elif path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes())) as arrays:
            assert all(arrays[name].size for name in arrays)
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    elif path.suffix in (".json", ".jsonl"):
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        assert all(json.loads(line) for line in lines)


def prepared(folder: Path, names: Sequence[str]) -> Path:
    """A folder with what commands need: images, perhaps a gallery with its pages, or an image made by cnnviz."""
    base = folder / "base" / "in"
    (base / "photos").mkdir(parents=True)
    for name in ("cat.jpg", "photos/a.jpg"):
        shutil.copy(CAT, base / name)
    shutil.copy(CAT.with_name("coffee.jpg"), base / "photos" / "b.jpg")
    for words in dict.fromkeys(words for name in names for words in BEFORE.get(name, ())):
        ran = forked(base, words)
        assert ran.status == 0, ran.said
    return base


def words_of(name: str) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [*name.split(), *(port if word == "PORT" else word for word in COMMANDS[name])]


def interrupted(name: str, base: Path, times: int, draws: random.Random, run: object = forked) -> tuple[int, list[str]]:
    """Interrupt a command some times; gives how often it was at work then, and what went wrong."""
    assert callable(run)
    folder = base.parent.parent / "run" / "in"
    usual, caught, wrong = LONGEST, 0, []
    if name not in SERVERS:
        usual = run(_copied(base, folder, name), words_of(name)).seconds
    for _ in range(times):
        how, moment = draws.choice(list(ENDS)), draws.uniform(0.05, usual)
        ran = run(_copied(base, folder, name), words_of(name), moment, how)
        caught += ran.status == ENDS[how]
        told = [f"{name} after {moment:.2f} of {usual:.2f} s: {fault}" for fault in faults_in(folder)]
        if ran.status not in (0, ENDS[how]) or "Traceback" in ran.said or "Exception ignored" in ran.said:
            told.append(f"{name} after {moment:.2f} of {usual:.2f} s: status {ran.status}, {ran.said}")
        if name in ("gallery build", "gallery examples"):
            told += _continued(name, folder)
        wrong += told
    return caught, wrong


def _copied(base: Path, folder: Path, name: str) -> Path:
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(base, folder)
    if name == "gallery build":
        shutil.rmtree(folder / "g", ignore_errors=True)
    if name == "gallery examples":
        (folder / "g" / "examples.json").unlink()
        shutil.rmtree(folder / "g" / "examples")
    return folder


def _continued(name: str, folder: Path) -> list[str]:
    """What is wrong with a gallery after the same command once more."""
    again = forked(folder, words_of(name))
    return [str(fault) for fault in check(folder / "g")[1]] + ([again.said] if again.status else [])


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--times", default=8)
@click.option("--seed", default=0)
@click.option("--only", default="", help="Commands, with commas.")
@click.option("--fresh", "anew", is_flag=True)
def main(folder: Path, times: int, seed: int, only: str, anew: bool) -> None:
    assert sorted(COMMANDS) == list(leaves(cli)), "every command is interrupted"
    if not anew:  # imported once, for all forks
        for module in ("torchvision", "torch._dynamo"):  # networks and optimisers would do it
            import_module(module)
        for name in cnnviz.__all__:
            getattr(cnnviz, name)
    names = only.split(",") if only else list(COMMANDS)
    base, draws, total = prepared(folder, names), random.Random(seed), [0, 0, 0]
    for name in names:
        caught, wrong = interrupted(name, base, times, draws, fresh if anew else forked)
        total = [total[0] + times, total[1] + caught, total[2] + len(wrong)]
        click.echo(f"{name}: {times} times, {caught} at work", err=True)
        for each in wrong:
            click.echo(f"  {each}", err=True)
    click.echo(f"{total[0]} interruptions, {total[1]} at work, {total[2]} faults")


if __name__ == "__main__":
    main()
