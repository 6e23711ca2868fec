"""A gallery's work on a Ray cluster, on one machine or many.

Chunks are Ray tasks: what a lost worker had in hand is done again by another, and machines may come and go. The
network travels through Ray, so workers need cnnviz, but neither the weights' file nor a shared disk; each loads it
once. Results come back to this process, which alone writes.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch

from cnnviz.errors import CnnvizError, ModelError
from cnnviz.galleries.drawing import Advance, draw
from cnnviz.galleries.excitation import Excitation, Shard, excite
from cnnviz.galleries.plan import Chunk, LayerPlan, Plan, Request, plan_layers
from cnnviz.networks.network import Network
from cnnviz.networks.provenance import describe

PATIENCE = 10.0  # seconds to wait for a cluster to answer
RETRIES = 5  # of a task whose worker is lost; one that fails more often is at fault itself
WAITING = 2  # tasks in the queue for each one that runs


class OnRay:
    """Works on a Ray cluster.

    Args:
        network: on the CPU; workers with a GPU put it there.
        address: of a cluster, as ``ray.init`` takes it ("auto" finds one that runs here); one is started by default.
        gpus: of each worker; by default one if the cluster has any, else none. Without, a worker computes on one
            thread.

    Raises:
        ModelError: if Ray is not installed, there is no cluster, or it has no such worker.
    """

    def __init__(self, network: Network, address: str | None = None, gpus: float | None = None) -> None:
        self.ray, self.network = _connected(address), network
        have = self.ray.cluster_resources()
        self.gpus = min(1.0, have.get("GPU", 0.0)) if gpus is None else gpus
        if self.gpus > have.get("GPU", 0.0):
            raise ModelError(f"a worker is to have {self.gpus:g} GPUs; the Ray cluster has {have.get('GPU', 0):g}.")
        self.workers = max(1, int(have["GPU"] / self.gpus if self.gpus else have.get("CPU", 1)))
        self._by_value()
        self._shared = [self.ray.put(network)]  # in a list, or Ray would hand over the network itself to each task

    def plan(self, request: Request) -> Plan:
        return Plan(describe(self.network), next(self._map(_plan_layers, [request])))

    def draw(self, chunks: Sequence[Chunk]) -> Iterator[Advance]:
        yield from self._map(_draw, chunks)

    def excite(self, layers: Sequence[str], top: int, shards: Iterator[Shard]) -> Iterator[Excitation]:
        return self._map(_excite, ((layers, top, shard) for shard in shards))

    def _map(self, work: Callable[[Network, Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """What `work` gives for each item, in the order of finishing; few items wait at a time."""
        kind = {"num_gpus": self.gpus} if self.gpus else {"num_cpus": 1}
        task = self.ray.remote(max_retries=RETRIES, **kind)(_on_worker)
        rest, running = iter(items), set[Any]()
        while True:
            while len(running) < self.workers * WAITING and (item := next(rest, None)) is not None:
                running.add(task.remote(self._shared, self.gpus > 0, work, item))
            if not running:
                return
            finished, _ = self.ray.wait(list(running))
            running -= set(finished)
            for reference in finished:
                yield self._result(reference)

    def _result(self, task: Any) -> Any:
        try:
            return self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CnnvizError):
                raise error.cause from None
            raise
        except (self.ray.exceptions.WorkerCrashedError, self.ray.exceptions.OutOfMemoryError) as error:
            raise ModelError(f"a part of the work took {RETRIES + 1} workers down; look at their logs.") from error

    def _by_value(self) -> None:
        """Send along the code of a network that comes from a file here, which workers cannot import."""
        for part in self.network.modules():
            module = sys.modules.get(type(part).__module__)
            if module is not None and module.__name__.partition(".")[0] not in ("cnnviz", "torch", "torchvision"):
                self.ray.cloudpickle.register_pickle_by_value(module)


def _connected(address: str | None) -> Any:
    """Ray, connected; it reports its usage to nobody."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ModelError("Ray is not installed; `pip install 'cnnviz[ray]'` does that.") from error
    if not ray.is_initialized():
        _check_answers(address)
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address, include_dashboard=None if address else False, log_to_driver=False, logging_level=logging.ERROR
            )
        except Exception as error:  # one without a kind, if the cluster takes too long to start here
            reason = str(error).splitlines()[0].rstrip(".")
            raise ModelError(f"there is no Ray cluster at {address or 'this machine'} ({reason}).") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # which Ray takes for itself
    return ray


def _check_answers(address: str | None) -> None:
    """Notice an address at which nobody listens: Ray itself would go on trying for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        except OSError as error:
            raise ModelError(f"there is no Ray cluster at {address} ({error}).") from error


def _on_worker(shared: list[Any], on_gpu: bool, work: Callable[[Network, Any], Any], item: Any) -> Any:
    """Do some work with the network that all share."""
    if not on_gpu:
        torch.set_num_threads(1)
    return work(_network(shared[0], on_gpu), item)


@lru_cache(maxsize=1)
def _network(shared: Any, on_gpu: bool) -> Network:
    """The network, got by each worker once."""
    import ray

    network: Network = ray.get(shared)
    return network.to("cuda") if on_gpu else network


def _plan_layers(network: Network, request: Request) -> tuple[LayerPlan, ...]:
    return plan_layers(network, request)


def _draw(network: Network, chunk: Chunk) -> Advance:
    """A whole chunk as one advance."""
    parts = list(draw(network, chunk))
    drawn = [drawing.encoded() for part in parts for drawing in part.drawn]
    batches = [part.batch for part in parts if part.batch]
    return Advance(sum(p.done for p in parts), sum(p.more for p in parts), drawn, batches[-1] if batches else None)


def _excite(network: Network, work: tuple[Sequence[str], int, Shard]) -> Excitation:
    return excite(network, *work)
