"""What a step of drawing costs, in operations and in memory, counted on shapes before anything is drawn.

What a whole plan takes is in `cnnviz.galleries.plan`, and how fast a machine is in `cnnviz.galleries.rates`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from cnnviz.errors import FORWARD_ERRORS
from cnnviz.networks.network import Network
from cnnviz.synthesis.objectives import Objective
from cnnviz.synthesis.parametrisations import Size
from cnnviz.synthesis.views import Viewer


def step_cost(network: Network, objective: Objective, size: Size) -> int:
    """Floating-point operations of one step of one image up and back, counted by PyTorch; nothing is computed.

    A network that cannot run on shapes alone is run once.
    """

    def counted(score: Callable[[], Tensor]) -> int:
        with FlopCounterMode(display=False) as counter:
            score().sum().backward()  # type: ignore[no-untyped-call]
        return int(counter.get_total_flops())

    return _of_a_step(network, objective, size, counted)


def step_memory(network: Network, objective: Objective, size: Size, dtype: torch.dtype) -> int:
    """Bytes of activations that one step of one image keeps for the way back; weights are not among them."""

    def counted(score: Callable[[], Tensor]) -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, nn.Parameter):
                kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            score()
        return sum(kept.values())

    return _of_a_step(network, objective, size, counted) * dtype.itemsize // torch.float32.itemsize


def _of_a_step(
    network: Network, objective: Objective, size: Size, counted: Callable[[Callable[[], Tensor]], int]
) -> int:
    """What is counted of the score of one image, on shapes alone if the network can run on these."""

    def on(network: Network) -> int:
        images = torch.full((1, network.channels, *size), 0.5, device=network.device, requires_grad=True)
        viewer = Viewer(network, objective.layers, images.detach(), fused=False)  # each operation is counted
        rows = torch.zeros(1, dtype=torch.long)
        objective.score(viewer(images, rows))  # what is computed once, whatever the number of steps
        return counted(lambda: objective.score(viewer(images, rows)))

    try:
        return on(network.on_meta())
    except FORWARD_ERRORS:
        return on(network)
