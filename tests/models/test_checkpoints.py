"""Weights as people save them: nested, with prefixes, beside other things, for another head; and nothing of it runs."""

import argparse
import datetime
import pickle
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.serialization import get_safe_globals, safe_globals
from torch.torch_version import TorchVersion
from torchvision.models import get_model

import cnnviz
from cnnviz.errors import WeightsError
from cnnviz.models import zoo
from cnnviz.models.weights import fit, read_weights
from tests.support.networks import LeNet, SmallVGG
from tests.support.paths import NETWORKS

State = dict[str, Tensor]


@pytest.fixture
def net() -> SmallVGG:
    torch.manual_seed(1)
    return SmallVGG(batch_norm=True)


def filled_from(path: Path, content: object, name: str = "net") -> SmallVGG:
    """Another network, with the weights that a file with this content gives it."""
    torch.save(content, path)
    other = SmallVGG(batch_norm=True)
    fit(other, read_weights(path), name, path.name)
    return other


def assert_same(network: nn.Module, state: State) -> None:
    own = network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    assert not any(tensor.is_meta for tensor in own.values())


def renamed(state: State, rename: Callable[[str], str]) -> State:
    return {rename(name): tensor for name, tensor in state.items()}


def other(state: State) -> State:
    """A state dict that fits as well, with other numbers."""
    return {name: tensor + 1 for name, tensor in state.items()}


LAYOUTS: dict[str, Callable[[State], object]] = {
    "the tutorial": lambda state: {"epoch": 1, "model_state_dict": state, "loss": torch.tensor(0.1)},
    "CIFAR scripts": lambda state: {"net": state, "acc": 90.0},
    "BasicSR": lambda state: {"params": state},
    "any key": lambda state: {"my weights": state, "epoch": 3},
    "deeper": lambda state: {"checkpoint": {"best": {"weights": state, "at": 3}}},
    "in a list": lambda state: [3, {"weights": state}],
    "in a tuple": lambda state: (state, 3),
    "in a defaultdict": lambda state: defaultdict(dict, weights=state, epoch=3),
    "Lightning": lambda state: {"state_dict": renamed(state, "model.{}".format), "loops": {}},
    "Lightning with a loss": lambda state: {
        "state_dict": renamed(state, "model.{}".format) | {"criterion.weight": torch.ones(5)}
    },
    "parallel": lambda state: {"state_dict": renamed(state, "module.{}".format)},
    "Lightning and parallel": lambda state: {"state_dict": renamed(state, "module.model.{}".format)},
    "compiled": lambda state: renamed(state, "_orig_mod.{}".format),
    "compiled and parallel": lambda state: renamed(state, "module._orig_mod.{}".format),
    "a long prefix": lambda state: renamed(state, "trainer.task.model.net.{}".format),
    "parallel in the middle": lambda state: renamed(state, lambda name: name.replace("features.", "features.module.")),
    "compiled in the middle": lambda state: {
        "model": renamed(state, lambda name: "model." + name.replace("features.", "features._orig_mod."))
    },
    "FSDP": lambda state: renamed(state, lambda name: f"_fsdp_wrapped_module.{name}"),
    "with an optimizer": lambda state: {
        "weights": state,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}}, "param_groups": [{}]},
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_whatever_leads_to_the_one_state_dict_that_fits_is_understood(
    tmp_path: Path, net: SmallVGG, layout: str
) -> None:
    state = net.state_dict()
    assert_same(filled_from(tmp_path / "w.pth", LAYOUTS[layout](state)), state)


def test_prefixes_in_safetensors_files_are_understood(tmp_path: Path, net: SmallVGG) -> None:
    state = net.state_dict()
    save_file(renamed(state, "module.model.{}".format), tmp_path / "w.safetensors")
    loaded = SmallVGG(batch_norm=True)
    fit(loaded, read_weights(tmp_path / "w.safetensors"), "net", "w.safetensors")
    assert_same(loaded, state)


def test_half_precision_and_a_part_are_understood_with_a_prefix_too(tmp_path: Path, net: SmallVGG) -> None:
    part = {f"model.{name}": tensor.half() for name, tensor in net.state_dict().items() if name.startswith("features")}
    loaded = filled_from(tmp_path / "w.pth", {"state_dict": part})
    assert loaded.features[0].weight.dtype == torch.float32
    assert torch.equal(loaded.features[0].weight, net.features[0].weight.half().float())
    assert loaded.classifier.weight.is_meta


def test_a_module_that_is_called_module_keeps_its_name(tmp_path: Path) -> None:
    inner = nn.Sequential(OrderedDict(module=nn.Linear(3, 2), head=nn.Linear(2, 2)))
    for rename in ("{}".format, "module.{}".format, "net.{}".format):
        torch.save(renamed(inner.state_dict(), rename), tmp_path / "w.pth")
        loaded = nn.Sequential(OrderedDict(module=nn.Linear(3, 2), head=nn.Linear(2, 2)))
        fit(loaded, read_weights(tmp_path / "w.pth"), "net", "w.pth")
        assert_same(loaded, inner.state_dict())


def test_of_a_generator_and_a_discriminator_the_one_that_fits_is_taken(tmp_path: Path, net: SmallVGG) -> None:
    state, discriminator = net.state_dict(), LeNet().state_dict()
    for content in (
        {"netD": discriminator, "netG": state},
        {"models": [discriminator, state]},
        renamed(discriminator, "D.{}".format) | renamed(state, "G.{}".format),
    ):
        assert_same(filled_from(tmp_path / "w.pth", content), state)


SEVERAL: dict[str, Callable[[State, State], object]] = {
    "state_dict before all": lambda state, other: {"model": other, "net": other, "state_dict": state},
    "model before others": lambda state, other: {"ema": other, "network": other, "model": state},
    "an average beside it": lambda state, other: {"model_ema": other, "model": state},
    "averages beside it, nested": lambda state, other: {"ema": {"state_dict": other}, "state_dict": {"model": state}},
    "a teacher in the names": lambda state, other: (
        renamed(other, "teacher.{}".format) | renamed(state, "model.{}".format)
    ),
    "the whole before a part": lambda state, other: {"model": dict([*other.items()][:3]), "whole": state},
    "the same twice": lambda state, other: {"best": state, "last": state},
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_of_several_that_fit_a_rule_takes_one(tmp_path: Path, net: SmallVGG, kind: str) -> None:
    state = net.state_dict()
    assert_same(filled_from(tmp_path / "w.pth", SEVERAL[kind](state, other(state))), state)


def test_torchvisions_average_is_the_network_or_stands_beside_it(tmp_path: Path, net: SmallVGG) -> None:
    average = AveragedModel(net).state_dict()
    assert "n_averaged" in average
    assert_same(filled_from(tmp_path / "w.pth", {"model_ema": average}), net.state_dict())
    content = {"model_ema": other(average), "model": net.state_dict()}
    assert_same(filled_from(tmp_path / "w.pth", content), net.state_dict())


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (lambda state: {"best": state, "last": other(state)}, "best, last"),
        (lambda state: {"runs": [{"w": state}, {"w": other(state)}]}, r"runs\.0\.w, runs\.1\.w"),
        (lambda state: renamed(state, "a.{}".format) | renamed(other(state), "b.{}".format), "a, b"),
    ],
)
def test_several_among_which_there_is_no_choice_are_told(
    tmp_path: Path, net: SmallVGG, content: Callable[[State], object], places: str
) -> None:
    with pytest.raises(WeightsError, match=rf"w\.pth holds several state dicts that fit net: {places}; save the one"):
        filled_from(tmp_path / "w.pth", content(net.state_dict()))


def test_what_has_more_than_the_network_under_the_same_prefix_is_refused(tmp_path: Path, net: SmallVGG) -> None:
    state = net.state_dict()
    for content in (state, renamed(state, "model.{}".format)):
        prefix = "model." if content is not state else ""
        with pytest.raises(WeightsError, match=rf"does not fit net: extra: {prefix}aux\.weight; give weights of"):
            filled_from(tmp_path / "w.pth", {"state_dict": content | {f"{prefix}aux.weight": torch.ones(2)}})
    with pytest.raises(WeightsError, match=r"extra: ema\.features"):
        filled_from(tmp_path / "w.pth", state | renamed(other(state), "ema.{}".format))


def test_a_small_part_does_not_hide_that_the_rest_does_not_fit(tmp_path: Path, net: SmallVGG) -> None:
    content = {"scaler": {"classifier.bias": torch.zeros(5)}, "model": net.state_dict() | {"a": torch.zeros(1)}}
    with pytest.raises(WeightsError, match="does not fit net: extra: a; give weights"):
        filled_from(tmp_path / "w.pth", content)


def test_of_several_that_do_not_fit_the_closest_is_compared(tmp_path: Path, net: SmallVGG) -> None:
    close = {name: tensor for name, tensor in net.state_dict().items() if name != "classifier.bias"}
    content = {"a": LeNet().state_dict(), "b": close | {"classifier.offset": torch.ones(5)}}
    with pytest.raises(WeightsError, match=r"missing: classifier\.bias; extra: classifier\.offset; give weights of"):
        filled_from(tmp_path / "w.pth", content)


HARMLESS: dict[str, object] = {
    "a namespace": argparse.Namespace(lr=0.1, out=Path("runs"), betas=(0.9, 0.99)),
    "a simple namespace": types.SimpleNamespace(lr=0.1),
    "NumPy's float": np.float64(0.9),
    "NumPy's int": np.int64(3),
    "NumPy's bool": np.bool_(True),
    "NumPy's text": np.str_("a"),
    "an array": np.random.default_rng(0).normal(size=(3, 4)),
    "an array of texts": np.array(["a", "bc"]),
    "an array of objects": np.array([1, "a", None], dtype=object),
    "a record array": np.zeros(2, dtype=[("x", "f4"), ("y", "i8")]),
    "a dtype": np.dtype("float32"),
    "a kind of number": np.float32,
    "a random state": np.random.get_state(),  # noqa: NPY002
    "a path": Path("runs/1"),
    "a Windows path": PureWindowsPath("C:/runs"),
    "a defaultdict": defaultdict(list, a=[1]),
    "an OrderedDict": OrderedDict(a=1),
    "a counter": Counter("abc"),
    "a deque": deque([1.0, 2.0], maxlen=3),
    "a set": {1, 2},
    "a frozenset": frozenset({1}),
    "a range": range(3),
    "a slice": slice(1, 2),
    "a type": float,
    "a date": datetime.datetime.now(datetime.UTC),
    "a duration": datetime.timedelta(seconds=3),
    "a version": TorchVersion("2.0"),
    "a size": torch.Size([1]),
    "a dtype of PyTorch's": torch.float16,
    "a device": torch.device("cpu"),
    "bytes": b"abc",
    "a large number": 2**100,
}


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_things_beside_the_weights_are_left_aside(
    tmp_path: Path, net: SmallVGG, kind: str, zipped: bool
) -> None:
    content = {"args": HARMLESS[kind], "model": net.state_dict(), "more": {"deeper": [HARMLESS[kind]]}}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    fit(net, read_weights(tmp_path / "w.pth"), "net", "w.pth")


@pytest.mark.parametrize(
    "name",
    [
        *("pathlib.WindowsPath", "pathlib.PosixPath", "pathlib._local.WindowsPath", "pathlib._local.PosixPath"),
        *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        *("pytorch_lightning.utilities.parsing.AttributeDict", "lightning.pytorch.utilities.parsing.AttributeDict"),
    ],
)
def test_what_another_system_or_version_wrote_is_read_here(tmp_path: Path, net: SmallVGG, name: str) -> None:
    """As a Windows path, which this system could not make, or a class of a NumPy or Lightning that is not here."""
    torch.save({"x": as_global(name), "model": net.state_dict()}, tmp_path / "w.pth", pickle_module=Elsewhere)
    assert_same(filled_from(tmp_path / "again.pth", read_weights(tmp_path / "w.pth")["model"]), net.state_dict())


class as_global:  # noqa: N801 - reads as a function
    """Something that is pickled as what the global of a name makes of the arguments "a" and "b"."""

    def __init__(self, name: str) -> None:
        self.name = name


class Elsewhere:
    """The pickle module of a machine that has what this one may not have."""

    dump = staticmethod(pickle.dump)

    class Pickler(pickle._Pickler):  # type: ignore[name-defined]
        def save(self, thing: object, **options: bool) -> None:
            if not isinstance(thing, as_global):
                super().save(thing, **options)
                return
            module, _, name = thing.name.rpartition(".")
            self.write(f"c{module}\n{name}\n".encode())
            super().save(("a", "b"))
            self.write(pickle.REDUCE)


@pytest.mark.parametrize(
    "name",
    [
        *("my_package.Config", "omegaconf.dictconfig.DictConfig", "builtins.eval", "builtins.getattr", "os.system"),
        *("subprocess.Popen", "numpy.load", "pathlib.Path.touch", "numpy.testing._private.utils.runstring"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_anything_else_is_refused_by_name(tmp_path: Path, net: SmallVGG, name: str, zipped: bool) -> None:
    torch.save(
        {"model": net.state_dict(), "config": as_global(name), "args": argparse.Namespace(lr=0.1)},
        tmp_path / "w.pth",
        pickle_module=Elsewhere,
        _use_new_zipfile_serialization=zipped,
    )
    short = name.removeprefix("builtins.")
    message = rf"^w\.pth cannot be read as weights: it holds {short}, which cnnviz does not open, or is damaged\. Save "
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / "w.pth")


class Touch:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("place", ["argument", "key", "default", "state"])
def test_harmless_things_are_no_way_to_run_code(tmp_path: Path, net: SmallVGG, place: str) -> None:
    code = Touch(tmp_path / "ran")
    things = {
        "argument": argparse.Namespace(a=code),
        "key": {code: 1},
        "default": defaultdict(list, a=[code]),
        "state": np.array([code], dtype=object),
    }
    torch.save({"model": net.state_dict(), "args": things[place]}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_what_pytorch_was_told_to_trust_stays_so(tmp_path: Path, net: SmallVGG) -> None:
    torch.save({"args": argparse.Namespace(), "model": net.state_dict()}, tmp_path / "w.pth")
    with safe_globals([types.SimpleNamespace]):
        before = set(get_safe_globals())
        with ThreadPoolExecutor(4) as threads:
            contents = [*threads.map(read_weights, 16 * [tmp_path / "w.pth"])]
        assert set(get_safe_globals()) == before
    assert all(content.keys() == {"args", "model"} for content in contents)


def test_deep_and_entangled_contents_come_to_an_end(tmp_path: Path, net: SmallVGG) -> None:
    deep: dict[str, object] = {}
    for _ in range(400):
        deep = {"a": deep, "b": deep}
    content = {"deep": deep, "model": net.state_dict()}
    content["itself"] = content
    assert_same(filled_from(tmp_path / "w.pth", content), net.state_dict())


@pytest.mark.parametrize("bias", [True, False])
def test_thousands_of_prefixes_take_no_time(bias: bool) -> None:
    state = {f"x{number}.weight": torch.ones(1).expand(2, 3) for number in range(20_000)}
    message = "missing: bias; extra: x1" if bias else r"several state dicts that fit net: x0, x1, x2 and 19997 more"
    with pytest.raises(WeightsError, match=message):
        fit(nn.Linear(3, 2, bias=bias), state, "net", "w.pth")


FACTORY = r"def net\(\): return torchvision\.models\.{}\(num_classes=10\), and give --model file\.py:net"


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "squeezenet1_1", "inception_v3", "googlenet", "vit_b_32"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_for_another_number_of_classes_the_factory_is_told(tmp_path: Path, name: str, prefix: str) -> None:
    with torch.device("meta"):
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        shapes = get_model(name, num_classes=10, **options).state_dict()
        module = zoo.skeleton(name)
    state = {prefix + key: torch.tensor(0.5).expand(tensor.shape) for key, tensor in shapes.items()}
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=rf"its last layer has 10 classes, not 1000: .*{FACTORY.format(name)}, with --"
    ):
        fit(
            module,
            read_weights(tmp_path / "w.pth"),
            name,
            "w.pth",
            prepare=lambda tensors: zoo._as_built(name, tensors),
        )


def test_the_factory_that_is_told_loads_the_file(tmp_path: Path, empty_cache: Path) -> None:
    torch.save({"net": get_model("squeezenet1_1", num_classes=10).state_dict()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        cnnviz.load("squeezenet1_1", weights=tmp_path / "w.pth")
    factory = str(caught.value).partition("write a factory, ")[2].partition(", and give")[0]
    (tmp_path / "file.py").write_text(f"import torchvision\n{factory}\n")
    network = cnnviz.load(f"{tmp_path}/file.py:net", weights=tmp_path / "w.pth", input_size=64)
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 10)


def test_for_other_classes_a_factory_of_ones_own_or_the_small_network_is_named(tmp_path: Path) -> None:
    lenet = LeNet()
    lenet.fc3 = nn.Linear(84, 1)
    torch.save(lenet.state_dict(), tmp_path / "w.pth")
    message = (
        rf"of another shape: fc3\.weight, fc3\.bias; its last layer has 1 class, not 10: have {NETWORKS}:LeNet make"
    )
    with pytest.raises(WeightsError, match=message):
        cnnviz.load(f"{NETWORKS}:LeNet", weights=tmp_path / "w.pth", input_size=28)
    torch.save(cnnviz.models.builtin.vgg16_mini(classes=10).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"return cnnviz\.models\.builtin\.vgg16_mini\(classes=10\), and"):
        cnnviz.load("vgg16-mini", weights=tmp_path / "w.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"fc1.weight": torch.zeros(120, 7)},
        {"fc1.weight": torch.zeros(7, 400)},
        {"fc3.weight": torch.zeros(7, 84), "fc3.bias": torch.zeros(8)},
        {"fc3.weight": torch.zeros(7, 80), "fc3.bias": torch.zeros(7)},
        {"fc3.weight": torch.zeros(7, 84), "fc3.bias": torch.zeros(7), "fc4.weight": torch.zeros(7)},
    ],
)
def test_other_shapes_are_no_other_number_of_classes(lenet: LeNet, change: State) -> None:
    with pytest.raises(WeightsError, match="give weights of this network, or name their network"):
        fit(lenet, lenet.state_dict() | change, "lenet", "w.pth")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_networks_that_ask_for_a_version_take_files_that_note_none(tmp_path: Path, prefix: str) -> None:
    state = zoo.skeleton("mnasnet0_5").state_dict()
    save_file(renamed(state, lambda name: prefix + name), tmp_path / "w.safetensors")
    network = cnnviz.load("mnasnet0_5", weights=tmp_path / "w.safetensors")
    assert_same(network.module, state)
