"""How fast this machine draws: warm steps of some of a plan's layers, in the batches that they will be drawn in."""

import time
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from cnnviz.galleries.plan import LayerPlan
from cnnviz.networks.devices import MemoryLimit
from cnnviz.networks.network import Network
from cnnviz.synthesis.maximization import filter_job, recorded_layer

MEASURED, WARM, TIMED = 16, 1, 3  # layers at most, evenly spread; and steps of each


def with_zeros(outline: Network, device: torch.device) -> Network:
    """A network without numbers, with zeros on a device: a step takes as long as with weights."""
    return outline.copy(lambda tensor: torch.zeros_like(tensor, device=device) if tensor.is_meta else tensor.to(device))


def measured_rates(network: Network, layers: Sequence[LayerPlan]) -> list[float]:
    """Floating-point operations a second, for each layer of a plan: those of the nearest one that was measured."""
    count = min(MEASURED, len(layers))
    places = [round(number * (len(layers) - 1) / max(1, count - 1)) for number in range(count)]
    rates = {place: _rate(network, layers[place]) for place in places}
    return [rates[min(places, key=lambda near: abs(near - place))] for place in range(len(layers))]


def _rate(network: Network, layer: LayerPlan) -> float:
    settings = {**layer.settings, "size": tuple(layer.settings["size"])}
    name = recorded_layer(network, layer.layer, settings.pop("objective", None))

    def rate(batch: int) -> float:
        own = settings | {"batch": batch, "steps": WARM + TIMED}
        job = filter_job(network, name, layer.filters[:batch], **own)
        seconds, started = list[float](), time.perf_counter()
        for step in job.unjudged():
            _wait_for(step.scores)
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
        return batch * layer.flops / median(seconds[WARM:])

    return MemoryLimit().run(rate, int(settings["batch"]))


def _wait_for(values: Tensor) -> None:
    if values.device.type == "cuda":
        torch.cuda.synchronize(values.device)
