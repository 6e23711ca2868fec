"""What anybody may type, and files that anybody may have written: results or one line, and nothing outside the gallery.

Short runs of hypothesis; ``tests/long_runs/fuzzing.py`` is for long ones.
"""

import copy
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cnnviz
from cnnviz.cli import cli
from cnnviz.cli.output import sheet_file
from cnnviz.cli.values import channels, names, numbers, size
from cnnviz.errors import CnnvizError, ModelError, OutputError, UnknownNameError
from cnnviz.files import parsed
from cnnviz.galleries.building import build_gallery
from cnnviz.galleries.plan import Plan
from cnnviz.galleries.rates import Speed
from cnnviz.galleries.store import Store, file_name
from cnnviz.galleries.verification import check
from cnnviz.networks.network import Network
from cnnviz.pictures.records import read_made
from cnnviz.pictures.sheets import Sheet
from cnnviz.web.charts import histogram, optimization_curve, ticks
from cnnviz.web.gallery_site import write_site
from tests.support.commands import COMMANDS
from tests.support.networks import SmallVGG
from tests.support.paths import CAT

few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
many = settings(few, max_examples=300)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(7)
    return cnnviz.wrap(SmallVGG().eval(), name="small", input_size=32, weights="built in")


# What is typed

VALUES = ["0", "-1", "1", "9" * 30, "1e9", "nan", "inf", "0.5,x", "0-3,9", "9-3", "", " ", ",", "-", "--", "28x", "all"]
VALUES += [
    "picture.jpg",
    "empty.png",
    "folder",
    "missing",
    "../missing",
    "x" * 300,
    "caf\u00e9",
    "\u202e",
    "a\nb",
    "%s",
]
VALUES += ["vgg16-mini", "small.py:net", ":", "a:b:c", "random", "cpu", "tabby", "30", "block1_conv1", "process"]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with options it has, options it has not, and arguments of all kinds in any order."""
    words = draw(st.sampled_from(sorted(COMMANDS)))
    named = [name for parameter in COMMANDS[words].params for name in parameter.opts if name.startswith("-")]
    value = st.sampled_from(VALUES) | st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9
    )
    pair = st.tuples(st.sampled_from([*named, "--nonsense"]), value) if named else st.tuples(value)
    rest = draw(st.lists(pair | st.tuples(value), max_size=5))
    return [*words, *(word for some in rest for word in some)]


@settings(many, max_examples=200)
@given(line=command_lines())
def test_whatever_is_typed_ends_in_a_result_or_a_line(
    line: list[str], network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network is loaded, nothing is served or downloaded: the line that says so counts as a result."""

    def stop(*_: object, **__: object) -> None:
        raise ModelError("so far, so good")

    monkeypatch.chdir(tmp_path)
    shutil.copy(CAT, "picture.jpg")
    Path("empty.png").touch()
    Path("folder").mkdir(exist_ok=True)
    monkeypatch.setattr("cnnviz.models.load", stop)
    monkeypatch.setattr("cnnviz.models.outline", lambda *_, **__: network)
    monkeypatch.setattr("cnnviz.models.zoo.download", stop)
    monkeypatch.setattr("cnnviz.models.zoo.within_reach", lambda _: True)
    monkeypatch.setattr(
        "cnnviz.galleries.rates.measured_speeds", lambda _, layers: [Speed(1e9, 1e9, 1e9, 193)] * len(layers)
    )
    monkeypatch.setattr(sys.modules["cnnviz.cli.app"], "_check_free", stop)
    result = CliRunner().invoke(cli, line)
    assert isinstance(result.exception, SystemExit | None), (line, result.exception)
    assert result.exit_code in (0, 1, 2), line
    if result.exit_code == 1:
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1, (line, result.stderr)


ranges = st.tuples(st.integers(0, 300), st.integers(0, 30)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@many
@given(some=st.lists(ranges, min_size=1, max_size=6), blank=st.sampled_from(["", " "]))
def test_channels_are_what_is_written_each_once(some: list[tuple[int, int]], blank: str) -> None:
    text = ",".join(f"{blank}{low}{blank}-{high}" if low < high else f"{blank}{low}" for low, high in some)
    every = [number for low, high in some for number in range(low, high + 1)]
    assert channels(text) == tuple(dict.fromkeys(every))


@many
@given(height=st.integers(1, 99999), width=st.integers(1, 99999))
def test_sizes_are_what_is_written(height: int, width: int) -> None:
    assert size(f"{height}x{width}") == (height, width)
    assert size(str(height)) == (height, height)


@many
@given(values=st.lists(st.floats(allow_nan=False), min_size=1))
def test_numbers_are_what_is_written(values: list[float]) -> None:
    assert numbers(",".join(map(repr, values))) == tuple(values)


@many
@given(text=st.text(max_size=12) | st.text("0123456789-,x. e", max_size=12))
def test_any_other_text_is_refused_as_a_wrong_parameter(text: str) -> None:
    for reader in (channels, size, numbers):
        with suppress(click.BadParameter):
            found = reader(text)
            assert found
            assert all(isinstance(number, int | float) for number in found)
    with suppress(click.BadParameter):
        found = names(text)
        assert found
        assert all(name and name == name.strip() for name in found)


# Names of layers

name_like = st.text(max_size=100) | st.text("ab./\\:-_ \0pre", max_size=12) | st.sampled_from(["", ".", "..", "a:pre"])


@many
@given(name=name_like)
def test_a_layer_is_known_or_an_unknown_name(network: Network, name: str) -> None:
    try:
        assert network.qualified(name) in network.layers
    except UnknownNameError as error:
        assert repr(name) in str(error)  # noqa: PT017 - either may happen


@many
@given(names=st.lists(name_like, unique=True, min_size=2, max_size=6))
def test_every_layer_has_a_file_of_its_own_in_its_folder(names: list[str]) -> None:
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(files)
    for file in [*files, *(sheet_file(name).name for name in names)]:
        assert Path(file).name == file
        assert file not in ("", ".", "..")
        assert "\0" not in file
    assert all(file.isascii() and len(file) < 120 for file in files)


# JSON of others

json_values = st.recursive(
    st.none() | st.booleans() | st.sampled_from([-1, 0, 1, 2]) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
HOSTILE = ["../../x", "/etc/passwd", "a\0b", "..", "\ud800", "\x1b]0;x\a", "<img src=x onerror=alert(1)>", "x.py:f"]
HUGE = [10**400, -(10**400), 1e300, math.inf, -math.inf, math.nan, 2**63]


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything inside some JSON."""
    if way:
        yield way
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from places(inner, (*way, key))


@st.composite
def mutations(draw: st.DrawFn, huge: bool = True) -> Callable[[Any], Any]:
    """What takes something out of some JSON, or puts something else in its place, once or twice."""
    new = json_values | st.sampled_from([*HOSTILE, *(HUGE if huge else [])])
    changes = draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.booleans(), new), min_size=1, max_size=2))

    def mutate(value: Any) -> Any:
        value = copy.deepcopy(value)
        for share, taken, other in changes:
            every = list(places(value))
            *way, last = every[int(share * len(every))]
            holder = value
            for key in way:
                holder = holder[key]
            if taken and isinstance(holder, dict):
                del holder[last]
            else:
                holder[last] = other
        return value

    return mutate


@many
@given(text=st.text(max_size=30) | json_values.map(json.dumps))
def test_any_text_is_json_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parsed(text) == json.loads(text) or "NaN" in text


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000, "[" * 40 + "]" * 40, "9" * 5000, '"\\ud800"', "", b"\xff"],
)
def test_json_that_python_cannot_bear_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed(text)


@pytest.fixture(scope="module")
def sheets(network: Network, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Records as cnnviz writes them."""
    folder = tmp_path_factory.mktemp("sheets")
    cnnviz.feature_maps(network, CAT, "block1_conv2", size=32).sheet([0]).save(folder / "a.png")
    cnnviz.filter_images(network, "block1_conv1", [1], steps=1, size=16, batch=1, tries=1).save(folder / "b.png")
    return [read_made(folder / name)[0] for name in ("a.png", "b.png")]


def written(made: Any, path: Path) -> None:
    Sheet(np.zeros((2, 2, 3), np.uint8), made).save(path)


@settings(few, max_examples=60)
@given(mutate=mutations(huge=False), which=st.integers(0, 1))
def test_a_record_that_was_forged_is_shown_and_followed_as_far_as_it_makes_sense(
    sheets: list[dict[str, Any]], network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[Any], Any], which: int,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cnnviz.cli.options.Chosen.load", lambda *_, **__: network)
    try:
        written(mutate(sheets[which]), tmp_path / "forged.png")
    except (UnicodeEncodeError, CnnvizError):  # what cannot be written cannot be read
        return
    for words in (["inspect"], ["inspect", "--json"], ["rerun", "--picture", str(CAT)]):
        result = CliRunner().invoke(cli, [words[0], "forged.png", *words[1:]])
        assert isinstance(result.exception, SystemExit | None), (words, result.exception)
        assert result.exit_code in (0, 1, 2)
        assert "\x1b" not in result.stdout


@few
@given(made=json_values | st.sampled_from(HUGE))
def test_any_json_in_a_picture_is_a_record_or_none(tmp_path: Path, made: Any) -> None:
    path = tmp_path / "a.png"
    try:
        written(made if isinstance(made, dict) else {"command": made}, path)
    except (UnicodeEncodeError, ValueError):
        return
    with suppress(CnnvizError):
        cnnviz.read_record(path)
    result = CliRunner().invoke(cli, ["inspect", str(path)])
    assert isinstance(result.exception, SystemExit | None), result.exception


def test_code_that_a_picture_names_does_not_run(sheets: list[dict[str, Any]], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    network = sheets[0]["network"] | {"name": "x.py:f", "weights": "as its factory made them"}
    written(sheets[0] | {"network": network}, tmp_path / "forged.png")
    result = CliRunner().invoke(cli, ["rerun", "forged.png", "--picture", str(CAT)])
    assert result.exit_code == 2
    assert "a network of somebody's own, x.py:f, whose code would be run; name it with --model" in result.stderr
    assert not Path("ran").exists()


@pytest.mark.parametrize("threads", [0, -1, 10**6, "2", None, True])
def test_a_record_cannot_ask_for_any_number_of_threads(
    sheets: list[dict[str, Any]], tmp_path: Path, threads: object
) -> None:
    written(sheets[0] | {"threads": threads}, tmp_path / "forged.png")
    result = CliRunner().invoke(cli, ["rerun", str(tmp_path / "forged.png"), "--picture", str(CAT)])
    assert result.exit_code == 1
    assert "the record's 'threads' makes no sense" in result.stderr


def test_a_record_cannot_name_a_path(sheets: list[dict[str, Any]], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("cnnviz.cli.options.Chosen.load", lambda *_, **__: cnnviz.load("vgg16-mini"))
    made = sheets[1] | {"settings": sheets[1]["settings"] | {"references": "../../secret"}}
    written(made, tmp_path / "forged.png")
    result = CliRunner().invoke(cli, ["rerun", str(tmp_path / "forged.png"), "--folder", str(tmp_path)])
    assert result.exit_code == 1
    assert "never would cnnviz have written a path" in result.stderr


# Galleries of others

FILES = ["gallery.json", "records/block1_conv1.jsonl", "examples.json", "examples/block1_conv1.jsonl"]
touched: list[tuple[str, str]] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if touched is not None and event in ("open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link"):
        touched.extend((event, argument) for argument in arguments[:2] if isinstance(argument, str) and "/" in argument)


sys.addaudithook(_note)


@contextmanager
def nothing_touched_outside(folder: Path, around: Path) -> Iterator[None]:
    """Of the files around a gallery, only those in its folder are opened, made or removed."""
    global touched
    touched = []
    try:
        yield
    finally:
        seen, touched = touched, None
    outside = [(event, path) for event, path in seen if Path(path).resolve().is_relative_to(around.resolve())]
    assert [each for each in outside if not Path(each[1]).resolve().is_relative_to(folder.resolve())] == []


@pytest.fixture(scope="module")
def gallery(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("around") / "inner" / "gallery"
    build_gallery(network, folder, ["block1_conv1"], [0, 1], steps=1, size=16)
    seen = Store(folder).planned().seen
    (folder / "examples.json").write_text(
        json.dumps({"folder": "p", "pictures": 3, "top": 1, "tile": 80, "seen": seen, "layers": [], "unreadable": []})
    )
    (folder / "examples").mkdir()
    line = {"file": "examples/block1_conv1/0000.webp", "sha256": "0" * 64, "histogram": {"top": 2.0, "counts": [1, 2]}}
    line["top"] = [{"picture": "a.jpg", "value": 1.5, "box": [0, 0, 4, 4]}]
    lines = [json.dumps(line | {"filter": number}) for number in (0, 1)]
    (folder / "examples" / "block1_conv1.jsonl").write_text("\n".join(lines))
    return folder


def look_at(folder: Path) -> list[str]:
    """All that is done with a gallery that is there; what was said of it."""
    told = []
    for action in (lambda: check(folder), lambda: write_site(Store(folder))):
        try:
            action()
        except CnnvizError as error:
            told.append(str(error))
    result = CliRunner().invoke(cli, ["gallery", "status", str(folder)])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return told


@settings(few, max_examples=50)
@given(mutate=mutations(), file=st.sampled_from(FILES))
def test_a_gallery_that_was_forged_is_refused_or_shown_and_nothing_outside_is_touched(
    gallery: Path, tmp_path: Path, mutate: Callable[[Any], Any], file: str
) -> None:
    folder = tmp_path / "inner" / "gallery"
    shutil.rmtree(tmp_path / "inner", ignore_errors=True)
    shutil.copytree(gallery, folder)
    first, newline, rest = (gallery / file).read_text().partition("\n" if file.endswith("jsonl") else "\0")
    (folder / file).write_text(json.dumps(mutate(json.loads(first))) + newline + rest)
    with nothing_touched_outside(folder, tmp_path):
        look_at(folder)


@settings(few, max_examples=10)
@given(content=st.binary(max_size=40) | st.sampled_from([b"[" * 100_000, b'{"a":' * 5000, b"\xef\xbb\xbf{}", b"NaN"]))
def test_any_bytes_as_a_gallerys_files(gallery: Path, tmp_path: Path, content: bytes) -> None:
    for file in FILES:
        folder = tmp_path / "gallery"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(gallery, folder)
        (folder / file).write_bytes(content)
        look_at(folder)


@pytest.mark.parametrize(
    "layer", ["../../x", "/tmp/x", "a\0b", "..", ".", "\ud800", "x" * 5000, "caf\u00e9" * 60, "-rf"]
)
def test_a_layer_cannot_lead_out_of_the_gallery(gallery: Path, tmp_path: Path, layer: str, network: Network) -> None:
    folder = tmp_path / "inner" / "gallery"
    shutil.copytree(gallery, folder)
    plan = json.loads((folder / "gallery.json").read_text())
    plan["layers"][0]["layer"] = layer
    (folder / "gallery.json").write_text(json.dumps(plan))
    with nothing_touched_outside(folder, tmp_path):
        look_at(folder)
        with suppress(CnnvizError):
            build_gallery(network, folder, ["block1_conv1"], [0], steps=1, size=16)
    assert {path.name for path in tmp_path.rglob("*") if not path.is_relative_to(folder)} == {"inner"}


@pytest.mark.parametrize("link", ["images", "filters", "records/block1_conv1.jsonl", "images/block1_conv1/0000.png"])
def test_nothing_is_written_or_removed_through_a_link(
    gallery: Path, tmp_path: Path, link: str, network: Network
) -> None:
    folder, elsewhere = tmp_path / "inner" / "gallery", tmp_path / "elsewhere"
    shutil.copytree(gallery, folder)
    (elsewhere / "deeper").mkdir(parents=True)
    for name in ("0.png", "deeper/0.png", "0.html", "deeper/0.html"):
        (elsewhere / name).touch()
    path = folder / link
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(elsewhere if "." not in link else elsewhere / "0.png")
    before = sorted(elsewhere.rglob("*"))
    for action in (
        lambda: write_site(Store(folder)),
        lambda: build_gallery(network, folder, ["block1_conv1"], [0], steps=1, size=16),
    ):
        with pytest.raises(OutputError, match="is a symbolic link, and may lead out of the gallery"):
            action()
    assert sorted(elsewhere.rglob("*")) == before
    assert all(path.stat().st_size == 0 for path in elsewhere.rglob("*") if path.is_file())


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("gallery.json", "a.png"):
        os.mkfifo(tmp_path / name)
    told: list[object] = []

    def read() -> None:
        told.append(Store(tmp_path).plan())
        with suppress(CnnvizError):
            cnnviz.read_record(tmp_path / "a.png")
        told.append("done")

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(30)
    assert told == [None, "done"]


@many
@given(plan=json_values | st.sampled_from(HUGE))
def test_any_json_is_a_plan_or_an_output_error(plan: Any) -> None:
    with suppress(OutputError):
        Plan.from_json(plan)


reals = st.floats(-1e100, 1e100)


@many
@given(low=reals, high=reals)
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert len(found) <= 12
    rounding = 1e-9 * max(abs(low), abs(high))
    assert all(low - rounding <= each <= high + rounding for each in found) or high <= low


@many
@given(scores=st.lists(reals, min_size=1, max_size=9), counts=st.lists(st.integers(0, 2**40), min_size=1, max_size=9))
def test_any_numbers_can_be_drawn(scores: list[float], counts: list[int]) -> None:
    for chart in (optimization_curve(scores), histogram(counts, abs(scores[0]), scores[-1])):
        assert "nan" not in chart.path
        assert "inf" not in chart.path
