"""Values of a wrong type where a network, a name, an image or a path belongs: one sentence, an error of cnnviz's."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cnnviz
from cnnviz.errors import CnnvizError
from cnnviz.networks.network import Network
from tests.support.paths import CAT

IMAGE = torch.rand(3, 32, 32)
FEW = {"steps": 1, "size": 32}
# What each public function is called with, and which of it is then replaced by something else.
CALLS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "activations": ({"images": IMAGE[None], "layers": ["features"]}, ("network", "images", "layers")),
    "ascend": ({"objective": None, "image": None}, ("network", "objective", "image")),
    "attribute": (
        {"images": IMAGE[None], "targets": 0, "method": "saliency"},
        ("network", "images", "targets", "method", "baseline"),
    ),
    "build_gallery": ({"folder": "g", "layers": ["block1_conv1"]}, ("network", "folder", "layers")),
    "class_images": ({"classes": [0], **FEW}, ("network", "classes")),
    "class_index": ({"name": "tabby"}, ("network", "name")),
    "compare_methods": ({"folder": "."}, ("network", "folder", "methods")),
    "dream": ({"picture": IMAGE, "layer": "block1_conv1", "steps": 1}, ("network", "picture", "layer")),
    "explain": (
        {"picture": IMAGE, "methods": "saliency", "checks": ()},
        ("network", "picture", "classes", "methods", "versus", "layer", "baseline", "checks"),
    ),
    "feature_maps": ({"picture": IMAGE, "layer": "block1_conv1"}, ("network", "picture", "layer")),
    "filter_images": ({"layer": "block1_conv1", "filters": [0], **FEW}, ("network", "layer", "filters")),
    "invert": ({"picture": IMAGE, "layers": "block1_conv1", "steps": 1}, ("network", "picture", "layers")),
    "kernel_sheet": ({}, ("network", "layer")),
    "layer_table": ({}, ("network", "input_size")),
    "load": ({"name": "vgg16-mini"}, ("name", "weights")),
    "make_report": ({"picture": CAT}, ("network", "picture", "methods")),
    "maximize": ({"objective": "block1_conv1:0", **FEW}, ("network", "objective")),
    "mean_attribution": ({"explanations": []}, ("explanations",)),
    "predict": ({"picture": IMAGE}, ("network", "picture")),
    "read_picture": ({"path": CAT}, ("path",)),
    "read_record": ({"path": CAT}, ("path",)),
    "wrap": ({"module": nn.Conv2d(3, 4, 1), "name": "net", "input_size": 8}, ("module", "input_size")),
}
WRONG: tuple[object, ...] = (3, 2.5, {"a": 1}, object(), b"x", None)
MEANT: list[tuple[str, str, object]] = [  # numbers of classes and filters, sizes, and what stands for a default
    *((function, "classes", 3) for function in ("class_images", "explain")),
    *(("explain", parameter, None) for parameter in ("classes", "methods", "versus", "layer")),
    ("attribute", "targets", 3),
    ("class_index", "name", 3),
    ("explain", "versus", 3),
    ("filter_images", "filters", 3),
    ("filter_images", "filters", None),
    ("kernel_sheet", "layer", None),
    ("layer_table", "input_size", None),
    ("load", "weights", None),
    ("wrap", "input_size", 3),
]
CASES = [
    (function, parameter, wrong)
    for function, (_, parameters) in CALLS.items()
    for parameter in parameters
    for wrong in WRONG
    if (function, parameter, wrong) not in MEANT
]


def test_every_public_function_is_here() -> None:
    public = (getattr(cnnviz, name) for name in cnnviz.__all__)
    functions = {function.__name__ for function in filter(inspect.isfunction, public)}
    assert functions == set(CALLS) | {"sheet"}  # whose tiles are made with numpy, not given by users


@pytest.mark.parametrize(
    ("function", "parameter", "wrong"),
    CASES,
    ids=[f"{name}-{key}-{type(wrong).__name__}" for name, key, wrong in CASES],
)
def test_what_is_of_another_type_is_told_in_one_sentence(
    function: str, parameter: str, wrong: object, mini: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call: Callable[..., object] = getattr(cnnviz, function)
    network = {"network": mini} if "network" in CALLS[function][1] else {}

    def called() -> object:
        result = call(**network | CALLS[function][0] | {parameter: wrong})
        return next(result) if inspect.isgenerator(result) else result

    with pytest.raises(CnnvizError) as caught:
        called()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
