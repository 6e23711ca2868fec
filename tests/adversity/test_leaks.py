"""Nothing is left behind: not by calls, not by calls that break off, not by calls in several threads at once."""

import gc
import inspect
import os
import random
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info
from torch import Tensor, nn

import cnnviz
from cnnviz.attribution.explainer import explainer
from cnnviz.errors import CnnvizError
from cnnviz.isolation import quiet, seeded
from cnnviz.networks.network import Network
from cnnviz.pictures.reading import read_picture
from cnnviz.synthesis.views import indices_on
from tests.support.visualizers import CALLS, LAYER, Scene, raw, scene

HOOKS = [name for name in vars(nn.Module()) if "hook" in name]
LARGE = ("build_gallery", "compare_methods", "make_report")  # made of what others call
SHARED = [name for name in CALLS if name not in LARGE]


class Broken(BaseException):
    """As an interrupt is, or Streamlit's wish to run a page anew."""


@pytest.fixture(autouse=True)
def own_temporary_files(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("own"), batch_norm=True)


def process() -> dict[str, object]:
    """Whatever the calls of a process have in common."""
    return {
        "torch's generator": torch.random.get_rng_state().tolist(),
        "numpy's generator": repr(np.random.get_state()),  # noqa: NPY002
        "python's generator": random.getstate(),
        "threads of PyTorch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "threads of BLAS": {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"},
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "numbers": (torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        ),
        "cudnn": [
            getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
        ],
        "anomalies": torch.is_anomaly_enabled(),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "matplotlib": (dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)),
        "numpy's errors": np.geterr(),
        "paths": (list(sys.path), Path.cwd(), dict(os.environ)),
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
        "patience": socket.getdefaulttimeout(),
        "threads": {thread.ident for thread in threading.enumerate()},
        "files": sorted(open_files()),
        "temporary files": os.listdir(tempfile.gettempdir()),
    }


def open_files() -> Iterator[str]:
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            name = os.readlink(f"/proc/self/fd/{each}")
            if not name.endswith(".ttf"):  # fonts, of which matplotlib keeps a few for each thread, 64 in all
                yield name


def modules(of: nn.Module) -> list[object]:
    """Of every module in one: its hooks, its flags, its attributes; of its tensors, whether and how often they were
    written into, and their gradients.
    """
    tensors = [*of.named_parameters(), *of.named_buffers()]
    return [
        [
            (name, [len(getattr(part, hooks) or ()) for hooks in HOOKS], sorted(vars(part)))
            for name, part in of.named_modules()
        ],
        [(part.training, getattr(part, "inplace", None), part.forward.__func__) for part in of.modules()],
        [
            (name, id(each), each.requires_grad, each._version, hash(each.detach().numpy().tobytes()))
            for name, each in tensors
        ],
        [None if each.grad is None else each.grad.sum().item() for _, each in tensors],
    ]


def everything(at: Scene) -> dict[str, object]:
    return process() | {"the module": modules(at.module), "the network": modules(at.network)}


def test_every_public_function_and_every_method_is_among_the_calls() -> None:
    public = {name for name in cnnviz.__all__ if inspect.isfunction(getattr(cnnviz, name))}
    assert public == {name for name in CALLS if "," not in name}


def test_the_lists_of_what_could_be_left_see_it(prepared: Scene) -> None:
    before = everything(prepared)
    handle = prepared.network.layers[LAYER].register_forward_hook(lambda *_: None)
    with tempfile.TemporaryFile(), warnings.catch_warnings():
        torch.rand(1)
        warnings.simplefilter("ignore", DeprecationWarning)
        found = everything(prepared)
    handle.remove()
    changed = {name for name in before if before[name] != found[name]}
    assert {"the network", "files", "torch's generator", "warnings"} <= changed
    assert not changed & {"the module", "modes", "numpy's generator", "cudnn", "threads", "paths"}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_left_of_a_call_nor_of_one_that_breaks_off(name: str, prepared: Scene, tmp_path: Path) -> None:
    call, fuse = CALLS[name], prepared.module.fuse
    fuse.blows = None
    first = call(prepared)  # what is imported and kept at first is no leak
    before, fuse.burnt = everything(prepared), 0
    assert call(prepared) == first, "the same again"
    assert everything(prepared) == before
    count = fuse.burnt
    for fault in (Broken(), RuntimeError("blown")) if count else ():
        fuse.burnt, fuse.blows = 0, (count // 2 + 1, fault)
        with suppress(Broken, CnnvizError, RuntimeError):  # the latter may make it look at the network in another way
            call(prepared)
        assert fuse.burnt >= fuse.blows[0]
        fuse.blows = None
        assert everything(prepared) == before, repr(fault)
    assert call(prepared) == first, "nor do later calls know of it"
    assert not outliving(call, tmp_path)


def outliving(call: Callable[[Scene], bytes], folder: Path) -> list[type]:
    """Kinds of the tensors and modules that a call on a new network leaves, the network's own among them."""
    gc.freeze()  # only what is new is looked at
    try:
        call(scene(folder, seed=1))
        indices_on.cache_clear()  # which keeps 256 at most
        gc.collect()
        return [type(each) for each in gc.get_objects() if issubclass(type(each), Tensor | nn.Module)]
    finally:
        gc.unfreeze()


def test_what_outlives_a_call_is_seen(tmp_path: Path) -> None:
    kept: list[object] = []
    assert outliving(lambda at: kept.append(at.network.mean) or b"", tmp_path) == [Tensor]
    assert Network in outliving(lambda at: kept.append(at.network) or b"", tmp_path)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("ascend", torch.no_grad),  # its image is the caller's, who cannot make one that climbs in inference mode
        *product(["attribute", "dream", "filter_images"], [torch.no_grad, torch.inference_mode]),
        *product(["explain", "invert"], [torch.inference_mode]),
    ],
)
def test_a_callers_mode_changes_nothing(name: str, mode: type[torch.no_grad], prepared: Scene) -> None:
    plain = CALLS[name](prepared)
    with mode():
        assert CALLS[name](prepared) == plain
        assert not torch.is_grad_enabled()
    assert CALLS[name](prepared) == plain


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads take turns ten times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 10)
    yield
    sys.setswitchinterval(before)


def together(works: Sequence[Callable[[], list[bytes]]]) -> list[list[bytes]]:
    """What functions give that run at once, a thread for each."""
    start = threading.Barrier(len(works))

    def begin(work: Callable[[], list[bytes]]) -> list[bytes]:
        start.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [each.result() for each in [pool.submit(begin, work) for work in works]]


def worked(at: Scene, names: Sequence[str]) -> list[bytes]:
    return [CALLS[name](at) for name in names]


@pytest.mark.usefixtures("hurried")
def test_threads_with_networks_of_their_own_get_what_they_get_alone(tmp_path: Path) -> None:
    scenes, names = [scene(tmp_path / str(seed), seed) for seed in range(2)], SHARED
    alone = [worked(at, names) for at in scenes]
    assert alone[0] != alone[1]
    before = process()
    found = together([lambda at=at: worked(at, names) for at in scenes])
    differing = [
        name for row in (0, 1) for name, *both in zip(names, alone[row], found[row], strict=True) if both[0] != both[1]
    ]
    assert not differing
    assert process() == before


@pytest.mark.usefixtures("hurried")
def test_threads_may_share_a_network(tmp_path: Path) -> None:
    """Four of them, each with its own image and half of the calls, so that each call is made by two of them."""
    scenes, count = [scene(tmp_path / str(seed), seed) for seed in range(4)], len(SHARED)
    for at in scenes:
        at.module, at.network = scenes[0].module, scenes[0].network
    orders = [(SHARED * 2)[start : start + count // 2 + 1] for start in (0, count // 4, count // 2, 3 * count // 4)]
    alone = [worked(at, order) for at, order in zip(scenes, orders, strict=True)]
    before = everything(scenes[0])
    works = [lambda at=at, order=order: worked(at, order) for at, order in zip(scenes, orders, strict=True)]
    found = together(works)
    both = [pair for row in range(4) for pair in zip(orders[row], alone[row], found[row], strict=True)]
    assert not [name for name, one, other in both if one != other]
    assert everything(scenes[0]) == before


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(("hooked", "times"), [("activations", 40), ("attribute", 8)])
def test_hooks_of_one_thread_meet_no_other(hooked: str, times: int, tmp_path: Path) -> None:
    """The same network and, in turn, what sets hooks and passes without any."""
    network, images = scene(tmp_path).network, torch.rand(4, 1, 3, 64, 64)
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "activations": lambda image: cnnviz.activations(network, image, ["block3_conv1"])["block3_conv1"],
        "attribute": lambda image: cnnviz.attribute(network, image, 1, method="deeplift"),
    }
    passes = {"activations": network, "attribute": explainer(network).logits}

    def work(image: Tensor, rounds: int) -> list[bytes]:
        return [raw(call(image)) for _ in range(rounds) for call in (calls[hooked], passes[hooked])]

    alone = [work(image, 1) * times for image in images]
    assert together([partial(work, image, times) for image in images]) == alone


def test_threads_draw_one_after_the_other() -> None:
    def draw() -> list[bytes]:
        found = []
        for seed in range(200):
            with seeded(seed):
                found.append(torch.rand(3).numpy().tobytes() + np.random.rand(3).tobytes())  # noqa: NPY002
        return found

    before = process()
    first, *others = together([draw] * 4)
    assert all(other == first for other in others)
    assert process() == before


def test_quiet_ends_with_the_last_who_wants_it(tmp_path: Path, cat: Path) -> None:
    filters, entered, leave = list(warnings.filters), threading.Event(), threading.Event()

    def outer() -> list[bytes]:
        with quiet():
            entered.set()
            leave.wait()
            warnings.warn("unheard", UserWarning, stacklevel=1)
        return []

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(outer)
        entered.wait()
        try:
            read_picture(cat)
            assert warnings.filters != filters, "the other one still wants it"
        finally:
            leave.set()
        running.result()
    assert warnings.filters == filters
