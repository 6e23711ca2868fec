"""Feature maps, their statistics, and their images."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import cnnviz
from cnnviz.errors import LayerError, ShapeError, UnknownNameError
from cnnviz.networks.inputs import unseen_dimmed
from cnnviz.networks.network import Network
from cnnviz.pictures.colours import colour_map
from cnnviz.pictures.records import read_record
from cnnviz.pictures.sheets import columns_for, enlargement
from tests.support.networks import LeNet, SmallVGG


class Known(nn.Module):
    """Channels that can be worked out by hand: the image, its negative (silent after the ReLU), a constant, zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.conv.weight.data = torch.tensor([1.0, -1, 0, 0]).view(4, 1, 1, 1)
        self.conv.bias.data = torch.tensor([0.0, 0, 0.5, 0])

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.conv(images)).mean((2, 3))


@pytest.fixture
def picture() -> Tensor:
    return torch.tensor([[0.0, 0.25, 0.5], [0.75, 1.0, 0.5]])[None]


def test_statistics_by_hand(picture: Tensor) -> None:
    maps = cnnviz.feature_maps(Known(), picture, "relu")
    assert maps.maps.shape == (1, 4, 2, 3)
    assert torch.equal(maps.maps[0, 0], picture[0])
    assert maps.silent.tolist() == [[False, True, False, True]]
    assert maps.silent_fraction == 0.5
    assert maps.mean.tolist() == [[0.5, 0, 0.5, 0]]
    assert (maps.minimum[0, 0], maps.maximum[0, 0]) == (0, 1)
    assert maps.order("max") == [0, 2, 1, 3]
    assert maps.order("mean") == [0, 2, 1, 3]
    expected = {"shape": [4, 2, 3], "min": 0, "max": 1, "mean": 0.25, "silent": 2, "silent_fraction": 0.5}
    expected["fit"] = None
    assert maps.statistics() == expected
    before = cnnviz.feature_maps(Known(), picture, "conv")
    assert before.silent.tolist() == [[False, False, False, True]]
    assert torch.equal(before.maps[0, 1], -picture[0])


def test_a_batch_gives_the_maps_of_each_image(small_vgg: SmallVGG) -> None:
    images = torch.rand(3, 3, 64, 48)
    together = cnnviz.feature_maps(small_vgg, images, "block3_conv1")
    assert together.maps.shape == (3, 8, 16, 12)
    for number, image in enumerate(images):
        alone = cnnviz.feature_maps(small_vgg, image, "block3_conv1")
        torch.testing.assert_close(together.maps[number], alone.maps[0], rtol=1e-5, atol=1e-6)
        assert together.order(image=number) == alone.order()


def test_a_plain_module_sees_the_tensor_as_it_is(lenet: LeNet) -> None:
    images = torch.randn(2, 1, 28, 28) * 3
    features = cnnviz.feature_maps(lenet, images, "conv1")
    torch.testing.assert_close(features.maps, lenet.conv1(images).detach())


def test_the_picture_file_goes_through_the_networks_own_preprocessing(mini: Network, cat: Path) -> None:
    with Image.open(cat) as image:
        resized = image.resize((192, 128), Image.Resampling.BILINEAR)
    tensor = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None] / 255
    from_file = cnnviz.feature_maps(mini, cat, "block2_conv2", fit="whole")
    from_tensor = cnnviz.feature_maps(mini, tensor, "block2_conv2")
    torch.testing.assert_close(from_file.maps, from_tensor.maps)


@pytest.mark.parametrize(
    ("layer", "message"),
    [("classifier.linear", "no feature maps but 200 numbers"), ("classifier", "no feature maps")],
)
def test_layers_without_positions_are_refused(mini: Network, cat: Path, layer: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        cnnviz.feature_maps(mini, cat, layer)


def test_nan_is_refused_not_drawn(small_vgg: SmallVGG) -> None:
    with torch.no_grad():
        small_vgg.features[0].weight[0] = torch.nan
    with pytest.raises(LayerError, match="not finite; look for NaN"):
        cnnviz.feature_maps(small_vgg, torch.rand(3, 64, 64), "block1_conv1")


def test_tensors_outside_the_range_are_refused_by_a_network(mini: Network) -> None:
    with pytest.raises(ShapeError, match=r"lie in \[0, 1\]; this tensor goes from -2 to 0.5 .*normalises by itself"):
        cnnviz.feature_maps(mini, torch.linspace(-2, 0.5, 3 * 64 * 64).view(3, 64, 64), "block1_conv1")


def test_a_picture_too_small_for_the_layer_is_refused(mini: Network) -> None:
    with pytest.raises(ShapeError, match="cannot take an image of 8 x 8 px"):
        cnnviz.feature_maps(mini, torch.rand(3, 8, 8), "block5_pool")


def test_files_need_a_network_that_knows_its_size(cat: Path) -> None:
    with pytest.raises(ShapeError, match=r"cnnviz.wrap\(\) it first"):
        cnnviz.feature_maps(SmallVGG(), cat, "block1_conv1")


def shows(sheet: cnnviz.Sheet, colours: np.ndarray, factor: int) -> bool:
    """Whether these colours, each as a square of `factor` pixels, stand somewhere in a sheet."""
    wanted = colours.repeat(factor, 0).repeat(factor, 1)
    height, width = wanted.shape[:2]
    pixels = sheet.pixels
    first = (pixels[: 1 - height, : 1 - width] == wanted[0, 0]).all(-1)
    last = (pixels[height - 1 :, width - 1 :] == wanted[-1, -1]).all(-1)
    return any(np.array_equal(pixels[y : y + height, x : x + width], wanted) for y, x in np.argwhere(first & last))


def test_the_sheet_shows_every_value_as_a_square_of_its_colour(picture: Tensor) -> None:
    maps = cnnviz.feature_maps(Known(), picture, "conv")
    magma = colour_map("magma")
    assert shows(maps.sheet([0], cmap="magma"), magma[[[0, 64, 128], [191, 255, 128]]], enlargement(3, 1))
    shared = maps.sheet([0, 1], cmap="magma", scale="shared")  # from -1 to 1
    factor = enlargement(3, columns_for(2, 3 / 2))
    assert shows(shared, magma[[[128, 159, 191], [223, 255, 191]]], factor)
    assert shows(shared, magma[[[128, 96, 64], [32, 0, 64]]], factor)


def test_silent_maps_are_hatched_and_constant_ones_flat(picture: Tensor) -> None:
    maps = cnnviz.feature_maps(Known(), picture, "relu")
    silent = maps.sheet([1]).pixels
    assert (silent == (150, 150, 155)).all(-1).mean() > 0.02
    flat = maps.sheet([2], cmap="gray").pixels
    assert (flat == 128).all(-1).mean() > 0.1
    assert not (flat == (150, 150, 155)).all(-1).any()


def test_channels_that_are_not_there_are_refused(picture: Tensor) -> None:
    maps = cnnviz.feature_maps(Known(), picture, "relu")
    with pytest.raises(ShapeError, match="no channel 4; its 4 channels are 0 to 3"):
        maps.sheet([0, 4])
    with pytest.raises(ShapeError, match="name at least one"):
        maps.sheet([])
    with pytest.raises(UnknownNameError, match="colour map"):
        maps.sheet(cmap="nope")


def test_what_the_crop_hid_is_dimmed_in_the_header(mini: Network) -> None:
    pixels = np.full((100, 300, 3), 40, np.uint8)
    maps = cnnviz.feature_maps(mini, Image.fromarray(pixels), "block1_conv1", fit="crop")
    dimmed = unseen_dimmed(maps.shown, 0)
    assert (dimmed[:, 105:195] == 40).all()
    assert (dimmed[:, :95] > 180).all()
    assert (dimmed[:, 205:] > 180).all()


def test_a_notebook_gets_a_png_with_its_record(mini: Network, cat: Path, tmp_path: Path) -> None:
    maps = cnnviz.feature_maps(mini, cat, "block5_conv1:pre")
    image = Image.open(io.BytesIO(maps._repr_png_()))
    assert image.format == "PNG"
    path = maps.sheet([3, 1], scale="shared", cmap="magma").save(tmp_path / "maps.png")
    record = read_record(path)
    assert record["command"] == "featuremaps"
    network = record["network"]
    assert (network["name"], network["weights"]) == ("vgg16-mini", "built in")
    assert network["fingerprint"] == mini.fingerprint
    assert network["input_size"] == list(mini.input_size)
    assert network["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert record["picture"] == {"name": "cat.jpg", "sha256": cnnviz.read_picture(cat).sha256}
    assert record["settings"] == {
        "layer": "block5_conv1:pre",
        "channels": [3, 1],
        "scale": "shared",
        "cmap": "magma",
        "fit": "crop",
        "size": None,
    }
    assert str(tmp_path) not in path.read_bytes().decode("latin-1")
    assert str(cat.parent) not in path.read_bytes().decode("latin-1")


@pytest.mark.parametrize("scale", ["channel", "shared"])
def test_the_figure_has_axes_and_colour_bars_with_the_real_values(picture: Tensor, scale: str) -> None:
    maps = cnnviz.feature_maps(Known(), picture, "conv")
    figure = maps.figure([0, 1], scale=scale)
    drawn = [axis for axis in figure.axes if axis.images]
    np.testing.assert_array_equal(drawn[1].images[0].get_array(), maps.maps[0, 1])
    limits = [axis.images[0].get_clim() for axis in drawn[:2]]
    assert limits == [(-1, 1), (-1, 1)], "around zero, for there are values below it"
    assert [axis.get_title() for axis in drawn[:2]] == ["channel 0", "channel 1"]
    figure.savefig(io.BytesIO())


def test_maps_with_values_below_zero_diverge_around_zero(picture: Tensor) -> None:
    """White is zero, blue below and red above, on the sheet and in the figure, of all channels alike."""
    maps, palette = cnnviz.feature_maps(Known(), picture, "conv"), colour_map("RdBu_r")
    factor = enlargement(3, 1)
    assert shows(maps.sheet([0]), palette[[[128, 159, 191], [223, 255, 191]]], factor)
    assert shows(maps.sheet([1]), palette[[[128, 96, 64], [32, 0, 64]]], factor)
    assert maps.sheet([0]).made["settings"]["cmap"] is None
    assert maps.figure([0, 1]).axes[0].images[0].get_cmap().name == "RdBu_r"
    after = cnnviz.feature_maps(Known(), picture, "relu").figure([0])
    assert after.axes[0].images[0].get_cmap().name == "viridis"


def test_colour_bars_are_as_tall_as_the_maps_and_nothing_has_useless_ticks(picture: Tensor) -> None:
    maps = cnnviz.feature_maps(Known(), picture, "conv")
    figure = maps.figure([0, 1, 2])
    for drawn, bar in zip(figure.axes[::2], figure.axes[1::2], strict=True):
        assert drawn.get_position().bounds[1::2] == pytest.approx(bar.get_position().bounds[1::2])
        assert not drawn.get_xticks().size
        assert not drawn.get_yticks().size
        assert len(bar.get_yticks()) == 3
    *drawn, bar = maps.figure([0, 1, 2], scale="shared", columns=1, title="Mine").axes
    assert (bar.get_position().y0, bar.get_position().y1) == pytest.approx(
        (drawn[-1].get_position().y0, drawn[0].get_position().y1)
    )


def test_overlays_lie_where_the_map_is_and_show_the_image_elsewhere() -> None:
    """One map is white in the upper left quarter; its three others keep the image's pixels."""
    pixels = np.full((40, 60, 3), 100, np.uint8)
    pixels[:20, :30] = 200
    module = nn.Conv2d(3, 1, 1)
    nn.init.constant_(module.weight, 1 / 3)
    nn.init.constant_(module.bias, -100 / 255)
    network = cnnviz.wrap(nn.Sequential(module, nn.ReLU()), name="bright", input_size=40)
    maps = cnnviz.feature_maps(network, Image.fromarray(pixels), "1", fit="whole")
    page = maps.sheet(overlay=True, tile=60, captions=False)
    over = page.pixels[16:56, 16:76]
    assert (over[22:, :] == 100).all()
    assert (over[:, 32:] == 100).all()
    assert (np.abs(over[:18, :28].astype(int) - 200).max(-1) > 40).all()
    assert page.made["settings"]["overlay"] is True


def test_titles_and_captions_are_those_of_a_paper(mini: Network, cat: Path) -> None:
    maps = cnnviz.feature_maps(mini, cat, "block1_conv1", fit="whole")
    words = [text.get_text() for text in maps.sheet(range(16)).figure().axes[0].texts]
    assert words[0] == "Feature maps: block1_conv1 (16 channels)"
    assert words[1] == "cat.jpg, full image, input 192 x 128 px (aspect ratio kept)"
    assert not any("inactive" in text for text in words)
    cropped = cnnviz.feature_maps(mini, cat, "block5_conv3", fit="crop")
    words = [text.get_text() for text in cropped.sheet(range(4)).figure().axes[0].texts]
    assert words[0] == "Feature maps: block5_conv3 (4 of 192 channels)"
    assert words[1] == "cat.jpg, center crop, input 128 x 128 px"
    assert f"{int(cropped.silent.sum())} of 192 channels inactive (all zero)" in words[3]


def test_signed_maps_name_the_value_of_the_last_colour(mini: Network, cat: Path) -> None:
    """Below a map stands the m of its colour bar, also where its largest value is a negative one."""
    maps = cnnviz.feature_maps(mini, cat, "block2_conv1:pre")
    words = [text.get_text() for text in maps.sheet(range(8)).figure().axes[0].texts]
    assert "before any activation function" in words[3]
    assert words[3].endswith("channel (left) and m (right)")
    largest = maps.maps[0, :8].abs().amax((1, 2))
    assert (largest > maps.maps[0, :8].amax((1, 2))).any()
    assert {f"{value:.1f}" for value in largest.tolist()} <= set(words)
    after = cnnviz.feature_maps(mini, cat, "block2_conv1").sheet(range(8)).figure().axes[0].texts
    assert "before any" not in after[3].get_text()


def test_a_layout_is_kept_in_the_record(mini: Network, cat: Path) -> None:
    maps = cnnviz.feature_maps(mini, cat, "block2_conv1")
    page = maps.sheet(range(6), columns=2, tile=50, title="Mine", captions=False)
    layout = page.made["settings"]["layout"]
    assert layout == {"columns": 2, "tile": 50, "title": "Mine", "captions": False}
    assert np.array_equal(maps.sheet(range(6), **layout).pixels, page.pixels)
    assert "layout" not in maps.sheet(captions=True).made["settings"]
    kernels = cnnviz.kernel_sheet(mini, columns=2)
    assert kernels.made["settings"]["layout"] == {"columns": 2}
    assert kernels.pixels.shape[0] > kernels.pixels.shape[1]


def test_single_values_share_a_scale(picture: Tensor) -> None:
    module = nn.Sequential(Known().conv, nn.AdaptiveAvgPool2d(1))  # 0.5, -0.5, 0.5 and 0
    sheet = cnnviz.feature_maps(module, picture, "1").sheet(cmap="magma")
    magma, factor = colour_map("magma"), enlargement(1, columns_for(4, aspect=1))
    assert shows(sheet, magma[[[255]]], factor)
    assert shows(sheet, magma[[[0]]], factor)
    assert sheet.made["settings"]["scale"] == "shared"


@pytest.mark.parametrize("layers", [["block1_conv1", "block3_conv1"], ("block3_conv1", "block1_conv1")])
def test_several_layers_take_one_pass(
    mini: Network, cat: Path, layers: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {layer: cnnviz.feature_maps(mini, cat, layer).maps for layer in layers}
    passes: list[Tensor] = []
    forward = Network._forward
    monkeypatch.setattr(Network, "_forward", lambda self, images: passes.append(images) or forward(self, images))
    together = cnnviz.feature_maps(mini, cat, layers)
    assert len(passes) == 1
    assert list(together) == list(layers)
    for layer, maps in together.items():
        assert (maps.layer, maps.statistics()["fit"]) == (layer, "crop")
        torch.testing.assert_close(maps.maps, alone[layer])


def test_of_a_list_of_images_there_is_a_list_of_maps(mini: Network, cat: Path) -> None:
    images = [cat, np.zeros((64, 64, 3), np.uint8)]
    expected = [cnnviz.feature_maps(mini, image, "block1_conv1", fit="whole").maps for image in images]
    maps = cnnviz.feature_maps(mini, images, "block1_conv1", fit="whole")
    assert all(torch.equal(each.maps, alone) for each, alone in zip(maps, expected, strict=True))
    by_layer = cnnviz.feature_maps(mini, images, ["block1_conv1"], fit="whole")
    assert torch.equal(by_layer[1]["block1_conv1"].maps, expected[1])


def test_maps_are_an_array_to_numpy(picture: Tensor) -> None:
    maps = cnnviz.feature_maps(Known(), picture, "conv")
    array = np.asarray(maps)
    assert (array.dtype, array.shape) == (np.float32, (1, 4, 2, 3))
    assert np.shares_memory(array, maps.maps.numpy())
    assert not np.shares_memory(np.array(maps), maps.maps.numpy())
    np.testing.assert_array_equal(np.asarray(maps, np.float64), maps.maps.double().numpy())


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint16])
def test_arrays_of_any_precision_show_the_same_image(mini: Network, kind: type, cat: Path) -> None:
    levels = np.asarray(Image.open(cat).convert("RGB"))
    given = levels.astype(np.uint16) * 257 if kind is np.uint16 else (levels / 255).astype(kind)
    maps, expected = (np.asarray(cnnviz.feature_maps(mini, array, "block1_conv1")) for array in (given, levels))
    np.testing.assert_allclose(maps, expected, atol=0.02 * expected.max())  # 8 bits are rounded once more


def test_maps_print_as_one_line(mini: Network, cat: Path) -> None:
    maps = cnnviz.feature_maps(mini, cat, "block5_conv3")
    silent = int(maps.silent.sum())
    assert repr(maps) == f"FeatureMaps(block5_conv3 of vgg16-mini, 1 x 192 x 8 x 8, {silent} inactive)"
