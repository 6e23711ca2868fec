"""The grid pointing game and the randomization check over many images, where the truth is known by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from torch import Tensor, nn

import cnnviz
from cnnviz.attribution.comparison import Compared, Comparison, compare_methods
from cnnviz.attribution.evidence import unmoved
from cnnviz.attribution.pointing_game import Example, examples, grids_of, pointing_game
from cnnviz.errors import PictureError, ShapeError, UnknownNameError
from cnnviz.networks.network import Network, wrap
from tests.support.commands import Run
from tests.support.networks import LeNet
from tests.support.paths import CAT

METHODS = ["grad-cam", "saliency"]


class Colours(nn.Module):
    """Logits are four times the mean red, green and blue."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.conv.weight = nn.Parameter(4 * torch.eye(3)[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3))


@pytest.fixture
def colours() -> Network:
    return wrap(Colours(), name="colours", input_size=16, labels=["red", "green", "blue"])


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Four images each of red, green and blue things, two of them in the wrong folder, and one that is broken."""
    for number, name in enumerate(("red", "green", "blue")):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for shade in range(4):
            pixels = np.zeros((20, 16, 3), dtype=np.uint8)
            pixels[..., number] = 255 - 10 * shade
            Image.fromarray(pixels).save(tmp_path / "photographs" / name / f"{name}{shade}.png")
    for name in ("red0.png", "red1.png"):
        (tmp_path / "photographs" / "red" / name).rename(tmp_path / "photographs" / "blue" / name)
    (tmp_path / "photographs" / "blue" / "broken.png").write_bytes(b"no image")
    return tmp_path / "photographs"


def test_examples_are_what_the_network_is_right_and_sure_about(colours: Network, photographs: Path) -> None:
    recognised = list(examples(colours, photographs))
    assert sorted(example.path.name for example in recognised) == [
        *(f"blue{shade}.png" for shade in range(4)),
        *(f"green{shade}.png" for shade in range(4)),
        *("red2.png", "red3.png"),
    ]
    assert all(example.path.name.startswith(["red", "green", "blue"][example.index]) for example in recognised)
    assert all(example.image.shape == (1, 3, 16, 16) and example.probability > 0.8 for example in recognised)
    assert not list(examples(colours, photographs, confidence=0.99))
    flat = [(example.path.name, example.index) for example in examples(colours, photographs / "blue")]
    assert ("red0.png", 0) in flat, "right in the folder, an image is what the network takes it for"


def test_examples_come_in_an_order_drawn_by_the_seed(colours: Network, photographs: Path) -> None:
    first, again, other = ([one.path.name for one in examples(colours, photographs, seed=seed)] for seed in (0, 0, 1))
    assert first == again != other


def test_a_folder_that_is_no_class_is_told(colours: Network, photographs: Path) -> None:
    (photographs / "blue").rename(photographs / "bluu")
    with pytest.raises(UnknownNameError, match="did you mean 'blue'"):
        next(examples(colours, photographs))


@pytest.mark.parametrize(("count", "expected"), [(2, ["03", "14", "25", "68"]), (3, ["034"]), (4, [])])
def test_no_picture_is_in_two_grids_and_classes_differ(count: int, expected: list[str]) -> None:
    """By hand: images of classes as they come, and those that each grid holds."""
    indices = [0, 0, 0, 1, 2, 2, 2, 2, 0]
    all_of_them = [
        Example(Path(str(number)), torch.zeros(1, 3, 2, 2), index, 1.0) for number, index in enumerate(indices)
    ]
    grids = list(grids_of(all_of_them, count))
    assert ["".join(str(example.path) for example in grid) for grid in grids] == expected
    assert all(len({example.index for example in grid}) == count for grid in grids)


@pytest.mark.parametrize("cells", [(1, 2), (2, 1), (1, 3)])
def test_shares_are_what_a_linear_network_must_have(
    cells: tuple[int, int], colours: Network, photographs: Path
) -> None:
    """Of red times its weight, all lies on the red image; the weights alone are the same everywhere."""
    count = math.prod(cells)
    grids = list(grids_of(examples(colours, photographs), count))
    shares = pointing_game(colours, grids, ["input-x-gradient", "occlusion", "saliency"], cells=cells)
    torch.testing.assert_close(shares["input-x-gradient"], torch.ones(len(grids), dtype=torch.float64))
    torch.testing.assert_close(shares["saliency"], torch.full((len(grids),), 1 / count, dtype=torch.float64))
    assert shares["occlusion"].min() > 0.9 or count > 2


class Weighing(nn.Module):
    """Logit k is the sum over all pixels of how bright they are in colour k, less `less` times all colours."""

    def __init__(self, classes: int, less: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(classes, classes, 1, bias=False)
        self.conv.weight = nn.Parameter((torch.eye(classes) - less)[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).sum((2, 3))


@pytest.mark.parametrize("cells", [(2, 2), (3, 3), (1, 4)])
def test_the_score_of_a_grid_by_hand(cells: tuple[int, int]) -> None:
    """Each cell has its class's colour in one pixel, at a brightness of its own; one grid for each cell, asked in turn.

    Input times gradient is, pixel by pixel, (weight of the colour) x (brightness): positive for the asked class's own
    colour, which also lies, half as bright, in the cell after it; negative elsewhere. Only what is positive counts.
    """
    count = math.prod(cells)
    network = wrap(Weighing(count, 0.1), name="weighing", input_size=5, channels=count)
    grid = []
    for index in range(count):
        image = torch.zeros(1, count, 4, 5)
        image[0, index, index % 4, 0] = 1 - index / 20
        image[0, (index - 1) % count, 3 - index % 4, 4] = 0.5
        grid.append(Example(Path(), image, index, 1.0))
    shares = pointing_game(network, [tuple(grid)] * count, ["input-x-gradient"], cells=cells)["input-x-gradient"]
    expected = [(1 - index / 20) / (1 - index / 20 + 0.5) for index in range(count)]
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("cells", [(1, 1), (0, 2), (-1, -2)])
def test_a_grid_without_two_cells_is_refused(cells: tuple[int, int], colours: Network, photographs: Path) -> None:
    with pytest.raises(ShapeError, match="at least two cells"):
        compare_methods(colours, photographs, cells=cells)


def test_nothing_positive_is_no_share(photographs: Path) -> None:
    module = Colours()
    nn.init.zeros_(module.conv.weight)
    blind = wrap(module, name="blind", input_size=16, labels=["red", "green", "blue"])
    grid = tuple(Example(Path(), torch.rand(1, 3, 16, 16), index, 1.0) for index in (0, 1))
    (share,) = pointing_game(blind, [grid], ["saliency"], cells=(1, 2))["saliency"]
    assert share.isnan()
    compared = Compared(torch.tensor([]), {})
    assert compared.row() == {"grids": 0, "share": None, "within": None, "correlations": {}, "flat": 0, "unmoved": None}


def test_a_class_for_each_cell_is_needed(colours: Network, photographs: Path) -> None:
    with pytest.raises(PictureError, match=r"right about 4 images in green .* 2 of different classes"):
        compare_methods(colours, photographs / "green", methods="saliency", grids=3, cells=(1, 2), pictures=0)
    with pytest.raises(PictureError, match=r"right about 10 images .* 4 of different classes are needed"):
        compare_methods(colours, photographs, methods="saliency", pictures=0)


def test_intervals_and_verdicts_by_hand() -> None:
    shares = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    compared = Compared(shares, {"top": torch.tensor([0.9, 0.7]), "all": torch.tensor([0.1, 0.4])})
    assert compared.share == pytest.approx(0.5)
    assert compared.within == pytest.approx(1.96 * math.sqrt(0.2 / 3) / 2)
    assert compared.means == pytest.approx({"top": 0.8, "all": 0.25})
    assert compared.unmoved
    assert not unmoved([0.8, 0.1])


def test_flat_maps_are_left_out_of_the_means_and_said() -> None:
    nan = math.nan
    correlations = {"top": torch.tensor([0.9, nan, 0.7]), "all": torch.tensor([nan, nan, nan])}
    compared = Compared(torch.tensor([0.5, 0.7]), correlations)
    assert compared.means == {"top": pytest.approx(0.8), "all": None}
    assert compared.flat == 4
    assert compared.unmoved
    assert not Compared(torch.tensor([0.5]), {"all": torch.tensor([nan])}).unmoved, "no number is no verdict"
    network = wrap(Colours(), name="colours", input_size=16, labels=["red", "green", "blue"])
    comparison = Comparison(network, {"saliency": compared}, grids=2, pictures=3)
    assert comparison.table().endswith("| 60.0% ± 19.6% | 2 | 0.80 | flat |")
    single = replace(comparison, methods={"saliency": Compared(torch.tensor([0.5]), {})})
    assert "| 50.0% | 1 |" in single.table(), "a single grid has no interval"
    assert comparison.sheet().pixels.std() > 0


def test_no_text_of_the_chart_is_cut_off() -> None:
    names = ["block5_conv2", "block4_conv2", "block3_conv3", "block2_conv2", "block1_conv1"]
    compared = Compared(torch.full((3,), 0.5), {name: torch.tensor([0.7, math.nan]) for name in names})
    network = cnnviz.wrap(nn.Conv2d(3, 1, 3), name="one", input_size=8)
    methods = dict.fromkeys(["saliency", "lrp"], compared)
    figure = Comparison(network, methods, grids=200, pictures=50).figure()
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) > 20
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.width


def test_the_randomization_check_over_pictures_equals_the_one_of_each(mini: Network, tmp_path: Path) -> None:
    for number, box in enumerate([(0, 0, 200, 200), (50, 50, 300, 300)]):
        cnnviz.read_picture(CAT).image.crop(box).save(tmp_path / f"{number}.png")
    comparison = compare_methods(
        mini, tmp_path, methods=METHODS, grids=1, cells=(1, 2), pictures=2, confidence=0, size=64
    )
    for row, one in enumerate(examples(mini, tmp_path, confidence=0, size=64)):
        alone = cnnviz.explain(
            mini,
            one.image[0],
            [one.index],
            methods=METHODS,
            checks=["sanity"],
        )
        for attribution in alone.attributions:
            table = comparison.methods[attribution.method].correlations
            assert attribution.evidence.sanity == pytest.approx({layer: float(table[layer][row]) for layer in table})


def test_the_command(run: Run, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "colours.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "        self[0].weight = nn.Parameter(20 * torch.eye(3)[:, :, None, None])\n"
    )
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    own = ("--model", "colours.py:Net", "--input-size", "16", "--labels", "names.txt")
    asked = ("--method", "input-x-gradient,saliency", "--grids", "2", "--cells", "1x3", "--pictures", "2")
    result = run("evidence", photographs, *own, *asked, "-o", "e.png")
    assert result.exit_code == 0, result.output
    assert "| input x gradient | 100.0% ± 0.0% | 2 |" in result.stdout
    assert "| gradient (saliency) | 33.3% ± 0.0% | 2 |" in result.stdout
    record = cnnviz.read_record("e.png")
    assert record["command"] == "evidence"
    assert record["settings"]["folder"] == "photographs"  # type: ignore[index]
    assert record["settings"]["cells"] == [1, 3]  # type: ignore[index]
    output = json.loads(run("evidence", photographs, *own, *asked, "--json", "-o", "e.png").stdout)
    assert [row["share"] for row in output["methods"]] == pytest.approx([1, 1 / 3])
    assert output["cells"] == [1, 3]
    assert list(output["methods"][0]["correlations"]) == ["0"]


def test_what_cannot_be_compared_is_one_line(run: Run, tmp_path: Path, colours: Network) -> None:
    (tmp_path / "empty").mkdir()
    result = run("evidence", tmp_path / "empty", "--model", "vgg16-mini")
    assert result.exit_code == 1
    assert "no image" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert run("evidence", "nowhere").exit_code == 2


class Viewing(nn.Module):
    """Takes an image of twice the size for two images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)
        self.linear = nn.Linear(2 * 8 * 8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.conv(images).contiguous().view(-1, 2 * 8 * 8))


def test_a_network_of_one_size_cannot_play(lenet: LeNet, photographs: Path) -> None:
    networks = [(wrap(lenet, name="lenet", input_size=28), 28), (wrap(Viewing(), name="viewing", input_size=8), 8)]
    for network, side in networks:
        two = [Example(Path(), torch.rand(1, network.channels, side, side), index, 1.0) for index in (0, 1)]
        with pytest.raises(ShapeError, match=f"{side * 2} x {side} px"):
            pointing_game(network, [(two[0], two[1])], ["saliency"], cells=(1, 2))
        with pytest.raises(ShapeError, match=f"{side * 2} x {side * 2} px"):
            compare_methods(network, photographs)


@pytest.mark.parametrize("seed", range(6))
def test_pictures_are_looked_for_until_there_are_pairs(seed: int, colours: Network, photographs: Path) -> None:
    asked = {"grids": 2, "cells": (1, 2), "pictures": 9, "seed": seed}
    comparison = compare_methods(colours, photographs, methods="saliency", **asked)
    assert (comparison.grids, comparison.pictures) == (2, 9)
