"""Commands as a user types them: what they print, what they write, how they refuse."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import pytest
import torch
from PIL import Image

import cnnviz
from cnnviz.cli import cli
from cnnviz.features.maps import Order, Scale
from cnnviz.models import zoo
from cnnviz.networks.inputs import Fit
from cnnviz.networks.network import Network
from cnnviz.pictures.records import read_record
from cnnviz.synthesis.recipes import RECIPES, Preset
from cnnviz.synthesis.settings import Precision
from tests.support.commands import COMMANDS, Run
from tests.support.networks import LeNet
from tests.support.paths import CAT, NETWORKS
from tests.support.pictures import jpeg
from tests.support.weights import SMALL, stand_in

MINI = ("--model", "vgg16-mini")


def test_feature_maps_of_a_picture(run: Run, mini: Network, tmp_path: Path) -> None:
    result = run("featuremaps", CAT, "--layer", "block4_conv2", *MINI)
    path = tmp_path / "cat_vgg16-mini_featuremaps_block4_conv2.png"
    assert result.exit_code == 0
    assert "block4_conv2 of vgg16-mini, 192 maps of 16 x 16" in result.stdout
    assert result.stderr == ""
    expected = cnnviz.feature_maps(mini, CAT, "block4_conv2").sheet().pixels
    np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    assert read_record(path)["settings"]["channels"] == list(range(192))


def test_several_pictures_and_layers_give_a_file_each(run: Run, tmp_path: Path) -> None:
    coffee = CAT.with_name("coffee.jpg")
    result = run(
        "featuremaps", CAT, coffee, "--layer", "block1_conv1:pre", "--layers", "block1-pool", *MINI, "-o", "out"
    )
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cat_vgg16-mini_featuremaps_block1_conv1-pre.png",
        "cat_vgg16-mini_featuremaps_block1_pool.png",
        "coffee_vgg16-mini_featuremaps_block1_conv1-pre.png",
        "coffee_vgg16-mini_featuremaps_block1_pool.png",
    ]


def test_all_layers_are_the_thirteen_convolutions(run: Run, tmp_path: Path) -> None:
    result = run("featuremaps", CAT, "--layers", "all", *MINI, "-o", "out", "--json", "--size", "64")
    rows = json.loads(result.stdout)["maps"]
    assert [row["layer"] for row in rows] == [f"block{x}_conv{y}" for x in range(1, 6) for y in range(1, 3 + (x > 2))]
    assert [row["shape"] for row in rows][-1] == [192, 4, 4]
    assert all((tmp_path / row["file"]).exists() for row in rows)


def test_json_and_arrays_hold_the_librarys_numbers(run: Run, mini: Network) -> None:
    arguments = ("--layer", "block3_conv1", "--top", "5", "--by", "max", "-o", "a.webp", "--save-arrays", "a.npz")
    result = run("featuremaps", CAT, *arguments, *MINI, "--json", "--fit", "crop")
    (row,) = json.loads(result.stdout)["maps"]
    maps = cnnviz.feature_maps(mini, CAT, "block3_conv1", fit="crop")
    assert row | maps.statistics() == row
    assert row["channels"] == maps.order("max")[:5]
    assert (row["layer"], row["use"], row["uses"]) == ("block3_conv1", 1, 1)
    assert (row["file"], row["network"]) == ("a.webp", {"name": "vgg16-mini", "weights": "built in"})
    with np.load("a.npz") as arrays:
        assert set(arrays) == {"image", "block3_conv1"}
        np.testing.assert_array_equal(arrays["block3_conv1"], maps.maps[0])
        np.testing.assert_array_equal(arrays["image"], maps.shown.images[0])


def test_channels_in_the_order_given(run: Run) -> None:
    run("featuremaps", CAT, "--layer", "block1_conv1", "--channels", "3,0-2,3", *MINI, "-o", "a.png")
    assert read_record("a.png")["settings"]["channels"] == [3, 0, 1, 2]


def test_quiet_says_nothing(run: Run) -> None:
    assert run("featuremaps", CAT, "--layer", "block1_conv1", *MINI, "--quiet").output == ""


def test_the_built_in_network_steps_in_with_one_line(run: Run, empty_cache: Path) -> None:
    result = run("saliency", CAT, "--method", "grad-cam", "-o", "a.png")
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1
    assert "no internet and no cached classifier of vgg16: using the small built-in vgg16-mini" in result.stderr
    assert "`cnnviz weights vgg16`" in result.stderr
    assert read_record("a.png")["network"]["name"] == "vgg16-mini"


def test_vgg16_itself_shows_its_maps_without_a_word(run: Run, empty_cache: Path) -> None:
    result = run("featuremaps", CAT, "--layer", "block4_conv2", "-o", "a.png")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "block4_conv2 of vgg16, 512 maps" in result.stdout
    record = read_record("a.png")["network"]
    assert (record["name"], record["weights"]) == ("vgg16", "VGG16, convolutions built in, float16")


def test_a_named_network_is_never_replaced(run: Run, empty_cache: Path) -> None:
    result = run("saliency", CAT, "--model", "vgg16")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    for way in ("connect to the internet", "--weights", "--model vgg16-mini"):
        assert way in result.stderr
    assert not list(Path().glob("*.png"))


def test_random_weights_are_said_loudly(run: Run, empty_cache: Path) -> None:
    result = run(
        "featuremaps", CAT, "--layer", "block1_conv1", "--model", "vgg16", "--weights", "random", "--size", "64"
    )
    assert result.exit_code == 0
    assert "warning: vgg16 has RANDOM weights (seed 0)" in result.stderr
    assert "64 maps" in result.stdout


def test_cached_weights_are_used_without_a_word(run: Run, empty_cache: Path) -> None:
    stand_in(empty_cache, "vgg16", 0.001)
    result = run("featuremaps", CAT, "--layer", "block1_conv1", "-o", "a.png", "--size", "64")
    assert (result.exit_code, result.stderr) == (0, "")
    record = read_record("a.png")["network"]
    assert (record["name"], record["weights"]) == ("vgg16", "VGG16_Weights.IMAGENET1K_V1")
    listed = json.loads(run("weights", "--json").stdout)
    assert [(row["name"], row["file"]) for row in listed["weights"]] == [("vgg16", str(zoo.cache_file("vgg16")))]


def test_layers_lists_parameters_and_receptive_fields(run: Run, empty_cache: Path) -> None:
    result = run("layers", "--model", "vgg16", "--weights", "random")
    assert result.exit_code == 0
    assert "138,357,544 parameters" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if " Conv2d " in line]
    assert [row[-2] for row in rows] == ["3", "5", "10", "14", "24", "32", "40", "60", "76", "92", "132", "164", "196"]
    table = json.loads(run("layers", *MINI, "--json", "--size", "64").stdout)
    assert table["input_size"] == [64, 64]
    assert table["layers"][-1]["receptive_field"] == ["all", "all"]


def test_predict(run: Run) -> None:
    result = run("predict", CAT, *MINI, "--top", "3")
    assert len(result.stdout.splitlines()) == 4
    (row,) = json.loads(run("predict", CAT, *MINI, "--json").stdout)["predictions"]
    assert len(row["classes"]) == 5


def test_models_classes_and_weights(run: Run, empty_cache: Path) -> None:
    models = {row["name"]: row for row in json.loads(run("models", "--json").stdout)["models"]}
    assert models["vgg16-mini"]["here"] == "built in"
    assert models["vgg16"]["parameters"] == 138357544
    assert models["vgg16"]["here"] == "convolutions built in; classifier to download, 528 MB"
    named = [line.split()[0] for line in run("models", "resnet1").stdout.splitlines()[1:-1]]
    assert named == ["resnet101", "resnet152", "resnet18", "wide_resnet101_2"]
    assert "30  tabby, tabby cat  (n02123045)" in run("classes", "TABBY", *MINI).stdout
    assert len(json.loads(run("classes", "--model", "vgg16", "--json").stdout)["classes"]) == 1000
    assert "none of the 200 classes" in run("classes", "zzz", *MINI).stderr
    assert "no pretrained weights in" in run("weights").stdout
    stand_in(empty_cache, SMALL)
    assert str(zoo.cache_file(SMALL)) in run("weights", SMALL).stdout
    assert run("weights", "vgg16").exit_code == 1


def test_a_users_own_network(run: Run) -> None:
    Path("labels.txt").write_text("".join(f"digit {number}\n" for number in range(10)))
    torch.save(LeNet().state_dict(), "lenet.pth")
    own = ("--model", f"{NETWORKS}:LeNet", "--weights", "lenet.pth", "--input-size", "28")
    own += ("--mean", "0.13", "--std", "0.38", "--labels", "labels.txt")
    assert run("featuremaps", CAT, "--layer", "conv2", *own, "-o", "a.png").exit_code == 0
    assert read_record("a.png")["network"]["name"] == "networks.py:LeNet"
    assert "digit 4" in run("predict", CAT, *own, "--top", "10").stdout
    assert "61,706 parameters" in run("layers", *own).stdout


BAD = {
    "empty.jpg": b"",
    "text.jpg": b"hello, I am a text",
    "cut.jpg": jpeg()[:-300],
}
GOOD = (CAT, "--layer", "block1_conv1", *MINI)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("none.jpg", "--layer", "block1_conv1"), 2, "'none.jpg' does not exist"),
        ((".", "--layer", "block1_conv1"), 2, "is a directory"),
        (("empty.jpg", *GOOD[1:]), 1, "empty.jpg is empty"),
        (("text.jpg", *GOOD[1:]), 1, "text.jpg is not an image"),
        (("cut.jpg", *GOOD[1:]), 1, "cut.jpg is damaged"),
        ((CAT, "--layer", "block9_conv1", *MINI), 1, "no layer named 'block9_conv1'; did you mean"),
        ((CAT, "--layer", "classifier.linear", *MINI), 1, "no feature maps but 200 numbers"),
        ((*GOOD, "--channels", "16"), 1, "no channel 16; its 16 channels are 0 to 15"),
        ((*GOOD, "--channels", "5-2"), 2, "write them like 0-63,128"),
        ((*GOOD, "--channels", "-1"), 2, "write them like 0-63,128"),
        ((*GOOD, "--top", "0"), 2, "0 is not in the range"),
        ((*GOOD, "--top", "3", "--channels", "1"), 2, "give one of them"),
        ((*GOOD, "--cmap", "viridus"), 1, "did you mean 'viridis'"),
        ((*GOOD, "-o", "a.gif"), 1, "images end in .png"),
        ((*GOOD, "-o", "text.jpg/a.png"), 1, "cannot write text.jpg/a.png"),
        ((*GOOD, "--layer", "block2_conv1", "-o", "a.png"), 2, "2 sheets do not fit into one file"),
        ((*GOOD, "--save-arrays", "a.txt"), 2, "writes .npz files"),
        ((*GOOD, "--size", "1", "--layer", "block5_pool"), 1, "cannot take an image of"),
        ((CAT, "--layer", "x", "--model", "vgg61"), 1, "did you mean"),
        ((*GOOD, "--weights", "none.pth"), 1, "no weights at none.pth"),
        ((*GOOD, "--mean", "a"), 2, "not a list of numbers"),
        ((*GOOD, "--mean", "0.5"), 1, "brings its own mean"),
        ((*GOOD, "--device", "mps"), 2, "finds no mps device"),
    ],
)
def test_wrong_input_gives_one_clear_line_and_writes_nothing(
    run: Run, arguments: tuple[object, ...], status: int, message: str
) -> None:
    for name, content in BAD.items():
        Path(name).write_bytes(content)
    result = run("featuremaps", *arguments)
    assert result.exit_code == status
    lines = result.stderr.strip().splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("Error: ")
    assert len(lines) == (1 if status == 1 else 4), "usage errors also show the usage"
    assert sorted(path.name for path in Path().iterdir()) == sorted(BAD)


def test_the_same_name_twice_would_overwrite_and_is_refused(run: Run) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "cat.jpg").write_bytes(CAT.read_bytes())
    result = run("featuremaps", "a/cat.jpg", "b/cat.jpg", *GOOD[1:])
    assert result.exit_code == 2
    assert (
        "the sheets of a/cat.jpg and b/cat.jpg would both be cat_vgg16-mini_featuremaps_block1_conv1.png"
        in result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("featuremaps", CAT, "--layers", ",", *MINI), 2, "no layer is named"),
        (("featuremaps", "own.png", *GOOD[1:], "-o", "own.png"), 2, "would overwrite the image own.png"),
        (("predict", "own.png", "--class", "tabbi", *MINI), 1, "did you mean 'tabby'"),
        (("predict", "own.png", "--class", "200", *MINI), 1, "its 200 classes are 0 to 199"),
        (("weights", "vgg16-mini"), 2, "is built in; there is nothing to download"),
        (("weights", "vgg61"), 1, "did you mean"),
        (("layers", "--model", "vgg16-min"), 1, "did you mean"),
        (("layers", "--model", "vit_b_16", "--size", "256"), 1, "cannot take an image of 256 x 256 px"),
        (("classes", *MINI, "--labels", "latin.txt"), 2, "is not a text file in UTF-8"),
    ],
)
def test_other_wrong_input(run: Run, arguments: tuple[object, ...], status: int, message: str) -> None:
    Image.new("RGB", (64, 64)).save("own.png")
    Path("latin.txt").write_bytes("Köter\n".encode("latin-1"))
    before = Path("own.png").read_bytes()
    result = run(*arguments)
    assert result.exit_code == status
    assert message in result.stderr.splitlines()[-1]
    assert Path("own.png").read_bytes() == before
    assert len(list(Path().iterdir())) == 2


def test_odd_but_lawful_names(run: Run) -> None:
    for name in ("two\nlines.png", "größe und 猫.png", "-dash.png", os.fsdecode(b"not\xffutf8.png")):
        Image.new("RGB", (64, 48)).save(name)
        result = run("featuremaps", "--layer", "block1_conv1", *MINI, "-o", "out/a.png", "--", name)
        assert result.exit_code == 0, result.output
        Image.open("out/a.png").load()
        assert read_record("out/a.png")["picture"]["sha256"]


def test_all_convolutions_of_a_network_with_idle_ones(run: Run) -> None:
    arguments = ("--model", "inception_v3", "--weights", "random", "--layers", "all", "--top", "1", "--json")
    rows = json.loads(run("featuremaps", CAT, *arguments, "-o", "out", "--size", "96").stdout)["maps"]
    assert len(rows) == 94
    assert not any("AuxLogits" in row["layer"] for row in rows)


def test_layers_may_be_called_anything(run: Run) -> None:
    Path("net.py").write_text(
        "from collections import OrderedDict\nfrom torch import nn\n"
        "def make(): return nn.Sequential(OrderedDict(file=nn.Conv2d(3, 2, 3), arr_0=nn.ReLU()))\n"
    )
    own = ("--model", "net.py:make", "--input-size", "32", "--layers", "file,arr_0", "--save-arrays", "a.npz")
    assert run("featuremaps", CAT, *own, "-o", "out").exit_code == 0
    with np.load("a.npz") as arrays:
        assert set(arrays) == {"image", "file", "arr_0"}
        np.testing.assert_array_equal(arrays["arr_0"], arrays["file"].clip(0))


def test_the_probability_of_a_class(run: Run, mini: Network) -> None:
    (row,) = json.loads(run("predict", CAT, "--class", "Egyptian cat", "--class", "n02123045", *MINI, "--json").stdout)[
        "predictions"
    ]
    everything = {ranked.index: ranked.probability for ranked in cnnviz.predict(mini, CAT, top=200)}
    assert [ranked["label"] for ranked in row["classes"]] == ["Egyptian cat", "tabby"]
    assert [ranked["probability"] for ranked in row["classes"]] == [everything[32], everything[30]]
    assert row["network"]["name"] == "vgg16-mini"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(run: Run) -> None:
    Path("locked").mkdir(mode=0o500)
    result = run("featuremaps", *GOOD, "-o", "locked/a.png")
    assert result.exit_code == 1
    assert "Permission denied" in result.stderr


WAITING = """
import os, time
from cnnviz.__main__ import main

def replace(source, target, real=os.replace):
    if "block2" in str(target):
        print("waiting", flush=True)
        time.sleep(600)
    real(source, target)

os.replace = replace
main()
"""


def test_ctrl_c_ends_with_130_and_no_half_file(tmp_path: Path) -> None:
    """At a moment when two files are written and the third is about to be."""
    command = ["featuremaps", str(CAT), "--layers", "block1_conv1,block1_conv2,block2_conv1", *MINI, "--size", "64"]
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, *command],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs inherit deafness
    )
    assert process.stdout is not None
    assert "waiting\n" in iter(process.stdout.readline, "")
    assert len(list(tmp_path.iterdir())) == 3
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "interrupted\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"cat_vgg16-mini_featuremaps_block1_conv{number}.png" for number in (1, 2)
    ]
    for path in tmp_path.iterdir():
        Image.open(path).load()


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout == f"cnnviz {cnnviz.__version__}\n"
    for command in cli.commands:
        text = run(command, "--help").stdout
        assert f"  cnnviz {command}" in text.split("Example:")[1], "each help shows an example"
    assert run("nonsense").exit_code == 2


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--fit", get_args(Fit)),
        ("--by", get_args(Order)),
        ("--scale", get_args(Scale)),
        ("--recipe", tuple(RECIPES)),
        ("--preset", get_args(Preset)),
        ("--precision", get_args(Precision)),
    ],
)
def test_words_to_choose_from_are_those_of_the_library(run: Run, option: str, words: tuple[str, ...]) -> None:
    """Where filters are drawn, the recipe may also be left to the layer."""
    takers = [called for called, command in COMMANDS.items() if any(option in given.opts for given in command.params)]
    assert takers
    for called in takers:
        [chosen] = [given for given in COMMANDS[called].params if option in given.opts]
        assert isinstance(chosen.type, click.Choice)
        left_to_the_layer = option == "--recipe" and called != ("classimage",)
        assert set(chosen.type.choices) == {*words, *["auto"] * left_to_the_layer}
        assert chosen.default == "auto" or not left_to_the_layer
        result = run(*called, option, "nonsense")
        assert result.exit_code == 2
        assert all(repr(word) in result.stderr for word in words)


@pytest.mark.parametrize("command", [("saliency", CAT), ("report", CAT), ("evidence", ".")])
def test_a_method_that_is_none_is_noticed_before_any_download(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr("cnnviz.cli.options.Chosen.load", fail)
    result = run(*command, "--method", "saliency,gradcamm")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no method named 'gradcamm'; did you mean 'grad-cam'")
