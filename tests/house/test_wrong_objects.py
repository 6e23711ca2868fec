"""Plain modules where a network is wanted, modules where a layer's name is, tensors where a file is: taken, or told for
what they are.
"""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.errors import LayerError, ModelError, PictureError, ShapeError, UnknownNameError
from cnnviz.networks.network import Network
from tests.support.networks import SmallVGG

IMAGE = torch.rand(3, 64, 64)
CALLS: dict[str, Callable[[nn.Module], object]] = {
    "explain": lambda net: cnnviz.explain(net, IMAGE),  # type: ignore[arg-type]
    "predict": lambda net: cnnviz.predict(net, IMAGE),  # type: ignore[arg-type]
    "class_index": lambda net: cnnviz.class_index(net, "cat"),  # type: ignore[arg-type]
    "filter_images": lambda net: cnnviz.filter_images(net, "features", [0]),  # type: ignore[arg-type]
    "class_images": lambda net: cnnviz.class_images(net, [0]),  # type: ignore[arg-type]
    "maximize": lambda net: cnnviz.maximize(net, "features:0"),  # type: ignore[arg-type]
    "dream": lambda net: cnnviz.dream(net, IMAGE, "features"),  # type: ignore[arg-type]
    "invert": lambda net: cnnviz.invert(net, IMAGE, "features"),  # type: ignore[arg-type]
    "ascend": lambda net: next(cnnviz.ascend(net, None, None)),  # type: ignore[arg-type]
    "kernel_sheet": lambda net: cnnviz.kernel_sheet(net),  # type: ignore[arg-type]
    "make_report": lambda net: cnnviz.make_report(net, "cat.jpg"),  # type: ignore[arg-type]
    "build_gallery": lambda net: cnnviz.build_gallery(net, Path("gallery")),  # type: ignore[arg-type]
    "compare_methods": lambda net: cnnviz.compare_methods(net, Path()),  # type: ignore[arg-type]
}

OF_MODULES = {"activations", "attribute", "feature_maps", "layer_table"}  # which take plain modules, and say so


@pytest.mark.parametrize("function", CALLS)
def test_a_plain_module_is_told_how_to_become_a_network(function: str, small_vgg: SmallVGG) -> None:
    with pytest.raises(ModelError, match=r"a SmallVGG has to become a network of cnnviz's first, by cnnviz.wrap\(\)"):
        CALLS[function](small_vgg)


def test_every_public_function_of_a_network_is_here() -> None:
    public = (getattr(cnnviz, name) for name in cnnviz.__all__)
    functions = {function.__name__: inspect.signature(function) for function in filter(inspect.isfunction, public)}
    of_a_network = {name for name, signature in functions.items() if "network" in signature.parameters}
    assert of_a_network == set(CALLS) | OF_MODULES
    assert all("or any ``nn.Module``" in inspect.getdoc(getattr(cnnviz, name)) for name in OF_MODULES)


def test_a_module_is_as_good_as_its_name(mini: Network) -> None:
    layer, name, few = mini.layers["block1_conv1"], "features.1", {"steps": 2, "size": 32}
    by_layer: list[Callable[[object], Tensor]] = [
        lambda given: cnnviz.feature_maps(mini, IMAGE, given).maps,  # type: ignore[call-overload]
        lambda given: cnnviz.feature_maps(mini, IMAGE, [given])[name].maps,  # type: ignore[list-item]
        lambda given: cnnviz.activations(mini, IMAGE[None], [given])[name],  # type: ignore[list-item]
        lambda given: cnnviz.activations(mini, IMAGE[None], given)[name],  # type: ignore[arg-type]
        lambda given: cnnviz.attribute(mini, IMAGE[None], 0, method="grad-cam", layer=given),  # type: ignore[arg-type]
        lambda given: cnnviz.explain(mini, IMAGE, methods="grad-cam", checks=(), layer=given).attributions[0].values,
        lambda given: cnnviz.filter_images(mini, given, [0], tries=1, **few).images,  # type: ignore[arg-type]
        lambda given: cnnviz.dream(mini, IMAGE, given, steps=1).images,  # type: ignore[arg-type]
        lambda given: cnnviz.invert(mini, IMAGE, [given], steps=2).images,  # type: ignore[list-item]
        lambda given: torch.tensor(cnnviz.kernel_sheet(mini, given).pixels),  # type: ignore[arg-type]
    ]
    for result in by_layer:
        assert torch.equal(result(layer), result(name))


def test_a_plain_modules_own_modules_are_layers_of_it(small_vgg: SmallVGG) -> None:
    layer = small_vgg.features[3]
    maps = cnnviz.feature_maps(small_vgg, IMAGE, layer)
    assert torch.equal(maps.maps, cnnviz.feature_maps(small_vgg, IMAGE, "features.3").maps)
    own, named = (
        cnnviz.attribute(small_vgg, IMAGE[None], 0, method="grad-cam", layer=given) for given in (layer, "features.3")
    )
    assert torch.equal(own, named)


def test_other_modules_and_lists_are_refused_in_one_line(mini: Network, small_vgg: SmallVGG) -> None:
    with pytest.raises(UnknownNameError, match=r"^this Conv2d is no module of vgg16-mini; .* from network.layers.$"):
        cnnviz.feature_maps(mini, IMAGE, small_vgg.features[0])
    for call in (
        lambda: cnnviz.filter_images(mini, ["block1_conv1"], [0]),  # type: ignore[arg-type]
        lambda: cnnviz.dream(mini, IMAGE, ["block1_conv1"]),  # type: ignore[arg-type]
        lambda: cnnviz.kernel_sheet(mini, ["block1_conv1"]),  # type: ignore[arg-type]
    ):
        with pytest.raises(
            UnknownNameError, match=r"a layer is given by its name, .*, or as its module, not as a list"
        ):
            call()
    with pytest.raises(LayerError, match="this list of layers is empty"):
        cnnviz.feature_maps(mini, IMAGE, [])
    with pytest.raises(UnknownNameError, match="an objective is given in words"):
        cnnviz.maximize(mini, mini.layers["block1_conv1"])


def test_a_tensor_is_no_file(mini: Network) -> None:
    with pytest.raises(PictureError, match="give its path, not a Tensor"):
        cnnviz.make_report(mini, IMAGE)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"a tensor .*, not a str; cnnviz.explain takes files"):
        cnnviz.attribute(mini, "cat.jpg", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [3, "vgg16", torch.relu])
def test_what_is_no_module_cannot_be_wrapped(module: object) -> None:
    with pytest.raises(ModelError, match=r"a network is made of an nn.Module; this is of type"):
        cnnviz.wrap(module, name="net", input_size=8)  # type: ignore[arg-type]
