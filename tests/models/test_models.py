"""Where networks and their weights come from."""

import json
import pickle
import re
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model, get_model_builder

import cnnviz
from cnnviz.errors import ModelError, UnknownNameError, WeightsError
from cnnviz.isolation import seeded
from cnnviz.models import builtin, outline, zoo
from cnnviz.networks.network import Network, count_parameters
from tests.support.networks import LeNet
from tests.support.paths import CAT
from tests.support.weights import SMALL, stand_in


def test_cached_weights_take_the_real_loading_path(empty_cache: Path) -> None:
    path = stand_in(empty_cache, SMALL)
    network = cnnviz.load(SMALL)
    assert path.parent == empty_cache
    assert network.weights == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert all((parameter == 0.01).all() for parameter in network.parameters())
    assert network.label(285) == "Egyptian cat"


def test_vgg16_looks_for_the_published_file(empty_cache: Path) -> None:
    assert zoo.cache_file("vgg16") == empty_cache / "vgg16-397923af.pth"


def test_without_cache_and_internet_three_ways_out_are_named(empty_cache: Path) -> None:
    message = r"vgg16 cannot be downloaded \(Network is unreachable\): connect .* --weights.* --model vgg16-mini"
    with pytest.raises(WeightsError, match=message):
        cnnviz.predict(cnnviz.load("vgg16"), CAT)
    assert not list(empty_cache.glob("*"))


@pytest.mark.parametrize("content", [b"", b"<html>Log in first</html>", pickle.dumps(print)])
def test_a_bad_cached_file_is_named_and_nothing_in_it_runs(empty_cache: Path, content: bytes) -> None:
    empty_cache.mkdir(parents=True)
    zoo.cache_file(SMALL).write_bytes(content)
    with pytest.raises(WeightsError, match=r"squeezenet1_1-.*pth cannot be read; delete that file"):
        cnnviz.load(SMALL)


def test_whether_weights_are_within_reach(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not zoo.within_reach(SMALL)
    monkeypatch.setattr(zoo, "PATIENCE", 0.2)
    released, ended = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        released.wait()
        ended.set()
        raise TimeoutError

    monkeypatch.setattr(zoo, "urlopen", hang)
    assert not zoo.within_reach(SMALL)
    assert not ended.is_set(), "nobody waits for a server that does not answer"
    released.set()
    stand_in(empty_cache, SMALL)
    assert zoo.within_reach(SMALL)


def test_random_weights_are_seeded_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = (cnnviz.load(SMALL, weights="random") for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.fingerprint == second.fingerprint
    assert first.weights == "random, seed 0"


def test_unknown_networks_name_close_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'vgg61'; did you mean .*'vgg16'"):
        cnnviz.load("vgg61")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("wrapping", ["plain", "state_dict", "module."])
def test_weights_from_a_file(tmp_path: Path, lenet: LeNet, ending: str, wrapping: str) -> None:
    state = lenet.state_dict()
    if wrapping == "module.":
        state = {f"module.{key}": value for key, value in state.items()}
    path = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if wrapping == "state_dict" else state, path)
    settings = {"input_size": 28, "mean": [0.13], "std": [0.38]}
    network = cnnviz.load("tests.support.networks:LeNet", weights=path, **settings)
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(network(images), lenet((images - 0.13) / 0.38).detach())
    assert (network.name, network.weights) == ("tests.support.networks:LeNet", path.name)


def test_weights_that_do_not_fit_are_named(tmp_path: Path, lenet: LeNet) -> None:
    state = lenet.state_dict()
    state["conv3.weight"] = state.pop("conv2.weight")
    state["fc3.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "w.pth")
    message = "missing: conv2.weight; extra: conv3.weight; of another shape: fc3.bias"
    with pytest.raises(WeightsError, match=message):
        cnnviz.load("tests.support.networks:LeNet", weights=tmp_path / "w.pth", input_size=28)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("ran"),))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_that_are_no_weights_are_refused_and_run_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    torch.save({"weight": Malicious()}, path)
    for content in (path.read_bytes(), b"", b"hello", pickle.dumps([1]), path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=f"{name} (cannot be read as weights|holds no state dict)"):
            cnnviz.load("vgg16-mini", weights=path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError):
        cnnviz.load("vgg16-mini", weights=tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="no weights at"):
        cnnviz.load("vgg16-mini", weights=tmp_path / "none.pth")
    assert not Path("ran").exists()


FACTORIES = """
import cnnviz
from torch import nn

def small(): return nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def ready(): return cnnviz.wrap(small(), name="ready", input_size=28, mean=[0.13], std=[0.38])
def nothing(): return 5
NUMBER = 3
"""


def test_a_users_own_network_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(FACTORIES)
    network = cnnviz.load(f"{path}:small", input_size=(20, 30), mean=[0.5], std=[0.25], labels=["a", "b"])
    assert (network.name, network.input_size, network.labels) == ("net.py:small", (20, 30), ("a", "b"))
    assert torch.equal(network.mean, torch.full((1, 1, 1, 1), 0.5))
    assert cnnviz.load(f"{path}:ready").name == "ready"
    same = cnnviz.load(f"{path}:small", input_size=28)
    assert same.fingerprint == network.fingerprint, "untrained networks are seeded"
    with pytest.raises(ModelError, match="type int; it should return an nn\\.Module"):
        cnnviz.load(f"{path}:nothing")
    with pytest.raises(ModelError, match="'smal'; did you mean 'small'"):
        cnnviz.load(f"{path}:smal")
    with pytest.raises(ModelError, match=r"give the input size of .*, such as --input-size 28 or 224"):
        cnnviz.load(f"{path}:small")
    with pytest.raises(ModelError, match=r"net.py:NUMBER is an object of type int, not a function or class that"):
        cnnviz.load(f"{path}:NUMBER")
    with pytest.raises(ModelError, match=r"no function or class named 'NUMBE'\.$"):
        cnnviz.load(f"{path}:NUMBE")
    with pytest.raises(ModelError, match=r"no file .*other\.py"):
        cnnviz.load(f"{tmp_path / 'other.py'}:small")
    with pytest.raises(ModelError, match="no module 'no_such_package'"):
        cnnviz.load("no_such_package:small")


def test_settings_of_a_users_network_are_refused_for_others() -> None:
    for make in (cnnviz.load, outline):
        with pytest.raises(ModelError, match="vgg16-mini brings its own mean"):
            make("vgg16-mini", mean=[0.5])


def test_the_embedded_network_is_vgg16_in_small(mini: Network) -> None:
    large = outline("vgg16")
    features = [type(part).__name__ for part in mini.module.features]
    assert features == [type(part).__name__ for part in large.module.features]
    assert mini.aliases == large.aliases
    assert len(mini.labels) == 200
    assert mini.labels[30] == "tabby, tabby cat"
    assert builtin.FILE.stat().st_size <= 4_000_000
    assert not any(isinstance(part, nn.BatchNorm2d) for part in mini.modules())
    row = builtin.describe()
    assert row["top1"] >= 60
    assert row["parameters"] == sum(parameter.numel() for parameter in mini.parameters())
    json.dumps(row)


@pytest.mark.parametrize("fit", ["crop", "whole"])
def test_the_embedded_network_knows_the_cat_and_the_coffee(mini: Network, fit: str) -> None:
    cat, coffee = (cnnviz.predict(mini, CAT.with_name(f"{name}.jpg"), top=1, fit=fit)[0] for name in ("cat", "coffee"))
    assert cat.label in ("tabby", "Persian cat", "Egyptian cat")
    assert coffee.label == "espresso"


def test_outlines_hold_no_numbers_and_need_no_weights(empty_cache: Path) -> None:
    network = outline("vgg16")
    assert all(parameter.is_meta for parameter in network.parameters())
    assert len(network.labels) == 1000
    assert not empty_cache.exists()


@pytest.mark.parametrize("name", ["mnasnet0_5", "shufflenet_v2_x0_5", "densenet121"])
def test_published_files_in_old_formats_load_as_torchvision_loads_them(empty_cache: Path, name: str) -> None:
    """Files from before PyTorch counted batches, or forbade dots in names, and files that note a version."""
    empty_cache.mkdir(parents=True)
    with seeded(0):
        state = zoo.skeleton(name).state_dict()
    if name != "mnasnet0_5":
        for key in [key for key in state if key.endswith("num_batches_tracked")]:
            del state[key]
        state._metadata.clear()
    if name == "densenet121":
        old = [
            (re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key), value) for key, value in state.items()
        ]
        state = OrderedDict(old)
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, zoo.cache_file(name))
    expected = get_model(name, weights=zoo.published(name)).eval()
    network = cnnviz.load(name)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(network.module(images), expected(images).detach())


FAMILIES = [
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t"),
    *("mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5"),
    *("squeezenet1_1", "swin_t", "vgg11", "vit_b_32"),
]


OUTLINED = [*FAMILIES, "resnext50_32x4d", "wide_resnet50_2"]


@pytest.mark.parametrize("name", OUTLINED)
def test_a_network_of_each_family_of_torchvisions_can_be_outlined(name: str) -> None:
    network = outline(name)
    assert count_parameters(network) == zoo.describe(name)["parameters"]
    assert len(network.labels) == 1000


def test_families_are_complete() -> None:
    def family(name: str) -> str:
        return re.match(r"[a-z]+", name)[0].removesuffix("net")

    assert {family(name) for name in zoo.names()} == {family(name) for name in OUTLINED}


def test_there_are_no_other_families() -> None:
    def files(names: list[str]) -> set[str]:
        return {get_model_builder(name).__module__ for name in names}

    assert files(FAMILIES) == files(zoo.names())


@pytest.mark.parametrize("name", FAMILIES)
def test_which_families_take_any_size_is_known(name: str) -> None:
    known = outline(name)
    tried = cnnviz.wrap(known.module, name=name, input_size=known.input_size, mean=[0.5] * 3)
    assert tried.takes_any_size == known.takes_any_size


def test_the_embedded_networks_random_weights_are_seeded_too() -> None:
    before = torch.random.get_rng_state()
    first, second = (cnnviz.load("vgg16-mini", weights="random").fingerprint for _ in range(2))
    builtin.describe()
    assert first == second
    assert torch.equal(torch.random.get_rng_state(), before)


BROKEN = """
import beside
from torch import nn

def fine(): import beside; return nn.Conv2d(3, beside.WIDTH, 1)
def wants(argument): return nn.Conv2d(3, 2, 1)
def fails(): raise KeyError("oops")
"""


def test_faults_in_a_users_code_are_named_with_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside.py").write_text("WIDTH = 5\n")
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "syntax.py").write_text("def f(:\n")
    assert cnnviz.load(f"{tmp_path}/broken.py:fine", input_size=8).module.out_channels == 5
    with pytest.raises(ModelError, match=r"calling fails\(\) raised KeyError: 'oops' \(broken.py, line 7\)"):
        cnnviz.load(f"{tmp_path}/broken.py:fails", input_size=8)
    with pytest.raises(ModelError, match=r"calling wants\(\) raised TypeError"):
        cnnviz.load(f"{tmp_path}/broken.py:wants", input_size=8)
    with pytest.raises(ModelError, match=r"importing syntax.py raised SyntaxError"):
        cnnviz.load(f"{tmp_path}/syntax.py:f", input_size=8)
    for name in (":f", "..a:f"):
        with pytest.raises(ModelError, match="is no module"):
            cnnviz.load(name, input_size=8)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert cnnviz.load("broken:fine", input_size=8).module.out_channels == 5
    assert sys.path == path


def test_a_ready_network_keeps_its_settings(tmp_path: Path) -> None:
    (tmp_path / "ready_net.py").write_text(FACTORIES)
    name = f"{tmp_path}/ready_net.py:ready"
    with pytest.raises(ModelError, match="has its own mean; leave it out"):
        cnnviz.load(name, mean=[0.5])
    with pytest.raises(ModelError, match="leave out --weights"):
        cnnviz.load(name, weights="random")
    torch.save(cnnviz.load(name).module.state_dict(), tmp_path / "w.pth")
    assert cnnviz.load(name, weights=tmp_path / "w.pth").weights == "w.pth"


def test_prefixes_of_a_networks_own_are_kept(tmp_path: Path) -> None:
    (tmp_path / "inner.py").write_text(
        "from torch import nn\n"
        "class Inner(nn.Module):\n"
        "    def __init__(self): super().__init__(); self.module = nn.Conv2d(3, 2, 1)\n"
        "    def forward(self, x): return self.module(x).mean((2, 3))\n"
    )
    name = f"{tmp_path}/inner.py:Inner"
    torch.save(cnnviz.load(name, input_size=8).module.state_dict(), tmp_path / "w.pth")
    assert cnnviz.load(name, weights=tmp_path / "w.pth", input_size=8).weights == "w.pth"
