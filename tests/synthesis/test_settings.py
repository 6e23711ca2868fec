"""Settings of a synthesis and layouts of sheets: one check for each, which all functions that take them go through."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cnnviz
from cnnviz.errors import CnnvizError, ShapeError, UnknownNameError
from cnnviz.networks.network import Network
from cnnviz.objectives import channel
from cnnviz.synthesis.maximization import class_job, filter_job, objective_job
from cnnviz.synthesis.settings import fitting

LAYER = "block1_conv1"
SYNTHESES: dict[str, Callable[..., object]] = {
    "filter_images": lambda network, **given: cnnviz.filter_images(network, LAYER, 3, **given),
    "class_images": lambda network, **given: cnnviz.class_images(network, "tabby", **given),
    "maximize": lambda network, **given: cnnviz.maximize(network, f"{LAYER}:3", **given),
    "filter_job": lambda network, **given: filter_job(network, LAYER, 3, **given),
    "class_job": lambda network, **given: class_job(network, "tabby", **given),
    "objective_job": lambda network, **given: objective_job(network, f"{LAYER}:3", **given),
}
WRONG = [
    ({"stesp": 2}, UnknownNameError, "no setting named 'stesp'; did you mean 'steps'?"),
    ({"lr": 0.1}, UnknownNameError, "no setting named 'lr'. There are "),
    ({"preset": "x", "steps": 2}, UnknownNameError, "no preset named 'x'. There are draft, default, fine"),
    ({"precision": "half"}, UnknownNameError, "no precision named 'half'"),
    ({"recipe": 3}, UnknownNameError, "no recipe named 3"),
    ({"steps": "a"}, ShapeError, "steps must be a whole number, 1 to 100000, not 'a'"),
    ({"steps": 1.5}, ShapeError, "steps must be a whole number, 1 to 100000, not 1.5"),
    ({"batch": 0}, ShapeError, "batch must be 1 to 1024, not 0"),
    ({"tries": None}, ShapeError, "tries must be a whole number, 1 to 100, not None"),
    ({"size": "a"}, ShapeError, "the size is a side or (height, width) in pixels, not 'a'"),
    ({"size": 32.5}, ShapeError, "the size must be a whole number, 1 to 4096 pixels, not 32.5"),
    ({"size": (32, "a")}, ShapeError, "the size must be a whole number, 1 to 4096 pixels, not 'a'"),
    ({"references": 3}, CnnvizError, "a folder of images is given by its path"),
]


@pytest.mark.parametrize("function", SYNTHESES)
@pytest.mark.parametrize(("settings", "error", "text"), WRONG, ids=[str(settings) for settings, *_ in WRONG])
def test_a_setting_that_is_none_is_told(
    mini: Network, function: str, settings: dict[str, object], error: type[CnnvizError], text: str
) -> None:
    with pytest.raises(error) as caught:
        SYNTHESES[function](mini, **settings)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [1.5, -1, None, "a", 2**63])
def test_a_seed_is_a_whole_number_from_zero(mini: Network, seed: object) -> None:
    image = torch.rand(3, 64, 64)
    calls: list[Callable[[], object]] = [
        *(lambda call=SYNTHESES[name]: call(mini, seed=seed, steps=1) for name in ("filter_images", "class_images")),
        lambda: cnnviz.maximize(mini, f"{LAYER}:3", seeds=[seed], steps=1),  # type: ignore[list-item]
        lambda: cnnviz.maximize(mini, channel(LAYER, 3), seeds=[seed], steps=1),  # type: ignore[list-item]
        lambda: cnnviz.dream(mini, image, LAYER, steps=1, seed=seed),  # type: ignore[arg-type]
        lambda: cnnviz.invert(mini, image, LAYER, steps=1, seed=seed),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(ShapeError, match="a seed "):
            call()


def test_keywords_of_inner_functions_are_none_of_callers(mini: Network) -> None:
    for name, keyword in (("filter_images", "first"), ("filter_images", "start"), ("class_images", "penalty")):
        with pytest.raises(UnknownNameError, match=f"no setting named {keyword!r}"):
            SYNTHESES[name](mini, **{keyword: 3})
    with pytest.raises(UnknownNameError, match=r"no setting named 'seed'; did you mean 'seeds'\?"):
        cnnviz.maximize(mini, f"{LAYER}:3", seed=3)  # type: ignore[call-arg]
    with pytest.raises(UnknownNameError, match="no layout option named 'factor'"):
        cnnviz.kernel_sheet(mini, factor=2)  # type: ignore[call-arg]


def test_images_to_start_from_are_a_tensor_of_images(mini: Network) -> None:
    for start in (torch.rand(1, 3, 32, 32) * 255, torch.rand(1, 1, 32, 32), "cat.jpg"):
        with pytest.raises(ShapeError, match=r"\[0, 1\]|shape"):
            cnnviz.maximize(mini, channel(LAYER, 3), start=start, steps=1)  # type: ignore[arg-type]


def test_a_layout_option_that_is_none_is_told(mini: Network, tmp_path: Path) -> None:
    maps = cnnviz.feature_maps(mini, torch.rand(3, 64, 64), LAYER)
    synthesis = cnnviz.filter_images(mini, LAYER, 3, steps=1, tries=1, size=32)
    explanation = cnnviz.explain(mini, torch.rand(3, 64, 64), methods="saliency", checks=())
    calls: list[Callable[..., object]] = [
        lambda **given: cnnviz.kernel_sheet(mini, **given),
        lambda **given: maps.sheet([1], **given),
        lambda **given: synthesis.sheet(**given),
        lambda **given: synthesis.figure(**given),
        lambda **given: synthesis.save(tmp_path / "q.png", **given),
        lambda **given: explanation.sheet(**given),
        lambda **given: cnnviz.sheet([cnnviz.Tile(maps.sheet().pixels, "a")], lines=[], **given),
    ]
    for call in calls:
        with pytest.raises(UnknownNameError, match=r"no layout option named 'colums'; did you mean 'columns'\?"):
            call(colums=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [np.int64(2), torch.tensor(2)], ids=["NumPy", "PyTorch"])
def test_numbers_of_other_libraries_are_numbers(mini: Network, number: Any) -> None:
    settings = {"steps": number, "batch": number, "tries": number, "size": np.array([24, 24])}
    synthesis = cnnviz.filter_images(mini, "block1_conv1", np.int64(3), seed=np.int64(4), **settings)
    assert json.loads(json.dumps(synthesis.settings))["steps"] == 2
    assert synthesis.sheet().png()


@pytest.mark.parametrize(
    "size", [np.array([1.5, 2]), torch.tensor([0.25, 0.5]), [3], "ab", np.array([[1, 2]])], ids=repr
)
def test_sizes_that_are_none(mini: Network, size: Any) -> None:
    with pytest.raises(ShapeError):
        cnnviz.filter_images(mini, "block1_conv1", 0, size=size)


def test_a_batch_on_a_card_fits_into_half_its_memory() -> None:
    gigabyte = 2**30
    assert fitting(80 * gigabyte, 36_000_000) == 64  # VGG16 at 224 pixels in bfloat16
    assert fitting(8 * gigabyte, 36_000_000) == 32
    assert fitting(gigabyte, 36_000_000) == 4
    assert fitting(gigabyte, 2 * gigabyte) == 1
    for memory in (3 * gigabyte, 7 * gigabyte, 24 * gigabyte):
        assert 3 * 36_000_000 * fitting(memory, 36_000_000) <= memory / 2
