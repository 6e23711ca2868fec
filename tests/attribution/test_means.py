"""The mean of attributions, by hand; and what has no mean."""

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.errors import ShapeError
from cnnviz.networks.network import Network

IMAGES = [torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


class Halves(nn.Module):
    """The logit of each class is the sum over one half of the image: left, right."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, images: Tensor) -> Tensor:
        columns = self.conv(images).sum((1, 2))
        return torch.stack([columns[:, :3].sum(1), columns[:, 3:].sum(1)], 1)


@pytest.fixture
def halves() -> Network:
    return cnnviz.wrap(Halves(), name="halves", input_size=6, labels=["left", "right"])


def test_the_mean_is_of_values_with_their_signs(halves: Network) -> None:
    methods = ["input-x-gradient", "saliency"]
    explanations = cnnviz.explain(halves, IMAGES, "left", methods=methods, versus="right", checks=())
    signs = torch.tensor([1.0] * 3 + [-1.0] * 3)
    mean = cnnviz.mean_attribution(explanations)
    expected = torch.stack(IMAGES).sum(1).mean(0) * signs
    torch.testing.assert_close(mean.maps[0].heat, expected.double())
    torch.testing.assert_close(mean.maps[1].heat, torch.ones(6, 6).double())
    assert mean.title == "mean of 3 images, class left versus right"
    assert [row["class"] for row in mean.rows()] == [0, 0]


def test_each_image_may_have_its_own_class_and_the_title_says_so(halves: Network) -> None:
    left, right = IMAGES[0].clone(), IMAGES[0].clone()
    left[:, :, 3:], right[:, :, :3] = 0, 0
    mean = cnnviz.mean_attribution(cnnviz.explain(halves, [left, right], methods="saliency", checks=()))
    torch.testing.assert_close(mean.maps[0].heat, torch.full((6, 6), 0.5).double())
    assert mean.title == "mean of 2 images, the most probable class of each image"
    assert mean.rows()[0]["class"] is None
    alike = cnnviz.mean_attribution(cnnviz.explain(halves, [left, left], methods="saliency", checks=()))
    assert alike.title == "mean of 2 images, class left"


def test_an_iterator_is_taken_and_the_record_names_the_images(halves: Network) -> None:
    explanations = cnnviz.explain(halves, IMAGES, "left", methods="saliency", checks=())
    sheet = cnnviz.mean_attribution(iter(explanations)).sheet(cmap="magma", columns=1)
    settings = sheet.made["settings"]
    assert len(settings["mean"]) == 3  # type: ignore[index]
    assert settings["classes"] == [0]  # type: ignore[index]
    assert settings["cmap"] == "magma"  # type: ignore[index]


def test_what_has_no_mean_is_told(halves: Network) -> None:
    def explained(*images: Tensor, **how: object) -> list[cnnviz.Explanation]:
        return cnnviz.explain(halves, list(images), **{"methods": "saliency", "checks": (), **how})  # type: ignore[call-overload, no-any-return]

    left, right = IMAGES[0].clone(), IMAGES[0].clone()
    left[:, :, 3:], right[:, :, :3] = 0, 0
    with pytest.raises(ShapeError, match="there is no explanation"):
        cnnviz.mean_attribution([])
    with pytest.raises(ShapeError, match="the same methods"):
        cnnviz.mean_attribution(explained(left) + explained(left, methods="input-x-gradient"))
    with pytest.raises(ShapeError, match="name the classes, or leave out how many"):
        cnnviz.mean_attribution(explained(left, right, top=2))
    with pytest.raises(ShapeError, match=r"image 0 is 6 x 6 px and image 0 8 x 6 px. Take the center crop"):
        cnnviz.mean_attribution(explained(left, torch.rand(3, 6, 8)))
