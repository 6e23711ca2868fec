"""`cnnviz filters`, `classimage`, `dream`, `invert` and `kernels` as a user types them."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import cnnviz
from cnnviz.cli import cli
from cnnviz.networks.network import Network
from cnnviz.pictures.records import read_record
from cnnviz.synthesis import jobs
from cnnviz.synthesis.recipes import RECIPES
from tests.support.commands import Run
from tests.support.paths import CAT

MINI = ("--model", "vgg16-mini")
SHORT = ("--steps", "6", "--size", "48", *MINI)


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_filters_are_drawn_with_their_record(run: Run, mini: Network) -> None:
    result = run("filters", "--layer", "block5_conv3", "--filters", "0-2,41", "--seed", "3", *SHORT)
    assert result.exit_code == 0
    assert "Feature visualization: block5_conv3, filters 0-2, 41 of 192" in result.stdout
    file = "vgg16-mini_filters_block5_conv3.png"
    settings = read_record(file)["settings"]
    assert settings["filters"] == [0, 1, 2, 41]
    assert (settings["seed"], settings["steps"], settings["size"], settings["recipe"]) == (3, 6, [48, 48], "natural")
    assert settings["objective"] == "mean of block5_conv3 after relu"
    expected = cnnviz.filter_images(mini, "block5_conv3", [0, 1, 2, 41], seed=3, steps=6, size=48)
    np.testing.assert_array_equal(pixels(file), expected.sheet().pixels)


def test_before_the_activation_in_networks_without_blocks_too(run: Run) -> None:
    Path("plain.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())\n"
    )
    own = ("--model", "plain.py:net", "--input-size", "16", "--steps", "2", "-o", "pre.png")
    assert run("filters", "--layer", "0:pre", *own).exit_code == 0
    assert read_record("pre.png")["settings"]["objective"] == "mean of 0:pre"


def test_the_same_command_gives_the_same_pixels(run: Run) -> None:
    for name in ("a.png", "b.png"):
        assert run("filters", "--layer", "block3_conv1", "--filters", "5", *SHORT, "-o", name).exit_code == 0
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))


def test_the_first_sixteen_filters_or_all(run: Run) -> None:
    result = run("filters", "--layer", "block2_conv1", "--steps", "1", "--size", "16", *MINI, "--json")
    outcome = json.loads(result.stdout)
    assert [row["label"] for row in outcome["images"]] == [str(number) for number in range(16)]
    known = {"label", "start", "score", "percentile", "mean", "max", "status", "tries"}
    assert set(outcome["images"][0]) == known | {"best reference", "best reference's score"}
    result = run(
        "filters", "--layer", "block2_conv1", "--filters", "all", "--steps", "1", "--size", "16", *MINI, "--json"
    )
    assert len(json.loads(result.stdout)["images"]) == 32


def test_arrays_and_a_film(run: Run) -> None:
    result = run(
        "filters", "--layer", "block3_conv1", "--filters", "2,7", *SHORT, "--save-arrays", "f.npz", "--film", "f.gif"
    )
    assert result.exit_code == 0
    with np.load("f.npz") as arrays:
        assert arrays["images"].shape == (2, 3, 48, 48)
        assert arrays["curve/7"].shape == (6,)
        assert set(arrays) == {"images", "scores", "starts", "fired", "curve/2", "curve/7"}
    with Image.open("f.gif") as film:
        assert film.n_frames == 6
        first = np.asarray(film.convert("RGB")).astype(int)
        film.seek(5)
        assert np.abs(np.asarray(film.convert("RGB")) - first).mean() > 1


def test_a_class_by_its_names(run: Run, mini: Network) -> None:
    result = run("classimage", "tabby", "n07920052", *SHORT, "-o", "c.png")
    assert result.exit_code == 0, result.stderr
    assert read_record("c.png")["settings"]["classes"] == [
        cnnviz.class_index(mini, "tabby"),
        cnnviz.class_index(mini, "espresso"),
    ]


def test_a_dream_starts_from_the_picture_and_an_inversion_comes_near_it(run: Run) -> None:
    assert run("dream", CAT, "--layer", "block3_conv1", "--size", "64", "--steps", "4", *MINI).exit_code == 0
    record = read_record("cat_vgg16-mini_dream_block3_conv1.png")
    assert record["picture"]["name"] == "cat.jpg"
    assert record["settings"]["layer"] == "block3_conv1"
    result = run(
        "invert", CAT, "--layer", "block1_conv2", "--layer", "block3_conv1", "--size", "48", "--steps", "5", *MINI
    )
    assert result.exit_code == 0
    assert "Feature inversion: " in result.stdout
    assert Path("cat_vgg16-mini_invert_block1_conv2_block3_conv1.png").exists()


def test_dreams_and_inversions_do_what_they_say(mini: Network) -> None:
    dreamt = cnnviz.dream(mini, CAT, "block3_conv1", size=64, steps=6)
    assert dreamt.images.shape == (1, 3, 64, 96)
    assert dreamt.scores > 1.05 * dreamt.starts
    shown = cnnviz.feature_maps(mini, CAT, "block1_conv2", size=64, fit="whole")
    difference = (dreamt.images - shown.shown.images).abs().mean()
    assert 0.005 < difference < 0.2
    kept = cnnviz.invert(mini, CAT, ["block1_conv2", "block2_conv2"], size=48, steps=60)
    assert (kept.scores > 0.8).all()
    maps = cnnviz.activations(mini, kept.images, ["block2_conv2"])["block2_conv2"][1]
    wanted = cnnviz.feature_maps(mini, CAT, "block2_conv2", size=48, fit="whole").maps[0]
    share = 1 - (maps - wanted).square().sum() / wanted.square().sum()
    assert kept.scores[1].item() == pytest.approx(share.item(), rel=1e-4)


def test_dreams_and_inversions_are_not_judged_by_simple_patterns(mini: Network) -> None:
    """Stripes, or the image itself, may score more than these; that is no fault of theirs."""
    for synthesis in (
        cnnviz.dream(mini, CAT, "block3_conv1", size=48, steps=1),
        cnnviz.invert(mini, CAT, ["block2_conv2"], size=48, steps=1),
    ):
        words = [text.get_text() for text in synthesis.figure().axes[0].texts]
        assert not any(word in text for text in words for word in ("weak", "ok", "photographs", "recipe"))


def test_kernels_are_the_weights_themselves(run: Run, mini: Network) -> None:
    assert run("kernels", "--model", "alexnet", "--weights", "random", "-o", "k.png").exit_code == 0
    assert read_record("k.png")["settings"]["layer"] == "features.0"
    assert run("kernels", "--layer", "block1_conv1", *MINI, "-o", "mini.png").exit_code == 0
    weight = mini.layers["features.0"].weight[0].numpy()
    sheet = pixels("mini.png")
    expected = np.rint((0.5 + 0.5 * weight / np.abs(weight).max()) * 255).transpose(1, 2, 0)
    rows = [row for row in range(sheet.shape[0]) if (sheet[row, 16] == expected[0, 0]).all()]
    assert rows, "the first kernel's first weight stands at the left"
    result = run("kernels", "--layer", "block2_conv1", *MINI)
    assert result.exit_code == 1
    assert "over 16 channels, not colours" in result.stderr
    depthwise = ("--model", "mobilenet_v2", "--weights", "random", "--layer", "features.1.conv.0.0")
    assert "over 32 channels, not colours" in run("kernels", *depthwise).stderr


def test_a_networks_first_kernels_may_be_grey(lenet: object, run: Run) -> None:
    network = cnnviz.wrap(lenet, name="lenet", input_size=28)
    assert cnnviz.kernel_sheet(network).pixels.shape[2] == 3
    assert cnnviz.kernel_sheet(network).made["settings"] == {"layer": "conv1"}


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("filters", "--layer", "block5_conv3", "--filters", "500"), 1, "no filter 500; its 192 filters are 0 to 191"),
        (("filters", "--layer", "block5_conf3"), 1, "did you mean 'block5_conv3'"),
        (("filters", "--layer", "classifier.linear"), 1, "no feature maps; for what classes look like, take"),
        (("filters", "--layer", "block5_conv3", "--size", "8"), 1, "cannot take an image of 8 x 8 px"),
        (("filters", "--layer", "block5_conv3", "--filters", "x"), 2, "write them like 0-63,128"),
        (("filters", "--layer", "block5_conv3", "--size", "big"), 2, "no size such as 224"),
        (("filters", "--layer", "block5_conv3", "--recipe", "best"), 2, ", ".join(map(repr, RECIPES))),
        (("filters", "--layer", "block5_conv3", "--film", "f.mp4"), 2, "--film writes .gif files"),
        (("filters", "--layer", "block5_conv3", "-o", "f.bmp"), 1, "images end in"),
        (("filters", "--layer", "block5_conv3", "--objective", "block5_conv3:1"), 2, "--layer"),
        (("filters", "--layer", "block5_conv3", "--film", "/proc/f.gif"), 1, "cannot write /proc/f.gif"),
        (("dream", CAT, "--layer", "block5_conv3", "-o", "/proc/f.png"), 1, "cannot write /proc/f.png"),
        (("classimage", "volcano"), 1, "knows no class 'volcano'"),
        (("classimage", "200"), 1, "no class 200"),
        (("dream", CAT, "--layer", "nonsense"), 1, "no layer named 'nonsense'"),
        (("invert", CAT, "--layer", "block1_conv1", "-o", CAT), 2, "would overwrite the image"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run: Run, arguments: tuple[str, ...], status: int, text: str) -> None:
    result = run(*arguments, *MINI)
    assert result.exit_code == status
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("Error")] != []
    assert not list(Path().iterdir())


def test_help_lists_the_recipes() -> None:
    text = CliRunner().invoke(cli, ["filters", "--help"], terminal_width=100).output
    for name in RECIPES:
        assert f"  {name} " in text
    assert max(map(len, text.splitlines())) <= 100


def test_ctrl_c_keeps_what_is_finished(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    climb, batches = jobs.ascend, []

    def interrupted(*given: object, **more: object) -> Iterator[object]:
        batches.append(given)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return climb(*given, **more)

    monkeypatch.setattr(jobs, "ascend", interrupted)
    result = run("filters", "--layer", "block2_conv1", "--filters", "0-8", *SHORT, "--batch", "2", "-o", "kept.png")
    assert result.exit_code == 130
    assert "keeping the 4 of 9 images that are finished" in result.stderr
    assert result.stderr.endswith("interrupted\n")
    assert "(4 are finished)" in result.stdout
    assert read_record("kept.png")["settings"]["filters"] == [0, 1, 2, 3]
