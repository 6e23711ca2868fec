"""Galleries on a Ray cluster that the tests start: the same images, whatever becomes of workers."""

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import cnnviz
from cnnviz.galleries.building import building
from cnnviz.galleries.engines import Engine, InProcess
from cnnviz.galleries.natural_examples import SHARD, find_examples
from cnnviz.galleries.plan import Request, chunks
from cnnviz.galleries.ray_engine import OnRay
from cnnviz.galleries.store import Store
from tests.support.commands import Run, faults
from tests.support.galleries import differences
from tests.support.paths import CAT, NETWORKS

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")

NETWORK = """
import os, pathlib, signal
import torch
from torch import nn

HERE = pathlib.Path({folder!r})

class Counting(nn.Module):
    '''Notes every pass; the process that makes the n-th of all is killed.'''
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, images):
        with open(HERE / "passes", "ab", buffering=0) as passes:
            passes.write(b"x")
            number = passes.tell()
        if number == int((HERE / "last").read_text()):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.second(self.first(images).relu()).relu().mean((2, 3))
"""


# Whatever else the machine does, workers get their share of it, and none is given up but the one that a test kills.
PATIENT = {
    "worker_niceness": 0,
    "worker_register_timeout_seconds": 3600,
    "health_check_timeout_ms": 3_600_000,
    "health_check_failure_threshold": 1000,
    "memory_monitor_refresh_ms": 0,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two workers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        import ray

        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config=PATIENT)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_a_cluster_gives_the_same_gallery_and_a_lost_worker_costs_its_chunk(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK.format(folder=str(tmp_path)))
    (tmp_path / "last").write_text("0")
    network = cnnviz.load(f"{tmp_path / 'net.py'}:Counting", input_size=16)
    settings = {"steps": 12, "size": 16, "seed": 0, "batch": 4, "precision": "float32"}

    def passes(engine: Engine, name: str) -> int:
        (tmp_path / "passes").write_bytes(b"")
        list(building(engine, Store(tmp_path / name), Request((), None, settings)))
        return (tmp_path / "passes").stat().st_size

    alone = passes(InProcess(network), "process")
    (tmp_path / "last").write_text(str(alone // 2))
    spread = passes(OnRay(network), "ray")
    assert differences(tmp_path / "process", tmp_path / "ray") == []
    plan = Store(tmp_path / "ray").planned()
    assert 0 < spread - alone < 1.5 * alone / len(list(chunks(plan, {})))


def test_a_command_on_a_cluster_gives_the_examples_of_one_process(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    cat = Image.open(CAT)
    for number in range(SHARD + 2):
        cat.crop((number, number, number + 60, number + 60)).resize((32, 32)).save(
            tmp_path / "pictures" / f"{number:03d}.png"
        )
    own = ["--model", f"{NETWORKS}:SmallVGG", "--input-size", "32"]
    network = cnnviz.load(own[1], input_size=32)
    cnnviz.build_gallery(network, tmp_path / "process", ["block2_conv1"], steps=1, size=32)
    shutil.copytree(tmp_path / "process", tmp_path / "ray")
    list(find_examples(InProcess(network), Store(tmp_path / "process"), tmp_path / "pictures"))
    command = [sys.executable, "-m", "cnnviz", "gallery", "examples", "ray", "--images", "pictures", *own]
    subprocess.run([*command, "--engine", "ray", "--address", cluster], cwd=tmp_path, check=True)
    found = [(tmp_path / name / "examples" / "block2_conv1.jsonl").read_text() for name in ("process", "ray")]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpus-per-worker", "64"], "a worker is to have 64 GPUs; the Ray cluster has "),
        (["--layers", "block9_conv1"], "SmallVGG has no layer named 'block9_conv1'; did you mean "),
    ],
)
def test_what_is_wrong_is_told_in_one_line(cluster: str, run: Run, options: list[str], said: str) -> None:
    own = ["--model", f"{NETWORKS}:SmallVGG", "--input-size", "32", "--engine", "ray", "--address", cluster]
    result = run("gallery", "build", "g", *own, *options, "--quiet")
    assert result.exit_code == 1
    assert faults(result).startswith("Error: ")
    assert said in result.stderr
    assert faults(result).count("\n") == 1


def test_no_cluster_is_told_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    result = run("gallery", "build", "g", "--model", "vgg16-mini", "--engine", "ray", "--address", "127.0.0.1:1", "-q")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: there is no Ray cluster at 127.0.0.1:1 (")
    assert result.stderr.count("\n") == 1
