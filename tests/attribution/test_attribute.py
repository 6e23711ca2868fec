"""Attribution: every method against plain captum, closed forms on a linear network, and what is refused."""

import math
import warnings
from collections.abc import Callable

import captum.attr
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
import cnnviz.networks.inputs
from cnnviz.attribution.attribute import attribute
from cnnviz.attribution.explainer import MEMORY, Target, explainer
from cnnviz.attribution.heatmaps import heat
from cnnviz.attribution.methods import METHODS, fixed_options
from cnnviz.attribution.suitability import able, structure_of
from cnnviz.attribution.superpixels import superpixels
from cnnviz.errors import CnnvizError, LayerError, ModelError, ShapeError, UnknownNameError
from cnnviz.networks.network import Network
from tests.support.networks import LeNet, SmallVGG

CLASS, SEED = 3, 5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(1, 3, 48, 40, generator=torch.Generator().manual_seed(2))


def plain(module: nn.Module, name: str, inputs: Tensor, patches: Tensor) -> Tensor:
    """The same by captum alone, as its documentation has it."""
    empty = torch.zeros_like(inputs)
    layer = module.features[29] if not isinstance(module.features[1], nn.BatchNorm2d) else module.features[42]
    noise = 0.15 * (inputs.max() - inputs.min()).item()
    tunnel = {"nt_samples": 50, "nt_samples_batch_size": 2, "stdevs": noise, "target": CLASS, "abs": False}
    mask = patches.expand(1, 3, *inputs.shape[2:])
    over_patches = {"baselines": empty, "feature_mask": mask, "target": CLASS, "perturbations_per_eval": 2}
    window = round(min(inputs.shape[2:]) / 7)
    calls: dict[str, Callable[[], Tensor]] = {
        "saliency": lambda: captum.attr.Saliency(module).attribute(inputs, CLASS, abs=False),
        "input-x-gradient": lambda: captum.attr.InputXGradient(module).attribute(inputs, CLASS),
        "integrated-gradients": lambda: captum.attr.IntegratedGradients(module).attribute(
            inputs, empty, CLASS, n_steps=50, internal_batch_size=2
        ),
        "smoothgrad": lambda: _tunnel(module).attribute(inputs, nt_type="smoothgrad", **tunnel),
        "smoothgrad-squared": lambda: _tunnel(module).attribute(inputs, nt_type="smoothgrad_sq", **tunnel),
        "vargrad": lambda: _tunnel(module).attribute(inputs, nt_type="vargrad", **tunnel),
        "guided-backprop": lambda: captum.attr.GuidedBackprop(module).attribute(inputs, CLASS),
        "deconvolution": lambda: captum.attr.Deconvolution(module).attribute(inputs, CLASS),
        "grad-cam": lambda: captum.attr.LayerGradCam(module, layer).attribute(inputs, CLASS, relu_attributions=True),
        "guided-grad-cam": lambda: captum.attr.GuidedGradCam(module, layer).attribute(
            inputs, CLASS, interpolate_mode="bilinear"
        ),
        "gradient-x-activation": lambda: (
            captum.attr.LayerGradientXActivation(module, layer).attribute(inputs, CLASS).sum(1, keepdim=True)
        ),
        "conductance": lambda: (
            captum.attr.LayerConductance(module, layer).attribute(inputs, empty, CLASS, n_steps=50).sum(1, keepdim=True)
        ),
        "deeplift": lambda: captum.attr.DeepLift(module).attribute(inputs, empty, CLASS),
        "occlusion": lambda: captum.attr.Occlusion(module).attribute(
            inputs, (3, window, window), (3, window // 2, window // 2), empty, CLASS, perturbations_per_eval=2
        ),
        "feature-ablation": lambda: captum.attr.FeatureAblation(module).attribute(inputs, **over_patches),
        "lime": lambda: captum.attr.Lime(module).attribute(inputs, n_samples=200, **over_patches),
        "kernel-shap": lambda: captum.attr.KernelShap(module).attribute(inputs, n_samples=200, **over_patches),
        "lrp": lambda: captum.attr.LRP(module).attribute(inputs, CLASS),
    }
    if name == "gradient-shap":
        return _gradient_shap(module, inputs, empty)
    return calls[name]()


def _tunnel(module: nn.Module) -> captum.attr.NoiseTunnel:
    return captum.attr.NoiseTunnel(captum.attr.Saliency(module))


def _gradient_shap(module: nn.Module, inputs: Tensor, empty: Tensor) -> Tensor:
    """20 samples in parts of two, as they are drawn for a batch of two."""
    np.random.seed(SEED)  # noqa: NPY002
    noise = 0.1 * (inputs.max() - inputs.min()).item()
    shap = captum.attr.GradientShap(module)
    parts = [shap.attribute(inputs, empty, n_samples=2, stdevs=noise, target=CLASS) for _ in range(10)]
    return torch.stack(parts).mean(0)


CAMS = {"grad-cam++", "layer-cam", "score-cam", "eigen-cam"}  # in test_cams


@pytest.mark.parametrize("name", [name for name in METHODS if name not in CAMS])
def test_every_method_is_captums(name: str, small_vgg: SmallVGG, images: Tensor) -> None:
    for part in small_vgg.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False  # with which captum alone is wrong about layers
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")  # or hardly anything would come through
    small_vgg.classifier.weight.data *= 3
    if name == "deeplift":  # of whose max pools captum is wrong; see test_rescaled_pools
        for path, part in list(small_vgg.named_modules()):
            if isinstance(part, nn.MaxPool2d):
                small_vgg.get_submodule(path.rpartition(".")[0])[int(path.rpartition(".")[2])] = nn.AvgPool2d(2)
    network = cnnviz.wrap(small_vgg, name="small", input_size=64, mean=MEAN, std=STD)
    options = {"steps": 50} if name == "integrated-gradients" else {}
    values = attribute(network, images, CLASS, method=name, seed=SEED, batch=2, **options)
    inputs = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    inputs = inputs.contiguous(memory_format=torch.channels_last)  # the same rounding, or a ReLU may flip at its edge
    small_vgg.to(memory_format=torch.channels_last)
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = plain(small_vgg, name, inputs, superpixels(images[0], 50)).detach()
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5 * max(1.0, expected.abs().max().item()))
    assert expected.abs().max() > 0


class Linear(nn.Module):
    """Two classes whose logits are linear in the image."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", images, self.weight) + 0.7


def test_on_a_linear_network_attributions_are_known_in_closed_form() -> None:
    module = Linear(8, 6)
    network = cnnviz.wrap(module, name="linear", input_size=(8, 6))
    image = torch.rand(1, 3, 8, 6)
    weight = module.weight.detach()[1:2]
    for name in ("saliency", "smoothgrad"):
        torch.testing.assert_close(attribute(network, image, 1, method=name), weight)
    torch.testing.assert_close(
        attribute(network, image, 1, method="vargrad"), torch.zeros_like(weight), atol=1e-5, rtol=0
    )
    product = weight * image
    for name in ("input-x-gradient", "integrated-gradients", "deeplift"):
        torch.testing.assert_close(attribute(network, image, 1, method=name), product, msg=name)
    white = attribute(network, image, 1, method="integrated-gradients", baseline="white")
    torch.testing.assert_close(white, weight * (image - 1))
    contrast = attribute(network, image, Target(1, versus=0), method="saliency")
    torch.testing.assert_close(contrast, weight - module.weight.detach()[:1])
    occluded = attribute(network, image, 1, method="occlusion", window=2, stride=2)
    sums = functional.avg_pool2d(product.sum(1, keepdim=True), 2) * 4
    torch.testing.assert_close(occluded[:, :1], sums.repeat_interleave(2, 2).repeat_interleave(2, 3))
    patches = superpixels(image[0], 6)
    for name in ("feature-ablation", "kernel-shap"):
        values = attribute(network, image, 1, method=name, patches=6)[0, 0]
        for number in patches.unique():
            inside = patches == number
            expected = product[0].sum(0)[inside].sum().expand(int(inside.sum()))
            torch.testing.assert_close(values[inside], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("factor", [1e-1, 1e-2, 1e-3])
def test_lime_explains_small_logits_as_it_explains_large_ones(factor: float) -> None:
    """captum's alpha of 0.01 makes all of them zero; the lasso itself is indifferent to units."""
    module, image = Linear(12, 12), torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(5))
    small, smaller = Linear(12, 12), Linear(12, 12)
    small.weight.data *= 1e-2
    smaller.weight.data *= 1e-2 * factor
    values, scaled = (
        attribute(cnnviz.wrap(one, name="linear", input_size=12), image, Target(1, 0), method="lime", patches=6)
        for one in (small, smaller)
    )
    torch.testing.assert_close(scaled / factor, values, rtol=1e-2, atol=1e-3)
    patches, product = (
        superpixels(image[0], 6),
        1e-2 * (module.weight.detach()[1] - module.weight.detach()[0]) * image[0],
    )
    effects = torch.tensor([product.sum(0)[patches == number].sum() for number in patches.unique()])
    found = torch.tensor([values[0, 0][patches == number].mean() for number in patches.unique()])
    assert torch.corrcoef(torch.stack([effects, found]))[0, 1] > 0.95


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("name", ["occlusion", "feature-ablation", "lime", "kernel-shap"])
def test_the_heat_of_a_region_is_what_removing_it_does(name: str, colours: int) -> None:
    values = torch.tensor([[0.5, -2.0], [4.0, 1.0]]).expand(1, colours, 2, 2)
    assert torch.equal(heat(values, name, (2, 2)), values[:, 0])


def test_the_heat_of_a_pixel_adds_up_its_colours_where_they_have_signs() -> None:
    values = torch.tensor([1.0, -3.0, 0.5]).view(1, 3, 1, 1)
    assert heat(values, "input-x-gradient", (1, 1)).item() == -1.5
    assert heat(values, "saliency", (1, 1)).item() == 3


def test_lrp_of_a_class_against_another_is_the_difference_of_both(mini: cnnviz.Network) -> None:
    """On a network of ReLUs LRP by the epsilon rule is input x gradient, of a difference as of a class."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    values = attribute(mini, image, Target(30, 32), method="lrp")
    expected = attribute(mini, image, Target(30, 32), method="input-x-gradient")
    torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_a_gradcam_by_hand(lenet: LeNet) -> None:
    network = cnnviz.wrap(lenet, name="lenet", input_size=28)
    image = torch.rand(1, 1, 28, 28)
    cam = attribute(network, image, 4, method="grad-cam", layer="conv2")
    maps = cnnviz.activations(network, image.requires_grad_(), ["conv2"])["conv2"].detach().requires_grad_()
    pooled = functional.max_pool2d(functional.relu(maps), 2).flatten(1)
    logits = lenet.fc3(functional.relu(lenet.fc2(functional.relu(lenet.fc1(pooled)))))
    (gradient,) = torch.autograd.grad(logits[0, 4], maps)
    expected = functional.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))
    torch.testing.assert_close(cam, expected.detach())


def test_a_pool_is_a_layer_but_not_the_default(mini: Network) -> None:
    image = torch.rand(1, 3, 64, 64)
    assert attribute(mini, image, 3, method="grad-cam", layer="block5_pool").shape == (1, 1, 2, 2)
    own = cnnviz.wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), Flat()), name="own", input_size=16)
    assert torch.equal(
        attribute(own, image[..., :16, :16], 1, method="grad-cam"),
        attribute(own, image[..., :16, :16], 1, method="grad-cam", layer="1"),
    )


@pytest.mark.parametrize("name", ["integrated-gradients", "smoothgrad", "lime", "grad-cam", "occlusion"])
def test_neighbours_do_not_change_an_attribution_and_generators_stay(name: str, mini: Network) -> None:
    images = torch.rand(2, 3, 48, 48)
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    before = mini.fingerprint
    both = attribute(mini, images, [3, 7], method=name, batch=2)
    alone = attribute(mini, images[1:], 7, method=name, batch=2)
    assert torch.equal(both[1:], alone)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert mini.fingerprint == before
    assert not any(part._forward_hooks or part._backward_hooks for part in mini.modules())


def test_integrated_gradients_take_steps_until_they_are_complete(mini: Network, cat: str) -> None:
    image = cnnviz.networks.inputs.show(mini, cat, size=56).images
    ready = explainer(mini)
    logits = ready.logits(torch.cat([image, mini.mean.expand_as(image)]))
    index = int(logits[0].argmax())
    images_passed: list[int] = []
    attribution = attribute(mini, image, index, method="integrated-gradients", passed=images_passed.append)
    difference = (logits[0, index] - logits[1, index]).item()
    gap = abs(attribution.sum().item() - difference) / abs(difference)
    assert gap <= 0.01 or sum(images_passed) > 50 + 100 + 200 + 400
    bumpy = cnnviz.wrap(Bumpy(), name="bumpy", input_size=8)
    steps: list[int] = []
    values = attribute(bumpy, torch.ones(1, 3, 8, 8), 1, passed=steps.append)
    assert sum(steps) > 50 + 100, "50 steps miss it by more than 1 %"
    assert values.sum().item() == pytest.approx(Bumpy.HEIGHT, rel=0.01)
    steps.clear()
    against = attribute(bumpy, torch.ones(1, 3, 8, 8), Target(0, versus=1), passed=steps.append)
    assert against.sum().item() == pytest.approx(-Bumpy.HEIGHT, rel=0.01), "of any class, and of a difference"
    assert sum(steps) > 50 + 100
    steps.clear()
    attribute(bumpy, torch.ones(1, 3, 8, 8), 1, passed=steps.append, **fixed_options("integrated-gradients"))
    assert sum(steps) <= 54, "comparisons take the same number for all"
    few: list[int] = []
    attribute(mini, image, index, method="integrated-gradients", steps=20, passed=few.append)
    assert 20 <= sum(few) <= 24


class Flat(nn.Module):
    """The mean of every channel."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


class Bumpy(nn.Module):
    """The logit of class 1 is 0 until the image is nearly white, and then rises steeply."""

    HEIGHT = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        brightness = images.mean((1, 2, 3)) + 0 * self.conv(images).mean((1, 2, 3))
        logit = self.HEIGHT * torch.relu(brightness - 0.97) / 0.03
        return torch.stack([torch.zeros_like(logit), logit], 1)


class Shared(nn.Module):
    """A residual block whose ReLU is one module or three."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3 if not i else 6, 6, 3, padding=1) for i in range(3))
        one = nn.ReLU()
        self.relus = nn.ModuleList(one if shared else nn.ReLU() for _ in range(3))
        self.linear = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relus[0](self.convolutions[0](images))
        maps = self.relus[1](self.convolutions[1](maps) + maps)
        return self.linear(self.relus[2](self.convolutions[2](maps)).mean((2, 3)))


def test_what_captum_would_be_wrong_about_is_refused(lenet: LeNet) -> None:
    grey = torch.rand(1, 1, 28, 28)
    digits = cnnviz.wrap(lenet, name="lenet", input_size=28)
    for name in ("guided-backprop", "deconvolution", "guided-grad-cam", "deeplift"):
        with pytest.raises(ModelError, match=r"by (a function|functions).*these methods can: .*integrated-gradients"):
            attribute(digits, grey, 1, method=name)
    colour = torch.rand(1, 3, 16, 16)
    shared, apart = Shared(shared=True), Shared(shared=False)
    apart.convolutions, apart.linear = shared.convolutions, shared.linear
    networks = [cnnviz.wrap(module, name="block", input_size=16) for module in (shared, apart)]
    with pytest.raises(ModelError, match="one ReLU module in several places"):
        attribute(networks[0], colour, 1, method="deeplift")
    for network in networks:
        with pytest.raises(ModelError, match="no chain"):
            attribute(network, colour, 1, method="lrp")
    for name in ("guided-backprop", "deconvolution"):  # captum is right about these: the same with ReLUs of their own
        first, second = (attribute(network, colour, 1, method=name) for network in networks)
        assert torch.equal(first, second)
        assert first.abs().max() > 0
    complete = attribute(networks[1], colour, 1, method="deeplift").sum()
    logits = explainer(networks[1]).logits(torch.cat([colour, torch.zeros_like(colour)]))[:, 1]
    torch.testing.assert_close(complete, logits[0] - logits[1])


def chained(*parts: nn.Module) -> Network:
    """A network of 3 x 16 x 16 pixels whose forward is a chain of modules."""
    chain = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return cnnviz.wrap(chain, name="chain", input_size=16)


class By(nn.Module):
    """Applies a function, as a part of a network that has other modules too."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.inner = function, nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return self.function(self.inner(maps))


UNSEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky_relu": lambda maps: functional.leaky_relu(maps, 0.1),
    "clamp": lambda maps: maps.clamp(min=0),
    "tanh": torch.tanh,
    "where": lambda maps: torch.where(maps > 0, maps, 0),
    "mul": lambda maps: maps * torch.sigmoid(maps.mean((2, 3), keepdim=True)),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_functions_without_a_rule_are_refused(name: str) -> None:
    network = chained(By(UNSEEN[name]))
    for method in ("deeplift", "lrp"):
        with pytest.raises(ModelError, match=name if method == "deeplift" else "by functions|no chain"):
            attribute(network, torch.rand(1, 3, 16, 16), 1, method=method)


def test_modules_without_a_rule_are_refused_and_others_are_right() -> None:
    image = torch.rand(1, 3, 16, 16)
    pool = nn.MaxPool2d(2)
    cases = [
        ("deeplift", chained(nn.GroupNorm(2, 8), nn.ReLU()), "GroupNorm"),
        ("lrp", chained(nn.GroupNorm(2, 8), nn.ReLU()), "GroupNorm"),
        ("lrp", chained(nn.LeakyReLU()), "LeakyReLU"),
        ("lrp", chained(By(lambda maps: 2 * maps), nn.ReLU()), "a factor"),
        ("lrp", chained(pool, nn.ReLU(), pool), "one MaxPool2d module in several places"),
        ("deeplift", chained(pool, nn.ReLU(), pool), "one MaxPool2d module in several places"),
    ]
    for method, network, text in cases:
        with pytest.raises(ModelError, match=text):
            attribute(network, image, 1, method=method)
        assert method not in able(structure_of(network))
    for network in (
        chained(nn.LeakyReLU(), nn.MaxPool2d(2), nn.Sigmoid()),
        chained(By(lambda maps: 2 * maps), nn.Tanh()),
    ):
        difference = explainer(network).logits(torch.cat([image, torch.zeros_like(image)]))[:, 1]
        total = attribute(network, image, 1, method="deeplift").sum()
        torch.testing.assert_close(total, difference[0] - difference[1])


def test_every_method_that_is_called_able_runs() -> None:
    shared = nn.ReLU()
    for network in (chained(nn.LeakyReLU()), chained(shared, nn.MaxPool2d(2), shared), chained(nn.PReLU())):
        for method in able(structure_of(network)):
            few = {"samples": 8} if "samples" in METHODS[method].options else {}
            attribute(network, torch.rand(1, 3, 16, 16), 1, method=method, **few)


def test_in_inference_mode_and_after_it() -> None:
    network, image = chained(nn.ReLU()), torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        inside = attribute(network, image + 0, 1, method="integrated-gradients")
    torch.testing.assert_close(inside, attribute(network, image, 1, method="integrated-gradients"))


def test_targets_as_argmax_gives_them(mini: Network) -> None:
    image = torch.rand(1, 3, 32, 32)
    expected = attribute(mini, image, 3, method="saliency")
    for target in (np.int64(3), torch.tensor(3), [torch.tensor(3)], torch.tensor([3])):
        assert torch.equal(attribute(mini, image, target, method="saliency"), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "alexnet", "squeezenet1_0"])
def test_torchvisions_networks(name: str) -> None:
    network = cnnviz.load(name, weights="random")
    side = 96 if name != "inception_v3" else 128
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    able = []
    for method in ("saliency", "grad-cam", "guided-backprop", "deeplift", "lrp"):
        try:
            values = attribute(network, image, 5, method=method)
        except ModelError:
            continue
        able.append(method)
        assert heat(values, method, (side, side)).shape == (1, side, side)
    assert {"saliency", "grad-cam"} <= set(able)
    refused = {"resnet18": {"deeplift", "lrp"}, "inception_v3": {"deeplift", "lrp", "guided-backprop"}}
    assert not set(able) & refused.get(name, set())
    if name in ("alexnet",):
        assert len(able) == 5


def test_a_single_output_and_a_network_that_looks_at_nothing() -> None:
    class Mean(nn.Module):
        def __init__(self, *, row: bool, factor: float) -> None:
            super().__init__()
            self.row, self.factor = row, factor
            self.conv = nn.Conv2d(3, 1, 1)

        def forward(self, images: Tensor) -> Tensor:
            means = self.factor * self.conv(images).mean((1, 2, 3))
            return means[:, None] if self.row else means

    image = torch.rand(1, 3, 8, 8)
    for row in (True, False):
        network = cnnviz.wrap(Mean(row=row, factor=1), name="mean", input_size=8)
        weight = network.module.conv.weight
        torch.testing.assert_close(attribute(network, image, 0, method="saliency"), (weight / 64).expand(1, 3, 8, 8))
    constant = cnnviz.wrap(Mean(row=True, factor=0), name="constant", input_size=8)
    for name in ("saliency", "integrated-gradients", "grad-cam", "occlusion", "smoothgrad", "lime", "kernel-shap"):
        assert (attribute(constant, image, 0, method=name) == 0).all(), name


def test_refusals_say_what_was_given(mini: Network) -> None:
    image = torch.rand(1, 3, 32, 32)
    cases: list[tuple[type[CnnvizError], str, dict[str, object]]] = [
        (UnknownNameError, "did you mean 'grad-cam'", {"method": "gradcm"}),
        (UnknownNameError, "has no option 'stepps'; its options are steps", {"stepps": 3}),
        (UnknownNameError, "no baseline named 'grey'", {"baseline": "grey"}),
        (UnknownNameError, "has no layer named 'block9_conv1'", {"method": "grad-cam", "layer": "block9_conv1"}),
        (LayerError, "gives no feature maps", {"method": "grad-cam", "layer": "classifier.linear"}),
        (ShapeError, "steps must be a whole number of at least 1, not 0", {"steps": 0}),
        (ShapeError, "steps must be a whole number of at least 1, not inf", {"steps": math.inf}),
        (ShapeError, "samples must be a whole number", {"method": "gradient-shap", "samples": 0.5}),
        (ShapeError, "patches must be a whole number of at least 2, not 1", {"method": "lime", "patches": 1}),
        (ShapeError, "noise must be greater than zero, not -1", {"method": "smoothgrad", "noise": -1}),
        (ModelError, "occlusion fails on vgg16-mini", {"method": "occlusion", "window": 5, "stride": 9}),
    ]
    for error, text, arguments in cases:
        with pytest.raises(error, match=text):
            attribute(mini, image, 0, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="no class 200; its 200 classes are 0 to 199"):
        attribute(mini, image, 200)
    with pytest.raises(ShapeError, match="2 classes are given for 1 images"):
        attribute(mini, image, [1, 2])
    with pytest.raises(ShapeError, match=r"takes images of 3 channels, not 1"):
        attribute(mini, image[:, :1], 0)
    for wrong in (image[0], image[:0]):
        with pytest.raises(ShapeError, match=r"images are N x C x H x W"):
            attribute(mini, wrong, 0)
    with pytest.raises(ShapeError, match=r"images lie in \[0, 1\]"):
        attribute(mini, image * 255, 0)


def test_captums_names_of_options_are_understood(mini: Network) -> None:
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(attribute(mini, image, 3, n_steps=4), attribute(mini, image, 3, steps=4))
    (own,) = cnnviz.explain(mini, image, 3, methods="integrated-gradients", checks=(), steps=4).attributions
    (captums,) = cnnviz.explain(mini, image, 3, methods="integrated-gradients", checks=(), n_steps=4).attributions
    assert torch.equal(captums.values, own.values)
    with pytest.raises(UnknownNameError, match="n_steps and steps are the same option; give one of them"):
        attribute(mini, image, 3, n_steps=4, steps=4)


@pytest.mark.parametrize("layer", ["block3_conv3", ["block3_conv3", "block5_conv3"], None])
def test_maps_of_a_layer_are_upsampled_as_captum_does(mini: Network, layer: str | list[str] | None) -> None:
    image = torch.rand(2, 3, 64, 48)
    coarse = attribute(mini, image, 3, method="grad-cam", layer=layer)
    fine = attribute(mini, image, 3, method="grad-cam", layer=layer, upsample=True)
    assert fine.shape == (2, 1, 64, 48)
    torch.testing.assert_close(fine, captum.attr.LayerAttribution.interpolate(coarse, (64, 48), "bilinear"))
    torch.testing.assert_close(fine[:, 0], heat(coarse, "grad-cam", (64, 48)))
    pixels = attribute(mini, image, 3, method="saliency")
    assert torch.equal(attribute(mini, image, 3, method="saliency", upsample=True), pixels)


@pytest.mark.parametrize("name", ["gradcam", "Grad-CAM", "GRAD_CAM", "GradCam", "grad cam"])
def test_methods_are_named_in_any_way(mini: Network, name: str) -> None:
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(attribute(mini, image, 3, method=name), attribute(mini, image, 3, method="grad-cam"))


def test_a_class_by_name_and_alone(mini: Network) -> None:
    image, tabby = torch.rand(1, 3, 64, 64), cnnviz.class_index(mini, "tabby")
    named, numbered = (attribute(mini, image, target, method="saliency") for target in ("tabby", tabby))
    assert torch.equal(named, numbered)
    for classes in ("tabby", tabby, np.int64(tabby), ["tabby"]):
        (attribution,) = cnnviz.explain(mini, image, classes, methods="saliency", checks=()).attributions
        assert attribution.target == Target(tabby)
        assert torch.equal(attribution.values, named[0])


def test_superpixels_hold_together_what_is_alike() -> None:
    image = torch.zeros(3, 20, 30)
    image[:, :, 14:] = 1
    patches = superpixels(image, 12)
    assert 8 <= len(patches.unique()) <= 16
    left, right = patches[:, :14].unique(), patches[:, 14:].unique()
    assert not set(left.tolist()) & set(right.tolist())


@pytest.mark.parametrize(
    ("method", "passes"),
    [("integrated-gradients", 6), ("occlusion", 6), ("feature-ablation", 2), ("lime", 5), ("kernel-shap", 5)],
)
def test_batches_fill_a_card(mini: Network, method: str, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the memory of a card, few passes: with a processor's, 10 to 34."""
    monkeypatch.setitem(MEMORY, "cpu", MEMORY["cuda"])
    calls: list[int] = []
    plain = functional.conv2d

    def counting(given: Tensor, weight: Tensor, *others: object) -> Tensor:
        calls.extend([len(given)] if weight.shape[1] == 3 else [])
        return plain(given, weight, *others)

    monkeypatch.setattr(functional, "conv2d", counting)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    attribute(mini, image, [CLASS], method=method, **fixed_options(method))
    assert 1 <= len(calls) <= passes
    assert max(calls) >= 48
