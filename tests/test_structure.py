"""What a network is made of, by hand, and which methods and layers follow from it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.errors import LayerError, ModelError, ShapeError, UnknownNameError
from cnnviz.methods import METHODS
from cnnviz.network import Network
from cnnviz.structure import able, check, layer_for, structure
from tests.conftest import SmallVGG

EVERY = list(METHODS)
RELU_MODULES = {"guided-backprop", "deconvolution", "guided-grad-cam"}
BRANCHES = "its layers are no chain (sums or concatenations of branches), for which captum's rules do not hold"


class By(nn.Module):
    """Applies a function between two modules."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.before, self.after = function, nn.Identity(), nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return self.after(self.function(self.before(maps)))


def chained(*parts: nn.Module) -> Network:
    """Five classes of 3 x 8 x 10 pixels."""
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    return cnnviz.wrap(chain, name="chain", input_size=(8, 10), mean=0.3, std=0.2)


def test_a_chain_by_hand() -> None:
    pool = nn.MaxPool2d(2)
    made = structure(chained(nn.ReLU(), pool))
    assert made.leaves == {nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear}
    assert made.reused == set()
    assert made.chain
    assert made.classes == 5
    assert made.activations == 2 * 4 * 6 * 8 + 4 * 3 * 4 + 4 + 4 + 5
    assert made.maps == ("0", "1", "2")
    assert {("convolution", nn.Conv2d), ("relu", nn.ReLU), ("max_pool2d", nn.MaxPool2d)} <= made.operations
    assert {kind for _, kind in made.operations} == made.leaves, "the normalisation is no operation of the module's"
    assert able(made) == EVERY


class Tangled(nn.Module):
    """A module used twice, branches, and operations of the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()
        self.again = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), self.relu)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.first(images))
        return (2 * maps + self.again(maps) * maps).mean((2, 3))


def test_branches_by_hand() -> None:
    network = cnnviz.wrap(Tangled(), name="tangled", input_size=6)
    made = structure(network)
    assert made.leaves == {nn.Conv2d, nn.ReLU}
    assert made.reused == {nn.ReLU}
    assert not made.chain
    assert made.classes == 4
    assert made.activations == 4 * (4 * 6 * 6)
    assert made.maps == ("first", "again.0", "relu", "again"), "where they end last"
    own = {name for name, kind in made.operations if kind is Tangled}
    assert own == {"a factor", "mul", "add", "mean"}
    assert ("relu", nn.ReLU) in made.operations
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    for name, reason in {
        "deeplift": "its forward applies mul by functions, which captum's hooks cannot see",
        "lrp": BRANCHES,
    }.items():
        with pytest.raises(ModelError) as refused:
            check(network, made, name)
        able_others = ", ".join(each for each in EVERY if each not in ("deeplift", "lrp"))
        assert str(refused.value) == (
            f"{METHODS[name].title} cannot explain tangled: {reason}; these methods can: {able_others}."
        )
    check(network, made, "guided-backprop")


class Quotient(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps / 3 / maps.mean((2, 3), keepdim=True)


PARTS: dict[str, tuple[list[nn.Module], set[str], str]] = {  # methods that are refused, and why the last one is
    "ReLU": ([nn.ReLU()], set(), ""),
    "in place": ([nn.ReLU(inplace=True)], set(), ""),
    "none": ([], RELU_MODULES, "it has no ReLU modules"),
    "by a function": (
        [By(torch.relu)],
        RELU_MODULES | {"deeplift", "lrp"},
        "its forward applies relu by functions, which captum's hooks cannot see",
    ),
    "both": (
        [nn.ReLU(), By(functional.relu)],
        RELU_MODULES | {"deeplift", "lrp"},
        "its forward applies relu by functions, which captum's hooks cannot see",
    ),
    "several": (
        [nn.ReLU(), By(lambda maps: maps.exp().tanh())],
        {"deeplift", "lrp"},
        "its forward applies exp and tanh by functions, which captum's hooks cannot see",
    ),
    "no rule": ([nn.ReLU(), nn.GELU(), nn.SiLU()], {"deeplift", "lrp"}, "there is no rule for its GELU and SiLU"),
    "ReLU6": ([nn.ReLU6()], RELU_MODULES | {"deeplift", "lrp"}, "there is no rule for its ReLU6"),
    "rescaled only": ([nn.ReLU(), nn.Sigmoid()], {"lrp"}, "there is no rule for its Sigmoid"),
    "a factor": (
        [nn.ReLU(), By(lambda maps: 2 * maps)],
        {"lrp"},
        "its forward applies a factor by functions, which captum's hooks cannot see",
    ),
    "moved about": ([nn.ReLU(), By(lambda maps: maps.permute(0, 1, 3, 2).clone())], set(), ""),
    "a quotient": ([nn.ReLU(), Quotient()], {"deeplift", "lrp"}, BRANCHES),
}


@pytest.mark.parametrize("name", PARTS)
def test_which_methods_are_refused_and_why(name: str) -> None:
    parts, refused, reason = PARTS[name]
    network = chained(*parts)
    made = structure(network)
    assert able(made) == [each for each in EVERY if each not in refused]
    for method in refused:
        with pytest.raises(ModelError):
            check(network, made, method)
    if refused:
        with pytest.raises(ModelError) as error:
            check(network, made, max(refused))
        assert f" cannot explain chain: {reason}; these methods can: " in str(error.value)


def test_a_module_used_twice_is_refused_where_captum_mixes_its_uses_up() -> None:
    for shared, refused, named in (
        (nn.MaxPool2d(1), {"deeplift", "lrp"}, "MaxPool2d"),
        (nn.Tanh(), {"deeplift"}, "Tanh"),
        (nn.BatchNorm2d(4), {"lrp"}, "BatchNorm2d"),
    ):
        network = chained(nn.ReLU(), shared, shared)
        made = structure(network)
        assert made.reused == {type(shared)}
        assert able(made) == [each for each in EVERY if each not in refused]
        with pytest.raises(ModelError, match=f"it uses one {named} module in several places, which captum cannot tell"):
            check(network, made, max(refused))


def test_the_layer_that_is_looked_at(small_vgg: SmallVGG) -> None:
    cam, pixels = METHODS["grad-cam"], METHODS["saliency"]
    vgg = cnnviz.wrap(small_vgg, name="small", input_size=64)
    other = chained(nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2))
    for network, default, asked in ((vgg, "block5_conv3", "block2_pool"), (other, "1", "3")):
        made = structure(network)
        assert layer_for(network, made, cam, None) == default
        assert layer_for(network, made, cam, asked) == asked
        assert layer_for(network, made, pixels, None) is layer_for(network, made, pixels, asked) is None
        with pytest.raises(UnknownNameError):
            layer_for(network, made, cam, "nowhere")
    with pytest.raises(LayerError, match="'4' gives no feature maps that Grad-CAM could weigh"):
        layer_for(other, structure(other), cam, "4")
    flat = cnnviz.wrap(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)), name="flat", input_size=8)
    with pytest.raises(LayerError, match="flat has no layer with feature maps, which Grad-CAM needs"):
        layer_for(flat, structure(flat), cam, None)


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        assert images.device.type != "cpu" or images.min().item() == images.max().item() == 0.5
        maps = self.conv(images)
        return (maps if maps.sum().item() > 0 else -maps).mean((2, 3))


def test_a_network_that_looks_at_values_is_followed_on_grey() -> None:
    made = structure(cnnviz.wrap(LooksAtValues(), name="net", input_size=(9, 11)))
    assert (made.classes, made.activations, made.maps, made.chain) == (4, 4 * 7 * 9, ("conv",), True)


def test_what_is_no_classifier_is_refused() -> None:
    def net(function: Callable[[Tensor], object]) -> Network:
        return cnnviz.wrap(By(function), name="net", input_size=(6, 5))  # type: ignore[arg-type]

    assert structure(net(lambda images: images.mean((1, 2, 3)))).classes == 1
    assert structure(net(lambda images: images.flatten(1))).classes == 30
    for wrong in (
        lambda images: (images.mean((2, 3)),),
        lambda images: images.mean(3),
        lambda images: images.mean((2, 3)).expand(2, 3),
    ):
        with pytest.raises(ModelError, match="net is no classifier of single pictures"):
            structure(net(wrong))
    with pytest.raises(ShapeError, match="net cannot take a picture of 5 x 6 px"):
        structure(net(lambda images: functional.linear(images, torch.ones(2, 7, device=images.device))))
