"""What a record says was given, so that it can be given again."""

import pytest

from cnnviz.networks.provenance import given_weights


@pytest.mark.parametrize(
    ("name", "weights", "given"),
    [
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V1"),
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V2", None),
        ("own.py:net", "Own_Weights.V1", "Own_Weights.V1"),
        ("resnet50", "mine.pth", "mine.pth"),
        ("resnet50", "random, seed 0", "random"),
    ],
)
def test_weights_that_were_chosen_are_named_again(name: str, weights: str, given: str | None) -> None:
    assert given_weights({"name": name, "weights": weights}) == given
