"""Homes, disks, terminals and locales as they should not be: commands end in one line, or do without."""

import errno
import io
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

import cnnviz
from cnnviz.cli import cli
from cnnviz.cli.progress import waiting
from cnnviz.errors import OutputError
from cnnviz.networks.network import Network
from cnnviz.web.report import Report
from tests.support.commands import Run
from tests.support.paths import CAT, NETWORKS

MINI = ("--model", "vgg16-mini")
MAPS = ("featuremaps", str(CAT), "--layer", "block1_conv1", "--top", "1", "--size", "32", *MINI)
FULL = "No space left on device; make room, or choose another place."


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert text.startswith("Error: ")
    return text


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files can be made, but nothing can be written into them."""

    def on_full_disk(name: str, flags: int) -> int:
        os.close(os.open(name, flags, 0o600))
        return os.open("/dev/full", os.O_WRONLY)

    monkeypatch.setattr("cnnviz.files._private", on_full_disk)


@pytest.mark.parametrize(
    "arguments",
    [
        (*MAPS, "-o", "a.png"),
        (*MAPS, "-o", "a.jpg"),
        (*MAPS, "-o", "a.webp"),
        (*MAPS, "-o", "new/a.png"),
        ("filters", "--layer", "block1_conv1:pre", "--filters", "0", "--steps", "1", *MINI),
        ("kernels", *MINI),
        ("gallery", "build", "vgg", "--layers", "block1_conv1", "--filters", "0", "--steps", "1", *MINI),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_said_and_leaves_no_half_file(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert FULL in one_line(result.stderr)
    assert not [path for path in Path().rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_by_kind_of_file(run: Run, mini: Network, tmp_path: Path) -> None:
    found = cnnviz.filter_images(mini, "block1_conv1", [0], steps=1, size=32, tries=1, film=True)
    page: Any = SimpleNamespace(html=lambda: "<p>")
    from cnnviz.cli.output import save_npz

    saves: dict[str, Callable[[Path], object]] = {
        "a.gif": found.save,
        "a.npz": lambda path: save_npz(path, {"image": found.images.numpy()}),
        "a.html": lambda path: Report.save(page, path),
    }
    for name, save in saves.items():
        with pytest.raises(OutputError, match=FULL):
            save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        (*MAPS, "-o", "/proc/a.png"),
        (*MAPS, "--save-arrays", "/proc/a.npz"),
        ("filters", "--layer", "block1_conv1", "--film", "/proc/a.gif", *MINI),
        ("filters", "--layer", "block1_conv1", "--save-arrays", "/proc/a.npz", *MINI),
        ("saliency", str(CAT), "--overlay", "/proc/a.png", *MINI),
        ("saliency", str(CAT), "--save-arrays", "/proc/a.npz", *MINI),
        ("report", str(CAT), "-o", "/proc/a.html", *MINI),
        ("evidence", str(CAT.parent), "-o", "/proc/a.png", *MINI),
    ],
    ids=" ".join,
)
def test_a_place_that_takes_no_file_is_noticed_before_any_work(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    def work(network: Network, images: torch.Tensor) -> torch.Tensor:
        assert images.is_meta, "work had begun"
        return forward(network, images)

    forward = Network.forward
    monkeypatch.setattr(Network, "forward", work)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot" in one_line(result.stderr)
    assert "/proc/" in result.stderr


def test_a_read_only_working_directory_is_noticed_before_any_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("cnnviz.files.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("cnnviz.files.tempfile.mkstemp", refuse)
    for arguments in (
        MAPS,
        ("filters", "--layer", "block1_conv1", *MINI),
        ("dream", CAT, "--layer", "block1_conv1", *MINI),
        ("saliency", CAT, *MINI),
        ("report", CAT, *MINI),
    ):
        assert "Read-only file system; choose another place." in one_line(run(*arguments).stderr)
    result = run("gallery", "build", "/proc/vgg", "--layers", "block1_conv1", *MINI)
    assert "/proc/vgg" in one_line(result.stderr)
    assert run("predict", CAT, *MINI).exit_code == 0, "writes nothing"


def test_a_working_directory_that_was_deleted(run: Run, tmp_path: Path) -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").resolve().rmdir()
    result = run(*MAPS)
    assert result.exit_code == 1
    assert "No such file or directory" in one_line(result.stderr)
    assert run(*MAPS, "-o", tmp_path / "a.png").exit_code == 0


@pytest.mark.parametrize("home", ["nowhere", "a file", "locked"])
def test_no_place_for_downloads(
    run: Run, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("TORCH_HOME", {"nowhere": "/proc/none", "a file": "file", "locked": "locked"}[home])
    if home == "locked":
        status = os.stat

        def refuse(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
            if "locked" in os.fsdecode(path):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return status(path, *arguments, **options)

        monkeypatch.setattr(os, "stat", refuse)
        monkeypatch.setattr(os, "makedirs", lambda path, *_, **__: refuse(path))
    assert run("weights").exit_code == 0
    assert run("models", "vgg16").exit_code == 0
    result = run("weights", "vgg16")
    assert result.exit_code == 1
    assert "the weights of vgg16 cannot be downloaded (" in one_line(result.stderr)
    result = run("featuremaps", CAT, "--layer", "block1_conv1", "--top", "1", "--size", "32", "-o", tmp_path / "a.png")
    assert (result.exit_code, result.stderr) == (0, "")
    result = run("predict", CAT, "--top", "1")
    assert result.exit_code == 0
    assert "using the small built-in vgg16-mini" in result.stderr


@pytest.mark.parametrize("home", [None, "", "/nonexistent"])
def test_no_home(run: Run, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    for name in ("HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert run("weights").exit_code == 0
    assert run(*MAPS).exit_code == 0


def test_a_device_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for visible in ("99", "-1", "abc", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        result = run(*MAPS, "--device", "cuda")
        assert result.exit_code == 2
        assert "PyTorch finds no cuda device here; take --device auto." in result.stderr


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs a command with stdout as given; gives its exit status and what went to stderr."""
    opened: list[Any] = []

    def call(stdout: Any, *arguments: object, stderr: Any = None) -> tuple[int, str]:
        errors = stderr or io.StringIO()
        opened.extend(each for each in (stdout, errors) if each)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", errors)
            with pytest.raises(SystemExit) as ended:
                cli.main([str(argument) for argument in arguments], prog_name="cnnviz")
        code = ended.value.code
        return int(code or 0), errors.getvalue() if isinstance(errors, io.StringIO) else ""

    yield call
    for each in opened:
        try:
            each.close()
        except OSError:
            continue


@pytest.mark.parametrize("arguments", [("layers", *MINI), ("predict", CAT, *MINI), ("layers", "--json", *MINI)])
def test_output_that_cannot_be_written(output: Callable[..., tuple[int, str]], arguments: tuple[object, ...]) -> None:
    status, errors = output(open("/dev/full", "w"), *arguments)  # noqa: SIM115 - closed by the fixture
    assert (status, one_line(errors)) == (1, "Error: No space left on device.\n")
    reader, writer = os.pipe()
    os.close(reader)
    assert output(os.fdopen(writer, "w"), *arguments) == (1, ""), "whoever reads has read enough"
    assert output(None, *arguments) == (0, ""), "there is no stdout"


def test_what_an_encoding_lacks_is_spelled_out(output: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    def plain() -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="strict", write_through=True)

    def said(arguments: tuple[object, ...]) -> str:
        stdout = plain()
        assert output(stdout, *arguments)[0] == 0
        return stdout.buffer.getvalue().decode("latin-1")  # type: ignore[attr-defined]

    picture, labels = tmp_path / "größte 猫.jpg", tmp_path / "labels.txt"
    picture.write_bytes(CAT.read_bytes())
    labels.write_text("".join(f"Ziffer №{number}\n" for number in range(10)), encoding="utf-8")
    own = ("--model", f"{NETWORKS}:LeNet", "--input-size", "28", "--labels", labels)
    assert "größte \\u732b.jpg" in said(("predict", picture, *own))
    assert "Ziffer \\u21163" in said(("classes", *own))
    (row,) = json.loads(said(("predict", picture, "--json", *own)))["predictions"]
    assert row["picture"] == str(picture)
    assert row["classes"][0]["label"].startswith("Ziffer №")
    assert "block1_conv1" in said(("layers", *MINI))
    stderr = plain()
    assert output(plain(), "predict", picture, "--model", "猫", stderr=stderr)[0] == 1
    assert b"no network named '\\u732b'" in stderr.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("term", "moves"), [("dumb", False), ("xterm", True)])
def test_a_terminal_that_understands_nothing_is_sent_nothing_to_understand(
    output: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, term: str, moves: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", "1")
    master, slave = pty.openpty()
    read: list[bytes] = []

    def reading() -> None:
        try:
            while part := os.read(master, 4096):
                read.append(part)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=reading)
    reader.start()
    command = ("dream", CAT, "--layer", "block1_conv1", "--size", "48", "--steps", "1", "-o", tmp_path / "a.png", *MINI)
    stdout, stderr = os.fdopen(os.dup(slave), "w"), os.fdopen(slave, "w")
    assert output(stdout, *command, stderr=stderr)[0] == 0
    stdout.close()
    stderr.close()
    reader.join()
    os.close(master)
    text = b"".join(read).decode()
    assert ("\x1b[" in text) == moves
    assert "a.png: DeepDream: block1_conv1; score" in text


def test_labels_are_no_commands_for_the_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120)
    monkeypatch.setattr("cnnviz.cli.progress._console", lambda: console)
    with waiting("explaining ...", quiet=False) as tell:
        tell("Saliency for [/b][red]tabby\x1b[2J", 0.5)
    assert "[/b][red]tabby\\x1b[2J" in file.getvalue()
    assert "\x1b[2J" not in file.getvalue()


WORST = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii:strict",
    "CUDA_VISIBLE_DEVICES": "99",
    "OMP_NUM_THREADS": "abc",
    "MPLCONFIGDIR": "/proc/none",
    "XDG_CACHE_HOME": "/proc/none",
    "TERM": "dumb",
    "COLUMNS": "0",
    "LINES": "x",
    "TZ": "Nowhere/Odd",
}


def test_everything_at_once_and_a_reader_who_leaves(tmp_path: Path) -> None:
    """In processes of their own, since locale, threads and what is flushed at the end are the interpreter's."""
    (tmp_path / "größe.jpg").write_bytes(CAT.read_bytes())
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    odd: dict[str, Any] = {"cwd": tmp_path, "env": kept | WORST, "check": False, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "cnnviz"]
    drawing = [*command, "featuremaps", "größe.jpg", *MAPS[2:], "-o", "a.png"]
    ended = subprocess.run(["bash", "-c", '"$@" <&-', "bash", *drawing], stdout=subprocess.PIPE, **odd)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.decode("ascii").startswith("a.png: block1_conv1 of vgg16-mini, 1 of 16 maps")
    assert b"Traceback" not in ended.stderr
    assert cnnviz.read_record(tmp_path / "a.png")["picture"]["name"] == "größe.jpg"  # type: ignore[index]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*command, "inspect", "a.png"], stdout=writer, **odd)
    os.close(writer)
    assert ended.returncode == 1
    said = ended.stderr.decode("ascii").strip()
    assert said in ("", "libgomp: Invalid value for environment variable OMP_NUM_THREADS")
