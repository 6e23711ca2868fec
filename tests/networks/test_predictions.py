"""Predictions equal the softmax of the logits under the network's published preprocessing."""

from pathlib import Path

import pytest
import torch
from torch import nn

import cnnviz
from cnnviz.errors import ModelError, ShapeError
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network


def test_predictions_are_the_softmax_of_the_logits(mini: Network, cat: Path) -> None:
    found = cnnviz.predict(mini, cat, top=200)
    probabilities = mini(show(mini, cat, fit="crop").images)[0].softmax(0)
    assert sum(one.probability for one in found) == pytest.approx(1, abs=1e-5)
    assert [one.probability for one in found] == sorted((one.probability for one in found), reverse=True)
    assert all(one.probability == pytest.approx(probabilities[one.index].item(), abs=1e-6) for one in found)
    assert all(one.label == mini.labels[one.index].split(", ")[0] for one in found)


def test_of_a_list_of_images_there_is_a_list_of_predictions(mini: Network, cat: Path) -> None:
    images = [cat, torch.rand(3, 64, 64)]
    assert cnnviz.predict(mini, images, top=2) == [cnnviz.predict(mini, image, top=2) for image in images]
    assert cnnviz.predict(mini, tuple(images), top=2) == cnnviz.predict(mini, images, top=2)
    first, second = cnnviz.explain(mini, images, "tabby", methods="saliency", checks=())
    assert (first.shown.names, second.shown.names) == (("cat.jpg",), ("image 0",))
    assert (first.rows()[0]["fit"], second.rows()[0]["fit"]) == ("crop", None)


def test_a_network_without_labels_numbers_its_classes() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = cnnviz.predict(cnnviz.wrap(module, name="net", input_size=8), torch.rand(3, 8, 8))
    assert {one.label for one in found} == {"class 0", "class 1"}


def test_what_cannot_be_predicted_is_refused(mini: Network) -> None:
    with pytest.raises(ModelError, match="no single row of logits"):
        cnnviz.predict(cnnviz.wrap(nn.Conv2d(3, 2, 1), name="maps", input_size=8), torch.rand(3, 8, 8))
    with pytest.raises(ShapeError, match="at least 1"):
        cnnviz.predict(mini, torch.rand(3, 64, 64), top=0)


def test_faults_of_a_forward_pass_are_said_in_one_line(mini: Network) -> None:
    class Asserts(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[2] == 32, "wrong height"
            return images.mean((2, 3))

    with pytest.raises(ShapeError, match=r"cannot take an image of 8 x 8 px \(wrong height\); its own size is 32 x 32"):
        cnnviz.predict(cnnviz.wrap(Asserts(), name="net", input_size=32, mean=[0, 0, 0], std=[1]), torch.rand(3, 8, 8))


def test_logits_that_are_no_numbers_or_have_no_labels_are_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = cnnviz.wrap(module, name="net", input_size=8, channels=3, labels=["a", "b", "c"])
    with pytest.raises(ModelError, match="3 class names for 2 classes"):
        cnnviz.predict(network, torch.rand(3, 8, 8))
    with torch.no_grad():
        module[0].weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        cnnviz.predict(cnnviz.wrap(module, name="net", input_size=8), torch.rand(3, 8, 8))


def test_a_batch_is_told_to_be_a_list(mini: Network) -> None:
    batch = torch.rand(2, 3, 64, 64)
    with pytest.raises(ShapeError, match=r"one image is classified at a time; this is a batch of 2. Give a list"):
        cnnviz.predict(mini, batch)
    assert [len(classes) for classes in cnnviz.predict(mini, list(batch), top=3)] == [3, 3]
