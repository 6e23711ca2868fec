"""Objectives against the numbers they stand for, and the shortcuts of `Viewer` against the plain computation."""

import inspect
import pydoc
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz import objectives
from cnnviz.errors import LayerError, ShapeError, UnknownNameError
from cnnviz.networks.network import Network
from cnnviz.synthesis import objectives as of_synthesis
from cnnviz.synthesis.objectives import (
    Objective,
    blur,
    channel,
    direction,
    l2,
    layer,
    logit,
    match,
    neuron,
    total_variation,
)
from cnnviz.synthesis.views import LOGITS, Viewer
from tests.support.networks import LeNet, SmallVGG


@pytest.fixture
def network(small_vgg: SmallVGG) -> Network:
    return cnnviz.wrap(small_vgg, name="small", input_size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 40, 32, generator=torch.Generator().manual_seed(5))


def scored(network: Network, objective: Objective, images: Tensor) -> Tensor:
    return objective.score(Viewer(network, objective.layers, images)(images))


def test_objectives_are_what_they_say(network: Network, images: Tensor) -> None:
    maps = cnnviz.activations(network, images, ["block3_conv2:pre", "block2_conv1"])
    deep, early, logits = maps["block3_conv2:pre"], maps["block2_conv1"], network(images)
    rows = torch.arange(3)
    expected = {
        channel("block3_conv2:pre", [1, 7, 0]): deep[rows, [1, 7, 0]].mean((1, 2)),
        channel("block3_conv2:pre", 4): deep[:, 4].mean((1, 2)),
        channel("block2_conv1", [5, 5, 2]): early[rows, [5, 5, 2]].mean((1, 2)),
        neuron("block3_conv2:pre", 2): deep[:, 2, 5, 4],
        neuron("block3_conv2:pre", [2, 1, 0], (0, -1)): deep[rows, [2, 1, 0], 0, -1],
        logit([0, 4, 2]): logits[rows, [0, 4, 2]],
        logit(1, versus=3): logits[:, 1] - logits[:, 3],
        logit(1, versus="runner-up"): logits[:, 1] - logits[:, [0, 2, 3, 4]].amax(1),
        layer("block2_conv1"): early.square().mean((1, 2, 3)),
        direction("block2_conv1", torch.arange(6.0)): (early.mean((2, 3)) * torch.arange(6.0)).sum(1),
        match("block2_conv1", early[:1]): 1
        - (early - early[:1]).square().sum((1, 2, 3)) / early[:1].square().sum((1, 2, 3)),
        match("block2_conv1", early): torch.ones(3),
        l2(): (images - 0.5).square().mean((1, 2, 3)),
        total_variation(): images.diff(dim=2).abs().mean((1, 2, 3)) + images.diff(dim=3).abs().mean((1, 2, 3)),
    }
    for objective, numbers in expected.items():
        torch.testing.assert_close(scored(network, objective, images), numbers, rtol=1e-5, atol=1e-6)


def test_objectives_with_something_for_each_image(network: Network, images: Tensor) -> None:
    maps = cnnviz.activations(network, images, ["block2_conv1", "classifier"])
    early, logits, rows = maps["block2_conv1"], network(images), torch.arange(3)
    vectors, wanted = torch.randn(3, 6), torch.rand(3, *early.shape[1:])
    best = logits.argmax(1)
    second = logits.sort(1).values[:, -2]
    smooth = functional.conv2d(
        functional.pad(images, (1, 1, 1, 1), mode="replicate"), torch.full((3, 1, 3, 3), 1 / 9), groups=3
    )
    expected = {
        logit([0, 4, 2], versus=[1, 1, 3]): logits[rows, [0, 4, 2]] - logits[rows, [1, 1, 3]],
        logit(1, versus=[2, 0, 3]): logits[:, 1] - logits[rows, [2, 0, 3]],
        logit(best.tolist(), versus="runner-up"): logits.amax(1) - second,
        direction("block2_conv1", vectors): (early.mean((2, 3)) * vectors).sum(1),
        direction("classifier", torch.arange(5.0)): (logits * torch.arange(5.0)).sum(1),
        match("block2_conv1", wanted): 1 - (early - wanted).square().sum((1, 2, 3)) / wanted.square().sum((1, 2, 3)),
        layer("classifier"): logits.square().mean(1),
        channel("classifier", [0, 4, 2]): logits[rows, [0, 4, 2]],
        neuron("block2_conv1", 3): early[:, 3, 10, 8],
        neuron("block2_conv1", 3, (-20, 15)): early[:, 3, 0, 15],
        neuron("block2_conv1", 3, (19, -16)): early[:, 3, 19, 0],
        blur(): (images - smooth).square().mean((1, 2, 3)),
    }
    for objective, numbers in expected.items():
        scores = scored(network, objective, images)
        assert scores.shape == (3,)
        torch.testing.assert_close(scores, numbers, rtol=1e-5, atol=1e-6)
        view = Viewer(network, objective.layers, images)(images[1:], torch.tensor([1, 2]))
        torch.testing.assert_close(objective.score(view), numbers[1:], rtol=1e-4, atol=1e-5)
    faint, nothing = 1e-3 * wanted[:1], torch.zeros(1, *early.shape[1:])
    for maps, energy in ((faint, faint.square().sum()), (nothing, 1)):  # there is no share of nothing
        expected_likeness = 1 - (early - maps).square().sum((1, 2, 3)) / energy
        torch.testing.assert_close(scored(network, match("block2_conv1", maps), images), expected_likeness)
    for objective in (direction("block2_conv1", vectors.double()), match("block2_conv1", wanted.double())):
        assert scored(network, objective, images).dtype == torch.float32


def test_a_direction_in_a_layer_with_one_axis_of_positions() -> None:
    parts = nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    network, images, vector = (
        cnnviz.wrap(nn.Sequential(*parts), name="net", input_size=9),
        torch.rand(2, 3, 9, 9),
        [1.0, 0, 2, -1],
    )
    expected = nn.Sequential(*parts)(images) @ torch.tensor(vector)
    torch.testing.assert_close(scored(network, direction("1", torch.tensor(vector)), images), expected.detach())


def test_the_gradient_of_blur_pulls_each_pixel_to_its_neighbours(network: Network, images: Tensor) -> None:
    images.requires_grad_()
    smooth = functional.avg_pool2d(functional.pad(images.detach(), (1, 1, 1, 1), mode="replicate"), 3, 1)
    (gradient,) = torch.autograd.grad(scored(network, blur(), images).sum(), images)
    torch.testing.assert_close(gradient, 2 * (images.detach() - smooth) / images[0].numel())


def test_units_are_what_a_filter_neuron_or_class_gives(network: Network, images: Tensor) -> None:
    name = "block2_conv1"
    early, rows = cnnviz.activations(network, images, [name])[name], torch.arange(3)
    expected = {
        channel(name, [5, 5, 2]): early[rows, [5, 5, 2]],
        neuron(name, 4, (0, 1)): early[:, 4, 0, 1],
        logit([0, 4, 2], versus=1): network(images).softmax(1)[rows, [0, 4, 2]],
        total_variation() + channel(name, 1): early[:, 1],
    }
    for objective, numbers in expected.items():
        assert objective.unit is not None
        units = objective.unit(Viewer(network, objective.layers, images)(images))
        torch.testing.assert_close(units, numbers, rtol=1e-5, atol=1e-6)
    assert total_variation().unit is l2().unit is blur().unit is direction(name, torch.ones(6)).unit is None
    assert (0 * channel(name, 1)).unit is None
    assert (total_variation() + l2()).unit is None


def test_objectives_are_named_for_people_and_count_their_images() -> None:
    expected = {
        channel("a", 3): ("a 3", None, {"a"}),
        channel("a", [3, 4]): ("a 3, 4", 2, {"a"}),
        channel("a", [np.int64(3)]): ("a 3", 1, {"a"}),
        channel("a", np.int64(3)): ("a 3", None, {"a"}),
        neuron("a", 1): ("a 1 at the centre", None, {"a"}),
        neuron("a", [1, 2, 3], (0, -1)): ("a 1, 2, 3 at 0, -1", 3, {"a"}),
        logit(1): ("logit 1", None, {LOGITS}),
        logit([1, 2]): ("logit 1, 2", 2, {LOGITS}),
        logit(1, versus=[2, 3]): ("logit 1 less 2, 3", 2, {LOGITS}),
        logit([1, 2], versus="runner-up"): ("logit 1, 2 less the runner-up", 2, {LOGITS}),
        layer("a"): ("mean square of a", None, {"a"}),
        direction("a", torch.ones(4)): ("a direction in a", None, {"a"}),
        direction("a", torch.ones(2, 4)): ("a direction in a", 2, {"a"}),
        match("a", torch.ones(1, 2, 3, 3)): ("like given maps of a", None, {"a"}),
        match("a", torch.ones(2, 2, 3, 3)): ("like given maps of a", 2, {"a"}),
        total_variation(): ("total variation", None, set()),
        l2(): ("l2", None, set()),
        blur(): ("blur", None, set()),
        2 * channel("a", 3) + l2(): ("2 * (a 3) + l2", None, {"a"}),
        channel("a", [3, 4]) + channel("b", 0): ("a 3, 4 + b 0", 2, {"a", "b"}),
        channel("b", 0) + channel("a", [3, 4]): ("b 0 + a 3, 4", 2, {"a", "b"}),
        0.5 * -channel("a", [3, 4]): ("0.5 * (-1 * (a 3, 4))", 2, {"a"}),
    }
    for objective, (text, count, layers) in expected.items():
        assert (objective.text, objective.count, set(objective.layers)) == (text, count, layers)


def test_objectives_add_subtract_and_scale(network: Network, images: Tensor) -> None:
    f, g = channel("block3_conv2:pre", [1, 7, 0]), logit(2)
    a, b = scored(network, f, images), scored(network, g, images)
    for objective, numbers in (
        (f + g, a + b),
        (f - g, a - b),
        (-f, -a),
        (0.5 * f, 0.5 * a),
        (f * 3 - 0.1 * g, 3 * a - 0.1 * b),
    ):
        torch.testing.assert_close(scored(network, objective, images), numbers, rtol=1e-5, atol=1e-6)
        assert objective.count == 3
    assert (f + g).layers == {"block3_conv2:pre", LOGITS}
    with pytest.raises(ShapeError, match="for 3 and for 2 images"):
        _ = f + channel("block1_conv1", [0, 1])


def test_rows_say_which_of_the_images_these_are(network: Network, images: Tensor) -> None:
    objective = channel("block3_conv2:pre", [1, 7, 0]) - logit([0, 4, 2])
    every = scored(network, objective, images)
    viewer = Viewer(network, objective.layers, images)
    torch.testing.assert_close(objective.score(viewer(images[1:], torch.tensor([1, 2]))), every[1:])


def test_images_never_share_a_score(network: Network, images: Tensor) -> None:
    images.requires_grad_()
    for objective in (
        channel("block3_conv2:pre", 1),
        layer("block3_conv2"),
        logit(1, versus="runner-up"),
        match("block1_conv1", torch.rand(1, 4, 40, 32)),
        total_variation() + l2() + blur(),
    ):
        (gradient,) = torch.autograd.grad(scored(network, objective, images)[1], images)
        assert gradient[1].abs().max() > 0
        assert not gradient[[0, 2]].any()


def test_penalties_are_zero_on_flat_grey_and_positive_elsewhere(network: Network) -> None:
    flat, noise = torch.full((1, 3, 32, 32), 0.5), torch.rand(1, 3, 32, 32)
    for penalty in (total_variation(), l2(), blur()):
        assert scored(network, penalty, flat).item() == pytest.approx(0, abs=1e-12)
        assert scored(network, penalty, noise).item() > 0.01


@given(
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.sampled_from([1, 2, 3]),
    padding=st.sampled_from([0, 1, 2]),
    dilation=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 2]),
    mode=st.sampled_from(["zeros", "reflect"]),
    bias=st.booleans(),
)
@settings(max_examples=30)
def test_the_last_convolution_need_not_run(
    kernel: int, stride: int, padding: int, dilation: int, groups: int, mode: str, bias: bool
) -> None:
    torch.manual_seed(0)
    last = nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups, bias=bias, padding_mode=mode)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), last, nn.ReLU())
    network = cnnviz.wrap(module, name="net", input_size=16)
    images, objective = torch.rand(3, 3, 15, 17, requires_grad=True), channel("2", [5, 0, 5])
    plain = module[:3](images)[torch.arange(3), [5, 0, 5]].mean((1, 2))
    short = scored(network, objective, images)
    torch.testing.assert_close(short, plain, rtol=1e-4, atol=1e-6)
    (expected,), (gradient,) = (torch.autograd.grad(scores.sum(), images) for scores in (plain, short))
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_only_a_plain_convolution_is_left_out() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, given: Tensor) -> Tensor:
            return self._conv_forward(given, self.weight - self.weight.mean(), self.bias)

    hooked = nn.Conv2d(3, 2, 3)
    hooked.register_forward_hook(lambda _, __, output: 10 * output)
    images = torch.rand(2, 3, 9, 9)
    for last in (Standardised(3, 2, 3), hooked):
        network = cnnviz.wrap(nn.Sequential(last, nn.ReLU()), name="net", input_size=9)
        torch.testing.assert_close(scored(network, channel("0", 1), images), last(images)[:, 1].mean((1, 2)))


def test_what_an_objective_is_about() -> None:
    f, g = channel("a", 0), channel("b", 1)
    assert f.unit is not None
    assert (2 * f).unit is (0.5 * f).unit is (f - 0.1 * g).unit is (f - total_variation()).unit is f.unit
    assert (-f).unit is (f + g).unit is layer("a").unit is None
    assert sum([f, g]).layers == {"a", "b"}
    assert logit(1, versus=[2, 3]).count == 2
    assert logit(1, versus=2).text == "logit 1 less 2"
    with pytest.raises(ShapeError, match="as many"):
        logit([1, 2], versus=[2, 3, 4])


def test_layers_that_an_objective_does_not_name_are_not_to_be_had(network: Network, images: Tensor) -> None:
    view = Viewer(network, ["block3_conv2:pre"], images)(images)
    with pytest.raises(LayerError, match="not among the layers of the objective"):
        view.map("block1_conv1")


def test_the_last_convolution_really_does_not_run(
    network: Network, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = Viewer(network, ["block3_conv2:pre", "block2_conv1"], images)
    ran: list[tuple[int, ...]] = []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, given: ran.append(self.weight.shape) or forward(self, given))
    view = viewer(images)
    before = len(ran)
    view.mean("block3_conv2:pre", torch.tensor([0, 1, 2]))
    assert before == len(ran) == (6 if "BatchNorm2d" in str(network) else 5)


@pytest.mark.parametrize("elided", [True, False])
def test_a_viewer_computes_what_the_network_does(mini: Network, images: Tensor, elided: bool) -> None:
    """Truncated, in the other layout, in bfloat16: the score and its gradient stay what they are."""
    images.requires_grad_()
    name = "block4_conv2:pre"
    plain = cnnviz.activations(mini, images, [name])[name][:, 3].mean((1, 2))
    (expected,) = torch.autograd.grad(plain.sum(), images)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
        objective = channel(name, 3)
        scores = objective.score(Viewer(mini, [name], images, dtype=dtype, elided=elided)(images))
        (gradient,) = torch.autograd.grad(scores.sum(), images)
        assert scores.dtype == torch.float32
        assert (scores - plain).abs().max() <= tolerance * plain.abs().max()
        assert functional.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) > 1 - tolerance


def test_a_network_that_views_its_tensors_is_climbed_in_its_own_layout(lenet: LeNet) -> None:
    network = cnnviz.wrap(lenet, name="lenet", input_size=28)
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(scored(network, logit([3, 4]), images), lenet(images)[[0, 1], [3, 4]])


def test_a_redirected_relu_lets_gradients_open_what_is_shut() -> None:
    shut = nn.Conv2d(1, 1, 1)
    shut.weight.data.fill_(1)
    shut.bias.data.fill_(-2)
    network = cnnviz.wrap(nn.Sequential(shut, nn.ReLU()), name="shut", input_size=4)
    images = torch.rand(2, 1, 4, 4, requires_grad=True)
    for redirected in (False, True):
        scores = channel("1", 0).score(Viewer(network, ["1"], images, redirected=redirected)(images))
        assert not scores.any()
        (gradient,) = torch.autograd.grad(-scores.sum(), images)
        assert bool(gradient.any()) is redirected
    assert (gradient < 0).all()  # downhill in the loss is towards brighter
    open_images = torch.full((1, 1, 4, 4), 3.0, requires_grad=True)
    scores = channel("1", 0).score(Viewer(network, ["1"], open_images, redirected=True)(open_images))
    torch.testing.assert_close(torch.autograd.grad(scores.sum(), open_images)[0], torch.full((1, 1, 4, 4), 1 / 16))


def test_a_viewer_leaves_the_network_as_it_is(network: Network, images: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    scored(network, logit(1) + channel("block3_conv2", 1), images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert next(network.parameters()).dtype == torch.float32


def test_what_does_not_fit_is_said(network: Network, images: Tensor) -> None:
    cases = [
        (channel("block3_conv2:pre", 99), ShapeError, r"block3_conv2:pre has no filter 99; it has 8, 0 to 7"),
        (logit(5), ShapeError, r"no class 5; it has 5, 0 to 4"),
        (neuron("block3_conv2", 0, (50, 0)), ShapeError, "no position 50, 0"),
        *((neuron("block2_conv1", 0, at), ShapeError, "20 x 16 here") for at in [(20, 0), (-21, 0), (0, 16), (0, -17)]),
        (neuron("block3_conv2", 8), ShapeError, "block3_conv2 has no filter 8; it has 8, 0 to 7"),
        (neuron("classifier", 0), LayerError, "no positions: it gives 1 axes"),
        (logit(0, versus=5), ShapeError, "no class 5"),
        (direction("block1_conv1", torch.ones(3, 3)), ShapeError, "has 4 channels, the direction has 3"),
        (direction("block1_conv1", torch.ones(3)), ShapeError, "has 4 channels, the direction has 3"),
        (match("block1_conv1", torch.ones(1, 4, 9, 9)), ShapeError, "gives 4 x 40 x 32 for this image, not 4 x 9 x 9"),
        (channel("nonsense", 0), UnknownNameError, "no layer named 'nonsense'"),
    ]
    for objective, error, text in cases:
        with pytest.raises(error, match=text):
            scored(network, objective, images)
    for objective, text in ((channel("block3_conv2", 8), "block3_conv2 has no filter 8"), (logit(5), "no class 5")):
        with pytest.raises(ShapeError, match=text):
            objective.unit(Viewer(network, objective.layers, images)(images))  # type: ignore[misc]
    pair, single = (
        cnnviz.wrap(nn.Sequential(nn.Conv2d(3, n, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), name="few", input_size=8)
        for n in (2, 1)
    )
    torch.testing.assert_close(scored(pair, logit(1, versus="runner-up"), images), pair(images).diff(dim=1)[:, 0])
    with pytest.raises(ShapeError, match="single output has no runner-up"):
        scored(single, logit(0, versus="runner-up"), images)
    with pytest.raises(ShapeError, match="no index"):
        channel("block1_conv1", [])
    with pytest.raises(ShapeError, match="runner-up"):
        logit(1, versus="second")


def test_names_of_classes_and_half_numbers_are_told() -> None:
    for make in (lambda: logit("tabby"), lambda: logit(["tabby"]), lambda: logit(3, versus=["tabby"])):
        with pytest.raises(UnknownNameError, match=r"cnnviz.class_index\(network, 'tabby'\) gives the number"):
            make()
    with pytest.raises(ShapeError, match=r"a channel or class must be a whole number, not 1.5"):
        channel("block1_conv1", 1.5)  # type: ignore[arg-type]


def test_a_view_gives_layers_by_their_names(network: Network, images: Tensor) -> None:
    view = Viewer(network, ["block2_conv1", LOGITS], images)(images)
    assert torch.equal(view["block2_conv1"], view.map("block2_conv1"))
    by_function = cnnviz.maximize(network, lambda view: view["block2_conv1"][:, 3].mean((1, 2)), steps=2, tries=1)
    whole = cnnviz.maximize(network, channel("block2_conv1", 3), steps=2, tries=1)
    torch.testing.assert_close(by_function.images, whole.images)
    assert cnnviz.maximize(network, lambda view: view[LOGITS][:, 1], steps=1, tries=1).scores.isfinite().all()


def test_help_lists_the_objectives() -> None:
    assert objectives.__all__ == of_synthesis.__all__
    text = pydoc.plain(pydoc.render_doc(objectives))
    for name in objectives.__all__:
        assert re.search(rf"^    (class |)?{name}\b", text, flags=re.MULTILINE), name
    defined = {name for name, value in vars(of_synthesis).items() if inspect.isfunction(value) and name[0] != "_"}
    foreign = {"logits_of", "probabilities_of", "indices_on", "pick", "dataclass", "whole_number"}
    assert defined - foreign <= set(objectives.__all__)
