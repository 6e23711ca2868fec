"""Objectives against the numbers they stand for, and the shortcuts of `Viewer` against the plain computation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.errors import LayerError, ShapeError, UnknownNameError
from cnnviz.network import Network
from cnnviz.objectives import (
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
from cnnviz.views import LOGITS, Viewer
from tests.conftest import LeNet, SmallVGG


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
@settings(max_examples=30, deadline=None)
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
    (expected,), (found,) = (torch.autograd.grad(each.sum(), images) for each in (plain, short))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


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
    assert (2 * f).unit is (f - 0.1 * g).unit is (f - total_variation()).unit is f.unit
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
        found = objective.score(Viewer(mini, [name], images, dtype=dtype, elided=elided)(images))
        (gradient,) = torch.autograd.grad(found.sum(), images)
        assert found.dtype == torch.float32
        assert (found - plain).abs().max() <= tolerance * plain.abs().max()
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
        (neuron("classifier", 0), LayerError, "no positions"),
        (direction("block1_conv1", torch.ones(3)), ShapeError, "has 4 channels, the direction has 3"),
        (match("block1_conv1", torch.ones(1, 4, 9, 9)), ShapeError, "gives 4 x 40 x 32 for this image, not 4 x 9 x 9"),
        (channel("nonsense", 0), UnknownNameError, "no layer named 'nonsense'"),
    ]
    for objective, error, text in cases:
        with pytest.raises(error, match=text):
            scored(network, objective, images)
    with pytest.raises(ShapeError, match="no index"):
        channel("block1_conv1", [])
    with pytest.raises(ShapeError, match="runner-up"):
        logit(1, versus="second")
