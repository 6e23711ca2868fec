"""What stands for nothing to be seen: colours, a blur, an image, a tensor."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import gaussian_blur

from cnnviz.attribution.baselines import BLUR, baseline_for
from cnnviz.errors import PictureError, ShapeError, UnknownNameError
from cnnviz.networks.network import Network, wrap
from tests.support.networks import LeNet


def images(count: int = 2, height: int = 40, width: int = 60) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_colours_are_the_same_everywhere(mini: Network) -> None:
    given = images()
    for name, values in (("black", torch.zeros(3)), ("white", torch.ones(3)), ("mean", mini.mean.flatten())):
        baseline, _ = baseline_for(mini, given, name)
        torch.testing.assert_close(baseline, values.view(1, 3, 1, 1).expand_as(given), rtol=0, atol=0)


def test_an_unknown_mean_is_called_what_it_is(mini: Network) -> None:
    unknown = wrap(nn.Sequential(nn.Conv2d(3, 2, 3)), name="net", input_size=(40, 60))
    assert baseline_for(unknown, images(), "mean")[1] == "black"
    assert baseline_for(mini, images(), "mean")[1] == "dataset mean colour"


def test_a_blur_is_torchvisions_over_a_share_of_the_short_side(mini: Network) -> None:
    given = images()
    baseline, name = baseline_for(mini, given, "blur")
    sigma = BLUR * 40
    reach = min(round(3 * sigma), 39)
    torch.testing.assert_close(baseline, gaussian_blur(given, [2 * reach + 1] * 2, [sigma] * 2))
    assert name == "the image, blurred"
    one_pixel = images(1, 1, 1)
    torch.testing.assert_close(baseline_for(mini, one_pixel, "blur")[0], one_pixel)


def test_a_picture_is_squeezed_to_the_images(mini: Network, lenet: LeNet, tmp_path: Path) -> None:
    Image.new("RGB", (30, 30), (255, 0, 51)).save(tmp_path / "red.png")
    baseline, name = baseline_for(mini, images(), str(tmp_path / "red.png"))
    expected = torch.tensor([1.0, 0.0, 0.2]).view(1, 3, 1, 1).expand(2, 3, 40, 60)
    torch.testing.assert_close(baseline, expected)
    assert name == "red.png"
    with pytest.raises(PictureError, match="another number of channels"):
        baseline_for(wrap(lenet, name="lenet", input_size=28), images(), tmp_path / "red.png")
    with pytest.raises(UnknownNameError, match="no baseline named 'grey'"):
        baseline_for(mini, images(), "grey")


def test_a_tensor_serves_all_images_if_it_fits(mini: Network) -> None:
    own = images(1)
    assert torch.equal(baseline_for(mini, images(), own)[0], own.expand(2, 3, 40, 60))
    with pytest.raises(ShapeError, match="1 x 3 x 8 x 8 does not fit images of 2 x 3 x 40 x 60"):
        baseline_for(mini, images(), images(1, 8, 8))
