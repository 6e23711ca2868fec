"""Galleries on a Ray cluster that the tests start: the same pictures, whatever becomes of workers."""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import cnnviz
from cnnviz.galleries.building import build_gallery
from cnnviz.galleries.engines import InProcess
from cnnviz.galleries.natural_examples import find_examples
from cnnviz.galleries.store import Store
from tests.support.galleries import differences
from tests.support.paths import CAT

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")

NETWORK = """
import os
import torch
from torch import nn

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, images):
        handle = os.open({counter!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, b"x")
        os.close(handle)
        return self.second(self.first(images).relu()).relu().mean((2, 3))
"""
CHUNKS, STEPS = 8, 80


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two workers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


def options(folder: Path, counter: Path) -> list[str]:
    (folder / "net.py").write_text(NETWORK.format(counter=str(counter)))
    network = ["--model", f"{folder / 'net.py'}:Counting", "--input-size", "24", "--steps", str(STEPS), "--size", "24"]
    return [*network, "--batch", "4", "--precision", "float32"]


def build(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "cnnviz", "gallery", "build", str(folder), "--quiet"]
    return subprocess.Popen([*start, *more], env=alone, cwd=folder.parent, stderr=subprocess.PIPE)


def workers() -> list[int]:
    """The processes that draw."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().startswith(b"ray::_on_worker"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_cluster_gives_the_same_gallery_and_a_lost_worker_costs_its_chunk(cluster: str, tmp_path: Path) -> None:
    """The network notes every pass, so what was done twice can be counted."""
    counter = tmp_path / "passes"
    asked = options(tmp_path, counter)
    with build(tmp_path / "process", *asked) as plain:
        pass
    passes = counter.stat().st_size
    counter.unlink()
    with build(tmp_path / "ray", *asked, "--engine", "ray", "--address", cluster) as spread:
        deadline = time.monotonic() + 120
        while not counter.exists() or counter.stat().st_size < passes / 4 or not (drawing := workers()):
            assert spread.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(drawing[0], signal.SIGKILL)
        _, said = spread.communicate()
    assert (plain.returncode, spread.returncode, said) == (0, 0, b"")
    assert differences(tmp_path / "process", tmp_path / "ray") == []
    again = counter.stat().st_size - passes
    assert 0 <= again < 1.5 * passes / CHUNKS


def test_examples_on_a_cluster_are_those_of_one_process(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    cat = Image.open(CAT)
    for number in range(150):  # more than a shard
        cat.crop((number, number, number + 60, number + 60)).save(tmp_path / "pictures" / f"{number:03d}.png")
    network = cnnviz.load("vgg16-mini")
    build_gallery(network, tmp_path / "process", ["block2_conv1"], steps=1)
    shutil.copytree(tmp_path / "process", tmp_path / "ray")
    list(find_examples(InProcess(network), Store(tmp_path / "process"), tmp_path / "pictures"))
    options = ["--images", "pictures", "--model", "vgg16-mini", "--engine", "ray", "--address", cluster]
    script = [sys.executable, "-m", "cnnviz", "gallery", "examples", "ray", *options]
    subprocess.run(script, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path, check=True)
    found = [(tmp_path / name / "examples" / "block2_conv1.jsonl").read_text() for name in ("process", "ray")]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpus-per-worker", "64"], "a worker is to have 64 GPUs; the Ray cluster has "),
        (["--layers", "block9_conv1"], "vgg16-mini has no layer named 'block9_conv1'; did you mean "),
    ],
)
def test_what_is_wrong_is_told_in_one_line(cluster: str, tmp_path: Path, options: list[str], said: str) -> None:
    with build(tmp_path / "g", "--model", "vgg16-mini", "--engine", "ray", "--address", cluster, *options) as refused:
        _, line = refused.communicate()
    assert refused.returncode == 1
    assert line.decode().startswith(f"Error: {said}")
    assert line.count(b"\n") == 1


def test_no_cluster_is_told_in_one_line(tmp_path: Path) -> None:
    options = ["--model", "vgg16-mini", "--engine", "ray", "--address", "127.0.0.1:1"]
    with build(tmp_path / "g", *options) as refused:
        _, line = refused.communicate()
    assert refused.returncode == 1
    assert line.decode().startswith("Error: there is no Ray cluster at 127.0.0.1:1 (")
    assert line.count(b"\n") == 1
