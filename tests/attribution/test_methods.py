"""What stands in the table of methods holds: bounds of options, evidence that makes sense."""

import math

import pytest

import cnnviz
from cnnviz.attribution.methods import CHECKS, METHODS, Method, Option, options_of, settings_of, share_out
from cnnviz.attribution.suitability import able, structure
from cnnviz.errors import ShapeError, UnknownNameError
from cnnviz.networks.network import Network
from tests.support.paths import CAT

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


def test_each_method_gets_the_options_that_it_has() -> None:
    methods = ["lime", "saliency", "smoothgrad"]
    assert options_of(methods) == ["noise", "patches", "samples"]
    shares = share_out({"samples": 9, "noise": 0.2}, methods)
    assert shares == {"lime": {"samples": 9}, "saliency": {}, "smoothgrad": {"samples": 9, "noise": 0.2}}
    with pytest.raises(UnknownNameError, match="none of lime, saliency, smoothgrad has an option 'steps'; they have n"):
        share_out({"steps": 3}, methods)
    with pytest.raises(ShapeError, match="samples must be a whole number"):
        share_out({"samples": 0}, methods)


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
    assert "scaled" in able(structure(mini))
