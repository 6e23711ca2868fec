"""What a step of drawing costs, counted on shapes before anything is drawn, and how much a second is done here.

What a whole plan takes is in `cnnviz.galleries.plan`.
"""

import time
from statistics import median

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from cnnviz.errors import FORWARD_ERRORS
from cnnviz.networks.devices import fast_dtype
from cnnviz.networks.network import Network
from cnnviz.synthesis.objectives import Objective
from cnnviz.synthesis.parametrisations import Size
from cnnviz.synthesis.views import Viewer

ROUNDS, CHANNELS, SIDE, BATCH = 7, 256, 28, 4  # of the convolutions by which the machine is measured


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


def measured_rate(device: torch.device) -> float:
    """Floating-point operations a second of convolutions here, forward and backward: the median of some rounds."""
    dtype = fast_dtype(device)
    kernels = torch.randn(CHANNELS, CHANNELS, 3, 3, device=device, dtype=dtype)
    maps = torch.randn(BATCH, CHANNELS, SIDE, SIDE, device=device, dtype=dtype, requires_grad=True)
    kernels, maps = (values.contiguous(memory_format=torch.channels_last) for values in (kernels, maps))
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        functional.conv2d(maps, kernels, padding=1).sum().backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * 2 * BATCH * CHANNELS**2 * 9 * SIDE**2 / median(seconds)
