"""Processor time of a first command, against that of importing PyTorch and torchvision.

Run it with ``python tests/benchmarks/startup.py``: the two in turn, five times each, medians and their ratio.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

CAT = Path(__file__).parents[2] / "gallery" / "photos" / "cat.jpg"
MAPS = ["-m", "cnnviz", "featuremaps", str(CAT), "--model", "vgg16-mini", "--layer", "block4_conv2"]
IMPORTS = ["-c", "import torch, torchvision"]
ROUNDS = 5


def seconds(arguments: list[str], folder: str) -> float:
    """User and system time of a fresh interpreter, with one thread."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    with TemporaryDirectory() as folder:
        pairs = [(seconds(MAPS, folder), seconds(IMPORTS, folder)) for _ in range(ROUNDS + 1)]
    maps, imports = (median(times) for times in zip(*pairs[1:], strict=True))  # the first ones read files
    print(f"featuremaps {maps:.2f} s, import torch, torchvision {imports:.2f} s: ratio {maps / imports:.2f}")


if __name__ == "__main__":
    main()
