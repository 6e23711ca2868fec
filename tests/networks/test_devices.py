"""What networks are computed on and in; and that a graphics card gives what the processor gives."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.errors import ModelError
from cnnviz.isolation import _draws_here, seeded
from cnnviz.networks.devices import check_device, devices, fast_dtype
from cnnviz.networks.network import Network

CPU = torch.device("cpu")


def test_a_processor_is_fast_in_bfloat16_if_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fast_dtype(CPU) == torch.float32
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cpu, probe, lambda: True, raising=False)
            assert fast_dtype(CPU) == torch.bfloat16
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, probe)  # as other versions of PyTorch have it
    assert fast_dtype(CPU) == torch.float32


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_so_is_a_graphics_card(monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert fast_dtype(torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_fastest_device_comes_first(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert devices()[0] == expected
    assert devices()[-1] == "cpu"
    assert check_device("auto").type == expected


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "meta", "gpu", torch.device("cuda")])
def test_a_device_that_is_not_there_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(ModelError, match=rf"^PyTorch finds no device '{device}' here; there is cpu.$"):
        cnnviz.load("vgg16-mini", device=device)
    assert cnnviz.load("vgg16-mini", device="cpu").device == CPU
    assert cnnviz.load("vgg16-mini", device="auto").device == CPU


def test_cards_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert check_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ModelError, match="no device 'cuda:1' here; there is cuda and"):
        check_device("cuda:1")


@pytest.fixture
def carded() -> Network:
    return cnnviz.load("vgg16-mini", device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("layer", ["block1_conv1", "block3_conv3:pre", "block5_pool"])
def test_feature_maps_of_a_card_are_the_processors(mini: Network, carded: Network, cat: Path, layer: str) -> None:
    expected, maps = (cnnviz.feature_maps(network, cat, layer) for network in (mini, carded))
    assert maps.maps.device == CPU, "results can be drawn and saved"
    largest = expected.maps.abs().max().item()
    torch.testing.assert_close(maps.maps, expected.maps, rtol=0, atol=5e-3 * largest)  # TF32 has ten bits


@pytest.mark.gpu
def test_a_card_predicts_and_explains_as_the_processor_does(mini: Network, carded: Network, cat: Path) -> None:
    expected, predictions = (cnnviz.predict(network, cat) for network in (mini, carded))
    assert [each.index for each in predictions] == [each.index for each in expected]
    assert [each.probability for each in predictions] == pytest.approx(
        [each.probability for each in expected], rel=0.01
    )
    pytest.importorskip("captum")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for method in ("grad-cam", "integrated-gradients"):
        attributions = [cnnviz.attribute(network, images, [3, 7], method=method) for network in (mini, carded)]
        size = attributions[0].abs().max().item()
        torch.testing.assert_close(attributions[1].cpu(), attributions[0], rtol=0.01, atol=0.1 * size)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_card_climbs_and_the_processor_agrees_on_the_score(mini: Network, carded: Network, precision: str) -> None:
    settings = {"steps": 16, "size": 48, "batch": 2, "tries": 1, "precision": precision}
    before = torch.cuda.get_rng_state()
    images = cnnviz.filter_images(carded, "block3_conv1", [3, 5], **settings)
    again = cnnviz.filter_images(carded, "block3_conv1", [3, 5], **settings)
    torch.testing.assert_close(images.scores, again.scores, rtol=0.02, atol=0)  # a card adds up in any order
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert (images.scores > images.starts).all()
    maps = cnnviz.activations(mini, images.images.cpu(), ["block3_conv1:pre"])["block3_conv1:pre"]
    torch.testing.assert_close(maps[[0, 1], [3, 5]].mean((1, 2)).detach(), images.scores.cpu(), rtol=1e-3, atol=1e-3)


def draws() -> list[Tensor]:
    """Random numbers by functions, by methods that write in place, by modules and by distributions."""
    given = torch.full((3, 4), 0.5)
    return [
        torch.randn(3),
        torch.rand_like(given),
        torch.normal(0.0, torch.ones(3)),
        torch.bernoulli(given),
        torch.multinomial(given, 3),
        torch.randperm(7),
        torch.randint(9, (4,)),
        given.clone().uniform_(),
        given.clone().normal_(1, 2),
        nn.Conv2d(2, 3, 3).weight.detach(),
        torch.distributions.Bernoulli(torch.tensor(0.3)).sample(torch.Size((3,))),
        nn.Dropout(0.5)(given),
    ]


def test_what_is_drawn_elsewhere_is_what_the_processor_draws() -> None:
    """All devices are taken for others, so that each draw goes the way that those on a graphics card go."""
    asked: list[torch.device] = []
    with seeded(5):
        expected = draws()
    with seeded(5), _draws_here(lambda device: not asked.append(device)):  # type: ignore[func-returns-value]
        elsewhere = draws()
    assert len(asked) >= len(expected)
    for values, own in zip(elsewhere, expected, strict=True):
        assert torch.equal(values, own)


def test_an_operation_that_draws_writes_into_what_it_should_alone() -> None:
    given = torch.tensor([-1.0, 2.0])
    with _draws_here(lambda device: True):
        drawn = nn.RReLU().train()(given)
    assert given.tolist() == [-1.0, 2.0]
    assert drawn[0] != -1


@pytest.mark.gpu
def test_a_card_draws_what_the_processor_draws() -> None:
    before = torch.cuda.get_rng_state()
    with seeded(5):
        expected = draws()
    with seeded(5, torch.device("cuda")), torch.device("cuda"):
        on_card = draws()
    for values, own in zip(on_card, expected, strict=True):
        assert values.device.type == "cuda"
        torch.testing.assert_close(values.cpu(), own)
    assert torch.equal(torch.cuda.get_rng_state(), before)
