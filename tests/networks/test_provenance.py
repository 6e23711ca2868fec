"""What a record says was given, so that it can be given again."""

import hashlib
from pathlib import Path

import pytest
import torch

import cnnviz
from cnnviz.models.builtin import vgg16_mini
from cnnviz.networks.network import Network
from cnnviz.networks.provenance import describe, fingerprint_in, given_weights, model_words


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


def test_the_sha256_is_that_of_the_file_and_the_fingerprint_that_of_the_network(mini: Network, tmp_path: Path) -> None:
    """One file with other bytes and the same weights, one with other weights, and a user's own network's."""
    tensors = mini.module.state_dict()
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "same.pth")
    torch.save({name: tensor * 2 for name, tensor in tensors.items()}, tmp_path / "other.pth")
    (tmp_path / "net.py").write_text("from cnnviz.models.builtin import vgg16_mini as net\n")
    own = {"name": f"{tmp_path / 'net.py'}:net", "input_size": 128}
    for name, settings in (("same", {"name": "vgg16-mini"}), ("other", {"name": "vgg16-mini"}), ("same", own)):
        file = tmp_path / f"{name}.pth"
        described = describe(cnnviz.load(weights=file, **settings))
        assert described["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert (described["fingerprint"] == mini.fingerprint) == (name == "same")
        assert "sha256" not in described
    for network in (mini, cnnviz.load("vgg16-mini", weights="random")):
        assert describe(network)["weights_sha256"] is None


def test_earlier_records_call_the_fingerprint_sha256(mini: Network) -> None:
    described = describe(mini)
    assert fingerprint_in(described) == mini.fingerprint
    earlier = {name: value for name, value in described.items() if name != "fingerprint"}
    assert fingerprint_in(earlier | {"sha256": mini.fingerprint}) == mini.fingerprint


def test_outputs_that_were_told_are_named_again() -> None:
    own: dict[str, object] = {"name": "net.py:net", "input_size": 128}
    told = cnnviz.wrap(vgg16_mini(classes=3), outputs="multilabel", **own)
    assert model_words(describe(told))[-2:] == ["--outputs", "multilabel"]
    noticed = cnnviz.wrap(vgg16_mini(classes=3), **own)
    assert noticed.outputs == "logits"
    assert describe(noticed)["outputs"] is None
