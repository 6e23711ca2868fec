"""Every number is of float32 products, whatever a caller allows for speed; and the caller's choice is left to him.

Processors that multiply in bfloat16 stand in for graphics cards and their TF32: on others these tests cannot fail.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from torch import Tensor

import cnnviz
from cnnviz.isolation import exact
from cnnviz.networks.network import Network
from cnnviz.objectives import channel
from tests.support.paths import CAT, ROOT

FAST = {"bfloat16": "bf16", "TF32": "tf32"}


def units() -> list[object]:
    backends = torch.backends
    return [
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
        backends.mkldnn.matmul,
    ]


def precisions() -> list[str]:
    return [unit.fp32_precision for unit in units()]  # type: ignore[attr-defined]


@contextmanager
def in_bfloat16() -> Iterator[None]:
    mkldnn = torch.backends.mkldnn
    kept = mkldnn.conv.fp32_precision, mkldnn.matmul.fp32_precision
    mkldnn.conv.fp32_precision = mkldnn.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        mkldnn.conv.fp32_precision, mkldnn.matmul.fp32_precision = kept


NUMBERS: dict[str, Callable[[Network], Tensor]] = {
    "feature maps": lambda net: cnnviz.feature_maps(net, CAT, "block4_conv2").maps,
    "activations": lambda net: cnnviz.activations(net, torch.full((1, 3, 64, 64), 0.3), "block2_conv1")["block2_conv1"],
    "predictions": lambda net: torch.tensor([row.probability for row in cnnviz.predict(net, CAT)]),
    "attribution": lambda net: cnnviz.attribute(net, torch.rand(1, 3, 128, 128), 3, method="saliency"),
    "an ascent": lambda net: (
        cnnviz.maximize(net, channel("block2_conv1", 3), steps=2, size=48, precision="float32").images
    ),
}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("allowed", [in_bfloat16, lambda: torch.autocast("cpu")], ids=["precision", "autocast"])
def test_numbers_do_not_depend_on_what_is_allowed_for_speed(
    mini: Network, number: str, allowed: Callable[[], AbstractContextManager[None]]
) -> None:
    values = []
    for context in (nullcontext, allowed):
        torch.manual_seed(0)
        with context():
            values.append(NUMBERS[number](mini))
    assert torch.equal(*values)


SETUPS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "everything": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "convolutions": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
}


@pytest.mark.parametrize("setup", SETUPS)
def test_what_a_caller_allows_is_left_to_him(setup: str) -> None:
    """In a process of its own, for PyTorch's settings depend on those before."""
    ended = subprocess.run(
        [sys.executable, "-c", f"from tests.house import test_float32 as tests; tests.left_alone({setup!r})"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stderr


def left_alone(setup: str) -> None:
    SETUPS[setup]()
    before, cudnn = precisions(), torch.backends.cudnn
    with exact(), exact():
        assert precisions() == ["ieee"] * len(before)
        assert (cudnn.benchmark, cudnn.deterministic) == (False, True)
        if setup != "everything":  # which PyTorch's older settings for matrices cannot say, with or without cnnviz
            assert not torch.backends.cuda.matmul.allow_tf32
        if setup != "convolutions":  # nor those for convolutions
            with cudnn.flags(enabled=True):
                pass
    assert precisions() == before
    assert (cudnn.benchmark, cudnn.deterministic) == (False, False)
    torch.backends.fp32_precision = "ieee"
    with exact():
        pass
    assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
