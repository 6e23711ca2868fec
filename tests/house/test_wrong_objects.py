"""Plain modules where a network is wanted, modules where a layer's name is, tensors where a file is: told for what
they are.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import cnnviz
from cnnviz.errors import CnnvizError, ModelError, PictureError, UnknownNameError
from cnnviz.networks.network import Network
from tests.support.networks import SmallVGG

IMAGE = torch.rand(3, 64, 64)
CALLS: dict[str, Callable[[nn.Module], object]] = {
    "explain": lambda net: cnnviz.explain(net, IMAGE),  # type: ignore[arg-type]
    "predict": lambda net: cnnviz.predict(net, IMAGE),  # type: ignore[arg-type]
    "class_index": lambda net: cnnviz.class_index(net, "cat"),  # type: ignore[arg-type]
    "layer_table": lambda net: cnnviz.layer_table(net),  # type: ignore[arg-type]
    "activations": lambda net: cnnviz.activations(net, IMAGE[None], ["features"]),  # type: ignore[arg-type]
    "filter_images": lambda net: cnnviz.filter_images(net, "features", [0]),  # type: ignore[arg-type]
    "class_images": lambda net: cnnviz.class_images(net, [0]),  # type: ignore[arg-type]
    "maximize": lambda net: cnnviz.maximize(net, "features:0"),  # type: ignore[arg-type]
    "dream": lambda net: cnnviz.dream(net, IMAGE, "features"),  # type: ignore[arg-type]
    "invert": lambda net: cnnviz.invert(net, IMAGE, "features"),  # type: ignore[arg-type]
    "kernel_sheet": lambda net: cnnviz.kernel_sheet(net),  # type: ignore[arg-type]
    "make_report": lambda net: cnnviz.make_report(net, "cat.jpg"),  # type: ignore[arg-type]
    "build_gallery": lambda net: cnnviz.build_gallery(net, Path("gallery")),  # type: ignore[arg-type]
    "compare_methods": lambda net: cnnviz.compare_methods(net, Path()),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("function", CALLS)
def test_a_plain_module_is_told_how_to_become_a_network(function: str, small_vgg: SmallVGG) -> None:
    with pytest.raises(ModelError, match=r"a SmallVGG has to become a network of cnnviz's first, by cnnviz.wrap\(\)"):
        CALLS[function](small_vgg)


def test_every_public_function_of_a_network_is_here() -> None:
    of_a_network = {"attribute", "feature_maps", "ascend"}  # the first two take modules, the last is a part of others
    for name in cnnviz.__all__:
        code = getattr(getattr(cnnviz, name), "__code__", None)
        if code is not None and code.co_varnames[:1] == ("network",):
            assert name in CALLS or name in of_a_network, name


def test_a_module_as_a_layer_is_refused_by_name(mini: Network) -> None:
    layer = mini.layers["block1_conv1"]
    for call in (
        lambda: cnnviz.feature_maps(mini, IMAGE, layer),  # type: ignore[arg-type]
        lambda: cnnviz.activations(mini, IMAGE[None], [layer]),  # type: ignore[list-item]
        lambda: cnnviz.filter_images(mini, layer, [0]),  # type: ignore[arg-type]
        lambda: cnnviz.attribute(mini, IMAGE[None], 0, method="grad-cam", layer=layer),  # type: ignore[arg-type]
    ):
        with pytest.raises(UnknownNameError, match=r"a layer is given by its name, such as '.+', not as a "):
            call()


def test_a_tensor_is_no_file(mini: Network) -> None:
    with pytest.raises(PictureError, match="give its path, not a Tensor"):
        cnnviz.make_report(mini, IMAGE)  # type: ignore[arg-type]
    with pytest.raises(CnnvizError, match="not a list"):
        cnnviz.predict(mini, [IMAGE])  # type: ignore[arg-type]
