"""Networks and pictures that the tests share."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks gain nothing from more, and lose where others compute

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vgg import make_layers

import cnnviz
from cnnviz.cli import cli
from cnnviz.network import Network

Run = Callable[..., Result]
ROOT = Path(__file__).parent.parent
CAT = ROOT / "gallery" / "photos" / "cat.jpg"
VGG16_WIDTHS = [4, 4, "M", 6, 6, "M", 8, 8, 8, "M", 10, 10, 10, "M", 10, 10, 10, "M"]


class SmallVGG(nn.Module):
    """VGG16's layout, torchvision's own layers, in-place ReLUs included, at a width that runs in no time."""

    def __init__(self, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.features = make_layers(VGG16_WIDTHS, batch_norm=batch_norm)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(10, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(images)).flatten(1))


class LeNet(nn.Module):
    """LeNet-style, for 28 x 28 grey digits; takes no other size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        maps = functional.max_pool2d(functional.relu(self.conv2(maps)), 2)
        features = functional.relu(self.fc2(functional.relu(self.fc1(maps.view(-1, 16 * 5 * 5)))))
        return self.fc3(features)


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
