"""What a network is made of, by hand, and which methods and layers follow from it."""

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.attribution.methods import METHODS
from cnnviz.attribution.suitability import able, check, layer_for, structure_of
from cnnviz.errors import LayerError, ModelError, ShapeError, UnknownNameError
from cnnviz.networks.network import Network
from tests.support.networks import SmallVGG

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


class Weighed(nn.Module):
    """Applies a function of the maps and of a buffer of 8 x 8 ones."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.before = function, nn.Identity()
        self.register_buffer("ones", torch.ones(8, 8))

    def forward(self, maps: Tensor) -> Tensor:
        return self.function(self.before(maps), self.ones)


def chained(*parts: nn.Module) -> Network:
    """Five classes of 3 x 8 x 10 pixels."""
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    return cnnviz.wrap(chain, name="chain", input_size=(8, 10), mean=0.3, std=0.2)


def test_a_chain_by_hand() -> None:
    pool = nn.MaxPool2d(2)
    structure = structure_of(chained(nn.ReLU(), pool))
    assert structure.leaves == {nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear}
    assert structure.reused == set()
    assert structure.chain
    assert structure.classes == 5
    assert structure.activations == 2 * 4 * 6 * 8 + 4 * 3 * 4 + 4 + 4 + 5
    assert tuple(structure.maps) == ("0", "1", "2")
    assert {("convolution", nn.Conv2d), ("relu", nn.ReLU), ("max_pool2d", nn.MaxPool2d)} <= structure.operations
    assert {kind for _, kind in structure.operations} == structure.leaves, (
        "the normalisation is no operation of the module's"
    )
    assert able(structure) == EVERY


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
    structure = structure_of(network)
    assert structure.leaves == {nn.Conv2d, nn.ReLU}
    assert structure.reused == {nn.ReLU}
    assert not structure.chain
    assert structure.classes == 4
    assert structure.activations == 4 * (4 * 6 * 6)
    assert tuple(structure.maps) == ("first", "again.0", "relu", "again"), "where they end last"
    own = {name for name, kind in structure.operations if kind is Tangled}
    assert own == {"a factor", "mul of two", "add", "mean"}
    assert ("relu", nn.ReLU) in structure.operations
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    for name, reason in {
        "deeplift": "its forward multiplies with each other what depends on the image (mul)",
        "lrp": BRANCHES,
    }.items():
        with pytest.raises(ModelError) as refused:
            check(network, structure, name)
        able_others = ", ".join(each for each in EVERY if each not in ("deeplift", "lrp"))
        assert str(refused.value) == (
            f"{METHODS[name].title} cannot explain tangled: {reason}; these methods can: {able_others}."
        )
    check(network, structure, "guided-backprop")


class Quotient(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps / 3 / maps.mean((2, 3), keepdim=True)


def by_functions(names: str) -> str:
    return f"its forward applies {names} by functions, which captum's hooks cannot see"


NO_RELU = "it has no ReLU modules"
PARTS: dict[str, tuple[list[nn.Module], str, str, str]] = {
    # why guided backpropagation and the like, DeepLift and LRP are refused, or nothing
    "ReLU": ([nn.ReLU()], "", "", ""),
    "none": ([], NO_RELU, "", ""),
    "by a function": ([By(torch.relu)], *[by_functions("relu")] * 3),
    "both": ([nn.ReLU(), By(functional.relu)], *[by_functions("relu")] * 3),
    "in place": ([nn.ReLU(), By(lambda maps: maps.clone().relu_())], *[by_functions("relu")] * 3),
    "several": ([nn.ReLU(), By(lambda maps: maps.exp().tanh())], "", *[by_functions("exp and tanh")] * 2),
    "no rule": ([nn.ReLU(), nn.GELU(), nn.SiLU()], "", *["there is no rule for its GELU and SiLU"] * 2),
    "ReLU6": ([nn.ReLU6()], NO_RELU, *["there is no rule for its ReLU6"] * 2),
    "rescaled only": ([nn.ReLU(), nn.Sigmoid()], "", "", "there is no rule for its Sigmoid"),
    "moving": ([nn.ReLU(), nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2)], "", "", "there is no rule for its Unflatten"),
    "a factor": ([nn.ReLU(), By(lambda maps: 2 * maps)], "", "", by_functions("a factor")),
    "a quotient": ([nn.ReLU(), Quotient()], "", by_functions("div"), BRANCHES),
}


@pytest.mark.parametrize("name", PARTS)
def test_which_methods_are_refused_and_why(name: str) -> None:
    parts, guided, rescaled, chain = PARTS[name]
    network = chained(*parts)
    structure = structure_of(network)
    reasons = dict.fromkeys(RELU_MODULES, guided) | {"deeplift": rescaled, "lrp": chain}
    assert able(structure) == [each for each in EVERY if not reasons.get(each)]
    for method, reason in reasons.items():
        if reason:
            with pytest.raises(ModelError) as error:
                check(network, structure, method)
            assert f" cannot explain chain: {reason}; these methods can: " in str(error.value)
        else:
            check(network, structure, method)


MOVING: list[Callable[[Tensor], Tensor]] = [
    lambda maps: maps.clone(),
    lambda maps: maps.transpose(2, 3).contiguous(),
    lambda maps: maps.permute(0, 2, 3, 1).reshape(1, -1, 4).permute(0, 2, 1).unsqueeze(3),
    lambda maps: maps.flatten(2).view(1, 4, 8, 6),
    lambda maps: maps.squeeze(0)[None, :, 1:, ::2].expand(2, -1, -1, -1)[1:],
    lambda maps: maps.select(2, 1)[:, :, None],
    lambda maps: functional.pixel_shuffle(maps, 2).expand(-1, 4, -1, -1),
    lambda maps: maps.double().float(),
    lambda maps: maps[0, 0].t().expand(1, 4, 8, 6),
    lambda maps: maps.as_strided((1, 4, 3, 3), (192, 48, 8, 1)),
]
MOVING_IN_BRANCHES: list[Callable[[Tensor], Tensor]] = [
    lambda maps: torch.cat(maps.split(2, 1), 1),
    lambda maps: torch.cat(maps.split([1, 3], 1), 1),
    lambda maps: torch.stack(maps.unbind(1), 1),
]
LINEAR: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda maps, ones: -maps,
    lambda maps, ones: maps * 2 / 3,
    lambda maps, ones: maps + 1 - 2,
    lambda maps, ones: 1 - maps,
    lambda maps, ones: maps + ones[:4, :1, None],
    lambda maps, ones: maps.mean(2, keepdim=True),
    lambda maps, ones: maps.sum(3, keepdim=True),
    lambda maps, ones: functional.avg_pool2d(maps, 2),
    lambda maps, ones: functional.adaptive_avg_pool2d(maps, 3),
    lambda maps, ones: functional.interpolate(maps, scale_factor=2, mode="nearest"),
    lambda maps, ones: functional.interpolate(maps, scale_factor=2, mode="bilinear"),
    lambda maps, ones: functional.pad(maps, (1, 1, 1, 1)),
    lambda maps, ones: functional.pad(maps, (1, 1, 1, 1), mode="reflect"),
    lambda maps, ones: functional.pad(maps, (1, 1, 1, 1), mode="replicate"),
    lambda maps, ones: functional.conv2d(maps, ones[:4, :4, None, None]),
    lambda maps, ones: functional.batch_norm(maps, *ones[:2, :4]),
    lambda maps, ones: functional.linear(maps[0, :, :, 0], ones[:2, :6])[None, :, :, None],
    lambda maps, ones: torch.bmm(maps[0], ones[:, :2].expand(4, 8, 2))[None],
    lambda maps, ones: torch.addmm(ones[0, :2], maps[0, :, 0], ones[:, :2])[None, :, :, None],
]


def test_what_moves_numbers_about_or_is_linear_may_be_done_by_functions() -> None:
    parts = [
        *((By(function), set()) for function in MOVING),
        *((By(function), {"lrp"}) for function in MOVING_IN_BRANCHES),
        *((Weighed(function), {"lrp"}) for function in LINEAR),
    ]
    for part, refused in parts:
        structure = structure_of(chained(nn.ReLU(), part))
        assert able(structure) == [each for each in EVERY if each not in refused], structure.operations


def test_modules_that_captum_has_rules_for() -> None:
    both = (nn.MaxPool2d(2), nn.AvgPool2d(2), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(), nn.Identity())
    for part in (*both, nn.ELU(), nn.LeakyReLU(), nn.Sigmoid(), nn.Softplus()):
        refused = set() if part in both else {"lrp"}
        assert able(structure_of(chained(nn.ReLU(), part))) == [each for each in EVERY if each not in refused], part


def test_what_may_be_a_relu_is_refused_beside_relu_modules() -> None:
    others: list[Callable[[Tensor], Tensor]] = [
        lambda maps: maps.clamp(min=0),
        lambda maps: maps.clamp_min(0),
        lambda maps: torch.maximum(maps, torch.zeros_like(maps)),
        lambda maps: functional.threshold(maps, 0, 0),
        lambda maps: torch.where(maps > 0, maps, 0),
    ]
    for each in others:
        assert not RELU_MODULES & set(able(structure_of(chained(nn.ReLU(), By(each)))))


def test_a_module_used_twice_is_refused_where_captum_mixes_its_uses_up() -> None:
    for shared, refused, named in (
        (nn.MaxPool2d(1), {"deeplift", "lrp"}, "MaxPool2d"),
        (nn.Tanh(), {"deeplift"}, "Tanh"),
        (nn.BatchNorm2d(4), {"lrp"}, "BatchNorm2d"),
    ):
        network = chained(nn.ReLU(), shared, shared)
        structure = structure_of(network)
        assert structure.reused == {type(shared)}
        assert able(structure) == [each for each in EVERY if each not in refused]
        with pytest.raises(ModelError, match=f"it uses one {named} module in several places, which captum cannot tell"):
            check(network, structure, max(refused))


def test_the_layer_that_is_looked_at(small_vgg: SmallVGG) -> None:
    cam, pixels = METHODS["grad-cam"], METHODS["saliency"]
    vgg = cnnviz.wrap(small_vgg, name="small", input_size=64)
    other = chained(nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2))
    for network, default, asked in ((vgg, "block5_conv3", "block2_pool"), (other, "1", "3")):
        structure = structure_of(network)
        assert layer_for(network, structure, cam, None) == default
        assert layer_for(network, structure, cam, asked) == asked
        assert layer_for(network, structure, pixels, None) is layer_for(network, structure, pixels, asked) is None
        with pytest.raises(UnknownNameError):
            layer_for(network, structure, cam, "nowhere")
    with pytest.raises(LayerError, match="'4' gives no feature maps that Grad-CAM could weigh"):
        layer_for(other, structure_of(other), cam, "4")
    flat = cnnviz.wrap(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)), name="flat", input_size=8)
    with pytest.raises(LayerError, match="flat has no layer with feature maps, which Grad-CAM needs"):
        layer_for(flat, structure_of(flat), cam, None)


class Watched(nn.Module):
    """Keeps what it was given: kind of device and shape; converts it, which PyTorch does by an argument with a name."""

    given: ClassVar[list[tuple[str, tuple[int, ...], torch.dtype]]] = []

    def forward(self, maps: Tensor) -> Tensor:
        self.given.append((maps.device.type, tuple(maps.shape), maps.double().dtype))
        return maps.mean((2, 3))


def test_nothing_is_computed_to_know_a_structure() -> None:
    network = cnnviz.wrap(nn.Sequential(nn.Conv2d(1, 2, 3), Watched()), name="net", input_size=(9, 8))
    Watched.given.clear()
    structure_of(network)
    assert Watched.given == [("meta", (1, 2, 7, 6), torch.float64)]


def test_a_map_has_more_than_one_position() -> None:
    pools = [nn.AdaptiveAvgPool2d(size) for size in ((2, 1), 1)]
    assert list(structure_of(chained(*pools)).maps) == ["0", "1"]
    assert list(structure_of(chained(nn.AdaptiveAvgPool2d((1, 2)))).maps) == ["0", "1"]


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        assert images.device.type != "cpu" or images.min().item() == images.max().item() == 0.5
        maps = self.conv(images)
        return (maps if maps.sum().item() > 0 else -maps).mean((2, 3))


def test_a_network_that_looks_at_values_is_followed_on_grey() -> None:
    structure = structure_of(cnnviz.wrap(LooksAtValues(), name="net", input_size=(9, 11)))
    assert (structure.classes, structure.activations, tuple(structure.maps), structure.chain) == (
        4,
        4 * 7 * 9,
        ("conv",),
        True,
    )


def test_what_is_no_classifier_is_refused() -> None:
    def net(function: Callable[[Tensor], object]) -> Network:
        return cnnviz.wrap(By(function), name="net", input_size=(6, 5))  # type: ignore[arg-type]

    assert structure_of(net(lambda images: images.mean((1, 2, 3)))).classes == 1
    assert structure_of(net(lambda images: images.flatten(1))).classes == 3 * 30
    for wrong in (
        lambda images: (images.mean((2, 3)),),
        lambda images: images.mean(3),
        lambda images: images.mean((2, 3)).expand(2, 3),
    ):
        with pytest.raises(ModelError, match="net is no classifier of single images"):
            structure_of(net(wrong))
    with pytest.raises(ShapeError, match="the forward pass of net fails on images of 3 x 6 x 5"):
        structure_of(net(lambda images: functional.linear(images, torch.ones(2, 7, device=images.device))))
