"""Every numeric option of every command at numbers that nobody should give, and options that contradict one another."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import click
import pytest

import cnnviz
from cnnviz.cli import cli
from cnnviz.errors import ModelError, ShapeError
from cnnviz.networks.network import Network
from tests.support.commands import Run
from tests.support.networks import LeNet
from tests.support.paths import CAT, NETWORKS, ROOT

HUGE = (str(10**9), str(10**40))
NO_NUMBERS = ("nan", "inf", "x", "")
OWN = ("--model", f"{NETWORKS}:LeNet", "--input-size", "28")

FIRST = ("--layers", "block1_conv1")

# What each command is given besides the option in question.
COMMANDS: dict[str, tuple[object, ...]] = {
    "featuremaps": (CAT, "--layer", "block1_conv1", "-o", "a.png"),
    "filters": ("--layer", "block1_conv1", "--filters", "0", "-o", "a.png"),
    "classimage": ("tabby", "-o", "a.png"),
    "dream": (CAT, "--layer", "block1_conv1", "-o", "a.png"),
    "invert": (CAT, "--layer", "block1_conv1", "-o", "a.png"),
    "kernels": ("-o", "a.png"),
    "saliency": (CAT, "--method", "saliency", "-o", "a.png"),
    "evidence": ("photographs", "--method", "saliency", "-o", "a.png"),
    "report": (CAT, "-o", "a.html"),
    "gallery build": ("vgg", "--layers", "block1_conv1"),
    "gallery plan": ("--layers", "block1_conv1"),
    "gallery examples": ("vgg", "--images", "photographs"),
    "gallery serve": ("photographs", "--no-browser"),
    "rerun": ("made.png",),
    "app": ("--no-browser",),
    "predict": (CAT,),
    "layers": (),
    "classes": (),
}
MAKING = ("filters", "classimage", "dream", "invert", "gallery build", "gallery plan")
# Options that may be as large as one likes: more is all there is.
ENDLESS = {
    ("featuremaps", "--top"),
    ("saliency", "--top"),
    ("predict", "--top"),
    ("evidence", "--grids"),
    ("evidence", "--pictures"),
    *((command, "--columns") for command in ("featuremaps", "filters", "classimage", "saliency", "dream", "invert")),
}
ZERO = {  # options that may be 0
    *((command, "--seed") for command in (*MAKING, "saliency", "evidence", "report")),
    ("featuremaps", "--filters"),
    ("saliency", "--alpha"),
    *((command, "--filters") for command in ("filters", "gallery build", "gallery plan")),
    ("evidence", "--pictures"),
    ("evidence", "--confidence"),
    ("gallery serve", "--port"),
}


def commands(command: click.Command = cli, names: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*names, name))
    else:
        yield " ".join(names), command


def is_numeric(option: click.Parameter) -> bool:
    """Whether what is given is a number, or is read as some."""
    numbers = click.INT, click.FLOAT, click.IntRange, click.FloatRange, click.types.FuncParamType
    kinds = tuple(kind if isinstance(kind, type) else type(kind) for kind in numbers)
    return isinstance(option, click.Option) and not option.is_flag and isinstance(option.type, kinds)


NUMERIC = [(name, option.opts[-1]) for name, command in commands() for option in command.params if is_numeric(option)]


class Worked(SystemExit):
    """The options were found to be good: work, or serving, was about to begin."""

    code = 77


# What is called when everything that was given has been looked at.
BEGINNINGS = (
    "cnnviz.attribution.comparison.examples",
    "cnnviz.synthesis.dreams._optimized",
    "cnnviz.attribution.explain.reference",
    "cnnviz.features.maps.maps_of_layers",
    "cnnviz.galleries.rates.measured_speeds",
    "cnnviz.web.server.server",
    "cnnviz.synthesis.jobs.Job.run",
    "cnnviz.web.report.predict",
)


@pytest.fixture
def stopped(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command up to where work, or serving, would begin."""

    def stop(*_: object, **__: object) -> None:
        raise Worked

    for place in BEGINNINGS:
        resolve_name(place)  # whoever imports one of the others for the first time after the next lines would keep it
    for place in BEGINNINGS:
        monkeypatch.setattr(place, stop)
    monkeypatch.setattr(import_module("cnnviz.cli.app"), "find_spec", stop)
    (Path("photographs") / "tabby").mkdir(parents=True)
    for folder in (Path("photographs"), Path("photographs") / "tabby"):
        (folder / "cat.jpg").write_bytes(CAT.read_bytes())
    Path("made.png").write_bytes((ROOT / "gallery" / "cat_block2_conv1.png").read_bytes())
    return run


def ended(run: Run, command: str, *arguments: object) -> int:
    """The exit status of a command, which says in one line what was wrong, if anything was."""
    result = run(*command.split(), *COMMANDS[command], *arguments)
    lines = result.stderr.strip().splitlines()
    assert result.exit_code in (0, 1, 2, Worked.code), result.output
    if result.exit_code in (1, 2):
        assert lines[-1].startswith("Error: ")
        assert len(lines) == (1 if result.exit_code == 1 else 4), result.stderr
    return result.exit_code


def test_every_command_with_numbers_is_in_the_tables() -> None:
    assert {name for name, _ in NUMERIC} == set(COMMANDS)
    assert set(NUMERIC) >= ENDLESS | ZERO


@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_that_nobody_should_give_are_refused_before_any_work(stopped: Run, command: str) -> None:
    given = ("--model", "vgg16-mini") if ("--model" in options_of(command)) else ()
    for name, option in NUMERIC:
        if name != command:
            continue
        refused = {"0": (name, option) not in ZERO, "-1": True}
        refused |= dict.fromkeys(HUGE, (name, option) not in ENDLESS) | dict.fromkeys(NO_NUMBERS, True)
        refused[HUGE[0]] &= option != "--seed"
        for number, no in refused.items():
            status = ended(stopped, command, *given, option, number)
            assert (status in (1, 2)) == no, (option, number, status)


def options_of(command: str) -> set[str]:
    return {name for option in dict(commands())[command].params for name in option.opts}


@pytest.mark.parametrize(
    ("option", "number", "message"),
    [
        ("--mean", "nan", "mean must be finite numbers"),
        ("--mean", "1e40", "mean must be finite numbers"),
        ("--mean", "0,0", "mean has 2 numbers; networks.py:LeNet takes images of 1 colour channels"),
        ("--std", "0", "std must be finite numbers, above zero"),
        ("--std", "-1", "std must be finite numbers, above zero"),
        ("--std", "inf", "std must be finite numbers, above zero"),
        ("--std", "1,1", "std has 2 numbers"),
        ("--input-size", "5000", "the input size of"),
        ("--input-size", "28x99999", "the input size of"),
        ("--input-size", "1", "fails on images of 3 x 1 x 1"),
    ],
)
def test_numbers_about_a_network_of_ones_own(run: Run, option: str, number: str, message: str) -> None:
    result = run("layers", *OWN, option, number)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("", 2, "'' is not like steps=100."),
        ("steps", 2, "'steps' is not like steps=100."),
        ("=5", 2, "no method has ''"),
        ("size=5", 2, "no method has 'size'"),
        ("network=5", 2, "no method has 'network'"),
        ("steps=0", 1, "steps must be a whole number of at least 1, not 0"),
        ("steps=-1", 1, "steps must be a whole number of at least 1, not -1"),
        ("steps=1.5", 1, "steps must be a whole number of at least 1, not 1.5"),
        ("steps=nan", 1, "steps must be a whole number of at least 1, not nan"),
        ("steps=inf", 1, "steps must be a whole number of at least 1, not inf"),
        ("steps=1e9", 1, "steps can be 4096 at most, not 1e+09"),
        ("steps=1e40", 1, "steps can be 4096 at most, not 1e+40"),
        ("samples=1e9", 1, "samples can be 100000 at most, not 1e+09"),
        ("noise=0", 1, "noise must be greater than zero, not 0"),
        ("noise=nan", 1, "noise must be greater than zero, not nan"),
    ],
)
def test_options_of_methods(mini: Network, run: Run, text: str, status: int, message: str) -> None:
    method = "smoothgrad" if text.startswith(("noise", "samples")) else "integrated-gradients"
    result = run("saliency", CAT, "--model", "vgg16-mini", "--method", method, "--size", "32", "--set", text)
    assert result.exit_code == status
    assert message in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("featuremaps", CAT, "--layer", "block1_conv1", "-o", ""), 0, ""),
        (("featuremaps", CAT, "--layer", ""), 2, "no layer is named"),
        (("featuremaps", CAT, "--layers", ""), 2, "no layer is named"),
        (("featuremaps", CAT, "--layers", "all,block1_conv1"), 1, "no layer named 'all'"),
        (("featuremaps", CAT, "--layer", "block1_conv1", "--cmap", ""), 1, "no colour map named ''"),
        (("featuremaps", CAT, "--layer", "block1_conv1", "--save-arrays", ""), 2, "--save-arrays writes .npz files"),
        (
            ("featuremaps", CAT, "--layer", "block1_conv1", "--save-arrays", ".npz"),
            2,
            "--save-arrays writes .npz files",
        ),
        (("filters", "--layer", ""), 2, "no layer is named"),
        (("filters", "--layer", "block1_conv1", "--film", "a.png"), 2, "--film writes .gif files"),
        (("filters", "--layer", "block1_conv1", "--spectrum", "."), 1, "goes with the recipe 'maco' only"),
        (("filters", "--layer", "block1_conv1", "--size", "96x5000"), 1, "the size must be 1 to 4096 pixels, not 5000"),
        (("classimage", ""), 1, "knows no class ''"),
        (("kernels", "--layer", ""), 1, "no layer named ''"),
        (("kernels", "-o", ""), 0, ""),
        (("dream", CAT, "--layer", ""), 1, "no layer named ''"),
        (("saliency", CAT, "--method", ""), 2, "'' names nothing"),
        (("saliency", CAT, "--method", ", ,"), 2, "', ,' names nothing"),
        (("evidence", ".", "--method", ""), 2, "'' names nothing"),
        (("report", CAT, "--method", ""), 2, "'' names nothing"),
        (("saliency", CAT, "--baseline", ""), 1, "no baseline named ''"),
        (("saliency", CAT, "--class", ""), 1, "knows no class ''"),
        (("saliency", CAT, "--versus", ""), 1, "knows no class ''"),
        (("saliency", CAT, "--class", "tabby", "--versus", "tabby"), 1, "cannot be held against itself"),
        (("saliency", CAT, "--class", "tabby", "--top", "2"), 2, "give one of them"),
        (("saliency", CAT, "-o", "a.png", "--overlay", "./a.png"), 2, "cannot both be a.png"),
        (("predict", CAT, "--weights", ""), 1, "no weights at"),
        (("predict", CAT, "--weights", "."), 1, "no weights at"),
        (("gallery", "build", "", *FIRST), 1, "is not empty and holds no gallery"),
        (("gallery", "build", "vgg", "--layers", ""), 1, "no layer named ''"),
        (("gallery", "build", "vgg", "--address", "auto"), 2, "are for --engine ray"),
        (("gallery", "build", "labels.txt"), 2, "is a file"),
        (("gallery", "build", "labels.txt/vgg", *FIRST), 1, "cannot write"),
    ],
)
def test_empty_and_contradictory_options(run: Run, arguments: tuple[object, ...], status: int, message: str) -> None:
    Path("labels.txt").write_text("")
    result = run(*arguments, "--model", "vgg16-mini")
    assert result.exit_code == status, result.output
    assert message in result.output.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "no network named ''"),
        (":", "'' is no module"),
        (":x", "'' is no module"),
        ("a.py:", "there is no file a.py"),
        ("nowhere:make", "there is no module 'nowhere'"),
        ("../x:make", "'../x' is no module"),
        ("math:", "math has no function or class named ''"),
        ("math:pi", "math:pi is an object of type float, not a function or class that makes a network"),
        ("math:nonsense", "math has no function or class named 'nonsense'"),
        ("VGG16", "no network named 'VGG16'; did you mean 'vgg16'"),
        ("vgg16 ", "no network named 'vgg16 '; did you mean 'vgg16'"),
    ],
)
def test_names_of_networks_that_are_none(run: Run, name: str, message: str) -> None:
    for command in (("layers",), ("predict", CAT)):
        result = run(*command, "--model", name)
        assert result.exit_code == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("count", [0, 1, 9, 11])
def test_as_many_names_as_classes(run: Run, count: int) -> None:
    Path("labels.txt").write_text("".join(f"digit {number}\n" for number in range(count)))
    for command in (("predict", CAT), ("saliency", CAT, "--method", "saliency")):
        result = run(*command, *OWN, "--labels", "labels.txt")
        assert result.exit_code == 1
        assert f"has {count} class names for 10 classes; give one name for each." in result.stderr


def test_a_file_of_names_without_an_end(run: Run) -> None:
    result = run("classes", *OWN, "--labels", "/dev/zero")
    assert result.exit_code == 2
    assert "/dev/zero is longer than 10,000,000 letters" in result.stderr
    Path("notepad.txt").write_bytes(b"\xef\xbb\xbfone\r\n" + b"two\r\n" * 9)
    assert run("classes", *OWN, "--labels", "notepad.txt").stdout.startswith("    0  one\n    1  two\n")


def test_what_is_named_twice_is_made_once(run: Run, mini: Network) -> None:
    own = ("--model", "vgg16-mini", "--size", "32")
    layers = ("--layer", "block1_conv1", "--layer", "block1_conv1", "--layers", "block1_conv1, block1_conv1")
    assert len(run("featuremaps", CAT, *layers, *own, "--top", "1").stdout.splitlines()) == 1
    explanation = cnnviz.explain(
        mini, CAT, ["tabby", 30, "n02123045"], methods=["saliency", "Saliency"], size=32, checks=()
    )
    assert len(explanation.attributions) == 1


def test_the_library_refuses_what_the_command_line_refuses(mini: Network) -> None:
    for settings in ({"steps": 10**9}, {"batch": 10**9}, {"size": 10**9}, {"tries": 10**9}, {"steps": float("nan")}):
        with pytest.raises(ShapeError, match=r"must be (a whole number, )?1 to"):
            cnnviz.filter_images(mini, "block1_conv1", [0], **settings)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="the size must be 1 to 4096 pixels"):
        cnnviz.layer_table(mini, (10**9, 10**9))
    with pytest.raises(ModelError, match="4096 pixels at most"):
        cnnviz.load(f"{NETWORKS}:{LeNet.__name__}", input_size=10**9)
