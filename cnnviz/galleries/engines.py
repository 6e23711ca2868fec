"""Where a gallery's work is done: in this process, or elsewhere (`cnnviz.galleries.ray_engine`).

An engine has a network and does three things with it, on whatever devices it has: `plan` decides what a request leaves
open, `draw` draws chunks, `excite` shows images. To add another one, give it these.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from cnnviz.galleries.drawing import Advance, draw
from cnnviz.galleries.excitation import Excitation, Shard, excite
from cnnviz.galleries.plan import Chunk, Plan, Request, make_plan
from cnnviz.networks.devices import MemoryLimit
from cnnviz.networks.network import Network


class Engine(Protocol):
    """Somewhere to work, and the network to work with."""

    network: Network

    def plan(self, request: Request) -> Plan: ...

    def draw(self, chunks: Sequence[Chunk]) -> Iterator[Advance]:
        """Draw chunks in any order; what is finished comes as soon as it can."""
        ...

    def excite(self, layers: Sequence[str], top: int, shards: Iterator[Shard]) -> Iterator[Excitation]:
        """Show the network shards of images; what each gives comes in any order."""
        ...


class InProcess:
    """Works here, on the network's device."""

    def __init__(self, network: Network) -> None:
        self.network, self.memory = network, MemoryLimit()

    def plan(self, request: Request) -> Plan:
        return make_plan(self.network, request)

    def draw(self, chunks: Sequence[Chunk]) -> Iterator[Advance]:
        for chunk in chunks:
            yield from draw(self.network, chunk)

    def excite(self, layers: Sequence[str], top: int, shards: Iterator[Shard]) -> Iterator[Excitation]:
        for shard in shards:
            yield excite(self.network, layers, top, shard, self.memory)
