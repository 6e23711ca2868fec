"""A report says what the library says, in numbers and in sentences, and is a page that needs nothing else."""

import base64
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.features.crops import marked
from cnnviz.networks.layers import layer_table
from cnnviz.networks.network import Network
from cnnviz.pictures.colours import FEATURES, colour_map
from cnnviz.web.charts import short as short_number
from cnnviz.web.report import Report, make_report
from cnnviz.web.report_findings import FIT, edges_of, likeness
from cnnviz.web.report_page import map_over, only_seen, tiles
from cnnviz.web.report_sentences import (
    MEASURES,
    beyond,
    change,
    course,
    depth_sentence,
    overall,
    seen_sentence,
    unrectified_note,
    verdict,
)
from cnnviz.web.templating import TIMES
from tests.support.browser import Visit, contrast
from tests.support.commands import Run
from tests.support.networks import LeNet, SmallVGG
from tests.support.paths import CAT

HOSTILE = '<img src=x onerror=alert(1)> "q" \'a\' "><script>alert(2) javascript:alert(3) {{7*7}} & #1 50%20?.png'
BLOCKS = ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]
ZEROS, INACTIVE, EDGES = MEASURES


class Reader(HTMLParser):
    """What a page says, shows and refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.numbers: dict[str, tuple[str, str]] = {}
        self.images: list[dict[str, str | None]] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self._reading: tuple[str, str] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("href", "src", "srcset", "action") and value]
        self.handlers += [name for name in given if name.startswith("on")]
        if tag == "img":
            self.images.append(given)
        if tag == "data":
            self._reading = str(given["data-of"]), str(given["value"])

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._reading:
            key, value = self._reading
            assert key not in self.numbers
            self.numbers[key], self._reading = (value, data), None

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def network() -> Network:
    """Its weights are so large that what it says depends on the image; as made, its biases decide."""
    torch.manual_seed(7)
    module, labels = SmallVGG().eval(), [HOSTILE, "tabby, cat", "dog", "cup", "house"]
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.weight *= 2.5
    return cnnviz.wrap(module, name="<b>small</b>", input_size=48, mean=[0.4] * 3, std=[0.2], labels=labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret place")
    with Image.open(CAT) as cat:
        cat.save(folder / HOSTILE)
    return folder


@pytest.fixture(scope="module")
def report(network: Network, folder: Path) -> Report:
    return make_report(network, folder / HOSTILE, filters=3, steps=2, seed=5)


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return report.html()


def expected(network: Network, picture: Path) -> dict[str, float | int | str | None]:
    """Every number, from the library's own functions."""
    numbers: dict[str, float | int | str | None] = {}
    for place, prediction in enumerate(cnnviz.predict(network, picture, top=5, fit=FIT)):
        numbers[f"predictions.{place}.probability"] = prediction.probability
    rows = {row.name: row for row in layer_table(network)}
    for place, layer in enumerate(BLOCKS):
        maps = cnnviz.feature_maps(network, picture, layer, fit=FIT)
        values, edges = maps.maps[0], sobel(maps.shown.images[0])
        key = f"depths.{place}."
        numbers |= {
            key + "maps": "x".join(map(str, values.shape)),
            key + "field": str(rows[network.qualified(layer)].receptive_field),
            key + "inactive": maps.silent_fraction,
            key + "zeros": float((values.numpy() == 0).mean()),
            key + "edges": correlation(values, edges),
            key + "turned": correlation(values, edges[::-1, ::-1]),
        }
        numbers[key + "beyond"] = round(round(numbers[key + "edges"], 2) - round(numbers[key + "turned"], 2), 2)  # type: ignore[arg-type]
        for tile, channel in enumerate(maps.order()[:8]):
            numbers[f"{key}tiles.{tile}.channel"] = channel
            if not maps.silent[0, channel]:
                numbers[f"{key}tiles.{tile}.maximum"] = maps.maximum[0, channel].item()
        if place > 1:
            numbers |= fired(network, picture, maps, f"fired.{place - 2}.")
    explained = cnnviz.explain(
        network, picture, methods=["grad-cam", "integrated-gradients"], top=3, fit=FIT, seed=5
    ).rows()
    for place, row in enumerate(explained):
        for name in ("deletion", "insertion"):
            numbers[f"explanation.{place}.{name}"] = float(str(row[f"{name}_auc"]))
            numbers[f"explanation.{place}.{name}_random"] = float(str(row[f"{name}_auc_random"]))
            numbers[f"explanation.{place}.{name}_spread"] = float(str(row[f"{name}_auc_random_spread"]))
        if "completeness_gap" in row:
            numbers[f"explanation.{place}.gap"] = float(str(row["completeness_gap"]))
    return numbers


def fired(network: Network, picture: Path, maps: cnnviz.FeatureMaps, key: str) -> dict[str, float | int | str | None]:
    channels = maps.order()[:3]
    settings = {"preset": "draft", "steps": 2, "references": cnnviz.read_picture(picture)}  # the image is one, too
    drawn = cnnviz.filter_images(network, maps.layer, channels, seed=5, **settings)
    found: dict[str, float | int | str | None] = {}
    for place, channel in enumerate(channels):
        own = f"{key}{place}."
        found |= {own + "channel": channel, own + "mean": maps.mean[0, channel].item()}
        found |= {own + "maximum": maps.maximum[0, channel].item(), own + "score": drawn.scores[place].item()}
        if drawn.status[place] == "weak":
            found[own + "best"] = float(str(drawn.rows()[place]["best reference's score"]))
    return found


def sobel(image: Tensor) -> np.ndarray:
    """Edges by two convolutions, as textbooks write them."""
    grey = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    padded = functional.pad(grey[None, None], (1, 1, 1, 1), mode="replicate")
    across, down = functional.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])[0]
    return (across**2 + down**2).sqrt().numpy()


def correlation(maps: Tensor, edges: np.ndarray) -> float | None:
    """Numpy's, channel by channel, over the means of blocks."""
    height, width = maps.shape[1:]
    blocks = edges.reshape(height, edges.shape[0] // height, width, edges.shape[1] // width).mean((1, 3))
    correlations = [
        abs(np.corrcoef(values.ravel(), blocks.ravel())[0, 1]) for values in maps.numpy() if values.max() > values.min()
    ]
    return float(np.mean(correlations)) if correlations else None


def test_every_number_is_the_librarys_and_rounds_to_what_is_shown(page: str, network: Network, folder: Path) -> None:
    shown, known = Reader(page).numbers, expected(network, folder / HOSTILE)
    assert shown.keys() == known.keys()
    for key, number in known.items():
        value, text = shown[key]
        if isinstance(number, float):
            exact = float(value)
            assert exact == pytest.approx(number, rel=1e-5, abs=1e-6), key
            scale = 100 if text.endswith("%") else 1
            said = text.removesuffix("%").strip()
            digits = len(said.partition(".")[2])
            assert float(said) == pytest.approx(scale * exact, abs=0.5 * 10**-digits + 1e-9), key
        else:
            assert value == str(number), key


def test_statuses_labels_and_sha256_are_the_librarys(page: str, report: Report, network: Network) -> None:
    text = Reader(page).text
    record = json.loads(re.search(r'"command".*\}', text)[0].join(["{", ""]))  # type: ignore[index]
    assert record["picture"] == {"name": HOSTILE, "sha256": report.shown.sha256}
    assert record["network"]["fingerprint"] == network.fingerprint
    assert record["settings"]["seed"] == 5
    assert f"sha256 {str(report.shown.sha256)[:12]}…" in text
    assert f"fingerprint {network.fingerprint[:12]}…" in text
    for fired in report.fired:
        for channel, status in zip(fired.channels, fired.images.status, strict=True):
            assert re.search(rf"channel {channel} [^|]*? {status}", text)
    assert f"Top class: {report.predictions[0].label} (p = " in text
    assert "--filters 3 --seed 5 --method grad-cam,integrated-gradients --steps 2" in text


def test_what_others_named_is_text_and_no_path_is_told(page: str, folder: Path) -> None:
    reader = Reader(page)
    assert HOSTILE in reader.text
    assert reader.handlers == []
    assert "script" not in reader.tags
    assert all(reference.startswith("data:") for reference in reader.references)
    assert all(image["alt"] for image in reader.images)
    assert folder.name not in page


def test_a_notebook_frames_the_page(report: Report, page: str) -> None:
    (frame,) = re.findall(r'<iframe srcdoc="([^"]*)"', report._repr_html_())
    assert html.unescape(frame) == page
    assert repr(report).startswith(f"Report({HOSTILE}, ")


class Kernels(nn.Module):
    """Two convolutions with a ReLU after the first, the second at half the size, and two logits."""

    def __init__(self, first: Tensor, second: Tensor, bias: float = 0.0, last: nn.Module | None = None) -> None:
        super().__init__()
        self.last = last or nn.Identity()
        self.one = nn.Conv2d(1, len(first), first.shape[-1], padding="same", padding_mode="replicate")
        self.two = nn.Conv2d(len(first), len(second), 2, stride=2)
        with torch.no_grad():
            self.one.weight.copy_(first)
            self.two.weight.copy_(second)
            self.one.bias.copy_(torch.eye(len(first))[-1])
            self.two.bias.fill_(bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.two(self.one(images).relu())).mean((2, 3))[:, :2]


SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """Grey values that rise ever faster from left to right: its edges are its horizontal differences."""
    values = np.linspace(2, 15.5, 16) ** 2
    Image.fromarray(np.tile(values.astype(np.uint8), (16, 1))).save(tmp_path / "ramp.png")
    return tmp_path / "ramp.png"


def of(kernels: Kernels) -> Network:
    return cnnviz.wrap(kernels, name="kernels", input_size=16)


def short(network: Network, picture: Path) -> Report:
    return make_report(network, picture, methods=["saliency"], filters=2, steps=1)


def test_measures_of_maps_that_are_known(ramp: Path) -> None:
    """Channels that are the edges, nothing, and 1 everywhere; then the means of the edges, upside down in sign."""
    first = torch.stack([SOBEL, torch.zeros(3, 3), torch.zeros(3, 3)])[:, None]
    second = torch.zeros(2, 3, 2, 2)
    second[0, 0] = -0.25
    one, two = short(of(Kernels(first, second)), ramp).depths
    assert (one.layer, two.layer) == ("one", "two")
    assert one.edges == pytest.approx(1), "inactive and constant channels do not count"
    assert two.edges == pytest.approx(1), "edges averaged down, by the size of the correlation"
    assert one.turned == pytest.approx(abs(np.corrcoef(*mirrored(ramp))[0, 1]), abs=1e-5)
    assert (one.zeros, one.maps.silent_fraction) == pytest.approx((1 / 3, 1 / 3))
    assert (two.zeros, two.maps.silent_fraction) == (0.5, 0.5)


def mirrored(picture: Path) -> tuple[np.ndarray, np.ndarray]:
    image = torch.from_numpy(np.array(Image.open(picture)))[None].float() / 255
    edges = sobel(image.repeat(3, 1, 1))
    return edges.ravel(), edges[::-1, ::-1].ravel()


def test_even_maps_and_even_pictures_look_like_nothing(ramp: Path) -> None:
    edges = edges_of(torch.rand(3, 8, 8))
    assert likeness(torch.full((2, 8, 8), 0.1), edges) is None
    assert likeness(torch.rand(2, 1, 1), edges) is None
    assert likeness(torch.rand(2, 8, 8), edges_of(torch.full((3, 8, 8), 0.3))) is None
    assert likeness(3 - 2 * functional.avg_pool2d(edges[None], 2), edges) == pytest.approx(1)
    report = short(of(Kernels(torch.zeros(2, 1, 3, 3), torch.zeros(2, 2, 2, 2), 0.5)), ramp)
    assert (report.depths[1].edges, report.depths[1].turned) == (None, None)
    assert depth_sentence(report.depths[1], None) == ""
    assert overall(report.depths) == []
    numbers = Reader(report.html()).numbers
    assert numbers["depths.1.edges"] == numbers["depths.1.turned"] == ("None", "none")


def test_sentences_say_what_was_measured_and_not_what_is_expected(ramp: Path) -> None:
    """Zeros fall from 75 % to nothing; backwards they rise."""
    first = torch.stack([SOBEL, *torch.zeros(4, 3, 3)])[:, None]
    report = short(of(Kernels(first[:4], torch.full((2, 4, 2, 2), 0.1), 1, nn.ReLU())), ramp)
    one, two = replace(report.depths[0], zeros=0.75), report.depths[1]
    half = replace(one, zeros=0.4)
    assert course(ZEROS, one, two) == "falls"
    assert change(ZEROS, one, two) == "the fraction of zeros falls from 75.0% to 0.0%"
    claim = "the textbook claim that it rises with depth."
    assert overall([one, half, two])[0].endswith(f"75.0% to 0.0% at every step: contrary to {claim}")
    assert overall([two, half, one])[0].endswith(f"0.0% to 75.0% at every step: consistent with {claim}")
    assert course(ZEROS, one, replace(one, zeros=0.7502)) == "stays", "numbers that look the same are the same"
    assert overall([two, one, two, one])[0].endswith(f", but not at every step: on the whole consistent with {claim}")
    assert depth_sentence(two, one).startswith(
        "The fraction of zeros falls from 75.0% to 0.0%, the fraction of inactive channels"
    )
    assert overall([one]) == overall([one, two]) == [], "two depths are no trend"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            (0.170, 0.176, 0.178, 0.132, 0.159),
            "hardly changes (0.17 to 0.16): this neither supports nor contradicts the",
        ),
        ((0.013, 0.01, 0.0), "hardly changes (0.01 to 0.00)"),
        ((0.60, 0.58, 0.56), "hardly changes (0.60 to 0.56)"),
        ((0.60, 0.58, 0.50), "falls from 0.60 to 0.50 at every step: consistent with"),
        ((0.10, 0.20, 0.14), "rises from 0.10 to 0.14, but not at every step: on the whole contrary to"),
    ],
)
def test_a_small_change_with_depth_is_no_verdict(report: Report, values: tuple[float, ...], said: str) -> None:
    depths = [replace(report.depths[0], edges=value, turned=0.0) for value in values]
    *_, edges, above = overall(depths)
    assert edges.startswith(f"From block1_conv2 to block1_conv2, the correlation with the image's edges {said}")
    assert "edge correlation above chance level " + said.partition(":")[0] in above


def test_what_is_above_chance_is_the_difference_of_the_numbers_shown(report: Report) -> None:
    assert beyond(replace(report.depths[0], edges=0.174, turned=0.136)) == 0.03
    assert beyond(replace(report.depths[0], edges=None)) is None


def test_the_claims_that_are_judged_are_named(page: str) -> None:
    assert (
        "the fraction of zeros rises, the fraction of inactive channels rises, the correlation with the image's edges"
        " falls, and the edge correlation above chance level falls."
    ) in Reader(page).text


def test_a_network_whose_sparsity_falls_says_so_on_its_page(ramp: Path) -> None:
    first = torch.stack([SOBEL, *torch.zeros(3, 3, 3)])[:, None]
    report = short(of(Kernels(first, torch.full((2, 4, 2, 2), 0.1), 1, nn.ReLU())), ramp)
    assert report.depths[0].maps.silent_fraction == 0.5
    one, two = report.depths
    said = "From one to two, the fraction of inactive channels falls from 50.0% to 0.0%, but not at every step: on the"
    assert said in Reader(replace(report, depths=(one, one, two)).html()).text


@pytest.mark.parametrize("last", [nn.Identity(), nn.Sigmoid(), nn.LeakyReLU()])
def test_zeros_are_not_judged_where_no_relu_makes_them(ramp: Path, last: nn.Module) -> None:
    """Also where no value is below zero."""
    first = torch.stack([SOBEL, *torch.zeros(3, 3, 3)])[:, None]
    report = short(of(Kernels(first, torch.full((2, 4, 2, 2), 0.1), 1, last)), ramp)
    assert [depth.rectified for depth in report.depths] == [True, False]
    assert bool((report.depths[1].maps.minimum >= 0).all())
    said = " ".join([*overall(report.depths), depth_sentence(report.depths[1], report.depths[0])])
    assert "correlation" in said
    assert "zeros" not in said
    assert "inactive" not in said
    assert unrectified_note(report.depths) == (
        "No ReLU follows two directly: zeros and inactive channels are not counted there."
    )
    assert "depths.1.zeros" not in Reader(report.html()).numbers


@pytest.fixture
def spot(tmp_path: Path) -> Path:
    """Black, but for one pixel in row 9, column 5."""
    pixels = np.zeros((16, 16), dtype=np.uint8)
    pixels[9, 5] = 255
    Image.fromarray(pixels).save(tmp_path / "spot.png")
    return tmp_path / "spot.png"


def test_the_part_that_fired_is_the_receptive_field_of_the_largest_value(spot: Path) -> None:
    """Of an inactive channel there is none, and its map has an overlay like all others."""
    centre = torch.zeros(2, 1, 3, 3)
    centre[0, 0, 1, 1] = 1
    module = Kernels(centre, torch.zeros(2, 2, 2, 2))
    with torch.no_grad():
        module.one.bias.zero_()
    report = short(of(module), spot)
    assert report.fired[0].channels == (0, 1)
    assert [cut and cut.box for cut in report.fired[0].cuts] == [(4, 8, 7, 11), None]
    assert report.fired[1].cuts == (None, None)
    text = Reader(report.html()).text
    assert "inactive visualization channel 1" in text
    assert text.count("image crop") == 1, "of all four channels one is active"
    assert "The map is constant: no pixel is more important than another." in text


def test_crops_outline_where_the_filter_fired(spot: Path) -> None:
    """The pixel in row 9, column 5, in the middle of the 3 x 3 crop; in a deep layer as large as its step."""
    centre = torch.zeros(2, 1, 3, 3)
    centre[0, 0, 1, 1] = 1
    module = Kernels(centre, torch.ones(2, 2, 2, 2))
    nn.init.zeros_(module.one.bias)
    report = short(of(module), spot)
    assert [fired.cuts[0] and fired.cuts[0].mark for fired in report.fired] == [(5, 9, 6, 10), (4, 8, 6, 10)]
    crop = np.asarray(marked(Image.new("RGB", (16, 16)), (4, 8, 7, 11), (5, 9, 6, 10), 200))
    rows, columns, _ = np.nonzero(crop)
    assert crop.shape == (200, 200, 3)
    assert [rows.min(), columns.min()] == pytest.approx([67, 67], abs=2)
    assert [rows.max(), columns.max()] == pytest.approx([133, 133], abs=2)
    assert not crop[80:120, 80:120].any(), "what fired stays to be seen"


def test_a_network_of_ones_own_of_one_colour_without_labels(lenet: LeNet) -> None:
    own = cnnviz.wrap(lenet, name="net.py:LeNet", input_size=28, mean=0.13, std=0.38)
    report = make_report(own, CAT, methods=["deeplift", "lrp"], steps=1)
    assert report.explanation is None
    assert report.refused.keys() == {"deeplift", "lrp"}
    assert [depth.layer for depth in report.depths] == ["conv1", "conv2"]
    assert [len(fired.channels) for fired in report.fired] == [6, 9], "nine, but no more than there are"
    assert unrectified_note(report.depths) is None, "what follows the ReLU in forward() is shown"
    text = Reader(report.html()).text
    assert "Left out: DeepLift cannot explain net.py:LeNet" in text
    assert "--input-size 28x28 --mean=0.13 --std=0.38" in text
    assert f"Top class: class {report.predictions[0].index}" in text


def test_of_other_networks_the_last_convolution_at_each_size_counts(ramp: Path) -> None:
    """Also where a size comes back, and where there is no convolution at all."""
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 2, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    report = short(cnnviz.wrap(module, name="net", input_size=16), ramp)
    assert [depth.layer for depth in report.depths] == ["2", "4"]
    flat = short(cnnviz.wrap(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), name="flat", input_size=16), ramp)
    assert (flat.depths, flat.fired) == ((), ())
    assert "no convolution" in Reader(flat.html()).text


def test_zeros_are_counted_behind_the_activation(ramp: Path) -> None:
    """Whatever stands between it and the convolution."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)]
    module = nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    for norm in (module[1], module[5]):
        nn.init.normal_(norm.bias)
    report = short(cnnviz.wrap(module, name="net", input_size=16), ramp)
    image = report.shown.images
    for depth, end in zip(report.depths, (3, 7), strict=True):
        values = module[:end](image)
        assert depth.zeros == pytest.approx((values == 0).double().mean().item())
        assert 0 < depth.zeros < 1
        assert depth.maps.silent_fraction == (values == 0).all(3).all(2).float().mean().item()
    swish = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    report = short(cnnviz.wrap(swish, name="net", input_size=16), ramp)
    assert "No ReLU follows 0 directly" in Reader(report.html()).text


def test_what_the_network_saw_is_told(report: Report) -> None:
    share = "66.7%"
    said = f"Network input: 48 {TIMES} 48 px (center crop, {share} of the image; image 451 {TIMES} 300 px)."
    assert seen_sentence(report.shown) == said
    whole = replace(report.shown, seen=(0, 0, 451, 300))
    assert f"(full image; image 451 {TIMES} 300 px)" in seen_sentence(whole)


def test_images_are_no_larger_than_they_are_shown() -> None:
    large = cnnviz.wrap(SmallVGG().eval(), name="large", input_size=144)
    report = make_report(large, CAT, methods=["saliency"], filters=1, steps=1)
    assert [fired.images.images.shape[2:] for fired in report.fired] == [(64, 64), (128, 128), (128, 128)]


def test_the_verdict_counts_maps_that_beat_chance(report: Report) -> None:
    assert report.explanation is not None
    rows = report.explanation.rows()
    deletion, insertion = (sum(bool(row[f"{curve}_better"]) for row in rows) for curve in ("deletion", "insertion"))
    both = sum(bool(row["deletion_better"] and row["insertion_better"]) for row in rows)
    assert verdict(report) == (
        f"Better than random orders, of 6 maps: {deletion} by deletion, {insertion} by insertion, {both} by both."
    )


def test_each_map_is_marked_as_on_its_sheet(page: str, report: Report) -> None:
    assert report.explanation is not None
    text = Reader(page).text
    for attribution in report.explanation.attributions:
        curves, chance = attribution.evidence.curves, attribution.evidence.reference
        assert curves is not None
        assert chance is not None
        standing, _ = chance.standings(curves)
        random = f"random {chance.random[0]:.1%} ± {chance.spread[0]:.1%}"
        assert f"Deletion AUC {curves.deletion_auc:.1%} : {standing} {random}" in text
    marks = sum(each.evidence.better_than_random is False for each in report.explanation.attributions)
    assert text.count("no better than chance") == marks


def test_legends_stand_before_what_they_explain(page: str) -> None:
    text = Reader(page).text
    assert text.index("per-map minimum") < text.index("1. block1_conv2")
    chart = page[page.index('<svg class="chart"') : page.index("</svg>")]
    assert all(f">{layer}</text>" in chart for layer in BLOCKS)
    assert "fraction, or mean absolute correlation" in chart
    assert len(re.findall(rf"Maps [\d{TIMES} ]+ , after relu", text)) == len(BLOCKS)
    assert "in the last 3 of the layers above. For each channel: (left) its feature map" in text
    assert "image crop" in text


def test_a_weak_channel_says_what_scores_higher(page: str, report: Report) -> None:
    text = Reader(page).text
    weak = [
        (fired.images.scores[place], image.judgement.best)
        for fired in report.fired
        for place, image in enumerate(fired.images.synthesized)
        if image.judgement.status == "weak"
    ]
    assert weak
    assert all(f"weak ({best}: " in text for _, best in weak)


def test_feature_maps_have_the_colours_of_sheets(report: Report) -> None:
    """On tiles and on overlays alike, each in its own range."""
    depth = report.depths[0]
    values = depth.maps.maps[0, depth.maps.order()[0]].numpy()
    source = next(tiles(depth)).source
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))
    levels = np.rint((values - values.min()) / np.ptp(values) * 255).astype(int)
    np.testing.assert_array_equal(drawn, colour_map(FEATURES)[levels])
    seen = only_seen(report.shown, 96)
    over = map_over(seen, torch.eye(2))
    highest = 0.8 * colour_map(FEATURES)[255] + 0.2 * seen.pictures[0][2, 2]
    np.testing.assert_allclose(over[2, 2], highest, atol=3)
    np.testing.assert_array_equal(over[2, -3], seen.pictures[0][2, -3])


def test_every_overlay_has_a_colour_bar(page: str, report: Report) -> None:
    assert page.count('class="over"') == 6 + 9
    assert (
        len(re.findall(r'class="over"><img [^>]*>\s*<div class="scale"><i class="(?:RdBu_r|inferno|viridis)">', page))
        == 15
    )
    assert report.explanation is not None
    text = Reader(page).text
    assert "decreases class score increases" in text
    assert f"importance (unsigned) {short_number(report.explanation.attributions[0].scale)}" in text


def test_the_command_makes_a_page_of_moderate_size(run: Run, tmp_path: Path) -> None:
    result = run("report", CAT, "--model", "vgg16-mini", "--steps", "3", "--filters", "3", "--method", "saliency")
    path = tmp_path / "cat_vgg16-mini_report.html"
    assert result.stdout.startswith("cat_vgg16-mini_report.html: cat.jpg, prediction of vgg16-mini: ")
    assert path.stat().st_size < 6_000_000 * 3 / 9, "with nine filters at each depth, less than 6 MB"
    assert len(Reader(path.read_text(encoding="utf-8")).images) == 3 + 5 * 8 + 3 + 3 * 3 * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.jpg"], "'missing.jpg' does not exist"),
        (
            [CAT, "-o", "x.pdf"],
            "cannot write x.pdf: reports are HTML pages (.html); print one from the browser for a PDF.",
        ),
        ([CAT, "-o", "/proc/report.html", "--model", "vgg16-mini"], "cannot write /proc/report.html"),
        ([CAT, "--method", "nonsense", "--model", "vgg16-mini"], "no method named 'nonsense'"),
        (["no.png", "--model", "vgg16-mini"], "is not an image"),
    ],
)
def test_faults_are_told_in_one_line(run: Run, arguments: list[object], said: str) -> None:
    Path("no.png").write_text("no image")
    result = run("report", *arguments)
    assert result.exit_code != 0
    assert said in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert not list(Path().glob("*.html"))


def test_progress_goes_from_nothing_to_all(network: Network, folder: Path) -> None:
    calls: list[tuple[str, float]] = []
    make_report(
        network, folder / HOSTILE, methods=["saliency"], filters=1, steps=1, watch=lambda *call: calls.append(call)
    )
    shares = [share for _, share in calls]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, pytest.approx(1))
    assert calls[-1][0] == "feature visualization: block5_conv3"


def test_overlays_are_large_enough_to_be_read(report: Report, tmp_path: Path, browser: Any) -> None:
    path = report.save(tmp_path / "report.html")
    for width, least in ((1280, 240), (390, 200)):
        here = Visit(browser, path.parent, viewport={"width": width, "height": 740})
        page = here.open(path.name)
        sizes = page.eval_on_selector_all(
            ".over img", "images => images.map(each => each.getBoundingClientRect().width)"
        )
        assert len(sizes) == 15
        assert min(sizes) >= least
        here.window.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(report: Report, tmp_path: Path, browser: Any, scheme: str) -> None:
    path = report.save(tmp_path / "a #1 50% report.html")
    here = Visit(browser, path.parent, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = here.open(path.name)
    here.see_everything()
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for selector in ("h1", "dt", "figcaption", "small", ".scale"):
        assert contrast(page, selector) >= 4.5, selector
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 384) == (scheme == "light")
    assert {url for url in here.requests if not url.startswith("data:")} == {path.as_uri()}
    here.window.close()
    assert here.wrong == []
