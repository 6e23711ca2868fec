"""What a step of drawing costs, counted on shapes before anything is drawn.

What a whole plan takes is in `cnnviz.galleries.plan`, and how fast a machine is in `cnnviz.galleries.rates`.
"""

import torch
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
    try:
        return _counted(network.on_meta(), objective, size)
    except FORWARD_ERRORS:
        return _counted(network, objective, size)


def _counted(network: Network, objective: Objective, size: Size) -> int:
    images = torch.full((1, network.channels, *size), 0.5, device=network.device, requires_grad=True)
    viewer = Viewer(network, objective.layers, images.detach())
    rows = torch.zeros(1, dtype=torch.long)
    objective.score(viewer(images, rows))  # what is computed once, whatever the number of steps
    with FlopCounterMode(display=False) as counter:
        objective.score(viewer(images, rows)).sum().backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())
