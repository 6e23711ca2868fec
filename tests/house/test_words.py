"""Every parameter that takes a word refuses one that it does not know, before any work, and says which there are."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import torch

import cnnviz
from cnnviz.attribution.baselines import BASELINES
from cnnviz.attribution.heatmaps import heat
from cnnviz.attribution.methods import CHECKS, METHODS
from cnnviz.errors import UnknownNameError
from cnnviz.features.maps import FeatureMaps
from cnnviz.networks.inputs import as_it_is, show
from cnnviz.networks.network import Network

NOWHERE = "nowhere.jpg"  # is never opened
NETWORKS = "tests.support.networks"
LAYER, FIT, SCALE = "block1_conv1", ("whole", "crop"), ("channel", "shared")
PRESETS, PRECISIONS = ("draft", "default", "fine"), ("auto", "float32", "bfloat16")


def maps_of(network: Network) -> FeatureMaps:
    return FeatureMaps(network, LAYER, as_it_is(network, torch.rand(3, 8, 8)), torch.rand(1, 2, 8, 8))


# By parameter: a call with a word that is none, and the words that there are.
WORDS: dict[str, tuple[Callable[[Network], object], tuple[str, ...]]] = {
    "show, fit": (lambda network: show(network, NOWHERE, fit="corp"), FIT),
    "show, fit of a tensor": (lambda network: show(network, torch.rand(3, 8, 8), fit="corp"), FIT),
    "feature_maps, fit": (lambda network: cnnviz.feature_maps(network, NOWHERE, LAYER, fit="corp"), FIT),
    "predict, fit": (lambda network: cnnviz.predict(network, NOWHERE, fit="corp"), FIT),
    "explain, fit": (lambda network: cnnviz.explain(network, NOWHERE, fit="corp"), FIT),
    "explain, checks": (lambda network: cnnviz.explain(network, NOWHERE, checks=["curves", "curvs"]), CHECKS),
    "explain, checks as one": (lambda network: cnnviz.explain(network, NOWHERE, checks="sanitty"), CHECKS),
    "explain, methods": (lambda network: cnnviz.explain(network, NOWHERE, methods=["lime", "lrq"]), tuple(METHODS)),
    "explain, baseline": (lambda network: cnnviz.explain(network, NOWHERE, baseline="blurr"), BASELINES),
    "attribute, method": (lambda network: cnnviz.attribute(network, torch.rand(1), 0, method="lrq"), tuple(METHODS)),
    "attribute, baseline": (lambda network: cnnviz.attribute(network, torch.rand(1), 0, baseline="blurr"), BASELINES),
    "heat, method": (lambda _: heat(torch.rand(1, 3, 8, 8), "lrq", (8, 8)), tuple(METHODS)),
    "compare_methods, methods": (
        lambda network: cnnviz.compare_methods(network, NOWHERE, methods="lrq"),
        tuple(METHODS),
    ),
    "make_report, methods": (lambda network: cnnviz.make_report(network, NOWHERE, methods=["lrq"]), tuple(METHODS)),
    "FeatureMaps.order, by": (lambda network: maps_of(network).order("maen"), ("mean", "max")),
    "FeatureMaps.sheet, scale": (lambda network: maps_of(network).sheet(scale="sheared"), SCALE),
    "FeatureMaps.figure, scale": (lambda network: maps_of(network).figure(scale="sheared"), SCALE),
    "FeatureMaps.sheet, cmap": (lambda network: maps_of(network).sheet(cmap="magna"), ("magma",)),
    "FeatureMaps.figure, cmap": (lambda network: maps_of(network).figure(cmap="magna"), ("magma",)),
    "filter_images, recipe": (
        lambda network: cnnviz.filter_images(network, LAYER, [0], recipe="fourrier"),
        ("fourier",),
    ),
    "filter_images, preset": (lambda network: cnnviz.filter_images(network, LAYER, [0], preset="draught"), PRESETS),
    "filter_images, precision": (
        lambda network: cnnviz.filter_images(network, LAYER, [0], precision="float23"),
        PRECISIONS,
    ),
    "wrap, outputs": (
        lambda network: cnnviz.wrap(network.module, name="net", input_size=8, outputs="logit"),
        ("logits", "probabilities", "multilabel", "value"),
    ),
    "load, outputs": (
        lambda _: cnnviz.load(f"{NETWORKS}:LeNet", input_size=28, outputs="logit"),
        ("logits", "probabilities", "multilabel", "value"),
    ),
    "build_gallery, recipe": (lambda network: cnnviz.build_gallery(network, "vgg", recipe="fourrier"), ("fourier",)),
    "build_gallery, preset": (lambda network: cnnviz.build_gallery(network, "vgg", preset="draught"), PRESETS),
    "build_gallery, precision": (lambda network: cnnviz.build_gallery(network, "vgg", precision="float23"), PRECISIONS),
}


@pytest.mark.parametrize("parameter", WORDS)
def test_a_word_that_is_none_is_refused(
    parameter: str, mini: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, choices = WORDS[parameter]
    with pytest.raises(UnknownNameError, match=r"^no [a-z ]+ named '") as refused:
        call(mini)
    assert all(choice in str(refused.value) for choice in choices)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def with_literals() -> Iterator[str]:
    """Parameters of public functions, and of methods of public classes, of which mypy knows the words."""
    for public in map(cnnviz.__getattr__, cnnviz.__all__):
        functions = vars(public).values() if inspect.isclass(public) else [public]
        for function in filter(inspect.isfunction, functions):
            if function.__name__ == "__init__":
                continue  # of results, which cnnviz makes itself
            for parameter in inspect.signature(function).parameters.values():
                kinds = [parameter.annotation, *get_args(parameter.annotation)]
                if any(get_origin(kind) is Literal for kind in kinds):
                    yield f"{function.__qualname__}, {parameter.name}"


def test_no_public_parameter_is_left_out() -> None:
    parameters = set(with_literals())
    assert parameters <= set(WORDS), "add what is missing to WORDS"
    assert {"predict, fit", "FeatureMaps.order, by", "build_gallery, precision"} <= parameters
