"""Regions of segmentation networks: gradients of sums known by hand, where a region lies, and what cannot be one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.attribution.methods import METHODS
from cnnviz.attribution.regions import read_mask, region_sum
from cnnviz.errors import CnnvizError, ModelError, ShapeError
from cnnviz.networks.network import Network, wrap
from cnnviz.networks.overlays import placed
from tests.support.commands import Run, faults
from tests.support.networks import SmallUNet
from tests.support.paths import CAT

IMAGES = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(3))
BOX = (3, 1, 7, 4)
UNET = ("--model", "tests.support.networks:SmallUNet", "--input-size", "32")


def linear(size: int, **settings: int) -> nn.Conv2d:
    torch.manual_seed(2)
    return nn.Conv2d(3, 4, size, **settings)


def net(module: nn.Module, size: int | tuple[int, int] = (8, 12), **settings: object) -> Network:
    return wrap(module, name="net", input_size=size, **settings)  # type: ignore[arg-type]


@pytest.fixture
def unet() -> SmallUNet:
    torch.manual_seed(5)
    return SmallUNet().eval()


class Dictionary(nn.Module):
    """As torchvision's: the maps are enlarged, and there are others of an auxiliary head that runs last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.classifier = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Dropout(), nn.Conv2d(5, 4, 1))
        self.aux_classifier = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.backbone(images)
        heads = {"out": self.classifier(features), "aux": self.aux_classifier(features)}
        return {name: functional.interpolate(maps, images.shape[2:], mode="bilinear") for name, maps in heads.items()}


def test_the_gradient_of_a_pointwise_network_is_its_weight_inside_and_zero_outside() -> None:
    module = linear(1)
    gradients = cnnviz.attribute(net(module), IMAGES, [1, 3], method="saliency", region=BOX)
    torch.testing.assert_close(gradients, torch.stack([inside(module.weight[1]), inside(module.weight[3])]))
    versus = cnnviz.attribute(module, IMAGES[:1], cnnviz.Target(1, 3), method="saliency", region=BOX)
    torch.testing.assert_close(versus[0], inside(module.weight[1] - module.weight[3]))


def inside(weight: Tensor) -> Tensor:
    values = torch.zeros(3, 8, 12)
    values[:, 1:4, 3:7] = weight.detach()
    return values


def test_the_gradient_of_a_convolution_is_the_sum_of_the_weights_that_reach_the_region() -> None:
    module = linear(3, padding=1)
    gradients = cnnviz.attribute(net(module), IMAGES[:1], 2, method="saliency", region=BOX)[0]
    expected = torch.zeros(3, 8, 12)
    for y in range(8):
        for x in range(12):
            for row in range(1, 4):
                for column in range(3, 7):
                    if abs(y - row) <= 1 and abs(x - column) <= 1:
                        expected[:, y, x] += module.weight[2, :, y - row + 1, x - column + 1].detach()
    torch.testing.assert_close(gradients, expected)


def test_a_region_has_the_pixels_of_a_coarser_output_whose_centres_it_has() -> None:
    """Stride 2: centres lie at 1, 3, 5 ... of the image, and pixels 0, 2, 4 ... of it are looked at."""
    module = linear(1, stride=2)
    gradients = cnnviz.attribute(net(module), IMAGES[:1], 0, method="saliency", region=(3, 2, 6, 4))[0]
    expected = torch.zeros(3, 8, 12)
    expected[:, 2, 2:5:2] = module.weight[0].detach()[..., 0]
    torch.testing.assert_close(gradients, expected)
    with pytest.raises(ShapeError, match=r"the centre of none of the 6 x 4 px that net gives"):
        cnnviz.attribute(net(module), IMAGES, 0, region=(4, 2, 5, 4))


def test_maps_in_a_dictionary_are_those_called_out() -> None:
    module = Dictionary().eval()
    image = IMAGES[:1].clone().requires_grad_()
    module(image)["out"][0, 2, 1:4, 3:7].sum().backward()
    gradients = cnnviz.attribute(net(module), IMAGES[:1], 2, method="saliency", region=BOX)
    torch.testing.assert_close(gradients, image.grad)


@pytest.mark.parametrize("fit", ["whole", "crop"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("corner", [(24, 4, 44, 20), (76, 60, 96, 76)])
def test_a_region_in_a_corner_of_the_upright_picture_is_explained_there(
    fit: str, orientation: int, corner: tuple[int, int, int, int], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.rot90(np.full((80, 120, 3), 200, dtype=np.uint8), {1: 0, 6: 1}[orientation])
    Image.fromarray(pixels.copy()).save(tmp_path / "grey.png", exif=exif)
    explanation = cnnviz.explain(
        net(linear(1), 40),
        tmp_path / "grey.png",
        [0],
        methods="saliency",
        region=corner,
        fit=fit,  # type: ignore[arg-type]
        checks=(),
    )
    left, top, right, bottom = corner
    values = np.nan_to_num(placed(explanation.attributions[0].heat, explanation.shown, (80, 120)))
    rows, columns = np.nonzero(values > values.max() / 2)
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert np.abs(np.subtract(edges, (left, top, right, bottom))).max() <= 2  # pixels of what is shown are two wide
    drawn = explanation.shown.pictures[0]
    assert (drawn[top, left:right] == 255).all()
    assert (drawn[top - 1, left:right] == 0).all()
    assert (drawn[top + 4 : bottom - 4, left + 4 : right - 4] == 200).all()
    with pytest.raises(ShapeError, match="inside the image's 120 x 80 px"):
        cnnviz.explain(net(linear(1), 40), tmp_path / "grey.png", [0], region=(100, 60, 121, 80))


def test_what_the_crop_hides_is_no_region() -> None:
    picture = np.full((80, 120, 3), 200, dtype=np.uint8)
    with pytest.raises(ShapeError, match="or one that it sees"):
        cnnviz.explain(net(linear(1), 40), picture, [0], region=(0, 0, 19, 80), fit="crop")


@pytest.mark.parametrize("method", ["saliency", "integrated-gradients", "grad-cam", "layer-cam", "occlusion"])
def test_a_box_a_mask_and_a_mask_of_half_the_size_are_the_same(unet: SmallUNet, method: str) -> None:
    network, picture = net(unet, 32), np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    mask = np.zeros((64, 96), dtype=bool)
    mask[10:40, 20:60] = True
    regions = ((20, 10, 60, 40), mask, torch.from_numpy(mask), mask[::2, ::2])
    maps = [
        cnnviz.explain(network, picture, [1], methods=method, region=region, checks=()).attributions[0].values
        for region in regions
    ]
    assert maps[0].any()
    assert all(torch.equal(maps[0], other) for other in maps[1:])


def test_every_method_that_suits_a_unet_explains_its_sum(unet: SmallUNet) -> None:
    """Completeness against plain PyTorch; LRP, which would not share the sum out, is refused."""
    network, image = net(unet, 32), torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    explanation = cnnviz.explain(network, image, [2], methods="all", region=(4, 6, 20, 30), precise=True, steps=200)
    with torch.no_grad():
        score, before = (
            unet(given)[0, 2, 6:30, 4:20].sum().item() for given in (image[None], torch.zeros(1, 3, 32, 32))
        )
    by_method = {attribution.method: attribution for attribution in explanation.attributions}
    assert set(by_method) == set(METHODS) - {"lrp"}
    for name, tolerance in (("integrated-gradients", 0.01), ("deeplift", 1e-4)):
        assert by_method[name].score == pytest.approx(score, rel=1e-5)
        assert by_method[name].probability is None
        assert by_method[name].total == pytest.approx(score - before, rel=tolerance)
        assert by_method[name].evidence.curves is not None
        assert by_method[name].evidence.curves.deletion[0].item() == pytest.approx(score, rel=1e-5)
        assert by_method[name].evidence.curves.deletion[-1].item() == pytest.approx(before, rel=1e-4)
    with pytest.raises(ModelError, match="its scores are sums over a region"):
        cnnviz.attribute(linear(1), IMAGES, 0, method="lrp", region=BOX)


def test_a_traced_network_is_explained_as_the_one_it_was_made_of(unet: SmallUNet) -> None:
    plain, traced = (
        cnnviz.attribute(net(module), IMAGES, 1, method="saliency", region=BOX)
        for module in (unet, torch.fx.symbolic_trace(unet))
    )
    torch.testing.assert_close(traced, plain)


def test_the_layer_by_default_is_the_last_before_the_maps_of_the_classes(unet: SmallUNet) -> None:
    for module, layer in ((Dictionary(), "classifier.1"), (unet, "merge")):
        network = net(module, 32)
        explanation = cnnviz.explain(
            network, torch.rand(3, 32, 32), [0], methods="layer-cam", region=(0, 0, 9, 9), checks=()
        )
        assert explanation.attributions[0].layer == layer
    with pytest.raises(ModelError, match="Grad-CAM fails on net"):
        cnnviz.attribute(
            net(Dictionary(), 32), torch.rand(1, 3, 32, 32), 0, method="grad-cam", layer="aux_classifier.0", region=BOX
        )


class Halves(nn.Module):
    """Class 2 on the left quarter, class 0 on the rest; class 1 nowhere, though its sum is the largest."""

    def forward(self, images: Tensor) -> Tensor:
        left = torch.zeros_like(images[:, :1])
        left[..., : images.shape[3] // 4] = 1
        dark = images.mean(1, keepdim=True) * 0
        return torch.cat([dark + 1 - left, dark + 0.9, dark + 1.1 * left], 1)


def test_classes_by_default_are_those_of_the_most_pixels() -> None:
    network, picture = net(Halves(), 16, labels=["sky", "road", "tree"]), torch.rand(3, 16, 16)
    explanation = cnnviz.explain(network, picture, methods="saliency", top=3, region=(0, 0, 16, 8), checks=())
    assert [attribution.target.index for attribution in explanation.attributions] == [0, 2]
    assert explanation.region == "128 of the output's 16 x 16 px, 96 of them classified as sky"
    (left,) = cnnviz.explain(network, picture, methods="saliency", region=(0, 0, 6, 8), checks=()).attributions
    assert left.target.index == 2
    assert left.score == pytest.approx(1.1 * 32)


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        ((3, 1, 3, 4), "3,1,3,4 is none"),
        ((3, 1, 13, 4), "inside the image's 12 x 8 px"),
        ((-1, 1, 3, 4), "is none"),
        ((1, 1, 3), "1,1,3 is none"),
        ((0.5, 1, 3, 4), "whole pixels"),
        ("mask", "not this str"),
        (np.ones((8, 12)), "not this ndarray of float64, 8 x 12"),
        (torch.ones(1, 8, 12, dtype=torch.bool), "not this Tensor of bool, 1 x 8 x 12"),
        (np.zeros((8, 12), dtype=bool), "the mask of the region is empty"),
        (np.ones((12, 8), dtype=bool), "8 x 12 px, has not the proportions of the image, 12 x 8 px"),
    ],
)
def test_what_is_no_region_is_refused_in_a_line(region: object, reason: str) -> None:
    with pytest.raises(ShapeError, match=reason) as refused:
        cnnviz.attribute(net(linear(1)), IMAGES, 0, region=region)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_networks_of_the_other_kind_are_told_apart(mini: Network, unet: SmallUNet) -> None:
    calls = {
        "leave out --target-mask": lambda: cnnviz.attribute(mini, torch.rand(1, 3, 32, 32), 0, region=BOX),
        "explains a part of them, by --target-mask or --target-box": lambda: cnnviz.explain(net(unet, 32), CAT),
        "net gives no single row of logits but float32 of shape 1 x 4 x 32 x 32": lambda: cnnviz.attribute(
            net(Dictionary(), 32), IMAGES, 0
        ),
    }
    for reason, call in calls.items():
        with pytest.raises(ModelError, match=reason) as refused:
            call()
        assert "\n" not in str(refused.value)


def test_areas_of_a_region_are_scores_and_said_to_be(unet: SmallUNet) -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(3))
    explanation = cnnviz.explain(net(unet, 32), image, [1], methods="saliency", region=(4, 4, 20, 20))
    words = " ".join(text.get_text() for text in explanation.figure().axes[0].texts)
    (row,) = explanation.rows()
    assert row["auc_of"] == "score"
    assert f"deletion AUC (score) {row['deletion_auc']:.4g} (random {row['deletion_auc_random']:.4g} ±" in words
    assert "mean score of the class (a sum, not a probability) over up to 64 steps" in words
    assert "%" not in words.partition("AUC")[2]


def test_the_network_itself_stays_as_it_is(unet: SmallUNet) -> None:
    network = net(unet, 32)
    before = network(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    cnnviz.attribute(network, torch.rand(1, 3, 32, 32), 0, method="grad-cam", region=BOX)
    after = network(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(before, after)
    assert not unet._forward_hooks
    assert not network.module._forward_hooks


def test_masks_in_files(tmp_path: Path) -> None:
    """Grey above half, or what is opaque where something is not; turned as the file says."""
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:3, 2:7] = True
    grey = Image.fromarray(np.where(expected, 200, 100).astype(np.uint8))
    layers = np.dstack([np.full((6, 8, 3), 255 * ~expected[..., None], dtype=np.uint8), np.where(expected, 255, 9)])
    exif = Image.Exif()
    exif[0x0112] = 6
    grey.save(tmp_path / "grey.png")
    grey.convert("P").save(tmp_path / "palette.png")
    Image.fromarray(layers.astype(np.uint8)).save(tmp_path / "alpha.png")
    Image.fromarray(expected).save(tmp_path / "one_bit.png")
    Image.fromarray(np.where(expected, 60000, 9).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.rot90(np.asarray(grey)).copy()).save(tmp_path / "turned.png", exif=exif)
    np.save(tmp_path / "array.npy", np.asarray(grey))
    for file in tmp_path.iterdir():
        assert np.array_equal(read_mask(file), expected), file
    (tmp_path / "no.png").write_text("nothing")
    with pytest.raises(CnnvizError, match=r"no\.png is not an image"):
        read_mask(tmp_path / "no.png")


def test_a_region_is_seen_through_the_crop() -> None:
    """Of 8 columns the network sees 2 to 5, as 8 columns: each column of the image is two."""
    mask = np.zeros((4, 8), dtype=bool)
    mask[:, [1, 3, 6]] = True
    pixels = region_sum(mask, (4, 8), (2, 0, 6, 4)).pixels(4, 8)
    assert np.array_equal(pixels, np.tile([False, False, True, True, False, False, False, False], (4, 1)))


def test_the_command_and_its_pictures_made_again(run: Run) -> None:
    own = ("--method", "layer-cam,saliency", *UNET, "-o", "a.png")
    result = run("saliency", CAT, *own, "--target-box", "10,20,200,250")
    assert (result.exit_code, faults(result)) == (0, "")
    assert "\nscores are sums over a region: " in result.stdout
    assert cnnviz.read_record("a.png")["settings"]["region"] == [10, 20, 200, 250]
    rerun = ("rerun", "a.png", "--picture", CAT, "--model", UNET[1])
    assert "identical" in run(*rerun).stdout
    width, height = cnnviz.read_picture(CAT).image.size
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[20:250, 10:200] = 255
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(255 - mask).save("other.png")
    boxed = cnnviz.read_record("a.png")["results"]
    result = run("saliency", CAT, *own, "--force", "--target-mask", "mask.png", "--json")
    assert "px" in json.loads(result.stdout)["region"]
    assert cnnviz.read_record("a.png")["results"] == boxed
    assert "identical" in run(*rerun, "--target-mask", "mask.png").stdout
    assert "its record does not hold; give it as --target-mask PATH" in run(*rerun).stderr
    assert "is not the mask that this was made with" in run(*rerun, "--target-mask", "other.png").stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--target-box", "1,2,3"), "'1,2,3' is no box such as 10,20,60,80"),
        (("--target-box", "1,2,3,x"), "is no box"),
        (("--target-box", "1,2,3,4", "--target-mask", str(CAT)), "give one of them"),
        (("--target-box", "5,2,3,4"), "5,2,3,4 is none"),
        (("--target-box", "0,0,9,9", "--model", "vgg16-mini"), "leave out --target-mask and --target-box"),
        ((), "explains a part of them, by --target-mask or --target-box"),
    ],
)
def test_usage(words: tuple[str, ...], reason: str, run: Run) -> None:
    result = run("saliency", CAT, *(UNET if "--model" not in words else ()), *words)
    assert result.exit_code in (1, 2)
    assert reason in result.stderr
