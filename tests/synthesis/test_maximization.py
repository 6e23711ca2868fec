"""The climb, on linear networks whose best image is known, and what surrounds it on real ones."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image as Pillow
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.errors import LayerError, ModelError, PictureError, ShapeError, UnknownNameError
from cnnviz.networks.network import Network
from cnnviz.synthesis import jobs
from cnnviz.synthesis.ascent import Augmentation, ascend
from cnnviz.synthesis.judgement import Judge, as_shown, natural_images, references_for
from cnnviz.synthesis.maximization import collect, filter_job
from cnnviz.synthesis.objectives import channel, logit, mean_activation, neuron
from cnnviz.synthesis.optimisers import Adam
from cnnviz.synthesis.parametrisations import Fourier, Phases, PixelImage, colour_matrix, noise, spectrum_of
from cnnviz.synthesis.recipes import RECIPES, erhan, fourier, maco, pixel
from cnnviz.synthesis.settings import canvas
from cnnviz.synthesis.views import LOGITS, Viewer
from tests.support.networks import LeNet, SmallVGG

SIDE = 24


@pytest.fixture
def weights() -> Tensor:
    """White, seeded otherwise than the noise that images are judged by: (1, 3, SIDE, SIDE)."""
    return torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(100))


@pytest.fixture
def linear(weights: Tensor) -> Network:
    """A network with a single filter, as large as the image: its score is the inner product with its weights."""
    module = nn.Conv2d(3, 1, SIDE)
    module.weight.data, module.bias.data = weights.clone(), torch.tensor([0.3])
    return cnnviz.wrap(nn.Sequential(module), name="linear", input_size=SIDE)


def test_the_textbooks_four_steps_find_the_weights(linear: Network, weights: Tensor) -> None:
    synthesis = cnnviz.filter_images(linear, "0", [0], recipe="erhan", precision="float32")
    cosine = functional.cosine_similarity((synthesis.images - 0.5).flatten(), weights.flatten(), dim=0)
    assert cosine >= 0.99
    assert len(synthesis.curves[0]) < 256  # it settled
    assert synthesis.curves[0][-1] > synthesis.curves[0][0]


def test_pixels_without_penalty_reach_the_corner_of_the_box(linear: Network, weights: Tensor) -> None:
    recipe = replace(pixel(), penalty=None, transforms=lambda _: ())
    synthesis = cnnviz.filter_images(linear, "0", [0], recipe=recipe, precision="float32")
    optimum, grey = weights.clamp(min=0).sum() + 0.3, weights.sum() / 2 + 0.3
    assert synthesis.scores.item() - grey >= 0.99 * (optimum - grey)
    assert synthesis.scores.item() <= optimum + 1e-3
    assert synthesis.status == ("ok",)


def test_a_spectrum_climbs_its_closed_form_gradient(linear: Network, weights: Tensor) -> None:
    size = (SIDE, SIDE)
    image = Fourier(noise([3], (3, SIDE, SIDE // 2 + 1, 2)), size)
    objective = channel("0", 0)
    objective.score(Viewer(linear, ["0"], image())(image())).sum().backward()
    values = image().detach()
    back = torch.einsum("dc,ndhw->nchw", colour_matrix(3), weights * values * (1 - values))
    spectrum = torch.fft.rfft2(back, norm="ortho") * image.scale
    twice = torch.full((SIDE // 2 + 1,), 2.0)  # all columns but the first and last stand for two of the full spectrum
    twice[[0, -1]] = 1.0
    torch.testing.assert_close(image.parts.grad, torch.view_as_real(spectrum * twice), rtol=1e-3, atol=1e-5)


def test_a_spectrum_reaches_most_of_the_box(linear: Network, weights: Tensor) -> None:
    recipe = replace(fourier(), transforms=lambda _: ())
    synthesis = cnnviz.filter_images(linear, "0", [0], recipe=recipe, steps=512, precision="float32")
    optimum, grey = weights.clamp(min=0).sum() + 0.3, weights.sum() / 2 + 0.3
    assert synthesis.scores.item() - grey >= 0.85 * (optimum - grey)


def test_magnitudes_stay_and_phases_become_those_of_the_weights(linear: Network, weights: Tensor) -> None:
    """With little contrast the sigmoid is a line, and the best phases are those of the weights' own spectrum."""
    size, magnitudes = (SIDE, SIDE), torch.full((3, SIDE, SIDE // 2 + 1), 0.02)
    recipe = replace(maco(magnitudes), transforms=lambda _: ())
    image = recipe.image([0], 3, size, None)
    assert isinstance(image, Phases)
    settling = {"rate": recipe.rate, "falling": True, "optimiser": recipe.optimiser}
    for _ in ascend(linear, channel("0", 0), image, steps=300, **settling):
        pass
    best = torch.fft.rfft2(torch.einsum("dc,ndhw->nchw", colour_matrix(3), weights), norm="ortho")
    inner = (slice(None), slice(None), slice(None), slice(1, -1))  # the outer columns stand for two phases each
    assert torch.cos(image.phases.detach() - best.angle())[inner].mean() > 0.99
    held = spectrum_of(image().detach(), colour_matrix(3)).abs()[inner]
    torch.testing.assert_close(held, magnitudes.expand_as(best.abs())[inner], rtol=1e-3, atol=1e-4)


def test_ascend_yields_each_step_and_can_be_left(mini: Network) -> None:
    image = PixelImage(torch.rand(2, 3, 32, 32))
    scores = []
    for step in ascend(mini, channel("block2_conv1:pre", [1, 2]), image, steps=50, rate=0.02):
        scores.append(step.scores)
        if step.number == 6:
            break
    assert len(scores) == 7
    assert (scores[-1] > scores[0]).all()
    plain = cnnviz.activations(mini, image().detach(), ["block2_conv1:pre"])["block2_conv1:pre"]
    assert (plain[[0, 1], [1, 2]].mean((1, 2)) > scores[0]).all()
    with pytest.raises(ShapeError, match="for 3 images; these are 2"):
        next(ascend(mini, channel("block2_conv1", [0, 1, 2]), image))


def small(**more: object) -> dict[str, object]:
    return {"recipe": "soft", "steps": 6, "size": 48, "tries": 1, "batch": 3} | more


def test_an_image_does_not_depend_on_its_neighbours(mini: Network) -> None:
    among = cnnviz.filter_images(mini, "block3_conv1", range(40, 47), **small())
    alone = cnnviz.filter_images(mini, "block3_conv1", [41], **small())
    again = cnnviz.filter_images(mini, "block3_conv1", [41, 3], **small())
    assert torch.equal(alone.images[0], among.images[1])
    assert torch.equal(alone.images[0], again.images[0])
    assert torch.equal(alone.curves[0], among.curves[1])
    other = cnnviz.filter_images(mini, "block3_conv1", [41], seed=1, **small())
    assert not torch.equal(alone.images, other.images)
    by_torchs_name = cnnviz.filter_images(mini, mini.qualified("block3_conv1"), [41], **small())
    assert torch.equal(alone.images, by_torchs_name.images)


WHOLE, INSIDE = slice(None), slice(2, 22)  # block3_conv1's padding reaches too much of its 12 x 12 positions


@pytest.mark.parametrize(
    ("layer", "region"), [("block3_conv1", WHOLE), ("block2_conv1", INSIDE), ("block2_conv1:pre", WHOLE)]
)
def test_scores_are_those_of_the_picture_as_shown(mini: Network, tmp_path: Path, layer: str, region: slice) -> None:
    synthesis = cnnviz.filter_images(mini, layer, [3, 5], **small())
    pixels = (synthesis.images * 255).round().to(torch.uint8)
    torch.testing.assert_close(synthesis.images * 255, pixels.float())
    file = tmp_path / "one.png"
    Pillow.fromarray(pixels[0].permute(1, 2, 0).numpy()).save(file)
    maps = cnnviz.feature_maps(mini, file, layer, size=48).maps[0, 3, region, region]
    assert maps.mean().item() == pytest.approx(synthesis.scores[0].item(), rel=1e-4)
    fired = maps.relu()
    assert [fired.mean().item(), fired.max().item()] == pytest.approx(synthesis.fired[0].tolist(), rel=1e-4)
    assert (synthesis.scores > synthesis.starts).all()


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_climbs(mini: Network, recipe: str) -> None:
    layer, steps = ("block3_conv3", 8) if recipe == "maco" else ("block2_conv2", 40)  # of crops, deep layers alone tell
    synthesis = cnnviz.filter_images(mini, layer, [1, 2], recipe=recipe, steps=steps, size=32, tries=1, batch=2)
    assert (synthesis.scores > synthesis.starts).all()
    assert synthesis.images.amin() >= 0
    assert synthesis.images.amax() <= 1


def test_an_image_is_judged_by_the_references_that_score_less(linear: Network, weights: Tensor) -> None:
    references = references_for(3, (SIDE, SIDE))
    expected = (references.images * weights).sum((1, 2, 3)) + 0.3
    count, order = len(expected), expected.argsort()
    judge = Judge(linear, mean_activation("0", 0), references, 3)
    places = order[[count // 2, -2, -1]]
    judgements = judge(references.images[places], torch.arange(3))
    below = [(expected < expected[place]).double().mean().item() * 100 for place in places]
    assert [judgement.percentile for judgement in judgements] == pytest.approx(below)
    assert [judgement.score for judgement in judgements] == pytest.approx(expected[places].tolist(), rel=1e-4)
    assert [judgement.status for judgement in judgements] == ["weak", "weak", "ok"]  # the best is as good as itself
    assert {judgement.best for judgement in judgements} == {references.names[order[-1]]}
    assert [judgement.best_score for judgement in judgements] == pytest.approx([expected.max().item()] * 3, rel=1e-4)


@pytest.mark.parametrize("layer", ["block1_conv1", "block4_conv3"])
def test_judging_in_bfloat16_first_gives_what_float32_gives(mini: Network, layer: str) -> None:
    references = references_for(3, (64, 64))
    objective = mean_activation(layer, [0, 5, 9])
    quick, whole = (Judge(mini, objective, references, 3, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    images = as_shown(references.images[[20, 180, 190]].flip(2) * 0.9)
    for judged, expected in zip(quick(images, torch.arange(3)), whole(images, torch.arange(3)), strict=True):
        assert (judged.best, judged.status, judged.percentile) == (expected.best, expected.status, expected.percentile)
        assert (judged.score, judged.best_score) == pytest.approx((expected.score, expected.best_score), rel=1e-5)
    assert torch.equal(*(judge.best_patterns(torch.arange(3)) for judge in (quick, whole)))
    assert 0 < quick._exact.sum() < len(references.images)


def test_a_folders_images_are_references_besides(linear: Network, weights: Tensor, tmp_path: Path) -> None:
    for number in range(3):
        Pillow.new("RGB", (40, 30), (80 * number, 10, 200)).save(tmp_path / f"{number}.png")
    (tmp_path / "text.jpg").write_text("no image")
    images = natural_images(tmp_path, 3, (SIDE, SIDE))
    assert list(images) == ["0.png", "1.png", "2.png"]
    assert torch.equal(images["2.png"], torch.tensor([160, 10, 200]).div(255)[:, None, None].expand(3, SIDE, SIDE))
    usual, more = (references_for(3, (SIDE, SIDE), own) for own in (None, tmp_path))
    assert more.names == (*usual.names, *images)
    assert more.text == f"{usual.text}, 3 images in {tmp_path.name}"
    best = (weights > 0)[0].to(torch.uint8) * 255  # of all images: the ascent does not get there in a few steps
    Pillow.fromarray(best.permute(1, 2, 0).numpy()).save(tmp_path / "best.png")
    quick = {"recipe": replace(pixel(), penalty=None, transforms=lambda _: ()), "steps": 10, "tries": 1}
    by_itself = cnnviz.filter_images(linear, "0", [0], **quick)
    beaten = cnnviz.filter_images(linear, "0", [0], references=tmp_path, **quick)
    assert (by_itself.references, by_itself.status, by_itself.percentiles.item()) == (usual.text, ("ok",), 100)
    assert (beaten.status, beaten.synthesized[0].judgement.best) == (("weak",), "best.png")
    count = len(usual.names) + 4
    assert beaten.percentiles.item() == pytest.approx(100 * (count - 1) / count)
    with pytest.raises(PictureError, match="there is no image in"):
        natural_images(tmp_path / "none", 3, (8, 8))


def test_maco_may_hold_the_spectrum_of_a_folder(mini: Network, tmp_path: Path) -> None:
    for number in range(2):
        values = torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(number))
        Pillow.fromarray((255 * values).to(torch.uint8).numpy()).save(tmp_path / f"{number}.png")
    synthesis = cnnviz.filter_images(
        mini, "block2_conv1", [0], recipe="maco", spectrum=tmp_path, steps=5, size=32, tries=1
    )
    wanted = torch.stack([*natural_images(tmp_path, 3, (32, 32)).values()])
    spectra = [spectrum_of(images, colour_matrix(3)).abs().mean((0, 1)) for images in (synthesis.images, wanted)]
    inner = (slice(1, 15), slice(1, 15))
    assert (spectra[0][inner].log() - spectra[1][inner].log()).abs().mean() < 0.3
    with pytest.raises(UnknownNameError, match="goes with the recipe 'maco' only"):
        cnnviz.filter_images(mini, "block2_conv1", [0], spectrum=tmp_path)


def test_a_dead_filter_is_tried_by_rule_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    module[0].weight.data[1], module[0].bias.data[:] = 0, torch.tensor([0.0, -1.0])
    module[0].weight.data[0].abs_()
    network = cnnviz.wrap(module, name="net", input_size=16)
    calls = []
    climb = jobs.ascend
    monkeypatch.setattr(jobs, "ascend", lambda *given, **more: calls.append(more) or climb(*given, **more))
    synthesis = cnnviz.filter_images(network, "0", [0, 1], steps=30, batch=2)
    assert synthesis.status == ("ok", "dead")
    assert synthesis.tries == (1, 4)
    assert [more["redirected_steps"] for more in calls] == [0, 0, 16, 16]
    assert [more["rate"] / calls[0]["rate"] for more in calls] == [1, 1, 1, 2]
    assert synthesis.images.shape == (2, 3, 16, 16)


def test_what_is_shut_at_the_start_begins_from_a_pattern_that_opens_it() -> None:
    """The first ReLU passes nothing for any noise, so there is no gradient; white passes."""
    module = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.ReLU())
    for part, weight, bias in ((module[0], 1.0, -2.2), (module[2], 1.0, -0.05)):
        part.weight.data.fill_(weight)
        part.bias.data.fill_(bias)
    network = cnnviz.wrap(module, name="shut", input_size=16)
    recipe = replace(pixel(), penalty=None)
    once = cnnviz.filter_images(network, "2", [0], recipe=recipe, tries=1)
    assert once.status == ("dead",)
    assert once.scores.item() == pytest.approx(once.starts.item())
    synthesis = cnnviz.filter_images(network, "2", [0], recipe=recipe)
    assert synthesis.status == ("ok",)
    assert synthesis.tries == (2,)


def test_memory_that_runs_out_halves_the_batch(mini: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    climb = jobs.ascend

    def greedy(network: Network, objective: object, image: nn.Module, **more: object) -> Iterator[object]:
        if len(image()) > 2:
            torch.empty(10**14)  # more than there is
        return climb(network, objective, image, **more)

    monkeypatch.setattr(jobs, "ascend", greedy)
    synthesis = cnnviz.filter_images(mini, "block2_conv2", range(5), **small(batch=8))
    assert len(synthesis.images) == 5
    assert synthesis.settings["batch"] == 2
    monkeypatch.setattr(jobs, "ascend", lambda *given, **more: torch.empty(10**14))
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        cnnviz.filter_images(mini, "block2_conv2", [0], **small(batch=8))


def test_a_job_that_is_left_keeps_what_is_finished(mini: Network) -> None:
    job = filter_job(mini, "block2_conv2", range(5), **small(batch=2))
    for progress in job.run():
        assert progress.total == 5 * 6
        if progress.finished == 2:
            break
    synthesis = collect(job, progress)
    assert synthesis.labels == ("0", "1")
    whole = cnnviz.filter_images(mini, "block2_conv2", range(5), **small(batch=2))
    assert torch.equal(synthesis.images, whole.images[:2])
    with pytest.raises(LayerError, match="finished"):
        collect(job, next(job.run()))


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "inception_v3":
        return torchvision.models.inception_v3(weights=None, init_weights=False)
    return torchvision.models.get_model(name, weights=None)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet18", "layer2.0.conv1"), ("inception_v3", "Mixed_5b"), ("mobilenet_v3_small", "features.3")],
)
def test_any_network_of_torchvisions_can_be_climbed_and_stays_as_it_is(name: str, layer: str) -> None:
    module = build(name).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    network = cnnviz.wrap(module, name=name, input_size=96)
    synthesis = cnnviz.filter_images(network, layer, [0, 3], steps=12, size=(80, 96), tries=1, precision="float32")
    assert synthesis.images.shape == (2, 3, 80, 96)
    assert (synthesis.scores > synthesis.starts).all()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(part.training and not part._forward_hooks for part in module.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_a_users_network_over_grey_digits(lenet: LeNet) -> None:
    network = cnnviz.wrap(lenet, name="lenet", input_size=28, mean=0.13, std=0.31)
    synthesis = cnnviz.filter_images(network, "conv2", steps=20, tries=1)
    assert synthesis.images.shape == (16, 1, 28, 28)
    assert synthesis.sheet().pixels.shape[2] == 3
    classes = cnnviz.class_images(network, [7], steps=20, tries=1)
    assert (classes.scores > classes.starts).all()


def test_class_images_raise_the_class(mini: Network) -> None:
    synthesis = cnnviz.class_images(mini, [7, 150], steps=64, tries=1)
    probabilities = mini(synthesis.images).softmax(1)
    torch.testing.assert_close(synthesis.fired[:, 0], probabilities[[0, 1], [7, 150]])
    assert probabilities.argmax(1).tolist() == [7, 150]
    assert synthesis.labels == (mini.label(7), mini.label(150))


def test_an_image_can_start_from_a_picture(mini: Network) -> None:
    start = 0.2 + 0.6 * torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    for recipe in ("fourier", "pixel"):
        synthesis = cnnviz.maximize(mini, neuron("block3_conv1:pre", 2), start=start, recipe=recipe, steps=1, tries=1)
        assert synthesis.images.shape == start.shape
        assert (synthesis.images - start).abs().mean() < 0.1


def test_seeds_starts_and_objective_are_for_as_many_images(mini: Network) -> None:
    objective = channel("block2_conv1", [0, 1])
    for more in ({"seeds": [0]}, {"seeds": [0, 1, 2]}, {"start": torch.rand(1, 3, 32, 32)}):
        with pytest.raises(ShapeError, match="they must agree"):
            cnnviz.maximize(mini, objective, **more)
    free = cnnviz.maximize(mini, channel("block2_conv1", 0), seeds=[4, 5, 6], steps=2, size=32, tries=1)
    assert free.images.shape == (3, 3, 32, 32)
    assert cnnviz.class_images(mini, "tabby", steps=1, size=32, tries=1).labels == ("tabby",)
    numpys = cnnviz.filter_images(mini, "block2_conv1", np.arange(2), steps=2, size=32, tries=1)
    assert numpys.sheet().made["settings"]["filters"] == [0, 1]


def test_a_retried_filter_is_the_same_alone_and_among_others() -> None:
    """The first try is spoiled by a dead start for both; what counts is that tries draw from the filter's own seeds."""
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU())
    for part, bias in ((module[0], -2.2), (module[2], -0.05)):
        part.weight.data.copy_(torch.eye(3)[:, :, None, None] if part is module[2] else torch.ones(3, 3, 1, 1))
        part.bias.data.fill_(bias)
    network, recipe = cnnviz.wrap(module, name="shut", input_size=16), replace(pixel(), penalty=None)
    among = cnnviz.filter_images(network, "2", [0, 1, 2], recipe=recipe, steps=40, batch=2)
    alone = cnnviz.filter_images(network, "2", [1], recipe=recipe, steps=40, batch=2)
    assert among.tries[1] == alone.tries[0] > 1
    assert torch.equal(among.images[1], alone.images[0])


@pytest.mark.parametrize(("name", "layer"), [("swin_t", "features.1.0.attn.proj"), ("vit_b_32", "conv_proj")])
def test_the_default_precision_works_where_modules_are_used_in_unusual_ways(name: str, layer: str) -> None:
    network = cnnviz.wrap(build(name), name=name, input_size=224)
    images = torch.rand(1, 3, 224, 224)
    logits = Viewer(network, [LOGITS], images, dtype=torch.bfloat16)(images).map(LOGITS)
    assert (logits - network(images)).abs().max() <= 0.05 * network(images).abs().max()
    if name == "vit_b_32":
        size, response = canvas(network, layer)
        assert (size, response.shape, response.activation) == ((224, 224), (1, 768, 7, 7), None)
    else:  # whose attention takes the layer's weights and never runs it
        with pytest.raises(LayerError, match="does not run"):
            canvas(network, layer)


def test_glances_enlarge_what_the_network_sees() -> None:
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(Augmentation().at(0, images), images)
    expected = functional.interpolate(images, (32, 32), mode="bilinear")
    torch.testing.assert_close(Augmentation(size=(32, 32)).at(0, images), expected, rtol=1e-4, atol=1e-5)


def test_the_canvas_follows_the_receptive_field(mini: Network, small_vgg: SmallVGG, lenet: LeNet) -> None:
    vgg = cnnviz.wrap(small_vgg, name="vgg", input_size=224)
    layers = ("block1_conv2", "block3_conv3", "block4_conv3", "block5_conv1", "block5_conv3")
    assert [canvas(vgg, layer)[0][0] for layer in layers] == [64, 64, 128, 176, 224]
    size, response = canvas(cnnviz.wrap(lenet, name="lenet", input_size=28), "conv1")
    assert (size, response.shape, response.activation) == ((28, 28), (1, 6, 28, 28), "relu")


def test_what_cannot_be_made_is_said_in_one_line(mini: Network) -> None:
    broken = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    broken[0].weight.data[0, 0, 0, 0] = math.nan
    nan = cnnviz.wrap(broken, name="broken", input_size=16)
    cases = [
        (mini, "block5_conv3", {"filters": [192]}, ShapeError, "no filter 192; its 192 filters are 0 to 191"),
        (mini, "block5_conv3", {"filters": []}, ShapeError, "asked for no filter"),
        (mini, "classifier.linear", {}, LayerError, "has no feature maps; for what classes look like"),
        (mini, "block5_conv3", {"size": 8, "filters": [0]}, ShapeError, "cannot take an image of 8 x 8 px"),
        (mini, "block5_conv3", {"size": 0}, ShapeError, "must be 1 to 4096 pixels, not 0"),
        (mini, "block1_conv1", {"steps": -1}, ShapeError, "steps must be 1 to 100000, not -1"),
        (
            mini,
            "block1_conv1",
            {"recipe": "furier"},
            UnknownNameError,
            "no recipe named 'furier'; did you mean 'fourier'",
        ),
        (mini, "block1_conv1", {"preset": "best"}, UnknownNameError, "There are draft, default, fine"),
        (nan, "0", {"steps": 3}, LayerError, "not finite; look for NaN"),
    ]
    for network, layer, settings, error, text in cases:
        with pytest.raises(error, match=text) as caught:
            cnnviz.filter_images(network, layer, **settings)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"cnnviz\.wrap"):
        cnnviz.filter_images(broken, "0")
    with pytest.raises(ShapeError, match="no class 200"):
        cnnviz.class_images(mini, [200], steps=1)


def test_the_optimiser_climbs_each_image_by_itself(mini: Network) -> None:
    """Adding scores over the batch, not averaging: an image's steps are the same with neighbours or without."""
    starts = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    together, alone = PixelImage(starts), PixelImage(starts[1:2])
    for _ in ascend(mini, logit([5, 6, 7]), together, steps=2, optimiser=Adam):
        pass
    for _ in ascend(mini, logit(6), alone, steps=2, optimiser=Adam):
        pass
    assert (together()[1] - alone()[0]).abs().median() < 1e-4


def test_erhan_holds_the_contrast(linear: Network) -> None:
    recipe = erhan()
    image = recipe.image([1], 3, (SIDE, SIDE), None)
    for _ in ascend(linear, channel("0", 0), image, steps=5, rate=recipe.rate, optimiser=recipe.optimiser):
        assert (image() - 0.5).square().mean().sqrt().item() == pytest.approx(0.15, abs=0.002)


class _NotInBfloat16(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        close = torch.full_like(maps, 1.003) - 1  # nothing is left of it in bfloat16
        return maps * (close / close)


def test_what_is_not_finite_in_bfloat16_is_made_in_float32() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), _NotInBfloat16(), nn.Conv2d(4, 4, 3), nn.ReLU())
    network = cnnviz.wrap(module, name="net", input_size=32)
    synthesis = cnnviz.filter_images(network, "2", [0, 1], steps=8, tries=1, precision="bfloat16")
    assert synthesis.settings["precision"] == "float32"
    same = cnnviz.filter_images(network, "2", [0, 1], steps=8, tries=1, precision="float32")
    assert torch.equal(synthesis.images, same.images)
