"""The bare loop: objectives in words and as functions, images as tensors; and the examples of its documentation."""

import doctest

import pytest
import torch
from torch import nn

import cnnviz
from cnnviz.errors import ShapeError, UnknownNameError
from cnnviz.networks.network import Network
from cnnviz.objectives import channel
from cnnviz.synthesis.parametrisations import PixelImage

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_examples_of_the_documentation_are_true() -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(cnnviz.ascend, "ascend", module=False, globs={})
    assert len(example.examples) > 5
    assert doctest.DocTestRunner().run(example).failed == 0


def test_objectives_and_images_may_be_given_in_short() -> None:
    """Of one convolution, words, a function and an objective are the same, and so are a tensor and its pixels."""
    network = cnnviz.wrap(nn.Sequential(nn.Conv2d(3, 4, 3)), name="net", input_size=32)
    before = IMAGES.clone()
    *_, words = cnnviz.ascend(network, "0:1", IMAGES, steps=4)
    *_, function = cnnviz.ascend(network, lambda view: view["0"][:, 1].mean((1, 2)), IMAGES, steps=4)
    *_, whole = cnnviz.ascend(network, channel("0", 1), PixelImage(IMAGES), steps=4)
    for step in (words, function):
        torch.testing.assert_close(step.scores, whole.scores)
        torch.testing.assert_close(step.image(), whole.image())
    assert (whole.image() != IMAGES).any()
    assert torch.equal(IMAGES, before)


def test_what_is_no_image_or_objective_is_told(mini: Network) -> None:
    for image, text in (
        (IMAGES * 255, r"images lie in \[0, 1\]"),
        ((IMAGES * 255).byte(), "divide by 255"),
        (IMAGES[:, :1], "takes images of shape"),
        ("cat.jpg", "as a tensor .* not as an object of type str"),
    ):
        with pytest.raises(ShapeError, match=text):
            next(cnnviz.ascend(mini, "block1_conv1:3", image))  # type: ignore[arg-type]
    for objective in ("block1:", "nowhere:3", 3, nn.ReLU()):
        with pytest.raises(UnknownNameError):
            next(cnnviz.ascend(mini, objective, IMAGES))  # type: ignore[arg-type]
