"""Images made again from their records: identical, or said to be otherwise and why."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

import cnnviz
from cnnviz.cli import cli
from cnnviz.cli.rerun import ASCENTS, MAKERS
from cnnviz.errors import PictureError
from cnnviz.pictures.records import METADATA, pixels_in, read_made, read_record
from tests.support.commands import Run
from tests.support.paths import CAT, ROOT

MINI = ["--model", "vgg16-mini"]
COMMANDS = {
    "featuremaps": [CAT, "--layer", "block2_conv1", "--top", "3", "--scale", "shared", "--fit", "crop"],
    "filters": ["--layer", "block3_conv1", "--filters", "3,5", "--steps", "3", "--seed", "4"],
    "classimage": ["tabby", "--steps", "2", "--plain-logit"],
    "dream": [CAT, "--layer", "block2_conv1", "--steps", "2", "--size", "64"],
    "invert": [CAT, "--layer", "block2_conv1", "--steps", "2", "--size", "64"],
    "kernels": [],
    "saliency": [CAT, "--method", "grad-cam,smoothgrad", "--class", "tabby", "--size", "64", "--seed", "3"],
}


@pytest.fixture
def made(run: Run, request: pytest.FixtureRequest) -> str:
    """An image by each command, and which it is."""
    name: str = request.param
    result = run(name, *COMMANDS[name], *MINI, "-o", "made.png", "--quiet")
    assert result.exit_code == 0, result.stderr
    return name


def picture(name: str) -> list[str]:
    return ["--picture", str(CAT)] if CAT in COMMANDS[name] else []


@pytest.mark.parametrize("made", COMMANDS, indirect=True)
def test_what_every_command_makes_is_made_again_pixel_for_pixel(run: Run, made: str) -> None:
    result = run("rerun", "made.png", *picture(made), "-o", "again.png")
    assert result.stdout == "made.png: identical; written to again.png\n", result.stderr
    first, second = read_made("made.png"), read_made("again.png")
    assert np.array_equal(pixels_in(first[1]), pixels_in(second[1]))
    assert first[0] == second[0]
    inspected = run("inspect", "made.png").stdout
    assert f"command:                   {made}\n" in inspected
    assert json.loads(run("inspect", "made.png", "--json").stdout) == first[0]


def test_overlays_objectives_gallery_pictures_and_evidence_are_made_again(run: Run, tmp_path: Path) -> None:
    run("saliency", CAT, "--method", "saliency", "--size", "48", *MINI, "-o", "s.png", "--overlay", "o.png", "--quiet")
    assert "identical" in run("rerun", "o.png", "--picture", CAT).stdout
    run("filters", "--objective", "block2_conv1:3", "--steps", "2", "--size", "32", *MINI, "-o", "j.png", "--quiet")
    assert "identical" in run("rerun", "j.png").stdout
    run("gallery", "build", "g", *MINI, "--layers", "block2_conv1", "--filters", "1-2", "--steps", "2", "--quiet")
    assert "identical" in run("rerun", "g/images/block2_conv1/0002.png").stdout
    for number, name in enumerate(("tabby", "espresso")):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        Image.open(ROOT / "gallery" / "photos" / ("cat.jpg", "coffee.jpg")[number]).save(folder / "a.png")
    options = ["--method", "saliency", "--grids", "1", "--cells", "1x2", "--pictures", "1", "--confidence", "0"]
    result = run("evidence", "pictures", *options, *MINI, "-o", "e.png", "--quiet")
    if result.exit_code == 0:  # the network has to be right about both
        assert "identical" in run("rerun", "e.png", "--folder", "pictures").stdout
    assert "--folder PATH" in run("rerun", "e.png").stderr or result.exit_code


@pytest.mark.parametrize("ending", ["jpg", "webp", "pdf", "svg"])
def test_other_formats_are_inspected_made_again_and_replaced(run: Run, ending: str) -> None:
    file, drawn = f"a.{ending}", ["filters", "--layer", "block2_conv1", "--filters", "3", "--steps", "2", *MINI]
    assert run(*drawn, "-o", file, "--quiet").exit_code == 0
    assert json.loads(run("inspect", file, "--json").stdout)["settings"]["filters"] == [3]
    assert run("rerun", file).stdout == f"{file}: identical\n"
    assert run(*drawn, "-o", file, "--quiet").exit_code == 0
    assert [path.name for path in Path().iterdir()] == [file], "the same command's file is replaced"
    run(*drawn, "--seed", "2", "-o", file, "--quiet")
    assert read_record(f"a-2.{ending}")["settings"]["seed"] == 2, "another one's is not"
    altered = cnnviz.filter_images(cnnviz.load("vgg16-mini"), "block2_conv1", [5], steps=2).sheet()
    cnnviz.Sheet(altered.pixels, read_record(file), altered.draw).save(file)
    again = run("rerun", file)
    assert "equal within rounding" in again.stdout, "the numbers are the record's, the image is another"


LAYOUTS = {
    "featuremaps": [CAT, "--layer", "block2_conv1:pre", "--top", "4", "--overlay", "--columns", "3", "--title", "Mine"],
    "filters": ["--layer", "block2_conv1", "--filters", "3,5", "--steps", "2", "--no-captions", "--tile", "90"],
    "saliency": [CAT, "--method", "grad-cam", "--size", "64", "--alpha", "0.5", "--cmap", "magma", "--dpi", "120"],
    "kernels": ["--columns", "2", "--tile", "30"],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_and_looks_are_made_again(run: Run, name: str) -> None:
    given = LAYOUTS[name]
    result = run(name, *given, *MINI, "-o", "made.png", "--quiet")
    assert result.exit_code == 0, result.stderr
    picture = ["--image", str(CAT)] if CAT in given else []
    assert "identical" in run("rerun", "made.png", *picture).stdout
    usual = run(
        name, *given[: 5 if CAT in given else 6 if name == "filters" else 0], *MINI, "-o", "usual.png", "--quiet"
    )
    assert usual.exit_code == 0, usual.stderr
    assert not np.array_equal(pixels_in(read_made("made.png")[1]), pixels_in(read_made("usual.png")[1]))


def test_every_picture_making_command_is_covered() -> None:
    assert set(COMMANDS) | {"gallery", "evidence", "objective"} == set(MAKERS)
    assert set(ASCENTS) < set(MAKERS)
    assert set(MAKERS) - {"objective"} <= set(cli.commands)  # that is `cnnviz filters --objective`


def test_other_weights_are_named_and_the_picture_is_not_the_same(run: Run) -> None:
    run("filters", "--layer", "block1_conv1", "--filters", "0", "--steps", "2", *MINI, "-o", "a.png")
    result = run("rerun", "a.png", "--weights", "random")
    assert result.exit_code == 1
    assert "a.png: not the same" in result.stdout
    assert "the network has other weights" in result.stdout


def test_numbers_that_differ_by_rounding_are_said_to_be_equal(run: Run) -> None:
    """A pixel that another computer drew otherwise, and a score that it rounded otherwise."""
    network = cnnviz.load("vgg16-mini")
    synthesis = cnnviz.filter_images(network, "block1_conv1", [0], steps=2)
    sheet = synthesis.sheet()
    pixels = sheet.pixels.copy()
    pixels[-30, 30] ^= 1
    results = {"score": [synthesis.scores.item() * 1.005]}
    versions = {**sheet.made["versions"], "torch": "1.0"}
    cnnviz.Sheet(pixels, {**sheet.made, "results": results, "versions": versions}).save("a.png")
    result = run("rerun", "a.png")
    assert result.exit_code == 0
    assert result.stdout.startswith("a.png: equal within rounding: numbers differ by 0.005")
    assert f"torch 1.0, now {sheet.made['versions']['torch']}" in result.stdout
    cnnviz.Sheet(pixels, {**sheet.made, "results": {"score": [synthesis.scores.item() * 1.2]}}).save("a.png")
    assert run("rerun", "a.png").exit_code == 1


def test_the_picture_must_be_given_and_must_be_the_same(run: Run) -> None:
    run("featuremaps", CAT, "--layer", "block1_conv1", *MINI, "-o", "a.png")
    assert "this was made from cat.jpg; say where that is with --image PATH" in run("rerun", "a.png").stderr
    Image.open(CAT).save("cat.jpg", quality=50)
    result = run("rerun", "a.png", "--picture", "cat.jpg")
    assert result.exit_code == 1
    assert "its sha256 is another" in result.stderr
    assert str(ROOT) not in run("inspect", "a.png").stdout


def rewritten(path: str, change: dict[str, object] | None, *, pixel: bool = False) -> None:
    """A PNG with its record changed, or without it, or with another pixel."""
    with Image.open(path) as image:
        made, pixels = json.loads(image.text[METADATA]), np.array(image)
    text = PngImagePlugin.PngInfo()
    if change is not None:
        text.add_itxt(METADATA, json.dumps(made | change))
    pixels[0, 0] ^= 255 * pixel
    Image.fromarray(pixels).save(path, pnginfo=text)


@pytest.mark.parametrize("command", ["inspect", "rerun"])
def test_edited_and_stripped_records_are_noticed(run: Run, command: str) -> None:
    for change, pixel, said in (
        ({}, True, "is not as cnnviz wrote it"),
        ({"settings": {"layer": "block1_conv2"}}, False, "is not as cnnviz wrote it"),
        ({"sha256": None}, False, "is not as cnnviz wrote it"),
        (None, False, "carries no record"),
    ):
        run("kernels", *MINI, "-o", "a.png")
        rewritten("a.png", change, pixel=pixel)
        result = run(command, "a.png")
        assert result.exit_code == 1
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    run("kernels", *MINI, "-o", "b.png")
    rewritten("b.png", {})
    assert run(command, "b.png").exit_code == 0, "a file that was only saved again is as good"


@pytest.mark.parametrize(
    "broken", [{"command": "nonsense"}, {"settings": {}}, {"versions": None}, {"command": "maximize"}, {"network": {}}]
)
def test_a_record_that_makes_no_sense_is_told_in_one_line(run: Run, broken: dict[str, object]) -> None:
    sheet = cnnviz.kernel_sheet(cnnviz.load("vgg16-mini"))
    cnnviz.Sheet(sheet.pixels, {**sheet.made, **broken}).save("a.png")
    result = run("rerun", "a.png")
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith(("Error: ", "Usage: "))


def test_what_holds_no_file_cannot_be_made_again(run: Run) -> None:
    maps = cnnviz.feature_maps(cnnviz.load("vgg16-mini"), torch.rand(3, 64, 64), "block1_conv1")
    maps.sheet().save("a.png")
    assert "which no file holds" in run("rerun", "a.png", "--picture", CAT).stderr


def test_a_network_of_ones_own_is_named_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))\n"
    )
    own = ["--model", "net.py:net", "--input-size", "24", "--mean", "0.5"]
    run("filters", "--layer", "0", "--steps", "2", *own, "-o", "a.png")
    assert "identical" in run("rerun", "a.png", "--model", "net.py:net").stdout
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "net.py").rename(tmp_path / "elsewhere" / "net.py")
    assert "identical" in run("rerun", "a.png", "--model", "elsewhere/net.py:net").stdout


def test_outputs_need_not_be_told_again(run: Run, tmp_path: Path) -> None:
    """Told apart by the probabilities beneath the sheet's title: of labels that do not exclude each other."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    own = ["--model", "net.py:net", "--input-size", "24", "--outputs", "multilabel"]
    run("saliency", CAT, "--method", "saliency", "--class", "2", *own, "-o", "a.png", "--quiet")
    again = ["rerun", "a.png", "--picture", CAT, "--model", "net.py:net"]
    assert run(*again).stdout == "a.png: identical\n"
    assert "identical" not in run(*again, "--outputs", "value").stdout


@pytest.mark.parametrize("outputs", ["nonsense", ["logits"], 3])
def test_outputs_of_no_kind_are_told_in_one_line(run: Run, tmp_path: Path, outputs: object) -> None:
    (tmp_path / "net.py").write_text("from cnnviz.models.builtin import vgg16_mini as net\n")
    run("kernels", "--model", "net.py:net", "--input-size", "128", "-o", "a.png")
    made, content = read_made("a.png")
    cnnviz.Sheet(pixels_in(content), made | {"network": made["network"] | {"outputs": outputs}}).save("a.png")
    result = run("rerun", "a.png", "--model", "net.py:net")
    assert result.exit_code == 1
    assert "outputs" in result.stderr
    assert result.stderr.count("\n") == 1


def test_pictures_of_earlier_records_are_made_again(run: Run) -> None:
    """They call the fingerprint sha256, and say nothing of outputs or of a file."""
    run("kernels", *MINI, "-o", "a.png")
    made, content = read_made("a.png")
    pixels = pixels_in(content)
    network = {name: value for name, value in made["network"].items() if name not in ("outputs", "weights_sha256")}
    network["sha256"] = network.pop("fingerprint")
    cnnviz.Sheet(pixels, made | {"network": network}).save("a.png")
    assert run("rerun", "a.png").stdout == "a.png: identical\n"
    cnnviz.Sheet(pixels, made | {"network": network | {"sha256": "0" * 64}}).save("a.png")
    assert json.loads(run("rerun", "a.png", "--json").stdout)["reasons"] == ["the network has other weights"]


def test_a_record_is_read_only_from_what_cnnviz_wrote(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(PictureError, match="carries no record"):
        cnnviz.read_record(tmp_path / "a.png")
