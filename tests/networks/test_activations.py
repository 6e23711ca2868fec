"""activations(): equal to a plain loop over the modules, safe, and gone after the call."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

import cnnviz
from cnnviz.errors import LayerError, ShapeError
from cnnviz.networks.activations import capture
from cnnviz.networks.network import Network
from tests.support.networks import SmallVGG


def plain_loop(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What every layer of ``features`` gives, ReLUs not in place, by the plainest means."""
    outputs = {}
    for index, layer in enumerate(module.features):
        images = images.relu() if isinstance(layer, nn.ReLU) else layer(images)
        outputs[f"features.{index}"] = images.clone()
    return outputs


def hook_count(network: Network) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(part, kind)) for part in network.modules() for kind in kinds)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["vgg16", "vgg16_bn"])
def test_activations_of_vgg16_equal_a_plain_loop(batch_norm: bool) -> None:
    torch.manual_seed(0)
    build = models.vgg16_bn if batch_norm else models.vgg16
    with torch.device("meta"):
        features = build(weights=None).features
    module = FeaturesOnly(features.to_empty(device="cpu")).eval()
    for tensor in module.state_dict().values():
        tensor.uniform_(0.5, 1) if tensor.ndim == 1 else tensor.normal_(std=0.05) if tensor.ndim else tensor.zero_()
    network = cnnviz.wrap(module, name="vgg16", input_size=64)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = plain_loop(module, images)
        found = cnnviz.activations(network, images, list(network.aliases))
    assert len(found) == 13 * 2 + 5
    for alias, layer in network.aliases.items():
        torch.testing.assert_close(found[alias], expected[layer], rtol=0, atol=0)
    assert (found["block3_conv2:pre"] < 0).any()
    assert (found["block3_conv2"] >= 0).all()


class FeaturesOnly(nn.Module):
    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images).mean((2, 3))


def test_a_naive_hook_on_an_inplace_network_is_wrong(small_vgg: SmallVGG) -> None:
    images, kept = torch.rand(1, 3, 64, 64), []
    layer = small_vgg.features[1 if len(small_vgg.features) > 31 else 0]
    handle = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    with torch.no_grad():
        small_vgg(images)
        handle.remove()
        expected = plain_loop(small_vgg, images)[f"features.{list(small_vgg.features).index(layer)}"]
        ours = cnnviz.activations(cnnviz.wrap(small_vgg, name="vgg", input_size=64), images, ["block1_conv1:pre"])
    assert (expected < 0).any()
    assert (kept[0] >= 0).all(), "the naive hook saw the values after the ReLU"
    torch.testing.assert_close(ours["block1_conv1:pre"], expected, rtol=0, atol=0)


class FunctionalInplace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.after = nn.Conv2d(4, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        functional.relu(maps, inplace=True)
        return self.after(maps).mean((2, 3))


def test_maps_are_safe_from_functional_inplace_operations() -> None:
    torch.manual_seed(1)
    module, images = FunctionalInplace(), torch.rand(1, 3, 9, 9)
    found = cnnviz.activations(cnnviz.wrap(module, name="net", input_size=9), images, ["conv", "after"])
    torch.testing.assert_close(found["conv"], module.conv(images).detach())
    torch.testing.assert_close(found["after"], module.after(module.conv(images).relu()).detach())


class Loud(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("ran too far")


def test_the_network_runs_no_deeper_than_asked_and_leaves_no_hooks() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Loud())
    network = cnnviz.wrap(module, name="net", input_size=9)
    found = cnnviz.activations(network, torch.rand(1, 3, 9, 9), ["1", "0"])
    assert list(found) == ["1", "0"]
    with pytest.raises(RuntimeError, match="ran too far"):
        cnnviz.activations(network, torch.rand(1, 3, 9, 9), ["0", "2"])
    assert hook_count(network) == 0


def test_one_layer_by_two_names_and_the_order_of_the_names(small_vgg: SmallVGG) -> None:
    network, images = cnnviz.wrap(small_vgg, name="vgg", input_size=64), torch.rand(2, 3, 64, 64)
    names = ["block3_conv2", network.qualified("block3_conv2"), "block1_conv1", "block2-pool"]
    found = cnnviz.activations(network, images, names)
    assert list(found) == names
    assert torch.equal(found[names[0]], found[names[1]])
    for name in names:
        assert torch.equal(found[name], cnnviz.activations(network, images, [name])[name])
    assert not cnnviz.activations(network, images, [])


def test_what_a_layer_would_be_given_is_kept_instead_of_its_output() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), Loud())
    network, images = cnnviz.wrap(module, name="net", input_size=9), torch.rand(1, 3, 9, 9)
    first, last = network.module[0], network.module[2]
    seen = capture(network, images, {last: "last", first: "first"}, before=last)
    assert list(seen) == [first, last], "in the order in which they run"
    torch.testing.assert_close(seen[last], module[:2](images).detach())
    torch.testing.assert_close(seen[first], module[0](images).detach())
    assert hook_count(network) == 0


class Stubborn(nn.Module):
    """A forward pass that shrugs off every exception."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.after = nn.Conv2d(3, 4, 3), Loud()

    def forward(self, images: Tensor) -> Tensor:
        try:
            return self.after(self.conv(images))
        except Exception:  # noqa: BLE001
            return self.after(images)


def test_no_except_clause_of_a_users_forward_stops_the_early_end() -> None:
    network = cnnviz.wrap(Stubborn(), name="net", input_size=9)
    assert cnnviz.activations(network, torch.rand(1, 3, 9, 9), ["conv"])["conv"].shape == (1, 4, 7, 7)


def test_a_reused_module_gives_its_first_output() -> None:
    relu = nn.ReLU()
    module = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.Conv2d(4, 2, 3))
    network, images = cnnviz.wrap(module, name="net", input_size=12), torch.rand(1, 3, 12, 12)
    found = cnnviz.activations(network, images, ["1", "4"])
    torch.testing.assert_close(found["1"], module[0](images).relu().detach())
    torch.testing.assert_close(found["4"], module(images).detach())


def test_gradients_flow_to_the_images(small_vgg: SmallVGG) -> None:
    network = cnnviz.wrap(small_vgg, name="vgg", input_size=64)
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    found = cnnviz.activations(network, images, ["block1_conv1:pre", "block2_conv1"])
    first, second = (torch.autograd.grad(found[name].sum(), images, retain_graph=True)[0] for name in found)
    reference = images.detach().clone().requires_grad_()
    expected = plain_loop(small_vgg, reference)
    names = [network.qualified(name) for name in found]
    torch.testing.assert_close(first, torch.autograd.grad(expected[names[0]].sum(), reference, retain_graph=True)[0])
    torch.testing.assert_close(second, torch.autograd.grad(expected[names[1]].sum(), reference)[0])


class Halves(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.halves, self.idle = Halves(), nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.halves(images)[0].mean((2, 3))


@pytest.mark.parametrize(("layer", "message"), [("halves", "gives a tuple, not a tensor"), ("idle", "does not run")])
def test_layers_without_a_map_are_refused(layer: str, message: str) -> None:
    network = cnnviz.wrap(Odd(), name="net", input_size=9)
    with pytest.raises(LayerError, match=message):
        cnnviz.activations(network, torch.rand(1, 3, 9, 9), [layer])
    assert hook_count(network) == 0


class DropoutThenInplace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop, self.after = nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Conv2d(4, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        same = self.drop(maps)
        maps.relu_()
        return self.after(same).mean((2, 3))


def test_maps_are_safe_behind_layers_that_return_their_input() -> None:
    torch.manual_seed(1)
    module, images = DropoutThenInplace().eval(), torch.rand(1, 3, 9, 9)
    found = cnnviz.activations(cnnviz.wrap(module, name="net", input_size=9), images, ["drop", "after"])
    torch.testing.assert_close(found["drop"], module.conv(images).detach())


def test_gradients_flow_from_a_later_map_to_an_earlier_one(small_vgg: SmallVGG) -> None:
    network = cnnviz.wrap(small_vgg, name="vgg", input_size=64)
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    found = cnnviz.activations(network, images, ["block4_conv3", "classifier"])
    gradient = torch.autograd.grad(found["classifier"][0, 2], found["block4_conv3"])[0]
    maps = found["block4_conv3"].detach().requires_grad_()
    layers = list(small_vgg.features)
    rest = layers[1 + layers.index(small_vgg.get_submodule(network.qualified("block4_conv3"))) :]
    logits = small_vgg.classifier(nn.Sequential(*rest)(maps).mean((2, 3)))
    torch.testing.assert_close(gradient, torch.autograd.grad(logits[0, 2], maps)[0])


def test_a_single_name_is_a_list_of_one_and_a_file_is_refused(small_vgg: SmallVGG) -> None:
    network, images = cnnviz.wrap(small_vgg, name="vgg", input_size=64), torch.rand(1, 3, 64, 64)
    single, listed = (cnnviz.activations(network, images, layers) for layers in ("block1_conv1", ["block1_conv1"]))
    assert torch.equal(single["block1_conv1"], listed["block1_conv1"])
    with pytest.raises(ShapeError, match=r"images are a tensor \(N, C, H, W\), not a str"):
        cnnviz.activations(network, "cat.jpg", ["block1_conv1"])


def test_a_network_is_shown_images_in_its_range_and_real_numbers(small_vgg: SmallVGG) -> None:
    network = cnnviz.wrap(small_vgg, name="small", input_size=32)
    for images, text in (
        (torch.rand(1, 3, 32, 32) * 255, r"images lie in \[0, 1\]; this tensor goes from"),
        (torch.ones(1, 3, 32, 32, dtype=torch.uint8), "this tensor is torch.uint8; divide by 255 first"),
        (torch.full((1, 3, 32, 32), torch.nan), "are NaN or infinite"),
    ):
        with pytest.raises(ShapeError, match=text):
            cnnviz.activations(network, images, "features.0")


def test_a_plain_module_is_given_tensors_as_they_are(small_vgg: SmallVGG) -> None:
    images = torch.randn(2, 3, 32, 40, requires_grad=True)
    first, last = small_vgg.features[0], small_vgg.features[-1]
    outputs = cnnviz.activations(small_vgg, images, ["features.0", last])
    torch.testing.assert_close(outputs["features.0"], first(images))
    assert list(outputs) == ["features.0", f"features.{len(small_vgg.features) - 1}"]
    outputs["features.0"].sum().backward()
    assert images.grad is not None
    with pytest.raises(ShapeError, match=r"\(N, C, H, W\), not 3 x 32 x 40"):
        cnnviz.activations(small_vgg, images[0], "features.0")
    with pytest.raises(ShapeError, match="divide by 255"):
        cnnviz.activations(small_vgg, images.byte(), "features.0")
