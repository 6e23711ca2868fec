"""What a network is shown: the whole picture, or exactly its published preprocessing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
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
    shown = show(mini, cat)
    assert shown.images.shape == (1, 3, 128, round(128 * 451 / 300))
    assert (shown.how, shown.seen) == ("whole", (0, 0, 451, 300))
    assert show(mini, cat, size=60).images.shape == (1, 3, 60, 90)
    assert 0 <= shown.images.min() < shown.images.max() <= 1


def test_a_network_of_one_size_gets_the_picture_squeezed(lenet: LeNet, cat: Path) -> None:
    network = cnnviz.wrap(lenet, name="lenet", input_size=28, mean=[0.13], std=[0.38])
    shown = show(network, cat)
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
    with pytest.raises(PictureError, match="this one is float64, 300 x 451 x 3"):
        show(mini, pixels / 255)
    with pytest.raises(PictureError, match="not a list"):
        show(mini, [cat])
