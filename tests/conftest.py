"""Networks and images that the tests share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # the same everywhere; small networks gain nothing from more

import hypothesis
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import cnnviz
from cnnviz.cli import cli
from cnnviz.networks.network import Network
from tests.support.commands import Run
from tests.support.networks import LeNet, SmallVGG
from tests.support.paths import CAT

hypothesis.settings.register_profile(
    "same everywhere",  # whatever else the machine does; `--hypothesis-profile default` draws anew
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("same everywhere")


def pytest_configure(config: pytest.Config) -> None:
    """Hide graphics cards, from this process and those it starts, before PyTorch asks; `-m gpu` runs what needs one."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are processors: some tests wait, for a server, a browser or a cluster."""
    return min((os.cpu_count() or 1) + 1, 5)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that at the end all processes have something to do."""
    items.sort(key=lambda item: item.path.parent.name not in ("house", "web", "galleries"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no graphics card here, or it is hidden: `pytest -m gpu` shows it")


def _processor(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool) -> None:
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: bfloat16, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _every_processor_alike() -> Iterator[None]:
    """By default networks compute in float32, also where the processor is fast in bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        _processor(patch, bfloat16=False)
        yield


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default networks compute in bfloat16, as on a processor that is fast in it."""
    _processor(monkeypatch, bfloat16=True)


@pytest.fixture(scope="session")
def cat() -> Path:
    return CAT


@pytest.fixture(scope="session")
def mini() -> Network:
    return cnnviz.load("vgg16-mini")


@pytest.fixture(params=[False, True], ids=["plain", "batch_norm"])
def small_vgg(request: pytest.FixtureRequest) -> SmallVGG:
    torch.manual_seed(7)
    module = SmallVGG(batch_norm=request.param)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 2)
    return module.eval()


@pytest.fixture
def lenet() -> LeNet:
    torch.manual_seed(3)
    return LeNet().eval()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result

    return call


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch hub without any weights, and no way to the internet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("cnnviz.models.zoo.urlopen", _unreachable)
    monkeypatch.setattr("torch.hub.urlopen", _unreachable)
    return tmp_path / "torch" / "hub" / "checkpoints"


def _unreachable(*_: object, **__: object) -> None:
    from urllib.error import URLError

    raise URLError(OSError(101, "Network is unreachable"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, one for all tests of a file."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
