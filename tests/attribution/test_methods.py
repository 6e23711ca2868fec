"""What stands in the table of methods holds: bounds of options, evidence that makes sense."""

import math
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.attribution.attribute import attribute
from cnnviz.attribution.evidence import infidelity, max_sensitivity
from cnnviz.attribution.explainer import Target, explainer
from cnnviz.attribution.methods import CHECKS, METHODS, Case, Method, Option, options_of, settings_of, share_out
from cnnviz.attribution.suitability import able, structure_of
from cnnviz.errors import ShapeError, UnknownNameError
from cnnviz.isolation import seeded
from cnnviz.networks.network import Network, wrap
from tests.support.paths import CAT

DRAWING = ["smoothgrad", "smoothgrad-squared", "vargrad", "gradient-shap", "lime", "kernel-shap"]
OPTIONS = [(name, option) for name, method in METHODS.items() for option in method.options]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_is_held_to_its_bounds(name: str, option: str) -> None:
    bounds = METHODS[name].options[option]
    assert settings_of(name, {})[option] == bounds.default
    assert settings_of(name, {option: bounds.default})[option] == bounds.default
    for value in (bounds.least, min(bounds.most, 1e6)):
        assert settings_of(name, {option: value}) == settings_of(name, {}) | {option: value}
    for value in (0, -1, bounds.least / 2, math.nan, math.inf, -math.inf):
        with pytest.raises(ShapeError, match=f"^{option} must be (a whole number of at least|greater than zero)"):
            settings_of(name, {option: value})
    if bounds.whole:
        for value, text in ((bounds.least + 0.5, "must be a whole number"), (bounds.most + 1, "can be .* at most")):
            with pytest.raises(ShapeError, match=f"^{option} {text}"):
                settings_of(name, {option: value})
    if bounds.default is not None:
        with pytest.raises(ShapeError, match="not None"):
            settings_of(name, {option: None})


def test_the_documentation_names_the_signed_methods_and_every_option() -> None:
    text = " ".join(str(attribute.__doc__).split())
    signed = text.partition("decreases it) are ")[2].partition(".")[0].replace(" and ", ", ").split(", ")
    assert signed == [name for name, method in METHODS.items() if method.signed]
    options = text.partition("options: the method's own")[2].partition("Returns:")[0]
    for name, option in OPTIONS:
        assert f"``{option}``" in options
        assert name in options
        default = METHODS[name].options[option].default
        assert default is None or f"{default:g}" in options


def test_each_method_gets_the_options_that_it_has() -> None:
    methods = ["lime", "saliency", "smoothgrad"]
    assert options_of(methods) == ["noise", "patches", "samples"]
    shares = share_out({"samples": 9, "noise": 0.2}, methods)
    assert shares == {"lime": {"samples": 9}, "saliency": {}, "smoothgrad": {"samples": 9, "noise": 0.2}}
    with pytest.raises(UnknownNameError, match="none of lime, saliency, smoothgrad has an option 'steps'; they have n"):
        share_out({"steps": 3}, methods)
    with pytest.raises(ShapeError, match="samples must be a whole number"):
        share_out({"samples": 0}, methods)


def test_noisy_gradients_are_as_many_as_smilkov_recommends() -> None:
    for name in ("smoothgrad", "smoothgrad-squared", "vargrad"):
        assert settings_of(name, {})["samples"] == 50


def test_infidelity_is_about_pixels() -> None:
    for method in METHODS.values():
        assert set(CHECKS) - set(method.checks) == ({"infidelity"} if method.layer else set())


def test_a_new_method_is_one_entry(mini: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"factor": Option(2)}
    method = Method("scaled", "nobody", "one pass", lambda case: case.inputs * case.options["factor"], True, options)
    monkeypatch.setitem(METHODS, "scaled", method)
    explanation = cnnviz.explain(mini, CAT, [3], methods=["scaled", "saliency"], factor=5, size=32, checks=CHECKS)
    once = cnnviz.explain(mini, CAT, [3], methods="scaled", factor=1, size=32, checks=())
    assert (explanation.attributions[0].values == 5 * once.attributions[0].values).all()
    assert explanation.attributions[0].evidence.infidelity is not None
    assert explanation.sheet().pixels.size
    assert "scaled" in able(structure_of(mini))


@pytest.fixture
def chain() -> Network:
    """Five classes of 3 x 16 x 16 pixels, which all methods can explain."""
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 7 * 7, 5)
    return wrap(nn.Sequential(*layers), name="chain", input_size=16)


def generators() -> list[str]:
    states = torch.random.get_rng_state().tolist(), np.random.get_state(), random.getstate()  # noqa: NPY002
    return [repr(state) for state in states]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_whether_it_draws(name: str, chain: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    attributed = partial(attribute, chain, torch.full((1, 3, 16, 16), 0.5), 1, method=name)
    attributed()  # imports of scikit-learn's draw a name for a file
    monkeypatch.setattr("cnnviz.attribution.attribute.seeded", lambda *_: nullcontext())
    with seeded(3):
        before = generators()
        attributed()
        assert (generators() != before) == METHODS[name].draws == (name in DRAWING)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in DRAWING])
def test_methods_that_draw_nothing_run_side_by_side(name: str, chain: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two threads is inside the method until the other one is."""
    images, inside, method = torch.rand(2, 1, 3, 16, 16), Barrier(2, timeout=60), METHODS[name]
    attributed = partial(attribute, chain, targets=1, method=name)
    alone = [attributed(image) for image in images]

    def run(case: Case) -> Tensor:
        inside.wait()
        return method.run(case)

    monkeypatch.setitem(METHODS, name, replace(method, run=run))
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(attributed, images))
    assert all(map(torch.equal, together, alone))


def test_measures_draw_from_generators_of_their_own(chain: Network) -> None:
    """Another thread that draws, and does not stop, keeps neither of them waiting."""
    ready, image, target = explainer(chain), torch.rand(1, 3, 16, 16), Target(1)
    values = attribute(chain, image, target, method="saliency")
    measures: list[Callable[[], float]] = [
        lambda: infidelity(ready, image, target, values),
        lambda: max_sensitivity(ready, image, lambda image: attribute(chain, image, target, method="saliency")),
    ]
    alone = [measure() for measure in measures]
    with ThreadPoolExecutor(1) as pool, seeded(0):
        assert [pool.submit(measure).result(timeout=60) for measure in measures] == alone
