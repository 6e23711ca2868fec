"""`cnnviz saliency` of several images and of folders, their mean, and regions of networks that have none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import cnnviz
from cnnviz.networks.network import Network
from cnnviz.pictures.records import read_record
from tests.support.commands import Run
from tests.support.paths import CAT, NETWORKS, ROOT

COFFEE = ROOT / "gallery" / "photos" / "coffee.jpg"
SHORT = ("--method", "saliency", "--size", "32", "--model", "vgg16-mini")
MADE = ("cat_vgg16-mini_saliency_saliency.png", "coffee_vgg16-mini_saliency_saliency.png")


def test_what_is_worse_than_random_is_said_and_what_does_not_apply(run: Run) -> None:
    words = ("--model", "vgg16-mini", "--method", "grad-cam,saliency", "--infidelity", "-o", "a.png", "--force")
    said = run("saliency", CAT, *words).stdout.splitlines()
    row = json.loads(run("saliency", CAT, *words, "--json").stdout)["attributions"][0]
    assert row["deletion_auc"] > row["deletion_auc_random"] + row["deletion_auc_random_spread"]
    (worse,) = (line for line in said if line.startswith("deletion AUC worse than random: "))
    assert f"Grad-CAM for {row['label']}" in worse
    assert f"infidelity is not defined for a layer's maps: Grad-CAM for {row['label']}" in said


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two images, one of them in a folder in the folder."""
    folder = tmp_path / "photographs"
    (folder / "inner").mkdir(parents=True)
    shutil.copy(CAT, folder)
    shutil.copy(COFFEE, folder / "inner")
    return folder


def test_each_of_several_images_gets_its_sheet_which_is_made_again(run: Run) -> None:
    result = run("saliency", CAT, COFFEE, *SHORT)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in Path().glob("*.png")) == sorted(MADE)
    for file, image in zip(MADE, (CAT, COFFEE), strict=True):
        assert f"{file}: Attribution: " in result.stdout
        assert read_record(file)["picture"]["name"] == image.name  # type: ignore[index]
        assert "identical" in run("rerun", file, "--image", image).stdout


def test_a_folder_stands_for_its_images(run: Run, photographs: Path) -> None:
    result = json.loads(run("saliency", photographs, *SHORT, "-o", "o/", "--save-arrays", "a.npz", "--json").stdout)
    assert sorted(path.name for path in Path("o").iterdir()) == sorted(MADE)
    assert set(result) == {"network", "fit", "images"}
    assert [row["file"] for row in result["images"]] == [f"o/{name}" for name in MADE]
    alone = json.loads(run("saliency", CAT, *SHORT, "-o", "cat.png", "--json").stdout)
    assert set(alone) == set(result["images"][0])
    assert alone["attributions"] == result["images"][0]["attributions"]
    index = alone["attributions"][0]["class"]
    assert {"cat/image", f"cat/saliency/{index}", "coffee/image"} < set(np.load("a.npz"))


def test_images_that_cannot_be_read_are_left_out_and_the_status_says_so(run: Run, photographs: Path) -> None:
    (photographs / "broken.jpg").write_text("no image")
    result = run("saliency", photographs, *SHORT, "--quiet", "-o", "o/")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"{photographs / 'broken.jpg'} is left out: broken.jpg is not an image")
    assert sorted(path.name for path in Path("o").iterdir()) == sorted(MADE)
    told = json.loads(run("saliency", photographs, *SHORT, "-o", "o/", "--json").stdout)["unreadable"]
    assert [row["image"] for row in told] == [str(photographs / "broken.jpg")]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((COFFEE, "-o", "a.png"), "2 sheets do not fit into one file; -o must name a folder."),
        ((COFFEE, "--overlay", "a.png"), "--overlay is of one image"),
        (("cat.jpg",), "would both be cat_vgg16-mini_saliency_saliency.png; take them in turn."),
        ((COFFEE, "--mean-map", "--top", "2"), "leave out --top"),
        (("--mean-map",), "--mean-map is over several images"),
    ],
)
def test_what_does_not_go_together(run: Run, words: tuple[object, ...], reason: str) -> None:
    shutil.copy(COFFEE, "cat.jpg")
    result = run("saliency", CAT, *words, *SHORT)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert not list(Path().glob("*.png"))


def test_the_mean_is_drawn_saved_and_made_again(run: Run, photographs: Path, mini: Network) -> None:
    words = ("--class", "tabby", "--mean-map", "-o", "o/", "--save-arrays", "a.npz", "--json")
    made = json.loads(run("saliency", photographs, *SHORT, *words).stdout)["mean"]
    assert made["file"] == "o/mean-of-2_vgg16-mini_saliency_saliency.png"
    assert (made["images"], made["attributions"][0]["label"]) == (2, "tabby")
    files = [CAT, photographs / "inner" / "coffee.jpg"]
    maps = [
        explanation.attributions[0].heat.double()
        for explanation in cnnviz.explain(mini, files, "tabby", methods="saliency", size=32, checks=())
    ]
    np.testing.assert_allclose(np.load("a.npz")["mean.saliency.30"], ((maps[0] + maps[1]) / 2).numpy(), rtol=1e-6)
    assert "identical" in run("rerun", made["file"], "--folder", photographs).stdout
    assert "give their folder as --folder PATH" in run("rerun", made["file"]).stderr
    (photographs / "cat.jpg").unlink()
    assert "cat.jpg, as it was then, is not in" in run("rerun", made["file"], "--folder", photographs).stderr


def test_default_methods_are_left_out_unless_they_are_named(run: Run) -> None:
    """Grad-CAM needs feature maps, which this network has not."""
    Path("net.py").write_text(
        "from torch import nn\ndef flat():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))\n"
    )
    words = ("--model", "net.py:flat", "--input-size", "8", "--mean", "0", "--std", "1", "-o", "a.png")
    assert run("saliency", CAT, *words).exit_code == 0
    assert [*read_record("a.png")["settings"]["methods"]] == ["integrated-gradients"]  # type: ignore[index]
    result = run("saliency", CAT, *words, "--method", "grad-cam,integrated-gradients")
    assert result.exit_code == 1
    assert "Error: " in result.stderr


@pytest.mark.parametrize("model", [("vgg16-mini",), (f"{NETWORKS}:LeNet", "--input-size", "28")])
def test_a_region_of_a_classifier_is_a_wrong_use(run: Run, model: tuple[str, ...]) -> None:
    result = run("saliency", CAT, "--target-box", "1,1,9,9", "--model", *model)
    assert result.exit_code == 2
    assert "leave out --target-mask and --target-box" in result.stderr


def test_torchvisions_networks_for_segmentation_know_their_classes(run: Run) -> None:
    Path("net.py").write_text(
        "from torchvision.models.segmentation import lraspp_mobilenet_v3_large as made\n"
        "def voc(classes=21):\n    return made(weights=None, weights_backbone=None, num_classes=classes)\n"
        "def few():\n    return voc(5)\n"
    )
    own = ("--input-size", "64", "--mean", "0", "--std", "1", "--target-box", "10,10,300,300", "-o", "a.png")
    result = run("saliency", CAT, "--model", "net.py:voc", "--method", "saliency", "--class", "cat", *own)
    assert result.exit_code == 0, result.stderr
    assert "Attribution: cat (score" in result.stdout
    few = run("saliency", CAT, "--model", "net.py:few", "--method", "saliency", "--class", "cat", *own)
    assert "has no class names" in few.stderr
