"""Evidence by hand, where the heat falls in the user's image, the sheets and the command."""

import json
import math
import re
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import captum.metrics
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import cnnviz
from cnnviz.attribution.attribute import attribute
from cnnviz.attribution.baselines import baseline_for
from cnnviz.attribution.evidence import (
    Curves,
    Reference,
    completeness_gap,
    deletion_insertion,
    infidelity,
    is_bottleneck,
    max_sensitivity,
    randomized,
    rank_correlation,
    reference,
    sanity,
    unmoved,
)
from cnnviz.attribution.explain import explain
from cnnviz.attribution.explainer import Scores, Target, explainer
from cnnviz.attribution.explanations import Evidence, Explanation
from cnnviz.attribution.superpixels import superpixels
from cnnviz.errors import LayerError, ShapeError, UnknownNameError
from cnnviz.isolation import seeded
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network, wrap
from cnnviz.networks.overlays import overlaid, placed
from tests.support.commands import Run
from tests.support.networks import SmallVGG
from tests.support.paths import CAT

MINI = ("--model", "vgg16-mini")


class Bright(nn.Module):
    """The logit of class 1 is ten times the mean brightness of the image, that of class 0 is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.conv.weight, 10 / 3)

    def forward(self, images: Tensor) -> Tensor:
        means = self.conv(images).mean((1, 2, 3))
        return torch.stack([torch.zeros_like(means), means], 1)


def words_of(explanation: Explanation) -> list[str]:
    """Every line of text on the sheet."""
    return [text.get_text() for text in explanation.figure().axes[0].texts]


@pytest.fixture
def bright() -> Network:
    return wrap(Bright(), name="bright", input_size=32, labels=["dark", "bright"])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("fit", ["whole", "crop"])
def test_heat_falls_where_the_evidence_is_in_the_upright_picture(
    bright: Network, orientation: int, fit: str, tmp_path: Path
) -> None:
    upright = np.zeros((80, 120, 3), dtype=np.uint8)
    top, left = (8, 24) if fit == "crop" else (4, 2)  # the crop keeps columns 20 to 99
    upright[top : top + 16, left : left + 16] = 255
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]  # quarters, anticlockwise, that the viewer undoes
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.rot90(upright, turns).copy())
    stored.save(tmp_path / "corner.png", exif=exif)
    explanation = explain(bright, tmp_path / "corner.png", ["bright"], methods="input-x-gradient", fit=fit)
    assert explanation.shown.pictures[0].shape == (80, 120, 3)
    values = placed(explanation.attributions[0].heat, explanation.shown, (80, 120))
    y, x = np.unravel_index(np.nanargmax(values), values.shape)
    assert top <= y < top + 16
    assert left <= x < left + 16
    inside = np.zeros((80, 120), dtype=bool)
    inside[top - 3 : top + 19, max(left - 3, 0) : left + 19] = True
    assert np.nansum(values[inside]) > 0.98 * np.nansum(values)
    unseen = np.isnan(values)
    assert unseen.any() == (fit == "crop")
    if fit == "crop":
        assert unseen[:, :20].all()
        assert unseen[:, 100:].all()
        assert not unseen[:, 21:99].any()
    assert explanation.overlay().pixels.shape == (80, 120, 3)


def shares_of(pixels: int, steps: int = 64) -> Tensor:
    """What is removed after each step: dense at both ends, whole pixels."""
    places = torch.arange(steps + 1, dtype=torch.float64) / steps
    return ((1 - torch.cos(math.pi * places)) / 2 * pixels).round() / pixels


def test_deletion_and_insertion_by_hand(bright: Network) -> None:
    """Half the pixels are white: taken away first they take all brightness within the first half of the pixels."""
    image = torch.zeros(1, 3, 8, 8)
    image[..., :4] = 1
    curves = deletion_insertion(explainer(bright), image, torch.zeros_like(image), Target(1), image[0, 0])
    torch.testing.assert_close(curves.shares.double(), shares_of(64))
    share = curves.shares.double().clamp(max=0.5)
    torch.testing.assert_close(curves.deletion.double(), torch.sigmoid(10 * (0.5 - share)))
    torch.testing.assert_close(curves.insertion.double(), torch.sigmoid(10 * share))
    fine = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    exact = torch.sigmoid(10 * fine.clamp(max=0.5)).mean().item()
    assert curves.insertion_auc == pytest.approx(exact, rel=2e-3)
    backwards = deletion_insertion(explainer(bright), image, torch.zeros_like(image), Target(1), -image[0, 0])
    assert backwards.deletion_auc > curves.deletion_auc


def test_pixels_go_by_their_rank_and_become_the_baseline(bright: Network) -> None:
    """Six pixels, by hand; of two alike in heat the first goes first."""
    image = torch.tensor([[0.9, 0.8, 0.5], [0.3, 0.6, 0.4]]).expand(1, 3, 2, 3)
    baseline = torch.full_like(image, 0.2)
    heat = torch.tensor([[4.0, 4.0, 2.0], [-1.0, 3.0, -1.0]])
    order = [0, 1, 4, 2, 3, 5]
    pixels, deletion, insertion = image[0, 0].flatten(), [], []
    for share in shares_of(6).tolist():
        taken = order[: round(share * 6)]
        without, alone = pixels.clone(), torch.full((6,), 0.2)
        without[taken], alone[taken] = 0.2, pixels[taken]
        deletion.append(torch.sigmoid(10 * without.mean()))
        insertion.append(torch.sigmoid(10 * alone.mean()))
    curves = deletion_insertion(explainer(bright), image, baseline, Target(1), heat)
    torch.testing.assert_close(curves.deletion, torch.stack(deletion))
    torch.testing.assert_close(curves.insertion, torch.stack(insertion))
    blurred = torch.full_like(image, 0.7)
    rise = deletion_insertion(explainer(bright), image, baseline, Target(1), heat, blurred)
    assert torch.equal(rise.deletion, curves.deletion)
    assert rise.insertion[0].item() == pytest.approx(torch.sigmoid(torch.tensor(7.0)).item())
    assert rise.insertion[-1] == curves.insertion[-1]


class OnePixel(nn.Module):
    """The logit of class 1 is high as long as some pixels are all white."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels, self.scale = pixels, nn.Conv2d(1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        whole = (images.mean(1).flatten(1)[:, : self.pixels] > 0.99).all(1).float()
        return torch.stack([torch.zeros_like(whole), 40 * whole - 20], 1) + 0 * self.scale.weight.sum()


@pytest.mark.parametrize("pixels", [1, 4, 40])
def test_orders_that_lose_the_class_at_once_are_told_apart(pixels: int) -> None:
    """Of 64 x 64 pixels 1, 4 or 40 matter: sixteen equal steps would give 1 / 32 to all orders that begin with one."""
    network = wrap(OnePixel(pixels), name="one", input_size=64, channels=3)
    image, empty = torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    heat = torch.linspace(1, 0, 4096).view(64, 64)
    ready = explainer(network)
    assert deletion_insertion(ready, image, empty, Target(1), heat).deletion_auc < 1 / 1000
    later = heat.clone()
    later.view(-1)[:pixels] -= (pixels + 49.5) / 4095  # after fifty others
    late = deletion_insertion(ready, image, empty, Target(1), later)
    assert late.deletion_auc == pytest.approx(50 / 4096, rel=0.2)
    inserted = deletion_insertion(ready, image, empty, Target(1), heat)
    assert inserted.insertion_auc == pytest.approx(1 - pixels / 4096, abs=3e-3)


@pytest.mark.parametrize("pixels", [1, 4, 40])
def test_a_quick_look_finds_where_the_class_is_lost(pixels: int) -> None:
    """With few steps, of which none need be near; what is far off is still told apart from what goes at once."""
    network = wrap(OnePixel(pixels), name="one", input_size=64, channels=3)
    image, empty = torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    heat = torch.linspace(1, 0, 4096).view(64, 64)
    later = heat.clone()
    later.view(-1)[:pixels] -= (pixels + 819.5) / 4095  # after a fifth of the others
    ready = explainer(network)
    first, late = (
        deletion_insertion(ready, image, empty, Target(1), order, precise=False).deletion_auc for order in (heat, later)
    )
    assert first < 0.01
    assert late == pytest.approx(0.2, abs=0.02)


class Counted(nn.Module):
    """Counts the images that pass forwards, and backwards, through a network."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.passes = module, Counter[str]()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Counted":
        twin = Counted(deepcopy(self.module, memo))
        twin.passes = self.passes
        return twin

    def forward(self, images: Tensor) -> Tensor:
        self.passes["forwards"] += len(images)
        logits: Tensor = self.module(images)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.passes.update(backwards=len(gradient)))
        return logits


@pytest.mark.parametrize("photograph", ["cat", "coffee", "gravel"])
def test_a_quick_look_takes_sixty_passes_and_comes_close(photograph: str, mini: Network) -> None:
    module = Counted(mini.module)
    network = wrap(module, name="counted", input_size=mini.input_size, mean=mini.mean.flatten(), std=mini.std.flatten())
    explainer(network).logits(torch.rand(1, 3, 64, 64))
    looks = {}
    for precise in (False, True):
        module.passes.clear()
        looks[precise] = explain(
            network, CAT.with_stem(photograph), methods=["grad-cam", "integrated-gradients"], precise=precise
        )
        if not precise:
            assert (module.passes["forwards"] + module.passes["backwards"]) / 2 <= 60
    for quick, exact in zip(looks[False].rows(), looks[True].rows(), strict=True):
        if quick["method"] == "grad-cam":  # the same map
            for name in ("deletion_auc", "insertion_auc"):
                assert quick[name] == pytest.approx(exact[name], abs=0.02)
        assert quick["deletion_auc_random"] == pytest.approx(
            exact["deletion_auc_random"], abs=exact["deletion_auc_random_spread"]
        )
    assert exact["completeness_gap"] < 0.01  # type: ignore[operator] # a number


def plain_areas(network: Network, image: Tensor, empty: Tensor, seeds: range) -> Tensor:
    """Deletion and insertion in random orders, in 256 equal steps, in plain PyTorch: (orders, 2)."""
    pixels, areas = image[0, 0].numel(), []
    for seed in seeds:
        rank = torch.randperm(pixels, generator=torch.Generator().manual_seed(seed)).view(image.shape[2:])
        gone = rank < (torch.arange(257) / 256 * pixels).round().view(-1, 1, 1, 1)
        states = torch.cat([torch.where(gone, empty, image), torch.where(gone, image, empty)])
        areas.append(torch.trapezoid(network(states).softmax(1)[:, 1].view(2, -1), dx=1 / 256))
    return torch.stack(areas)


def test_orders_that_know_nothing_by_hand(bright: Network) -> None:
    ready, target = explainer(bright), Target(1)
    rows, columns = torch.linspace(-1, 1, 12).square(), torch.linspace(-1, 1, 20).square()
    image = (1 - (rows[:, None] + columns) / 2).expand(1, 3, 12, 20)  # darker towards the edges
    empty = torch.zeros_like(image)
    areas = reference(ready, image, empty, target, seed=4)
    expected = plain_areas(bright, image, empty, range(100, 120))
    assert areas.centre is not None
    for side in (0, 1):
        assert areas.random[side] == pytest.approx(expected[:, side].mean().item(), abs=3 * areas.spread[side])
        assert 0.4 < areas.spread[side] / expected[:, side].std().item() < 2.5
    centre = deletion_insertion(ready, image, empty, target, image[0, 0])
    assert areas.centre == pytest.approx((centre.deletion_auc, centre.insertion_auc))
    assert areas.random[0] > centre.deletion_auc, "what is bright is in the middle"
    assert reference(ready, image, empty, target) == reference(ready, image, empty, target, seed=0) != areas
    grey = torch.full_like(image, 0.5)
    rise = reference(ready, image, empty, target, seed=4, start=grey)
    assert rise.centre is not None
    assert (rise.random[0], rise.centre[0]) == (areas.random[0], areas.centre[0])
    assert rise.random[1] == pytest.approx(plain_areas(bright, image, grey, range(20))[:, 1].mean().item(), rel=0.01)


def test_few_steps_are_enough_for_random_orders(mini: Network) -> None:
    """The same ten orders in 128 steps: the mean differs by less than the orders do."""
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(8))
    target, empty = Target(int(explainer(mini).logits(image).argmax())), mini.mean.expand_as(image)
    draws, areas = torch.Generator().manual_seed(2), []
    for _ in range(10):
        rank = torch.randperm(1024, generator=draws).view(32, 32)
        gone = rank < (torch.linspace(0, 1, 129).square() * 1024).round().view(-1, 1, 1, 1)
        shares = (torch.linspace(0, 1, 129).square() * 1024).round() / 1024
        probabilities = torch.cat([mini(part) for part in torch.where(gone, empty, image).split(64)]).softmax(1)
        areas.append(torch.trapezoid(probabilities[:, target.index], shares).item())
    ours = reference(explainer(mini), image, empty, target, seed=2)
    assert ours.random[0] == pytest.approx(np.mean(areas), abs=0.3 * np.std(areas, ddof=1))
    assert ours.spread[0] == pytest.approx(np.std(areas, ddof=1), rel=0.3)


def test_completeness_and_captums_measures_on_a_linear_network(bright: Network) -> None:
    image, ready = torch.rand(1, 3, 8, 8), explainer(bright)
    empty, target = torch.zeros_like(image), Target(1)
    values = attribute(bright, image, target, method="input-x-gradient")
    assert completeness_gap(ready, image, empty, target, values) < 1e-5
    assert completeness_gap(ready, image, empty, target, 0.75 * values) == pytest.approx(0.25, abs=1e-5)
    assert completeness_gap(ready, image, empty, target, 1.5 * values) == pytest.approx(0.5, abs=1e-5)
    assert completeness_gap(ready, empty, image, target, -values) < 1e-5
    assert completeness_gap(ready, image, image, target, 0.01 * values) == 1, "something where there is no difference"
    assert completeness_gap(ready, image, image, target, empty) == 0
    gradient = attribute(bright, image, target, method="saliency")
    assert infidelity(ready, image, target, gradient) == pytest.approx(0, abs=1e-8)
    assert infidelity(ready, image, target, 2 * gradient) > 1e-4
    assert infidelity(ready, image, target, values, empty) == pytest.approx(0, abs=1e-8), "shares are made slopes"
    assert infidelity(ready, image, target, values) > 1e-4
    assert max_sensitivity(ready, image, lambda one: attribute(bright, one, target, method="saliency")) < 1e-5


def test_captums_measures_draw_as_captum_does(mini: Network) -> None:
    ready, target, seed = explainer(mini), Target(3), 11
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    values = attribute(mini, image, target, method="saliency")
    inputs, scores = ready.normalised(image), Scores(ready.twin.module, target)

    def disturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn_like(inputs)
        return noise, inputs - noise

    def explained(inputs: Tensor | tuple[Tensor]) -> tuple[Tensor]:
        given = inputs if isinstance(inputs, Tensor) else inputs[0]
        image = (given * mini.std + mini.mean).clamp(0, 1)
        return (attribute(mini, image, target, method="smoothgrad", samples=4).contiguous(),)

    before = torch.random.get_rng_state()
    with seeded(seed):
        expected = captum.metrics.infidelity(scores, disturbed, inputs, values, target=0, n_perturb_samples=20)
    assert infidelity(ready, image, target, values, seed=seed) == pytest.approx(expected.item(), rel=1e-3)
    with seeded(seed):
        expected = captum.metrics.sensitivity_max(explained, inputs, max_examples_per_batch=1)
    moved = max_sensitivity(
        ready, image, lambda image: attribute(mini, image, target, method="smoothgrad", samples=4), seed
    )
    assert moved == pytest.approx(expected.item(), rel=1e-4)
    assert torch.equal(torch.random.get_rng_state(), before)


class Uneven(nn.Module):
    """Logits of one image, in which the colours matter in very different degrees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return (self.conv(images * torch.tensor([5.0, 1.0, 0.02]).view(3, 1, 1)) ** 2).mean((2, 3))


def test_max_sensitivity_is_the_change_of_the_whole_map_over_its_norm() -> None:
    """In plain PyTorch, the neighbours drawn as captum draws them."""
    torch.manual_seed(3)
    network = wrap(Uneven(), name="uneven", input_size=8, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
    image, draws = 0.2 + 0.6 * torch.rand(1, 3, 8, 8), torch.Generator().manual_seed(6)

    def gradient(inputs: Tensor) -> Tensor:
        inputs = inputs.clone().requires_grad_()
        return torch.autograd.grad(network.module(inputs)[0, 1], inputs)[0]

    inputs = (image - network.mean) / network.std
    own, changes = gradient(inputs), []
    for _ in range(10):
        moved = inputs + torch.empty(1, 3, 8, 8).uniform_(-0.02, 0.02, generator=draws)
        changes.append((gradient(moved) - own).norm().item() / own.norm().item())
    measured = max_sensitivity(
        explainer(network), image, lambda one: attribute(network, one, 1, method="saliency"), seed=6
    )
    assert measured == pytest.approx(max(changes), rel=1e-3)
    assert measured < 0.3 * max(changes) * own.norm().item() / own.flatten(2).norm(dim=2).min().item()


class Linear(nn.Module):
    """Two classes whose logits are linear in the image."""

    def __init__(self, colours: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(colours, 2, 12)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).flatten(1)


REGIONAL = {
    "occlusion": {"window": 4, "stride": 4},
    "feature-ablation": {"patches": 9},
    "kernel-shap": {"patches": 9, "samples": 400},
    "lime": {"patches": 9, "samples": 400},
}


def regions_of(name: str, image: Tensor) -> Tensor:
    if name != "occlusion":
        return superpixels(image, 9)
    rows = torch.arange(12) // 4
    return rows[:, None] * 3 + rows


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("baseline", ["mean", "black", "white"])
@pytest.mark.parametrize("name", REGIONAL)
def test_effects_of_regions_on_a_linear_network(name: str, baseline: str, colours: int) -> None:
    """Map, scale, sum and infidelity follow from what removing each region does, here known by hand."""
    torch.manual_seed(40 + colours)
    module, image = Linear(colours), torch.rand(colours, 12, 12)
    network = wrap(
        module, name="linear", input_size=12, mean=[0.45] * colours, std=[0.2, 0.25, 0.3][:colours], channels=colours
    )
    found = explain(
        network, image, [1], methods=name, baseline=baseline, checks=["infidelity"], **REGIONAL[name]
    ).attributions[0]
    empty = {"mean": 0.45, "black": 0.0, "white": 1.0}[baseline]
    weight, contrast = module.conv.weight.detach()[1], (image - empty) / network.std[0]
    regions, slopes, heat = regions_of(name, image), torch.zeros_like(image), torch.zeros(12, 12)
    effects = []
    for number in regions.unique():
        inside = regions == number
        effect = (weight * contrast)[:, inside].sum().item()
        if name == "lime":  # shrinks effects; its own stand
            effect = found.values[0][inside].mean().item()
        effects.append(effect)
        heat[inside] = effect
        slopes[:, inside] = effect * contrast[:, inside] / contrast[:, inside].square().sum()
    torch.testing.assert_close(found.heat, heat, rtol=1e-3, atol=1e-4)
    assert found.scale == pytest.approx(max(map(abs, effects)), rel=1e-3)
    assert found.total == pytest.approx(sum(effects), rel=1e-3, abs=1e-4)
    own = 0.01 * weight.square().sum().item()  # what noise of deviation 0.1 does on average, which a zero map misses
    expected = 0.01 * (weight - slopes).square().sum().item()
    assert found.evidence.infidelity == pytest.approx(expected, rel=1.2)
    assert found.evidence.infidelity is not None
    assert found.evidence.infidelity < 2 * own
    exact = infidelity(explainer(network), image[None], Target(1), slopes[None])
    assert found.evidence.infidelity == pytest.approx(exact, rel=1e-2)


def test_overlapping_windows_share_what_they_do(bright: Network) -> None:
    """Of an evenly bright image every pixel contributes the same, also below windows that the edge cuts off."""
    image = torch.full((3, 32, 32), 0.5)
    found = explain(
        bright, image, [1], methods="occlusion", baseline="black", checks=["infidelity"], window=7, stride=3
    ).attributions[0]
    torch.testing.assert_close(found.contributions, torch.full((3, 32, 32), 5 / 3072), rtol=1e-3, atol=1e-6)
    assert found.total == pytest.approx(5, rel=1e-3)
    assert found.evidence.infidelity == pytest.approx(0, abs=1e-6)
    assert found.scale == pytest.approx(5 * 49 / 1024, rel=1e-3)


@pytest.mark.parametrize("baseline", ["mean", "black", "white"])
def test_what_multiplies_by_the_input_is_held_against_its_own_zero(baseline: str) -> None:
    """Input x gradient is exact on a linear network, whatever baseline other methods have."""
    torch.manual_seed(1)
    network = wrap(Linear(3), name="linear", input_size=12, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
    for name in ("saliency", "input-x-gradient", "integrated-gradients"):
        found = explain(
            network, torch.rand(3, 12, 12), [1], methods=name, baseline=baseline, checks=["infidelity"]
        ).attributions[0]
        assert found.evidence.infidelity == pytest.approx(0, abs=1e-8), name


def test_insertion_from_the_blurred_image_is_asked_for_and_said(bright: Network) -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain, rise = (
        explain(bright, image, [1], methods="saliency", baseline="black", checks=checks)
        for checks in (["curves"], ["curves", "rise"])
    )
    (own,), (blurred,) = plain.rows(), rise.rows()
    assert (own["insertion_from"], blurred["insertion_from"]) == ("baseline", "blurred image")
    assert own["deletion_auc"] == blurred["deletion_auc"]
    curves = rise.attributions[0].evidence.curves
    assert curves is not None
    blur, _ = baseline_for(bright, image[None], "blur")
    torch.testing.assert_close(curves.insertion[:1], bright(blur).softmax(1)[:, 1])
    assert blurred["insertion_auc_random_spread"] != blurred["deletion_auc_random_spread"]
    said = "insertion AUC: most important pixels inserted first into the {} (higher is better)"
    assert said.format("blurred image (RISE)") in words_of(rise)
    assert said.format("baseline") in words_of(plain)
    assert "AUC (area under the curve): mean probability of the class over up to 64 steps" in words_of(plain)
    assert "for comparison: random order (mean ± standard deviation of 10)" in words_of(plain)


def test_rank_correlation_by_hand() -> None:
    ramp = torch.arange(10.0)
    assert rank_correlation(ramp, ramp**3) == pytest.approx(1)
    assert rank_correlation(ramp, -ramp) == pytest.approx(1), "sizes count, not signs"
    assert rank_correlation(ramp, 9 - ramp) == pytest.approx(-1)
    assert rank_correlation(ramp, torch.ones(10)) is None, "a flat map has no ranks"
    assert rank_correlation(torch.tensor([1.0, -1.0]), torch.tensor([1.0, 2.0])) is None
    assert rank_correlation(ramp, torch.full((10,), 0.1) + 1e-9 * ramp) is None, "rounding is no map"
    tied, other = torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 1, 2, 3])
    assert rank_correlation(tied, other) == pytest.approx(2 / math.sqrt(5))
    triple = torch.tensor([0.0, 1, 1, 1, 2])  # ranks 1, 3, 3, 3, 5
    assert rank_correlation(triple, torch.arange(5.0)) == pytest.approx(8 / math.sqrt(80))
    pairs = torch.tensor([[0.0, 0, 0], [1, 2, 2]])  # ranks 2, 2, 2, 4, 5.5, 5.5 about their mean of 3.5
    by_hand = (1.5 * (2.5 + 1.5 + 0.5) + 0.5 * 0.5 + 2 * (1.5 + 2.5)) / math.sqrt(15 * 17.5)
    assert rank_correlation(pairs, torch.arange(6.0).view(2, 3)) == pytest.approx(by_hand)


def test_networks_are_randomized_from_the_top_and_stay_themselves(mini: Network) -> None:
    before = mini.fingerprint
    own = {name: tensor.clone() for name, tensor in mini.module.state_dict().items()}
    changed = []
    for _, torn in randomized(mini):
        state = torn.module.state_dict()
        changed.append([name for name in own if not torch.equal(state[name], own[name])])
    assert [len(names) for names in changed] == sorted({len(names) for names in changed})
    assert all("classifier" in name or int(name.split(".")[1]) >= 24 for name in changed[0])
    assert set(changed[-1]) == set(own)
    assert mini.fingerprint == before


def test_a_fifth_of_the_layers_more_is_random_at_each_stage(small_vgg: SmallVGG) -> None:
    """Of VGG16's 14 layers with weights, 3, 6, 8, 11, 14; batch normalisations are layers too."""
    network = wrap(small_vgg, name="small", input_size=32)
    weighted = [name for name, part in small_vgg.named_modules() if list(part.parameters(recurse=False))]
    for parameter in small_vgg.parameters():
        nn.init.normal_(parameter)  # numbers that are all the same have no deviation
    own = {name: tensor.clone() for name, tensor in small_vgg.named_parameters()}
    names, counts, before = [], [], own
    for lowest, torn in randomized(network):
        names.append(lowest)
        changed = {
            name.rpartition(".")[0] for name, value in torn.module.named_parameters() if not value.equal(own[name])
        }
        assert changed == set(weighted[-len(changed) :]), "from the top"
        for name, value in torn.module.named_parameters():
            redrawn = name.rpartition(".")[0] in weighted[-len(changed) : len(weighted) - sum(counts[-1:])]
            assert redrawn or value.equal(before[name]), "what is random stays as it is"
        before = {name: value.clone() for name, value in torn.module.named_parameters()}
        convolution = f"{lowest}:pre"
        assert network.qualified(convolution if convolution in network.layers else lowest) == weighted[-len(changed)]
        counts.append(len(changed))
    if len(weighted) == 14:
        assert names == ["block5_conv2", "block4_conv2", "block3_conv3", "block2_conv2", "block1_conv1"]
    assert counts == [round(len(weighted) * stage / 5) for stage in (1, 2, 3, 4, 5)]


class Scaled(nn.Sequential):
    """Layers of PyTorch's, and weights of its own that nobody knows how to initialize."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 64, 5), nn.BatchNorm2d(64), nn.Conv2d(64, 200, 3), nn.Flatten())
        self.scale = nn.Parameter(torch.empty(10_000))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.scale[:1]


def test_random_weights_are_fresh_initializations() -> None:
    """As a new layer of the class has them, whatever they were; weights without one keep mean and deviation."""
    module = Scaled()
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=3, std=0.2)
    module[1].running_mean.fill_(7)
    nn.init.normal_(module.scale, mean=-2, std=0.5)
    network = wrap(module, name="net", input_size=7)
    (*_, (lowest, torn)), (*_, (_, again)), (*_, (_, other)) = (randomized(network, seed) for seed in (0, 0, 1))
    assert lowest == "0"
    for new, same in zip(torn.parameters(), again.parameters(), strict=True):
        assert new.equal(same)
    assert not torn.module[0].weight.equal(other.module[0].weight)
    for layer in (0, 2):
        bound = torn.module[layer].weight[0].numel() ** -0.5  # PyTorch's: uniform, up to 1 / sqrt(inputs)
        for values in (torn.module[layer].weight, torn.module[layer].bias):
            assert values.abs().max() <= bound
            assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)
    assert torn.module[1].weight.unique().tolist() == [1]
    assert torn.module[1].running_mean.unique().tolist() == [0]
    assert torn.module.scale.mean().item() == pytest.approx(-2, abs=0.03)
    assert torn.module.scale.std().item() == pytest.approx(0.5, rel=0.05)
    assert abs(torch.corrcoef(torch.stack([torn.module.scale, module.scale.detach()]))[0, 1]) < 0.05
    assert [name for name, _ in randomized(wrap(nn.Sequential(nn.Conv2d(3, 2, 1)), name="one", input_size=7))] == ["0"]
    (_, default), *_ = randomized(network)
    assert default.module.scale.equal(next(first for _, first in randomized(network, 0)).module.scale)


class Backwards(nn.Module):
    """Defines its layers from the last to the first, and one that it never uses."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)
        self.third, self.second, self.first = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.second(self.first(images).relu()).relu()
        return nn.functional.linear(self.third(maps).relu().mean((2, 3)), self.head.weight, self.head.bias)


def test_layers_are_randomized_in_the_reverse_order_of_execution() -> None:
    network = wrap(Backwards(), name="backwards", input_size=12)
    assert [name for name, _ in randomized(network, stages=4)] == ["head", "third", "second", "first"]
    *_, (_, torn) = randomized(network)
    assert torn.module.unused.weight.equal(network.module.unused.weight)


class Rectified(nn.Module):
    """Ends in a ReLU, like SqueezeNet; its trained weights have a negative mean, but for class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        nn.init.normal_(self.head.weight, mean=-1, std=0.1)
        nn.init.constant_(self.head.weight[0].data, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).relu()).relu().mean((2, 3))


@pytest.mark.parametrize("seed", range(4))
def test_networks_that_end_in_a_relu_can_fail_the_check(seed: int) -> None:
    """A map that hardly looks at the network correlates at every stage; where it is flat there is no 0."""
    torch.manual_seed(seed)
    network = wrap(Rectified(), name="rectified", input_size=16)
    image = torch.rand(1, 3, 16, 16)

    def masked(one: Network) -> Tensor:
        """The image's own brightness, if the network reacts to it at all."""
        return image.mean((0, 1)) * attribute(one, image, 0, method="saliency").abs().amax().sign()

    correlations = sanity(network, [masked(network)], [masked], seed=seed)
    numbers = [values[0] for values in correlations.values()]
    assert all(number is None or number == pytest.approx(1) for number in numbers)
    assert sum(number is not None for number in numbers) >= len(numbers) / 2
    assert unmoved(numbers)


def test_flat_maps_are_left_out_and_said_so(bright: Network) -> None:
    dead = Bright()
    nn.init.constant_(dead.conv.weight, 0)
    assert sanity(bright, [torch.zeros(4, 4)], [lambda _: torch.rand(4, 4)]) == {"conv": [None]}
    calls: list[Network] = []
    flat_at_first = [torch.ones(2, 2), torch.ones(2, 2), torch.arange(4.0).view(2, 2)]

    def make(network: Network) -> Tensor:
        calls.append(network)
        return flat_at_first[len(calls) - 1]

    assert sanity(bright, [torch.arange(4.0).view(2, 2)], [make])["conv"] == [pytest.approx(1)]
    weights = [network.module.conv.weight for network in calls]
    assert not weights[0].equal(weights[1])
    assert not weights[1].equal(weights[2]), "drawn anew each time"
    explanation = explain(wrap(dead, name="dead", input_size=32), CAT, [1], methods="saliency", checks=["sanity"])
    (row,) = explanation.rows()
    assert row["sanity"] == {"conv": None}
    assert not explanation.attributions[0].evidence.unmoved
    assert explanation.sheet().pixels.std() > 0


class Branches(nn.Module):
    """Two branches that are added, and a layer that all paths pass."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.merged = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images).relu()
        return self.head(self.merged(maps + self.branch(maps).relu()).relu().mean((2, 3)))


def test_conductance_promises_completeness_only_where_all_paths_meet() -> None:
    torch.manual_seed(2)
    network = wrap(Branches(), name="branches", input_size=12)
    image = torch.rand(3, 12, 12)
    gaps = {
        layer: explain(network, image, [1], methods="conductance", layer=layer, checks=(), steps=400)
        .attributions[0]
        .evidence.gap
        for layer in ("stem", "branch", "merged")
    }
    assert gaps["branch"] is None
    assert all(gap is not None and gap < 0.01 for layer, gap in gaps.items() if layer != "branch")
    with torch.inference_mode():
        assert is_bottleneck(explainer(network), "stem", image[None] + 0)
        assert not is_bottleneck(explainer(network), "branch", image[None] + 0)


def test_sanity_compares_with_the_maps_of_every_stage(small_vgg: SmallVGG) -> None:
    network = wrap(small_vgg, name="small", input_size=32)
    ramp, steps = torch.arange(9.0).view(3, 3), list[tuple[str, float]]()

    def kernel(one: Network) -> Tensor:
        return one.module.features[0].weight[0, 0]

    lowest = network.module.features[0].weight
    by_layer = sanity(
        network,
        [kernel(network), ramp],
        [kernel, lambda _: ramp.square()],
        watch=lambda text, share: steps.append((text, share)),
    )
    stages = [(name, kernel(torn).clone()) for name, torn in randomized(network, 0)]
    assert list(by_layer) == [name for name, _ in stages]
    for name, values in stages:
        assert by_layer[name] == pytest.approx([rank_correlation(kernel(network), values), 1])
    *before, (last, _) = by_layer.items()
    assert all(correlations[0] == pytest.approx(1) for _, correlations in before)
    assert abs(by_layer[last][0]) < 0.99, "only now the first layer is random"
    assert [share for _, share in steps] == pytest.approx([number / 10 for number in range(10)])
    assert [text for text, _ in steps[::2]] == [f"maps of a network that is random from {name} up" for name in by_layer]
    other = sanity(network, [kernel(network)], [kernel], seed=1)
    assert other[last] != by_layer[last][:1]
    assert network.module.features[0].weight is lowest
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        sanity(network, [ramp, ramp], [kernel])


def test_a_map_is_flagged_above_a_mean_correlation_of_one_half() -> None:
    assert unmoved([0.9, 0.2])
    assert not unmoved([0.5, 0.5])
    assert not unmoved([0.9, 0.0])
    assert unmoved([0.9, None, None]), "flat maps say nothing, neither for nor against"
    assert not unmoved([None, None])


def test_evidence_and_what_is_written(run: Run) -> None:
    methods = ("--method", "grad-cam,integrated-gradients", "--set", "steps=20", "--size", "48")
    arguments = (*methods, "--sanity", "--infidelity", "--precise")
    result = run("saliency", CAT, *MINI, *arguments, "--json", "--save-arrays", "a.npz", "--overlay", "over.png")
    assert result.exit_code == 0, result.output
    output = json.loads(result.stdout)
    cam, integrated = output["attributions"]
    assert cam["layer"] == "block5_conv3"
    for row in (cam, integrated):
        assert 0 <= row["deletion_auc"] <= 1
        assert {"deletion_auc_random", "insertion_auc_centre", "sanity"} <= set(row)
        assert all(-1 <= value <= 1 for value in row["sanity"].values())
    assert "completeness_gap" in integrated
    assert "completeness_gap" not in cam
    assert cam["infidelity"] is None, "it is about pixels"
    assert integrated["infidelity"] >= 0
    for row in (cam, integrated):
        assert row["sanity_mean"] == pytest.approx(np.mean(list(row["sanity"].values())))
        assert row["sanity_fails"] is (row["sanity_mean"] > 0.5)
        assert row["auc_of"] == "probability"
    with np.load("a.npz") as arrays:
        own = arrays[f"integrated-gradients/{integrated['class']}"]
        assert own.dtype == np.float32
        assert own.sum() == pytest.approx(integrated["sum"], rel=1e-3)
        assert arrays["image"].shape == own.shape
    assert cnnviz.read_picture("over.png").image.size == cnnviz.read_picture(CAT).image.size
    record = cnnviz.read_record(output["file"])
    assert record["command"] == "saliency"
    assert record["settings"]["options"] == {"steps": 20.0}  # type: ignore[index]


def test_classes_side_by_side_and_against_each_other(run: Run, mini: Network) -> None:
    result = run(
        "saliency", CAT, *MINI, "--method", "saliency,grad-cam", "--top", "3", "--size", "48", "-o", "three.png"
    )
    assert result.exit_code == 0, result.output
    three, one_column = cnnviz.read_picture("three.png").image, 2 * 150
    assert three.width > 3 * one_column
    assert three.height < three.width, "two methods, one beneath the other"
    one = explain(mini, CAT, ["tabby"], methods="input-x-gradient", versus="Egyptian cat", checks=())
    own, other = (
        explain(mini, CAT, [name], methods="input-x-gradient", checks=()) for name in ("tabby", "Egyptian cat")
    )
    difference = own.attributions[0].values - other.attributions[0].values
    torch.testing.assert_close(one.attributions[0].values, difference, rtol=1e-3, atol=1e-5)
    assert one.label(one.attributions[0]) == "tabby versus Egyptian cat"
    title = words_of(one)[0]
    probabilities = [item.attributions[0].probability for item in (own, other)]
    assert title == "Attribution: tabby (p = {:.1%}) versus Egyptian cat (p = {:.1%})".format(*probabilities)
    assert one.rows()[0]["versus_probability"] == pytest.approx(probabilities[1])


def test_two_methods_side_by_side_by_default_where_both_are_right(bright: Network, mini: Network) -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    explanation = explain(mini, image, checks=())
    assert [attribution.method for attribution in explanation.attributions] == ["grad-cam", "integrated-gradients"]
    height, width, _ = explanation.sheet().pixels.shape
    assert width > height
    linear = wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), name="linear", input_size=32)
    alone = explain(linear, image, checks=())
    assert [attribution.method for attribution in alone.attributions] == ["integrated-gradients"]
    assert alone.settings["methods"] == ["integrated-gradients"]


def test_a_map_no_better_than_random_orders_is_marked(bright: Network) -> None:
    """Half the image is white: what is bright matters. A map that says so is better, a constant slope is not."""
    image = torch.zeros(3, 32, 32)
    image[:, :, :16] = 1
    explanation = explain(bright, image, [1], methods=["input-x-gradient", "saliency"], baseline="black")
    better, chance = explanation.attributions
    assert better.evidence.better_than_random is True
    assert explanation.rows()[0]["better_than_random"] is True
    evidence, spread = chance.evidence, 0.01
    assert evidence.curves is not None
    areas = evidence.curves.deletion_auc, evidence.curves.insertion_auc
    for random, expected in (
        (areas, False),
        ((areas[0] + 0.02, areas[1]), True),
        ((areas[0] + 0.005, areas[1]), False),
        ((areas[0], areas[1] - 0.02), True),
        ((areas[0] - 0.02, areas[1] + 0.02), False),
    ):
        reference_areas = Reference(random, (spread, spread), None)
        marked = replace(evidence, reference=reference_areas)
        assert marked.better_than_random is expected
        assert marked.row()["better_than_random"] is expected
        drawn = replace(explanation, attributions=(replace(chance, evidence=marked),))
        assert ("no better than chance" in words_of(drawn)) is not expected
    assert replace(evidence, reference=None).better_than_random is None
    assert "better_than_random" not in replace(evidence, reference=None).row()


@pytest.mark.parametrize(
    ("deletion", "insertion", "standings"),
    [
        ((0.12, 0.05, 0.011), (0.5, 0.3, 0.01), ("worse", "better")),
        ((0.02, 0.05, 0.011), (0.3, 0.5, 0.01), ("better", "worse")),
        ((0.11, 0.11004, 0.0), (0.11, 0.10996, 0.0), ("no better", "no better")),
        ((0.05, 0.055, 0.011), (0.5, 0.495, 0.01), ("no better", "no better")),
        ((0.06, 0.05, 0.002), (0.4, 0.5, 0.01), ("worse", "worse")),
    ],
)
def test_each_curve_is_compared_with_random_orders_by_itself(
    bright: Network,
    deletion: tuple[float, float, float],
    insertion: tuple[float, float, float],
    standings: tuple[str, str],
) -> None:
    """Area, mean and standard deviation of random orders. What is not seen in the digits printed is no difference."""
    explanation = explain(bright, torch.rand(3, 32, 32), [1], methods="saliency")
    shares = torch.tensor([0.0, 1.0])
    curves = Curves(shares, torch.full((2,), deletion[0]), torch.full((2,), insertion[0]))
    areas = Reference((deletion[1], insertion[1]), (deletion[2], insertion[2]), None)
    evidence = Evidence(curves=curves, reference=areas)
    assert evidence.standings == standings
    drawn = replace(explanation, attributions=(replace(explanation.attributions[0], evidence=evidence),))
    (row,) = drawn.rows()
    assert (row["deletion_better"], row["insertion_better"]) == tuple(each == "better" for each in standings)
    assert row["better_than_random"] is ("better" in standings)
    said = words_of(drawn)
    for name, (area, random, spread), standing in zip(
        ("deletion", "insertion"), (deletion, insertion), standings, strict=True
    ):
        line = f"{name} AUC {area:.1%} (random {100 * random:.1f} ± {spread:.1%}): {standing}"
        assert line in " ".join(said)
    assert ("no better than chance" in said) is ("better" not in standings)


def test_a_large_completeness_gap_is_marked(bright: Network) -> None:
    explanation = explain(bright, torch.rand(3, 32, 32), [1], methods="integrated-gradients", checks=())
    (exact,) = explanation.attributions
    assert explanation.rows()[0]["completeness_gap_large"] is False
    assert not any(": large" in text for text in words_of(explanation))
    large = replace(explanation, attributions=(replace(exact, evidence=Evidence(gap=0.249)),))
    assert large.rows()[0]["completeness_gap_large"] is True
    assert "completeness gap 24.9%: large; use --precise" in " ".join(words_of(large))
    precise = replace(large, settings={"precise": True})
    assert "completeness gap 24.9%: large" in words_of(precise)
    stepped = replace(large, settings={"options": {"steps": 9}})
    assert "completeness gap 24.9%: large; take more steps" in " ".join(words_of(stepped))


def test_a_check_that_does_not_apply_says_so(bright: Network) -> None:
    image = torch.rand(3, 32, 32)
    explanation = explain(bright, image, [1], methods=["grad-cam", "saliency"], checks="infidelity")
    cam, gradient = explanation.rows()
    assert (cam["infidelity"], isinstance(gradient["infidelity"], float)) == (None, True)
    assert "infidelity: not defined for a layer's maps" in " ".join(words_of(explanation))
    assert "infidelity" not in explain(bright, image, [1], methods="grad-cam", checks=()).rows()[0]


def test_colours_of_two_classes_that_are_compared_are_in_favour_of_either(bright: Network) -> None:
    image = torch.rand(3, 32, 32)
    words = " ".join(words_of(explain(bright, image, ["bright"], methods="input-x-gradient", versus="dark")))
    assert "in favour of dark" in words
    assert "in favour of bright" in words
    assert "the class score" not in words
    assert "mean probability of bright over up to 64 steps" in words
    alone = " ".join(words_of(explain(bright, image, ["bright"], methods="input-x-gradient")))
    assert "increases the class score" in alone


def test_a_layer_that_no_method_takes_is_refused(mini: Network, run: Run) -> None:
    image = torch.rand(3, 32, 32)
    said = r"a layer is given, but integrated gradients takes none; grad-cam, grad-cam\+\+, .* do\.$"
    with pytest.raises(LayerError, match=said):
        attribute(mini, image[None], 0, method="integrated-gradients", layer="block5_conv3")
    with pytest.raises(LayerError, match=said):
        explain(mini, image, 0, methods="integrated-gradients", layer="block5_conv3")
    both = explain(mini, image, 0, methods=["grad-cam", "saliency"], layer="block4_conv3", checks=())
    assert [attribution.layer for attribution in both.attributions] == ["block4_conv3", None]
    result = run("saliency", CAT, *MINI, "--method", "saliency", "--layer", "block5_conv3")
    assert result.exit_code == 1
    assert "but gradient (saliency) takes none" in result.stderr


def test_a_tensor_as_baseline_is_its_own_image(bright: Network, run: Run) -> None:
    image, empty = torch.rand(3, 32, 32), torch.zeros(3, 32, 32)
    own, named = (explain(bright, image, [1], methods="occlusion", baseline=each) for each in (empty, "black"))
    torch.testing.assert_close(own.attributions[0].values, named.attributions[0].values)
    assert own.rows()[0]["deletion_auc"] == named.rows()[0]["deletion_auc"]
    recorded = own.settings["baseline"]
    assert recorded == explain(bright, image, [1], methods="saliency", baseline=empty, checks=()).settings["baseline"]
    assert re.fullmatch("tensor sha256:[0-9a-f]{64}", str(recorded))
    with pytest.raises(ShapeError, match=r"lie in \[0, 1\]"):
        explain(bright, image, [1], baseline=empty - 1)
    with pytest.raises(ShapeError, match="does not fit"):
        explain(bright, image, [1], baseline=torch.zeros(3, 8, 8))
    cnnviz.explain(cnnviz.load("vgg16-mini"), CAT, methods="saliency", baseline=torch.zeros(3, 1, 1)).save("a.png")
    assert "of which its record holds the sha256 only" in run("rerun", "a.png", "--image", CAT).stderr


def test_values_of_a_wrong_kind_are_told_in_a_sentence(bright: Network) -> None:
    image = torch.rand(3, 32, 32)
    with pytest.raises(
        UnknownNameError, match="a baseline is mean, black, white, blur, an image's path or a tensor, n"
    ):
        explain(bright, image, baseline=0)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="steps must be a whole number of at least 1, not 'a'"):
        attribute(bright, image[None], 0, steps="a")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="the batch must be 1 to 1024 images, not 0"):
        attribute(bright, image[None], 0, batch=0)
    for targets in (None, [None]):
        with pytest.raises(UnknownNameError, match="class"):
            attribute(bright, image[None], targets)  # type: ignore[arg-type]
    assert explain(bright, image, checks="curves").settings["checks"] == ["curves"]


def test_captums_names_of_options_on_the_command_line(run: Run) -> None:
    words = (*MINI, "--method", "integrated-gradients", "--size", "32", "-o", "a.png", "--force")
    assert run("saliency", CAT, *words, "--set", "n_steps=5").exit_code == 0
    assert cnnviz.read_record("a.png")["settings"]["options"] == {"steps": 5.0}  # type: ignore[index]
    twice = run("saliency", CAT, *words, "--set", "n_steps=5", "--set", "steps=6")
    assert "n_steps and steps are the same option" in twice.stderr


def test_methods_that_coincide_say_so(mini: Network) -> None:
    """LRP by the epsilon rule is input x gradient in a network of ReLUs (Ancona et al. 2018)."""
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    explanation = explain(mini, image, methods=["lrp", "input-x-gradient", "saliency"], checks=())
    said = [text for text in words_of(explanation) if "coincide" in text]
    assert said == ["layer-wise relevance propagation and input x gradient coincide on this network"]


def test_overlays_are_on_the_colours_of_the_image_and_unimportant_pixels_stay(bright: Network) -> None:
    colours = torch.tensor([0.1, 0.4, 0.8]).view(3, 1, 1).expand(3, 32, 32).clone()
    colours[:, :8, :8] = 1
    shown = explain(bright, colours, [1], methods="saliency", checks=()).shown
    values = np.zeros((32, 32), np.float32)
    values[:8, :8] = 1
    for signed in (False, True):
        drawn = overlaid(shown, values, 1, signed=signed)
        assert (drawn[8:] == (26, 102, 204)).all(), "zero is transparent"
        assert (drawn[:8, :8] != 255).any()
        faint = overlaid(shown, 0.02 * values, 1, signed=signed)
        assert np.abs(faint[:8, :8].astype(int) - 255).max() < 12, "weak values vanish"
        assert (overlaid(shown, values, 1, signed=signed, alpha=0)[:8, :8] == 255).all()
    assert tuple(overlaid(shown, values, 1, signed=False, alpha=1, cmap="gray_r")[0, 0]) == (0, 0, 0)


def test_alpha_and_colour_map_are_drawn_and_recorded(bright: Network) -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    explanation = explain(bright, image, [1], methods="saliency", checks=())
    usual, other = explanation.sheet(), explanation.sheet(alpha=0.3, cmap="gray", title="Mine", tile=200)
    assert not {"alpha", "cmap", "layout"} & set(usual.made["settings"])
    settings = other.made["settings"]
    assert (settings["alpha"], settings["cmap"]) == (0.3, "gray")
    assert settings["layout"] == {"title": "Mine", "tile": 200}
    assert other.pixels.shape[1] == 3 * 200 + 2 * 8 + 2 * 16
    assert explanation.overlay(alpha=0).pixels.tolist() == explanation.shown.pictures[0].tolist()
    with pytest.raises(ShapeError, match="alpha must be in"):
        explanation.sheet(alpha=2)


def test_coarse_maps_are_drawn_bicubic_within_their_range() -> None:
    """A layer's map keeps its maxima where they are, without the creases of linear interpolation or ringing."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    shown = show(wrap(Bright(), name="bright", input_size=64), pixels, fit="whole")
    coarse = torch.zeros(4, 4)
    coarse[1, 2] = 1
    drawn = placed(coarse, shown, (64, 64), mode="bicubic")
    assert drawn.min() == 0
    assert drawn.max() <= 1
    assert np.unravel_index(drawn.argmax(), drawn.shape) in [(23, 39), (23, 40), (24, 39), (24, 40)]
    linear = placed(coarse, shown, (64, 64))
    assert np.abs(np.diff(drawn[24], 2)).max() < np.abs(np.diff(linear[24], 2)).max()


def test_small_images_and_their_maps_are_enlarged_as_squares() -> None:
    pixels = np.zeros((28, 28, 3), np.uint8)
    pixels[10:18, 10:18] = 255
    network = wrap(Bright(), name="bright", input_size=28)
    explanation = explain(network, pixels, [1], methods="input-x-gradient", checks=(), fit="whole")
    drawn = explanation.sheet(tile=280, captions=False).pixels[16:-16, 16:]
    for left in (0, 288, 576):
        tile = drawn[:, left : left + 280]
        assert np.array_equal(tile, tile[::10, ::10].repeat(10, 0).repeat(10, 1))


def test_a_flat_map_is_drawn_and_said_to_be_flat() -> None:
    module = Bright()
    nn.init.zeros_(module.conv.weight)
    explanation = explain(wrap(module, name="blind", input_size=32), CAT, methods=["saliency", "integrated-gradients"])
    assert all(attribution.flat for attribution in explanation.attributions)
    assert explanation.sheet().pixels.std() > 0
    assert all(math.isfinite(value) for row in explanation.rows() for value in row.values() if isinstance(value, float))


def test_all_methods_make_a_sheet_and_leave_out_what_cannot_be(run: Run, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.a = nn.Conv2d(3, 4, 3, padding=1); self.l = nn.Linear(4, 2)\n"
        "    def forward(self, x):\n"
        "        return self.l(self.a(x).relu().mean((2, 3)))\n"
    )
    own = ("--model", "block.py:Net", "--input-size", "16")
    result = run("saliency", CAT, *own, "--method", "all", "-o", "all.png")
    assert result.exit_code == 0, result.output
    assert "left out, since captum would be wrong about this network: guided backpropagation" in result.stdout
    assert cnnviz.read_picture("all.png").image.height > 900
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
    result = run("saliency", CAT, *own, "--labels", "names.txt")
    assert result.exit_code == 1
    assert "3 class names for 2 classes" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--class", "tabbby"), "did you mean 'tabby'"),
        (("--class", "cat"), "may be"),
        (("--method", "gradcm"), "did you mean 'grad-cam'"),
        (("--method", "saliency", "--set", "steps=5"), "none of saliency has an option 'steps'"),
        (("--class", "tabby", "--versus", "tabby"), "cannot be held against itself"),
        (("--layer", "nowhere", "--method", "grad-cam"), "has no layer named 'nowhere'"),
        (("--baseline", "grey"), "no baseline named 'grey'"),
    ],
)
def test_one_clear_line(run: Run, arguments: tuple[str, ...], text: str) -> None:
    result = run("saliency", CAT, *MINI, *arguments)
    assert result.exit_code == 1
    assert text in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(Path().iterdir())


def test_usage(run: Run) -> None:
    assert run("saliency", CAT, *MINI, "--set", "steps").exit_code == 2
    assert run("saliency", CAT, *MINI, "--seed", 10**30).exit_code == 2
    assert run("saliency", CAT, *MINI, "-o", "a.png", "--overlay", "a.png").exit_code == 2
    assert run("saliency", CAT, *MINI, "--top", "2", "--class", "tabby").exit_code == 2
    assert run("saliency", CAT, *MINI, "--save-arrays", "a.txt").exit_code == 2
    assert "integrated-gradients  Sundararajan et al. 2017" in run("saliency", "--help").stdout


def test_the_public_names() -> None:
    assert cnnviz.explain is explain
    assert cnnviz.attribute is attribute
