"""How fast this machine draws: steps and judging in some of a plan's layers, warm and in the batches of the build."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import ceil

import torch

from cnnviz.galleries.plan import LayerPlan, chunk_length
from cnnviz.isolation import exact
from cnnviz.networks.devices import MemoryLimit
from cnnviz.networks.network import Network
from cnnviz.synthesis.jobs import Job
from cnnviz.synthesis.judgement import references_for
from cnnviz.synthesis.maximization import filter_job, recorded_layer
from cnnviz.synthesis.views import Viewer

MEASURED = 16  # layers at most, evenly spread
WARM, TIMED, LONG = 1, 3, 0.3  # steps before the clock starts; steps, and seconds, that are measured at least
EXACT_AGAIN = 0.5  # of the references, a tenth to two thirds where it was counted, score too near for bfloat16


@dataclass(frozen=True)
class Speed:
    """Floating-point operations a second in a layer.

    Attributes:
        steps: during optimization.
        forward: where images are judged, in the numbers of the steps, a pass counted as half a step.
        exact: the same in float32.
        references: how many images the finished ones are compared with.
    """

    steps: float
    forward: float
    exact: float
    references: int

    def seconds(self, layer: LayerPlan) -> float:
        """How long all filters of a layer take, if each succeeds at the first try."""
        batch = int(layer.settings["batch"])
        length = chunk_length(batch)
        chunks = ceil(len(layer.filters) / length)
        drawn = ceil(len(layer.filters) / batch) * batch  # the last batch is filled up
        again = EXACT_AGAIN if layer.settings["precision"] != "float32" else 0
        stepping = drawn * int(layer.settings["steps"]) / self.steps
        comparing = chunks * self.references * (1 / self.forward + again / self.exact) / 2
        judging = 3 * drawn / self.exact / 2  # as it began, as it ended, and where it fires
        return layer.flops * (stepping + comparing + judging)


def with_zeros(outline: Network, device: torch.device) -> Network:
    """A network without numbers, with zeros on a device: a step takes as long as with weights."""
    return outline.copy(lambda tensor: torch.zeros_like(tensor, device=device) if tensor.is_meta else tensor.to(device))


def measured_speeds(network: Network, layers: Sequence[LayerPlan]) -> list[Speed]:
    """For each layer of a plan, the speed in the nearest one that was measured."""
    count = min(MEASURED, len(layers))
    places = [round(number * (len(layers) - 1) / max(1, count - 1)) for number in range(count)]
    with exact():
        speeds = {place: _speed(network, layers[place]) for place in places}
    return [speeds[min(places, key=lambda near: abs(near - place))] for place in range(len(layers))]


def _speed(network: Network, layer: LayerPlan) -> Speed:
    settings = {**layer.settings, "size": tuple(layer.settings["size"])}
    name = recorded_layer(network, layer.layer, settings.pop("objective", None))

    def speed(batch: int) -> Speed:
        own = settings | {"batch": batch, "steps": max(int(settings["steps"]), WARM + TIMED)}
        job = filter_job(network, name, layer.filters[:batch], **own)
        steps = _seconds(network, job.unjudged())
        passes = {dtype: _seconds(network, _passes(job, dtype)) for dtype in {job.dtype, torch.float32}}
        flops, references = batch * layer.flops, len(references_for(network.channels, job.size).names)
        return Speed(flops / steps, flops / passes[job.dtype] / 2, flops / passes[torch.float32] / 2, references)

    return MemoryLimit().run(speed, int(settings["batch"]))


@torch.no_grad()
def _passes(job: Job, dtype: torch.dtype) -> Iterator[object]:
    """Scores of one batch after the other, as images are judged."""
    images = torch.full((job.batch, job.network.channels, *job.size), 0.5, device=job.network.device)
    viewer = Viewer(job.network, job.objective.layers, images[:1], dtype=dtype, elided=False)
    rows = torch.zeros(job.batch, dtype=torch.long)
    for _ in range(job.steps):
        yield job.objective.score(viewer(images, rows))


def _seconds(network: Network, work: Iterator[object]) -> float:
    """How long a piece of work takes on average."""
    count, started = 0, time.perf_counter()
    with closing(work):  # type: ignore[type-var]  # it is a generator
        for number, _ in enumerate(work):
            if network.device.type == "cuda":
                torch.cuda.synchronize(network.device)
            count, seconds = number + 1 - WARM, time.perf_counter() - started
            if count <= 0:
                started = time.perf_counter()
            elif count >= TIMED and seconds >= LONG:
                break
    return seconds / count
