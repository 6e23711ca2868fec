"""What a network is shown: the whole image, or exactly its published preprocessing."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision.models import ResNet18_Weights, VGG16_Weights
from torchvision.models import resnet18 as build_resnet18
from torchvision.transforms import functional

import cnnviz
import cnnviz.networks.network
from cnnviz.errors import PictureError, ShapeError
from cnnviz.models import zoo
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network
from tests.support.networks import LeNet


def test_the_whole_picture_keeps_its_aspect(mini: Network, cat: Path) -> None:
    shown = show(mini, cat, fit="whole")
    assert shown.images.shape == (1, 3, 128, round(128 * 451 / 300))
    assert (shown.how, shown.seen) == ("whole", (0, 0, 451, 300))
    assert show(mini, cat, size=60, fit="whole").images.shape == (1, 3, 60, 90)
    assert 0 <= shown.images.min() < shown.images.max() <= 1


def test_a_network_of_one_size_gets_the_picture_squeezed(lenet: LeNet, cat: Path) -> None:
    network = cnnviz.wrap(lenet, name="lenet", input_size=28, mean=[0.13], std=[0.38])
    shown = show(network, cat, fit="whole")
    assert shown.images.shape == (1, 1, 28, 28)
    assert shown.how == "squeezed"
    expected = np.asarray(Image.open(cat).convert("L").resize((28, 28), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(shown.images[0, 0], expected, atol=1e-6)
    with pytest.raises(ShapeError, match="28 x 28 px"):
        show(network, cat, size=56)


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (256, 256), (60, 90)])
@pytest.mark.parametrize("name", ["vgg16", "inception_v3", "efficientnet_b0"])
def test_crop_is_the_published_preprocessing(name: str, size: tuple[int, int], cat: Path) -> None:
    network = zoo.outline(name)
    preset = zoo.published(name).transforms()
    network.mean, network.std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)  # numbers on a device to put images
    image = Image.open(cat).resize(size)
    expected = preset(image)
    mean, std = torch.tensor(preset.mean).view(3, 1, 1), torch.tensor(preset.std).view(3, 1, 1)
    shown = show(network, image, fit="crop")
    torch.testing.assert_close((shown.images[0] - mean) / std, expected)


@pytest.mark.parametrize(("name", "bicubic"), [("vgg16", False), ("efficientnet_b0", True), ("vit_b_16", False)])
def test_the_whole_is_resized_as_published(name: str, bicubic: bool, cat: Path) -> None:
    """torchvision's resize, with the interpolation of its own preset, to the size that the whole image has."""
    network, interpolation = zoo.outline(name), zoo.published(name).transforms().interpolation
    assert (interpolation == functional.InterpolationMode.BICUBIC) == bicubic
    network.mean, network.std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)  # numbers on a device to put images
    image = Image.open(cat)
    size = [224, round(224 * 451 / 300)] if network.takes_any_size else [224, 224]
    expected = functional.to_tensor(functional.resize(image, size, interpolation))
    assert torch.equal(show(network, image, fit="whole").images[0], expected)


def test_values_that_bicubic_interpolation_overshoots_stay_in_range() -> None:
    crop = cnnviz.networks.network.Crop(64, 64, "BICUBIC")
    network = cnnviz.wrap(Grey(1), name="net", input_size=64, channels=1, crop=crop)
    edge = np.zeros((96, 96), np.float32)
    edge[:, 48:] = 1
    for fit in ("whole", "crop"):
        images = show(network, edge, fit=fit).images
        assert (images.min(), images.max()) == (0, 1)


def test_published_weights_and_preprocessing_belong_together() -> None:
    assert zoo.published("vgg16") is VGG16_Weights.IMAGENET1K_V1
    assert zoo.published("resnet18") is ResNet18_Weights.IMAGENET1K_V1
    network = zoo.build("resnet18", "random", progress=False)
    assert network.crop == cnnviz.networks.network.Crop(256, 224, "BILINEAR")
    assert network.labels[281] == "tabby"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = build_resnet18(weights=None).eval()
    images = torch.rand(1, 3, 64, 64)
    normalised = functional.normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(network(images), expected(normalised).detach())


def test_what_the_crop_hides_is_known_in_picture_coordinates(mini: Network) -> None:
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 100:200] = 255
    shown = show(mini, Image.fromarray(pixels), fit="crop")
    assert shown.seen == pytest.approx((100, 0, 200, 100), abs=1)
    assert shown.images.mean() > 0.98


def test_tensors_are_shown_as_they_are(mini: Network) -> None:
    images = torch.rand(2, 3, 40, 50)
    shown = show(mini, images)
    assert torch.equal(shown.images, images)
    assert shown.names == ("image 0", "image 1")
    assert shown.pictures[1].shape == (40, 50, 3)
    assert torch.equal(show(mini, images[0]).images[0], images[0])


def test_tensors_of_another_kind_are_refused(mini: Network) -> None:
    with pytest.raises(ShapeError, match=r"\(N x\) 3 x H x W; this tensor is 1 x 28 x 28"):
        show(mini, torch.rand(1, 28, 28))
    with pytest.raises(ShapeError, match="divide by 255"):
        show(mini, torch.zeros(3, 28, 28, dtype=torch.uint8))


def test_a_picture_too_narrow_to_show_is_refused(mini: Network) -> None:
    strip = Image.new("RGB", (1, 10_000))
    for fit in ("whole", "crop"):
        with pytest.raises(PictureError, match="1 x 10000: more than 8 times"):
            show(mini, strip, fit=fit)


def test_the_crop_of_a_network_that_is_not_square_is_full_of_picture() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(2 * 18 * 38, 4))
    network = cnnviz.wrap(module, name="wide", input_size=(20, 40))
    shown = show(network, Image.new("RGB", (100, 100), "white"), fit="crop")
    assert shown.images.shape == (1, 3, 20, 40)
    assert (shown.images == 1).all()
    assert shown.seen == pytest.approx((0, 25, 100, 75), abs=3)


def test_sizes_that_memory_could_not_hold_are_refused(mini: Network, cat: Path) -> None:
    for size in (0, 10_000_000):
        with pytest.raises(ShapeError, match="must be 1 to 4096 pixels"):
            show(mini, cat, size=size)


def test_arrays_of_pixels_are_pictures(mini: Network, cat: Path) -> None:
    pixels = np.asarray(Image.open(cat))
    assert torch.equal(show(mini, pixels).images, show(mini, cat).images)
    torch.testing.assert_close(show(mini, pixels / 255).images, show(mini, cat).images, rtol=0, atol=1.5 / 255)
    with pytest.raises(PictureError, match="image is int64, 300 x 451 x 3"):
        show(mini, pixels.astype(np.int64))
    with pytest.raises(PictureError, match="not a list"):
        show(mini, [cat])


def test_a_crop_is_full_of_picture_whatever_the_sizes() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for size in ((224, 320), (100, 33), (17, 90)):
        network = cnnviz.wrap(module, name="net", input_size=size)
        for width, height in ((275, 197), (1000, 701), (333, 1001), (64, 65)):
            shown = show(network, Image.new("RGB", (width, height), "white"), fit="crop")
            assert shown.images.shape[2:] == size
            assert (shown.images == 1).all()


class Grey(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def network_of(channels: int) -> Network:
    return cnnviz.wrap(Grey(channels), name="net", input_size=64, channels=channels)


def test_a_network_is_given_every_level_of_a_deep_image(tmp_path: Path) -> None:
    y, x = np.mgrid[0:64, 0:64]
    levels = ((np.sin(x / 9) + np.cos(y / 7) + 2) / 4 * 4095).round().astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "xray.png")
    np.save(tmp_path / "xray.npy", levels)
    tifffile.imwrite(tmp_path / "xray.tif", levels)
    expected = torch.from_numpy(levels.astype(np.float32) / 65535)[None, None]
    for source in (*(tmp_path / f"xray.{ending}" for ending in ("png", "npy", "tif")), levels, levels[..., None]):
        shown = show(network_of(1), source)
        torch.testing.assert_close(shown.images, expected, rtol=0, atol=1e-7)
        assert shown.pictures[0].max() == 255
        assert torch.equal(show(network_of(3), source).images, shown.images.expand(1, 3, 64, 64))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_images_of_any_number_of_channels(tmp_path: Path, channels: int, kind: type, planar: str) -> None:
    draws = np.random.default_rng(channels)
    full = 1 if kind is np.float32 else np.iinfo(kind).max
    values = (draws.random((64, 64, channels)) * full).astype(kind)
    arranged = values if planar == "contig" else np.moveaxis(values, 2, 0)
    arranged = values[..., 0] if channels == 1 else arranged
    tifffile.imwrite(tmp_path / "a.tif", arranged, photometric="minisblack", planarconfig=planar)
    np.save(tmp_path / "a.npy", values)
    expected = torch.from_numpy((values / full).astype(np.float32)).permute(2, 0, 1)[None]
    for source in (tmp_path / "a.tif", tmp_path / "a.npy", values):
        opaque = kind is np.uint8 and channels == 4 and not isinstance(source, Path)
        if opaque or (kind is np.uint8 and channels == 4 and source.suffix == ".npy"):
            continue  # colours and how opaque they are
        torch.testing.assert_close(show(network_of(channels), source).images, expected, rtol=0, atol=1e-6)


def test_sixteen_bits_of_colour_and_of_opacity_are_kept(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    colours = draws.integers(0, 65536, (64, 64, 4), dtype=np.uint16)
    colours[..., 3] = 32768
    (tmp_path / "a.png").write_bytes(png16(colours))
    opacity = 32768 / 65535
    expected = colours[..., :3] / 65535 * opacity + (1 - opacity)
    shown = show(network_of(3), tmp_path / "a.png").images[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(shown, expected, atol=1e-6)


def png16(values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits, written by hand: Pillow writes none in colours."""
    height, width, channels = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_large_deep_image_is_resized_without_losing_depth() -> None:
    ramp = np.linspace(0.25, 0.26, 256, dtype=np.float32)[None].repeat(200, 0)
    images = show(network_of(1), ramp, fit="whole").images
    assert images.shape[2:] == (64, 82)
    assert len(torch.unique(images[0, 0, 30])) == 82
    assert 0.25 <= images.min() < images.max() <= 0.26


def test_arrays_that_are_no_pictures_are_told_so(mini: Network, tmp_path: Path) -> None:
    np.save(tmp_path / "five.npy", np.random.default_rng(0).random((8, 8, 5)))
    with pytest.raises(PictureError, match=r"five\.npy has 5 channels; the network takes 3"):
        show(mini, tmp_path / "five.npy")
    with pytest.raises(PictureError, match="outside 0 to 1"):
        show(mini, np.full((8, 8), 1.5))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "five.npy").read_bytes()[:-8])
    with pytest.raises(PictureError, match=r"cut\.npy is damaged"):
        show(mini, tmp_path / "cut.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(PictureError, match="no array of numbers"):
        show(mini, tmp_path / "objects.npy")


def test_that_an_image_was_enlarged_is_said(mini: Network) -> None:
    small, large = (Image.new("RGB", size) for size in ((28, 28), (200, 100)))
    assert show(mini, small).words.endswith("input 128 x 128 px, enlarged from 28 x 28 px")
    assert show(mini, small, fit="whole").words.endswith("(aspect ratio kept), enlarged from 28 x 28 px")
    assert "enlarged" not in show(mini, large).words
