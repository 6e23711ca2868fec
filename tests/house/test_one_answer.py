"""Whatever looks at an image looks at the same part of it, unless told otherwise, and finds the same class."""

import inspect
import json

import pytest
import torch

import cnnviz
from cnnviz.cli import cli
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network
from tests.support.commands import Run
from tests.support.paths import CAT


def test_every_default_is_the_published_crop() -> None:
    functions = [show, *(getattr(cnnviz, name) for name in cnnviz.__all__)]
    defaults = {
        function.__name__: inspect.signature(function).parameters["fit"].default
        for function in functions
        if inspect.isfunction(function) and "fit" in inspect.signature(function).parameters
    }
    assert {"show", "predict", "explain", "feature_maps"} <= set(defaults)
    assert set(defaults.values()) == {"crop"}
    options = {
        name: option.default
        for name, command in cli.commands.items()
        for option in command.params
        if option.name == "fit"
    }
    assert {"predict", "saliency", "featuremaps"} <= set(options)
    assert set(options.values()) == {"crop"}


def test_one_probability_everywhere(mini: Network) -> None:
    """Of an image that is no square, where the whole image and its centre differ."""
    prediction = cnnviz.predict(mini, CAT, top=1)[0]
    attribution = cnnviz.explain(mini, CAT, methods="saliency", checks=()).attributions[0]
    report = cnnviz.make_report(mini, CAT, methods=["saliency"], filters=1, steps=2)
    assert attribution.target.index == report.predictions[0].index == prediction.index
    assert attribution.probability == pytest.approx(prediction.probability)
    assert report.predictions[0].probability == pytest.approx(prediction.probability)
    whole = cnnviz.predict(mini, CAT, top=1, fit="whole")[0]
    assert whole.probability != pytest.approx(prediction.probability, rel=1e-3)
    maps = cnnviz.feature_maps(mini, CAT, "block1_conv1").maps
    torch.testing.assert_close(maps, cnnviz.activations(mini, show(mini, CAT).images, ["block1_conv1"])["block1_conv1"])


def test_commands_print_one_probability(run: Run) -> None:
    given = (CAT, "--model", "vgg16-mini", "--json")
    (predicted,) = json.loads(run("predict", *given).stdout)["predictions"]
    explained = json.loads(run("saliency", *given, "--method", "saliency").stdout)
    probability = predicted["classes"][0]["probability"]
    assert explained["attributions"][0]["probability"] == pytest.approx(probability, rel=1e-4)
