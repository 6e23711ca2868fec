"""The grid pointing game and the randomization check over many pictures, where the truth is known by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import cnnviz
from cnnviz.attribution.comparison import Compared, Comparison, compare_methods
from cnnviz.attribution.evidence import unmoved
from cnnviz.attribution.pointing_game import Example, examples, pairs, pointing_game
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
    """Four pictures each of red, green and blue things, two of them in the wrong folder, and one that is broken."""
    for number, name in enumerate(("red", "green", "blue")):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for shade in range(4):
            pixels = np.zeros((20, 16, 3), dtype=np.uint8)
            pixels[..., number] = 255 - 10 * shade
            Image.fromarray(pixels).save(tmp_path / "photographs" / name / f"{name}{shade}.png")
    for name in ("red0.png", "red1.png"):
        (tmp_path / "photographs" / "red" / name).rename(tmp_path / "photographs" / "blue" / name)
    (tmp_path / "photographs" / "blue" / "broken.png").write_bytes(b"no picture")
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
    assert ("red0.png", 0) in flat, "right in the folder, a picture is what the network takes it for"


def test_examples_come_in_an_order_drawn_by_the_seed(colours: Network, photographs: Path) -> None:
    first, again, other = ([one.path.name for one in examples(colours, photographs, seed=seed)] for seed in (0, 0, 1))
    assert first == again != other


def test_a_folder_that_is_no_class_is_told(colours: Network, photographs: Path) -> None:
    (photographs / "blue").rename(photographs / "bluu")
    with pytest.raises(UnknownNameError, match="did you mean 'blue'"):
        next(examples(colours, photographs))


def test_no_picture_is_in_two_pairs_and_classes_differ() -> None:
    indices = [0, 0, 0, 1, 2, 2, 2, 2, 0]
    all_of_them = [
        Example(Path(str(number)), torch.zeros(1, 3, 2, 2), index, 1.0) for number, index in enumerate(indices)
    ]
    grids = list(pairs(all_of_them))
    used = [example.path for pair in grids for example in pair]
    assert len(grids) == 4
    assert len(set(used)) == len(used)
    assert all(left.index != right.index for left, right in grids)


def test_shares_are_what_a_linear_network_must_have(colours: Network, photographs: Path) -> None:
    """Of red times its weight, all lies on the red picture; the weights alone are the same everywhere."""
    grids = list(pairs(examples(colours, photographs)))
    shares = pointing_game(colours, grids, ["input-x-gradient", "occlusion", "saliency"])
    torch.testing.assert_close(shares["input-x-gradient"], torch.ones(len(grids), dtype=torch.float64))
    torch.testing.assert_close(shares["saliency"], torch.full((len(grids),), 0.5, dtype=torch.float64))
    assert shares["occlusion"].min() > 0.9


def test_nothing_positive_is_no_share(photographs: Path) -> None:
    module = Colours()
    nn.init.zeros_(module.conv.weight)
    blind = wrap(module, name="blind", input_size=16, labels=["red", "green", "blue"])
    grid = tuple(Example(Path(), torch.rand(1, 3, 16, 16), index, 1.0) for index in (0, 1))
    (share,) = pointing_game(blind, [grid], ["saliency"])["saliency"]  # type: ignore[list-item]
    assert share.isnan()
    compared = Compared(torch.tensor([]), {})
    assert compared.row() == {"grids": 0, "share": None, "within": None, "correlations": {}, "flat": 0, "unmoved": None}


def test_two_classes_are_needed(colours: Network, photographs: Path) -> None:
    with pytest.raises(PictureError, match=r"right about 4 pictures in green .* two of different classes"):
        compare_methods(colours, photographs / "green", methods="saliency", grids=3, pictures=0)


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
    assert comparison.table().endswith("| 2 | 0.80 | flat |")
    assert comparison.sheet().pixels.std() > 0


def test_the_randomization_check_over_pictures_equals_the_one_of_each(mini: Network, tmp_path: Path) -> None:
    for number, box in enumerate([(0, 0, 200, 200), (50, 50, 300, 300)]):
        cnnviz.read_picture(CAT).image.crop(box).save(tmp_path / f"{number}.png")
    comparison = compare_methods(mini, tmp_path, methods=METHODS, grids=1, pictures=2, confidence=0, size=64)
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
    asked = ("--method", "input-x-gradient,saliency", "--grids", "3", "--pictures", "2")
    result = run("evidence", photographs, *own, *asked, "-o", "e.png")
    assert result.exit_code == 0, result.output
    assert "| input x gradient | 100.0% ± 0.0% | 3 |" in result.stdout
    assert "| gradient (saliency) | 50.0% ± 0.0% | 3 |" in result.stdout
    record = cnnviz.read_record("e.png")
    assert record["command"] == "evidence"
    assert record["settings"]["folder"] == "photographs"  # type: ignore[index]
    output = json.loads(run("evidence", photographs, *own, *asked, "--json", "-o", "e.png").stdout)
    assert [row["share"] for row in output["methods"]] == pytest.approx([1, 0.5])
    assert list(output["methods"][0]["correlations"]) == ["0"]


def test_what_cannot_be_compared_is_one_line(run: Run, tmp_path: Path, colours: Network) -> None:
    (tmp_path / "empty").mkdir()
    result = run("evidence", tmp_path / "empty", "--model", "vgg16-mini")
    assert result.exit_code == 1
    assert "no picture" in result.stderr
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
            pointing_game(network, [(two[0], two[1])], ["saliency"])
        with pytest.raises(ShapeError, match=f"{side * 2} x {side} px"):
            compare_methods(network, photographs)


@pytest.mark.parametrize("seed", range(6))
def test_pictures_are_looked_for_until_there_are_pairs(seed: int, colours: Network, photographs: Path) -> None:
    comparison = compare_methods(colours, photographs, methods="saliency", grids=2, pictures=9, seed=seed)
    assert (comparison.grids, comparison.pictures) == (2, 9)
