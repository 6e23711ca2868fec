"""Networks and pictures that the tests share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks gain nothing from more, and lose where others compute

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
