"""What happens before the first step of a synthesis, of which whoever waits sees nothing."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

import cnnviz
from cnnviz.networks import network
from cnnviz.networks.network import Network
from cnnviz.synthesis.maximization import filter_job
from tests.support.networks import SmallVGG


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts passes over real numbers and over shapes alone, and copies that convert weights."""
    done: Counter[str] = Counter()
    forward, copied = Network.forward, network.structural_copy

    def counted_pass(self: Network, images: Tensor) -> Tensor:
        done["dry runs" if images.is_meta else "passes"] += 1
        return forward(self, images)

    def counted_copy(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> Any:
        copy = copied(module, convert)
        own = {tensor.data_ptr() for tensor in module.parameters()}
        done["copies"] += any(not t.is_meta and t.data_ptr() not in own for t in copy.parameters())
        return copy

    monkeypatch.setattr(Network, "forward", counted_pass)
    monkeypatch.setattr(network, "structural_copy", counted_copy)
    return done


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_one_copy_and_a_few_passes_lead_to_the_first_step(work: Counter[str], precision: str) -> None:
    """One for the receptive field, for the canvas, for the numbers, for the order of layers, and the step's own."""
    vgg = cnnviz.wrap(SmallVGG(), name="vgg", input_size=64)
    work.clear()
    job = filter_job(vgg, "block3_conv2", [0, 1], batch=2, precision=precision)
    first = next(job.run())
    assert first.step is not None
    assert first.step.number == 0
    assert work["copies"] == 1
    assert work["passes"] <= (5 if precision == "auto" else 4)
    assert work["dry runs"] == 0
