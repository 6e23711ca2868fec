"""Network: the same function as the module it was made from, and the module as it was."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

import cnnviz
from cnnviz.errors import ModelError, ShapeError, UnknownNameError
from cnnviz.networks.layer_names import layer_names, with_use
from cnnviz.networks.network import Network
from tests.support.networks import LeNet, SmallVGG


def wrapped(module: nn.Module, **settings: object) -> Network:
    return cnnviz.wrap(module, **{"name": "net", "input_size": 64, **settings})


def test_forward_normalises_and_equals_the_module(small_vgg: SmallVGG) -> None:
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    images = torch.rand(2, 3, 64, 48)
    expected = small_vgg((images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
    torch.testing.assert_close(wrapped(small_vgg, mean=mean, std=std)(images), expected.detach())


def test_wrapping_changes_nothing_of_the_module() -> None:
    module = SmallVGG(batch_norm=True).train()
    module(torch.rand(2, 3, 64, 64)).sum().backward()
    flags = [(part.training, getattr(part, "inplace", None), len(part._forward_hooks)) for part in module.modules()]
    before = copy.deepcopy(module.state_dict())
    gradients = [parameter.grad.clone() for parameter in module.parameters()]

    network = wrapped(module)
    cnnviz.feature_maps(network, torch.rand(3, 64, 64), "block2_conv1")

    assert flags == [(p.training, getattr(p, "inplace", None), len(p._forward_hooks)) for p in module.modules()]
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(
        torch.equal(parameter.grad, grad) for parameter, grad in zip(module.parameters(), gradients, strict=True)
    )
    assert all(torch.equal(module.state_dict()[key], value) for key, value in before.items())


def test_a_network_is_frozen_in_eval_mode_and_overwrites_nothing(small_vgg: SmallVGG) -> None:
    network = wrapped(small_vgg.train())
    assert not any(part.training for part in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(getattr(part, "inplace", False) for part in network.modules())


def test_weights_are_shared_not_copied(small_vgg: SmallVGG) -> None:
    network, images = wrapped(small_vgg), torch.rand(1, 3, 64, 64)
    before = network(images)
    with torch.no_grad():
        small_vgg.classifier.bias.add_(1)
    torch.testing.assert_close(network(images), before + 1)


def test_modules_that_hold_computed_tensors_can_be_wrapped() -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    module = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module.last = module(torch.rand(1, 3, 8, 8))  # not a leaf: plain deepcopy refuses it
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(wrapped(module)(images), module(images).detach())


def test_shared_modules_and_parameters_stay_shared() -> None:
    relu = nn.ReLU(inplace=True)
    module = nn.Sequential(nn.Conv2d(3, 3, 3), relu, nn.Conv2d(3, 3, 3), relu)
    module[2].weight = module[0].weight
    network = wrapped(module)
    assert network.layers["0"].weight is network.layers["2"].weight
    assert network.module[1] is network.module[3]


BLOCKS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


@pytest.mark.parametrize("suffix", ["", "_bn"])
@pytest.mark.parametrize("name", BLOCKS)
def test_the_vgg_family_answers_to_block_names(name: str, suffix: str) -> None:
    with torch.device("meta"):
        module = models.get_model(name + suffix, weights=None)
    expected = {f"block{x}_conv{y}" for x, count in enumerate(BLOCKS[name], 1) for y in range(1, count + 1)}
    expected |= {f"{name}:pre" for name in expected} | {f"block{x}_pool" for x in range(1, 6)}
    names = layer_names(module)
    assert set(names) == expected
    for name, layer in names.items():
        kind = type(module.get_submodule(layer.module)).__name__
        before_relu = "BatchNorm2d" if suffix else "Conv2d"
        assert kind == ("MaxPool2d" if "pool" in name else before_relu if name.endswith(":pre") else "ReLU")
        assert layer.name == name
        assert layer.convolution == ("conv" in name)
        assert layer.before_activation == name.endswith(":pre")


def test_block_names_of_vgg16_by_hand(mini: Network) -> None:
    assert mini.qualified("block4_conv2") == mini.qualified("block4-conv2") == "features.20"
    assert mini.qualified("block4_conv2:pre") == mini.qualified("block4-conv2:pre") == "features.19"
    assert mini.qualified("block1_conv1") == "features.1"
    assert mini.qualified("block5_pool") == mini.qualified("features.30") == "features.30"
    assert mini.layers["block5_pool"] is mini.module.features[30]
    assert [mini.called(layer) for layer in ("features.19", "features.30", "classifier.linear")] == [
        "block4_conv2:pre",
        "block5_pool",
        "classifier.linear",
    ]


def test_a_layers_filters_are_those_of_its_convolution_by_whatever_name(mini: Network) -> None:
    after, before = ("block4_conv2", "features.19"), ("block4_conv2:pre", "features.19")
    called = {"block4_conv2": after, "block4-conv2": after, "features.20": after, "features.19": after}
    called |= dict.fromkeys(("block4_conv2:pre", "block4-conv2:pre", "features.19:pre", "features.20:pre"), before)
    called |= {"block5_pool": ("block5_pool", "features.30"), "block5_pool:pre": ("block5_pool:pre", "features.30")}
    for layer, (name, module) in called.items():
        own = mini.filters_of(layer)
        assert (own.name, own.module, own.before_activation) == (name, module, name.endswith(":pre")), layer
    with pytest.raises(UnknownNameError, match="did you mean"):
        mini.filters_of("block4_cnv2:pre")


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "squeezenet1_0", "mobilenet_v2", "densenet121"])
def test_other_networks_do_not_answer_to_block_names(name: str) -> None:
    with torch.device("meta"):
        assert layer_names(models.get_model(name, weights=None)) == {}


def test_an_unknown_layer_names_close_ones_and_the_command_that_lists_them(mini: Network) -> None:
    with pytest.raises(UnknownNameError, match=r"'block4_cnv2'; did you mean .*'block4_conv2'.*`cnnviz layers"):
        mini.qualified("block4_cnv2")


def test_whether_a_network_takes_any_size_is_found_out(mini: Network, lenet: LeNet) -> None:
    assert mini.takes_any_size
    assert not wrapped(lenet, input_size=28).takes_any_size
    assert wrapped(nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())).takes_any_size


def test_mean_and_std_may_be_tensors_or_arrays_of_any_shape(small_vgg: SmallVGG) -> None:
    mean, std, images = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3], torch.rand(1, 3, 64, 64)
    expected = wrapped(small_vgg, mean=mean, std=std)(images)
    tensors = wrapped(small_vgg, mean=torch.tensor(mean).view(1, 3, 1, 1), std=torch.tensor(std).view(3, 1, 1))
    arrays = wrapped(small_vgg, mean=np.array(mean, np.float32), std=tuple(std))
    assert torch.equal(tensors(images), expected)
    assert torch.equal(arrays(images), expected)
    with pytest.raises(ModelError, match="mean has 4 numbers; net takes images of 3"):
        wrapped(small_vgg, mean=torch.rand(1, 4, 1, 1))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mean": "imagenet"}, "mean is a number, or one for each colour channel; this str is neither"),
        ({"std": None}, "std is a number, or one for each colour channel; this NoneType is neither"),
        ({"input_size": 64.0}, r"the input size of net is a side or \(height, width\) in pixels, not 64.0"),
        ({"input_size": [64]}, r"the input size of net is a side or \(height, width\) in pixels, not \[64\]"),
    ],
)
def test_settings_that_are_none_are_refused_in_one_line(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        wrapped(SmallVGG(), **settings)


def test_one_mean_serves_all_channels_and_channels_are_found(lenet: LeNet) -> None:
    network = wrapped(lenet, input_size=28, mean=[0.13], std=[0.38])
    assert network.channels == 1
    images = torch.rand(1, 1, 28, 28)
    torch.testing.assert_close(network(images), lenet((images - 0.13) / 0.38).detach())
    assert wrapped(SmallVGG(), mean=[0.5], std=[0.5]).mean.shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": [0.1, 0.2]}, "mean has 2 numbers; net takes images of 3"),
        ({"std": [0.0]}, "above zero"),
        ({"mean": [float("nan")]}, "finite"),
        ({"input_size": 0}, "at least 1 pixel"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        wrapped(SmallVGG(), **settings)


def test_images_of_another_shape_are_refused(mini: Network) -> None:
    with pytest.raises(ShapeError, match="N x 3 x H x W; these are 1x1x64x64"):
        mini(torch.rand(1, 1, 64, 64))


def test_the_fingerprint_knows_weights_apart(small_vgg: SmallVGG) -> None:
    first = wrapped(small_vgg).fingerprint
    assert wrapped(copy.deepcopy(small_vgg)).fingerprint == first
    with torch.no_grad():
        small_vgg.classifier.bias[0] += 1e-6
    assert wrapped(small_vgg).fingerprint != first


def test_double_precision_networks_are_fed_doubles(small_vgg: SmallVGG) -> None:
    network = wrapped(small_vgg.double())
    assert network(torch.rand(1, 3, 64, 64)).dtype == torch.float64


def test_a_networks_own_hooks_are_part_of_its_function(small_vgg: SmallVGG) -> None:
    small_vgg.classifier.register_forward_hook(lambda _module, _inputs, output: output * 2)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(wrapped(small_vgg)(images), small_vgg(images).detach())


def test_the_fingerprint_follows_weights_that_change(small_vgg: SmallVGG) -> None:
    network = wrapped(small_vgg)
    before = network.fingerprint
    assert network.fingerprint == before
    with torch.no_grad():
        small_vgg.classifier.weight.add_(1)
    assert network.fingerprint == wrapped(small_vgg).fingerprint != before


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_size_is_found_out_in_any_precision(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).to(dtype)
    assert wrapped(module).takes_any_size
    assert wrapped(nn.Conv2d(3, 2, 3)).takes_any_size, "fully convolutional"


def test_a_module_that_cannot_be_copied_is_refused(small_vgg: SmallVGG) -> None:
    small_vgg.lock = threading.Lock()
    with pytest.raises(ModelError, match="cannot be copied"):
        wrapped(small_vgg)


def test_a_shared_relu_has_no_block_names() -> None:
    relu = nn.ReLU()
    module = nn.Module()
    module.features = nn.Sequential(
        nn.Conv2d(3, 2, 3), relu, nn.MaxPool2d(2), nn.Conv2d(2, 2, 3), relu, nn.MaxPool2d(2)
    )
    assert layer_names(module) == {}


def test_hints_name_each_layer_once_whatever_its_capitals(mini: Network) -> None:
    with pytest.raises(UnknownNameError) as caught:
        mini.qualified("BLOK1_conv1")
    hints = str(caught.value).split("did you mean ")[1].split("?")[0].split(" or ")
    assert hints[0] == "'block1_conv1'"
    assert len(set(hints)) == len(hints)


def test_one_number_does_for_mean_and_std(lenet: LeNet) -> None:
    network = cnnviz.wrap(lenet, name="lenet", input_size=28, mean=0.13, std=0.38)
    images = torch.rand(1, 1, 28, 28)
    torch.testing.assert_close(network(images), lenet((images - 0.13) / 0.38).detach())


class Recurrent(nn.Module):
    """One convolution again and again, a ReLU behind each, and one that is never run."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times, self.first, self.again = times, nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.spare, self.linear = nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Linear(4 * 16 * 16, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.relu(self.first(images))
        for _ in range(self.times):
            maps = self.relu(self.again(maps))
        output: torch.Tensor = self.linear(maps.flatten(1))
        return output


@pytest.mark.parametrize(("times", "title"), [(1, "again"), (3, "again (1st of 3 uses)")])
def test_uses_of_a_layer_are_counted(times: int, title: str) -> None:
    module = Recurrent(times)
    network = wrapped(module, input_size=16)
    counts = {layer: network.uses(layer) for layer in ("first", "again", "relu", "linear", "relu@2")}
    assert counts == {"first": 1, "again": times, "relu": times + 1, "linear": 1, "relu@2": times + 1}
    assert network.titled("again") == title
    assert network.titled("spare") == "spare"
    assert not any(part._forward_hooks for part in (*module.modules(), *network.modules()))


def test_uses_are_those_before_a_fault() -> None:
    module = Recurrent(2)
    module.linear = nn.Linear(5, 2)
    network = wrapped(module, input_size=16)
    assert (network.uses("relu"), network.uses("linear")) == (3, 1)


def test_the_layers_of_known_networks_are_used_as_torchvision_uses_them(mini: Network) -> None:
    resnet = wrapped(models.resnet18().eval())
    assert resnet.titled("layer1.0.relu@2") == "layer1.0.relu (2nd of 2 uses)"
    assert [resnet.titled(layer) for layer in ("relu", "layer2.0.conv1")] == ["relu", "layer2.0.conv1"]
    assert {mini.uses(layer) for layer in mini.layers} == {1}


@pytest.mark.parametrize(
    ("number", "said"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (13, "13th"), (22, "22nd")]
)
def test_numbers_of_uses_in_words(number: int, said: str) -> None:
    assert with_use(f"block.relu@{number}", 30) == f"block.relu ({said} of 30 uses)"


def test_a_layer_may_be_given_as_a_module_of_the_original(lenet: LeNet) -> None:
    network, images = cnnviz.wrap(lenet, name="le", input_size=28), torch.rand(2, 1, 28, 28)
    maps = cnnviz.feature_maps(network, images, lenet.conv2)
    assert maps.layer == "conv2"
    assert torch.equal(cnnviz.activations(network, images, lenet.conv2)["conv2"], maps.maps)
    assert network.twin().layer_name(lenet.conv2) == "conv2"
    with pytest.raises(UnknownNameError, match="this Conv2d is no module of le; give the layer by its name"):
        network.layer_name(nn.Conv2d(1, 6, 5))


def test_a_network_keeps_no_original_alive_and_can_be_pickled() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    kept, network = weakref.ref(module[0]), cnnviz.wrap(module, name="net", input_size=8)
    again, images = pickle.loads(pickle.dumps(network)), torch.rand(1, 3, 8, 8)
    assert torch.equal(again(images), network(images))
    del module
    gc.collect()
    assert kept() is None


def test_a_mean_of_bytes_is_told() -> None:
    for mean in (123.0, [123, 117, 104]):
        with pytest.raises(ModelError, match=r"images lie in \[0, 1\], and mean is \[123.0.*; divide mean and std by"):
            cnnviz.wrap(nn.Conv2d(3, 4, 3), name="net", input_size=8, mean=mean)


def test_class_names_are_counted_where_the_network_runs_anyway(lenet: LeNet) -> None:
    with pytest.raises(ModelError, match="le has 1 class names for 10 classes; give one name for each"):
        cnnviz.wrap(lenet, name="le", input_size=28, labels=["zero"])


def test_a_device_that_is_not_there_is_told_in_one_line(lenet: LeNet) -> None:
    network = cnnviz.wrap(lenet, name="le", input_size=28)
    for move in (
        lambda: network.to("cuda"),
        lambda: network.to(device=torch.device("cuda")),
        lambda: network.to("nonsense", torch.float64),
        network.cuda,
        lambda: network.cuda(1),
    ):
        with pytest.raises(ModelError, match=r"PyTorch finds no device '(cuda|cuda:1|nonsense)' here; there is cpu"):
            move()
    assert network.to(torch.float64).dtype == torch.float64
    assert network.to("cpu") is network
