"""Evidence by hand, where the heat falls in the user's picture, the sheets and the command."""

import json
import math
from pathlib import Path

import captum.metrics
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import cnnviz
from cnnviz.attribution.attribute import attribute
from cnnviz.attribution.evidence import (
    completeness_gap,
    deletion_insertion,
    infidelity,
    max_sensitivity,
    randomized,
    rank_correlation,
    reference,
    sanity,
    unmoved,
)
from cnnviz.attribution.explain import explain
from cnnviz.attribution.explainer import Scores, Target, explainer
from cnnviz.attribution.heatmaps import placed
from cnnviz.isolation import seeded
from cnnviz.networks.network import Network, wrap
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


def test_deletion_and_insertion_by_hand(bright: Network) -> None:
    """Half the pixels are white: taken away first they take all brightness within the first half of the steps."""
    image = torch.zeros(1, 3, 4, 4)
    image[..., :2] = 1
    curves = deletion_insertion(explainer(bright), image, torch.zeros_like(image), Target(1), image[0, 0])
    share = torch.linspace(0, 1, 17).clamp(max=0.5)
    torch.testing.assert_close(curves.deletion, torch.sigmoid(10 * (0.5 - share)))
    torch.testing.assert_close(curves.insertion, torch.sigmoid(10 * share))
    expected = torch.trapezoid(torch.sigmoid(10 * share.double()), dx=1 / 16).item()
    assert curves.insertion_auc == pytest.approx(expected, rel=1e-5)
    backwards = deletion_insertion(explainer(bright), image, torch.zeros_like(image), Target(1), -image[0, 0])
    assert backwards.deletion_auc > curves.deletion_auc


def test_pixels_go_by_their_rank_in_equal_steps_and_become_the_baseline(bright: Network) -> None:
    """Six pixels, by hand; of two alike in heat the first goes first."""
    image = torch.tensor([[0.9, 0.8, 0.5], [0.3, 0.6, 0.4]]).expand(1, 3, 2, 3)
    baseline = torch.full_like(image, 0.2)
    heat = torch.tensor([[4.0, 4.0, 2.0], [-1.0, 3.0, -1.0]])
    order = [0, 1, 4, 2, 3, 5]
    pixels, deletion, insertion = image[0, 0].flatten(), [], []
    for step in range(17):
        taken = order[: round(step * 6 / 16)]
        without, alone = pixels.clone(), torch.full((6,), 0.2)
        without[taken], alone[taken] = 0.2, pixels[taken]
        deletion.append(torch.sigmoid(10 * without.mean()))
        insertion.append(torch.sigmoid(10 * alone.mean()))
    curves = deletion_insertion(explainer(bright), image, baseline, Target(1), heat)
    torch.testing.assert_close(curves.deletion, torch.stack(deletion))
    torch.testing.assert_close(curves.insertion, torch.stack(insertion))


def test_orders_that_know_nothing_by_hand(bright: Network) -> None:
    ready, target = explainer(bright), Target(1)
    rows, columns = torch.linspace(-1, 1, 6).square(), torch.linspace(-1, 1, 10).square()
    image = (1 - (rows[:, None] + columns) / 2).expand(1, 3, 6, 10)  # darker towards the edges
    empty = torch.zeros_like(image)
    draws = torch.Generator().manual_seed(4)
    blind = [deletion_insertion(ready, image, empty, target, torch.rand(6, 10, generator=draws)) for _ in range(3)]
    areas = reference(ready, image, empty, target, seed=4)
    assert areas.random == pytest.approx(
        (sum(one.deletion_auc for one in blind) / 3, sum(one.insertion_auc for one in blind) / 3)
    )
    centre = deletion_insertion(ready, image, empty, target, image[0, 0])
    assert areas.centre == pytest.approx((centre.deletion_auc, centre.insertion_auc))
    assert areas.random[0] > centre.deletion_auc, "what is bright is in the middle"
    assert reference(ready, image, empty, target) == reference(ready, image, empty, target, seed=0) != areas


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

    def explained(inputs: tuple[Tensor]) -> Tensor:
        return attribute(mini, (inputs[0] * mini.std + mini.mean).clamp(0, 1), target, method="smoothgrad", samples=4)

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


def test_rank_correlation_by_hand() -> None:
    ramp = torch.arange(10.0)
    assert rank_correlation(ramp, ramp**3) == pytest.approx(1)
    assert rank_correlation(ramp, -ramp) == pytest.approx(1), "sizes count, not signs"
    assert rank_correlation(ramp, 9 - ramp) == pytest.approx(-1)
    assert rank_correlation(ramp, torch.ones(10)) == 0
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


def test_random_weights_have_the_mean_and_the_deviation_of_the_old() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 200, 7), nn.Flatten(), nn.Linear(200, 30))
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=3, std=0.2)
    nn.init.constant_(module[0].bias, -0.5)
    network = wrap(module, name="net", input_size=7)
    (*_, (lowest, torn)), (*_, (_, again)), (*_, (_, other)) = (randomized(network, seed) for seed in (0, 0, 1))
    assert lowest == "0"
    assert [name for name, _ in randomized(network)] == ["3", "1", "0"]
    assert [name for name, _ in randomized(wrap(nn.Sequential(nn.Conv2d(3, 2, 1)), name="one", input_size=7))] == ["0"]
    assert [name for name, _ in randomized(network, stages=1)] == ["0"]
    for new, same, different, old in zip(*(one.parameters() for one in (torn, again, other, network)), strict=True):
        assert new.equal(same)
        assert not new.equal(different)
        if old.numel() > 1000:
            assert new.mean().item() == pytest.approx(3, abs=0.02)
            assert new.std().item() == pytest.approx(0.2, rel=0.05)
            assert abs(torch.corrcoef(torch.stack([new.flatten(), old.flatten()]))[0, 1]) < 0.1
    assert -3 < torn.module[0].bias.item() < 2, "a single number has no deviation; its size stands in for it"
    inner, outer = nn.Conv2d(3, 2, 1), nn.Sequential()
    inner.bias.data = torch.tensor([0.5, 0.7])
    outer.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    outer.append(inner)
    *_, (_, redrawn) = randomized(wrap(outer, name="own", input_size=7), 5)
    draws, parts = torch.Generator().manual_seed(5), ("0.weight", "0.bias", "weight")  # from the top, each once
    for part in parts:
        new, old = redrawn.module.get_parameter(part), outer.get_parameter(part).detach()
        expected = old.mean() + torch.randn(old.shape, generator=draws) * old.std(correction=0)
        torch.testing.assert_close(new.detach(), expected)
    (_, default), *_ = randomized(network)
    (_, first), *_ = randomized(network, 0)
    assert default.module[3].weight.equal(first.module[3].weight)


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


def test_evidence_and_what_is_written(run: Run) -> None:
    methods = ("--method", "grad-cam,integrated-gradients", "--set", "steps=20", "--size", "48")
    arguments = (*methods, "--sanity", "--infidelity")
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
    assert "infidelity" not in cam, "it is about pixels"
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
    assert one.label(one.attributions[0]) == "tabby rather than Egyptian cat"


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
    assert cnnviz.read_picture("all.png").image.height > 1000
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
    result = run("saliency", CAT, *own, "--labels", "names.txt")
    assert result.exit_code == 1
    assert "3 class names for 2 classes" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--class", "tabbby"), "did you mean 'tabby'"),
        (("--class", "cat"), "may be"),
        (("--method", "gradcam"), "did you mean 'grad-cam'"),
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
