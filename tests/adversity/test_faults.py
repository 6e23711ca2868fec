"""What machines and people do to a run: signals, memory that runs out, graphics cards that fail, clocks, other runs."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import cnnviz
from cnnviz.__main__ import CLEARING, SIGNALS, main
from cnnviz.attribution.explainer import explainer
from cnnviz.cli.output import save_npz
from cnnviz.errors import OutputError
from cnnviz.files import whole_file
from cnnviz.galleries import natural_examples as examples
from cnnviz.galleries.building import build_gallery, building
from cnnviz.galleries.engines import InProcess
from cnnviz.galleries.excitation import _Peaks, excite
from cnnviz.galleries.natural_examples import find_examples
from cnnviz.galleries.plan import Request
from cnnviz.galleries.store import Store
from cnnviz.galleries.verification import check
from cnnviz.networks.network import Network
from cnnviz.synthesis import jobs
from cnnviz.web.gallery_site import write_site
from tests.support.commands import Run
from tests.support.networks import SmallVGG
from tests.support.paths import CAT, ROOT

MINI = ("--model", "vgg16-mini")
FAST = {"steps": 2, "batch": 2, "size": 32, "precision": "float32", "tries": 1}
CARD = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported."
NO_MEMORY = [
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried 7 bytes."
    ),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB."),
    MemoryError("Unable to allocate 7.00 GiB for an array"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
]


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], int]]:
    """Runs something in place of the command line of this process; gives the exit status."""
    before, hook = {each: signal.getsignal(each) for each in SIGNALS}, sys.unraisablehook
    for each in SIGNALS:  # some may be ignored where the tests run, as nohup has it
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(work: Callable[[], None]) -> int:
        monkeypatch.setattr("cnnviz.cli.cli", lambda prog_name: work())
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code

    yield run
    sys.unraisablehook = hook
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("how", SIGNALS)
def test_every_signal_ends_a_command_alike_and_a_second_one_leaves_it_time(
    process: Callable[[Callable[[], None]], int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    how: signal.Signals,
) -> None:
    clock, steps = SimpleNamespace(now=100.0), []
    monkeypatch.setattr("cnnviz.__main__.time", SimpleNamespace(monotonic=lambda: clock.now))

    def work() -> None:
        try:
            signal.raise_signal(how)
            steps.append("not interrupted")
        finally:
            clock.now += CLEARING
            for each in SIGNALS:
                signal.raise_signal(each)
            steps.append("cleared away")
            clock.now += CLEARING / 2
            signal.raise_signal(how)
            steps.append("not interrupted again")

    assert process(work) == 128 + how
    assert steps == ["cleared away"]
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(how) is signal.SIG_DFL, "while Python winds up, nothing can catch an exception"


def test_an_interruption_that_python_loses_comes_again(
    process: Callable[[Callable[[], None]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    class Deaf:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        Deaf()
        time.sleep(600)
        raise SystemExit("it did not come")

    assert process(work) == 143
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interruption_that_comes_while_a_lost_one_is_noticed_comes_again(
    process: Callable[[Callable[[], None]], int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a busy machine, where it takes long to start a thread."""

    class Slow(threading.Thread):
        def start(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            super().start()

    class Deaf:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        Deaf()
        time.sleep(600)
        raise SystemExit("it did not come")

    monkeypatch.setattr("cnnviz.__main__.threading.Thread", Slow)
    assert process(work) == 143
    assert capsys.readouterr().err == "interrupted\n"


def test_whatever_an_interruption_becomes_on_its_way_it_is_one(
    process: Callable[[Callable[[], None]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("half a module") from error

    assert process(work) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_without_a_signal_nothing_is_hidden(
    process: Callable[[Callable[[], None]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's background jobs have it

    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        raise SystemExit(7)

    assert process(work) == 7
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    monkeypatch.setattr("cnnviz.cli.cli", lambda prog_name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of what is open when it is interrupted, Python says so
def test_a_file_is_the_old_or_the_new_whenever_its_writing_is_interrupted(tmp_path: Path) -> None:
    """Interrupted before each of Python's own steps in turn, until there are no more."""
    path, before = tmp_path / "file", sys.gettrace()
    path.write_bytes(b"old")

    def write() -> None:
        with whole_file(path) as file:
            file.write(b"new")

    def interrupted_after(steps: int) -> bool:
        left = [steps]

        def trace(frame: FrameType, event: str, _: object) -> Any:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            left[0] -= event == "opcode"
            if left[0] < 0:
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            write()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    moments, seen = 0, set()
    while interrupted_after(moments):
        assert [each.name for each in tmp_path.iterdir()] == ["file"]
        seen.add(path.read_bytes())
        path.write_bytes(b"old")
        moments += 1
    assert seen == {b"old", b"new"}
    assert moments > 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="interrupts processes that it forks")
def test_interrupted_commands_leave_whole_files(tmp_path: Path) -> None:
    """In a process of its own, which has no threads yet when it forks; the long run tries every command."""
    script = [sys.executable, str(ROOT / "tests" / "long_runs" / "interruptions.py"), str(tmp_path), "--times", "1"]
    some = ["--only", "filters,gallery build"]
    result = subprocess.run([*script, *some], capture_output=True, text=True, check=False)
    assert result.stdout.startswith("2 interruptions, "), result.stderr
    assert result.stdout.endswith(" at work, 0 faults\n"), result.stderr


class Greedy(SmallVGG):
    """Takes no more than `most` images at a time: then memory runs out, in one of its ways."""

    most, error = 64, NO_MEMORY[0]

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise self.error
        return super().forward(images)


@pytest.fixture
def greedy() -> Network:
    torch.manual_seed(7)
    return cnnviz.wrap(Greedy().eval(), name="greedy", input_size=32)


@pytest.mark.parametrize(
    ("method", "error"),
    [("occlusion", error) for error in NO_MEMORY[:3]]
    + [(method, NO_MEMORY[0]) for method in ("integrated-gradients", "smoothgrad", "lime")],
)
def test_memory_that_runs_out_halves_an_attributions_batch(
    greedy: Network,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
    error: Exception,
) -> None:
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain = cnnviz.attribute(greedy, images, 2, method=method)
    ready = explainer(greedy)
    assert ready.batch(images) > 8
    monkeypatch.setattr(Greedy, "most", 3)
    monkeypatch.setattr(Greedy, "error", error)
    halved = cnnviz.attribute(greedy, images, 2, method=method)
    torch.testing.assert_close(halved, plain, rtol=1e-4, atol=1e-5)
    assert caplog.messages[-1] == "memory ran out: going on with 2 images at a time"
    caplog.clear()
    assert len(ready.logits(images.expand(7, -1, -1, -1))) == 7
    cnnviz.attribute(greedy, images, 3, method=method)
    assert caplog.messages == [], "what is known of the room is kept"
    monkeypatch.setattr(Greedy, "most", 0)
    with pytest.raises(type(error)):
        cnnviz.attribute(greedy, images, 2, method=method)


def test_memory_that_runs_out_halves_the_pictures_of_a_pass(
    greedy: Network, photographs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shard = examples.Shard(0, tuple((path.name, path.read_bytes()) for path in sorted(photographs.iterdir())))
    layers = ["block1_conv1", "block4_conv2"]
    plain = excite(greedy, layers, 3, shard)
    monkeypatch.setattr(Greedy, "most", 2)
    halved = excite(greedy, layers, 3, shard)
    assert halved.count == plain.count == len(shard.pictures)
    for layer in layers:
        torch.testing.assert_close(halved.tallies[layer].values, plain.tallies[layer].values)
        assert torch.equal(halved.tallies[layer].pictures, plain.tallies[layer].pictures)
    assert caplog.messages[-1] == "memory ran out: going on with 2 images at a time"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Six small images."""
    folder, draws = tmp_path / "photographs", np.random.default_rng(0)
    folder.mkdir()
    for number in range(6):
        Image.fromarray(draws.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((40, 40)).save(
            folder / f"{number}.png"
        )
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("predict", CAT),
        ("featuremaps", CAT, "--layer", "block1_conv1"),
        ("saliency", CAT),
        ("evidence", "photos"),
        ("report", CAT),
        ("filters", "--layer", "block1_conv1", "--size", "32", "--steps", "2"),
        ("dream", CAT, "--layer", "block1_conv1", "--steps", "1"),
    ],
    ids=lambda command: command[0],
)
def test_what_the_machine_does_is_told_in_one_line(
    run: Run, mini: Network, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...]
) -> None:
    Path("photos").mkdir()
    shutil.copy(CAT, "photos")
    told = {
        RuntimeError(CARD): "the graphics card failed (CUDA error: unspecified launch failure); give the same command",
        RuntimeError("CUDA error: device-side assert triggered"): "the graphics card failed (CUDA error: device-side",
        **dict.fromkeys(NO_MEMORY, "memory ran out"),
    }
    for error, words in told.items():

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("torch.nn.Conv2d.forward", fail)
        result = run(*command, *MINI)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith(f"Error: {words}"), result.stderr
        assert sum(line.startswith("Error") for line in result.stderr.splitlines()) == 1
    assert os.listdir() == ["photos"]


def test_a_fault_of_cnnvizs_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a wrong turn")

    monkeypatch.setattr("cnnviz.networks.predictions.predict", fail)
    with pytest.raises(AssertionError, match="a wrong turn"):
        run("predict", CAT, *MINI)


def failing_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Let a graphics card fail after some batches; what is on it cannot be read any more."""
    climb, left = jobs.ascend, [batches]

    def ascend(*given: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            monkeypatch.setattr(Network, "_hash", gone)
            gone()
        return climb(*given, **more)

    def gone(*_: object) -> None:
        raise RuntimeError(CARD)

    monkeypatch.setattr(jobs, "ascend", ascend)


def test_filters_that_were_finished_survive_their_graphics_card(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_after(monkeypatch, 2)
    asked = ("--layer", "block1_conv1", "--filters", "0-5", "--steps", "2", "--size", "32", "--batch", "2")
    result = run("filters", *asked, *MINI, "-o", "out.png", "-q")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first == "keeping the 4 of 6 images that are finished"
    assert second.startswith("Error: the graphics card failed (CUDA error: unspecified launch failure)")
    settings = cnnviz.read_record("out.png")["settings"]
    assert isinstance(settings, dict)
    assert settings["filters"] == [0, 1, 2, 3]


def test_a_gallery_goes_on_after_its_graphics_card_failed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("gallery", "build", "g", "--layers", "block1_conv1", "--filters", "0-5", "--steps", "2", "--size", "32")
    with monkeypatch.context() as patch:
        failing_after(patch, 3)
        result = run(*asked, "--batch", "1", *MINI, "-q")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first.endswith("of 6 filters are kept; the same command goes on")
    assert second.startswith("Error: the graphics card failed (CUDA error: unspecified launch failure)")
    assert {fault.kind for fault in check(Path("g"))[1]} == {"missing"}
    assert run(*asked, "--batch", "1", *MINI, "-q").exit_code == 0
    assert check(Path("g"))[1] == []


def test_a_pass_over_pictures_goes_on_after_its_graphics_card_failed(
    greedy: Network, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_gallery(greedy, tmp_path / "g", ["block1_conv1"], steps=2)
    monkeypatch.setattr(examples, "SHARD", 2)
    shown, left = _Peaks._shown, [2]

    def fail(peaks: _Peaks, images: Tensor) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError(CARD)
        return shown(peaks, images)

    monkeypatch.setattr(_Peaks, "_shown", fail)
    store = Store(tmp_path / "g")
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        list(find_examples(InProcess(greedy), store, photographs, 2))
    left[0] = 1
    (last,) = find_examples(InProcess(greedy), store, photographs, 2)
    assert (last.done, last.total) == (6, 6)
    assert check(store.folder)[1] == []


def test_clocks_that_jump_do_no_harm(greedy: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_npz(tmp_path / "now.npz", {"a": np.arange(3)})
    jumps = iter(range(10**6))

    def jumping() -> float:
        return -1e9 if next(jumps) % 2 else 9e9

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "localtime", lambda *_: time.struct_time((1971, 1, 1, 0, 0, 0, 4, 1, 0)))
    build_gallery(greedy, tmp_path / "g", ["block1_conv1"], steps=2)
    assert check(tmp_path / "g")[1] == []
    assert all(each["seconds"] >= 0 for each in Store(tmp_path / "g").records("block1_conv1").values())
    save_npz(tmp_path / "then.npz", {"a": np.arange(3)})
    assert (tmp_path / "then.npz").read_bytes() == (tmp_path / "now.npz").read_bytes()


def test_writers_of_one_file_leave_one_of_their_files(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", [bytes([number]) * 300_000 for number in range(8)]

    def write(content: bytes) -> None:
        for _ in range(20):
            with whole_file(path) as file:
                file.write(content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_two_sites_at_once_are_one(greedy: Network, tmp_path: Path) -> None:
    """Both take away the pages of filters that the gallery no longer has."""
    folder = tmp_path / "g"
    build_gallery(greedy, folder, ["block1_conv1", "block2_conv1"], steps=2)
    write_site(Store(folder))
    plain = pages(folder)
    for round_ in range(3):
        for number in range(40):
            stale = folder / "filters" / f"stale{round_}" / f"{number:04d}.html"
            stale.parent.mkdir(exist_ok=True)
            stale.write_text("")
        start = threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _, start=start: (start.wait(), write_site(Store(folder))), range(2)))
        assert pages(folder) == plain


def pages(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.html")}


@pytest.mark.parametrize("moved", [True, False], ids=["moved", "removed"])
def test_a_gallery_that_is_moved_or_removed_meanwhile_is_not_begun_anew(
    greedy: Network, tmp_path: Path, moved: bool
) -> None:
    here, there = tmp_path / "g", tmp_path / "elsewhere"
    request = Request(("block1_conv1",), None, {"steps": 2, "seed": 0, "batch": 1})
    steps = building(InProcess(greedy), Store(here), request)
    while next(steps).finished < 1:
        pass
    here.rename(there)
    with pytest.raises(OutputError, match="was moved or removed"):
        list(steps)
    assert not here.exists()
    if not moved:
        shutil.rmtree(there)
    list(building(InProcess(greedy), Store(there), request))
    assert check(there)[1] == []


def test_a_report_is_about_the_picture_that_it_read(greedy: Network, tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    shutil.copy(CAT, path)
    plain = cnnviz.make_report(greedy, path, filters=1, steps=2, methods=["saliency"])

    def replaced(*_: object) -> None:
        Image.new("RGB", (50, 40), "red").save(path)

    found = cnnviz.make_report(greedy, path, filters=1, steps=2, methods=["saliency"], watch=replaced)
    assert found.html() == plain.html()


def test_pictures_that_vanish_from_a_folder_are_passed_over(greedy: Network, photographs: Path, tmp_path: Path) -> None:
    (photographs / "nowhere.jpg").symlink_to(tmp_path / "nothing")
    build_gallery(greedy, tmp_path / "g", ["block1_conv1"], steps=2)
    *_, last = find_examples(InProcess(greedy), Store(tmp_path / "g"), photographs, 2)
    assert (last.done, last.finished) == (7, 6)
    assert [each["picture"] for each in json.loads((tmp_path / "g" / "examples.json").read_text())["unreadable"]] == [
        "nowhere.jpg"
    ]


def test_a_full_disk_stops_examples_and_pages_with_a_line(
    greedy: Network, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "g")
    build_gallery(greedy, store.folder, ["block1_conv1"], steps=2)
    opened, left, told = os.open, [0], set()

    def full(path: Any, *more: Any, **named: Any) -> int:
        if str(path).endswith(".partial"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, *more, **named)

    monkeypatch.setattr(os, "open", full)
    for work in (lambda: list(find_examples(InProcess(greedy), store, photographs, 2)), lambda: write_site(store)):
        for files in range(1000):
            left[0] = files
            try:
                work()
            except OutputError as error:
                told.add(str(error).partition(": ")[2])
            else:
                break
            assert not list(store.folder.rglob("*.partial"))
        assert files > 3
    assert told == {"No space left on device; make room, or choose another place."}
    assert check(store.folder)[1] == []
