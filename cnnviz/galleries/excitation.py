"""Which images of many excite each filter most, in memory that does not grow with their number.

An `Excitation` holds, for every filter of chosen layers, the best images with the positions that excited it, and a
histogram over all images of the filter's largest activation. Two of them merge, in any order, into what one pass over
all their images gives.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.errors import LayerError, PictureError
from cnnviz.networks.activations import AllSeen
from cnnviz.networks.devices import MemoryLimit
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network, forward_pass
from cnnviz.pictures.reading import picture_from_bytes

BATCH = 32  # images that the network is shown at a time
BINS = 64
LEAST = -24  # the exponent of two below which values share a bin


@dataclass(frozen=True)
class Shard:
    """Some of the images: the number of the first among all, and for each its name and the bytes of its file."""

    start: int
    pictures: tuple[tuple[str, bytes], ...]


class Tally:
    """One layer's filters.

    Attributes:
        values: (C, K), the largest activations, in descending order; -inf where there are fewer above zero.
        pictures, positions: (C, K), int64: the images' numbers, and where in the flattened map.
        counts: (C, BINS), int64: images by the filter's largest activation, from 0 to two to the power of `powers`.
        powers: (C,), int64.
    """

    def __init__(self, channels: int, top: int) -> None:
        self.values = torch.full((channels, top), -torch.inf)
        self.pictures = torch.full((channels, top), -1)
        self.positions = torch.full((channels, top), -1)
        self.counts = torch.zeros(channels, BINS, dtype=torch.int64)
        self.powers = torch.full((channels,), LEAST)

    def add(self, values: Tensor, positions: Tensor, pictures: Tensor) -> None:
        """Count images (N,) in: each filter's largest activation (N, C), and where it is."""
        fired = torch.where(values > 0, values, -torch.inf).T
        self._keep_best(fired, pictures.expand(len(fired), -1), positions.T)
        largest = values.amax(0)
        self._widen(torch.where(largest > 0, torch.frexp(largest)[1], LEAST).long())
        share = values.clamp(min=0) / torch.exp2(self.powers.float())
        bins = (share * BINS).long() + torch.arange(len(self.powers)) * BINS
        self.counts += torch.bincount(bins.flatten(), minlength=self.counts.numel()).view_as(self.counts)

    def merge(self, other: "Tally") -> None:
        """Count in what another one has counted."""
        self._keep_best(other.values, other.pictures, other.positions)
        self._widen(other.powers)
        widened = Tally(*self.values.shape)
        widened.counts, widened.powers = other.counts.clone(), other.powers.clone()
        widened._widen(self.powers)
        self.counts += widened.counts

    def _keep_best(self, values: Tensor, pictures: Tensor, positions: Tensor) -> None:
        """Of equal values, the image with the lower number counts more, so the order of counting does not matter."""
        top = self.values.shape[1]
        pairs = ((self.values, values), (self.pictures, pictures), (self.positions, positions))
        values, pictures, positions = (torch.cat(pair, 1) for pair in pairs)
        order = pictures.argsort(dim=1)
        order = order.gather(1, values.gather(1, order).argsort(dim=1, descending=True, stable=True))[:, :top]
        self.values, self.pictures, self.positions = (rows.gather(1, order) for rows in (values, pictures, positions))

    def _widen(self, powers: Tensor) -> None:
        """Let histograms reach up to two to these powers (C,) at least; two bins become one for each power more."""
        while (narrow := self.powers < powers).any():
            halves = self.counts[narrow].view(-1, BINS // 2, 2).sum(2)
            self.counts[narrow] = torch.cat([halves, torch.zeros_like(halves)], 1)
            self.powers[narrow] += 1

    def state(self) -> dict[str, Tensor]:
        return dict(vars(self))

    @staticmethod
    def from_state(state: dict[str, Tensor]) -> "Tally":
        tally = Tally(0, 0)
        vars(tally).update(state)
        return tally


class Excitation:
    """What a pass over images has found so far.

    Attributes:
        tallies: by layer.
        widths: by layer, of its maps, in positions.
        shards: the starts of the shards that are counted.
        count: how many images.
        unreadable: names of what could not be used, and why.
    """

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}
        self.widths: dict[str, int] = {}
        self.shards: set[int] = set()
        self.count = 0
        self.unreadable: list[tuple[str, str]] = []

    def merge(self, other: "Excitation") -> None:
        for layer, tally in other.tallies.items():
            if layer in self.tallies:
                self.tallies[layer].merge(tally)
            else:
                self.tallies[layer] = tally
        self.widths |= other.widths
        self.shards |= other.shards
        self.count += other.count
        self.unreadable = sorted([*self.unreadable, *other.unreadable])

    def state(self) -> dict[str, Any]:
        """Plain enough for ``torch.load(..., weights_only=True)``."""
        return vars(self) | {"tallies": {layer: tally.state() for layer, tally in self.tallies.items()}}

    @staticmethod
    def from_state(state: dict[str, Any]) -> "Excitation":
        excitation = Excitation()
        vars(excitation).update(state)
        excitation.tallies = {layer: Tally.from_state(tally) for layer, tally in state["tallies"].items()}
        return excitation


@torch.no_grad()
def excite(
    network: Network, layers: Sequence[str], top: int, shard: Shard, memory: MemoryLimit | None = None
) -> Excitation:
    """Show a network the images of a shard, each as its published preprocessing cuts it.

    Args:
        memory: on the network's device, as far as it is known from other shards.

    Raises:
        ShapeError, LayerError: if the network cannot take them, or a layer gives no maps.
    """
    excitation = Excitation()
    excitation.shards = {shard.start}
    peaks, memory = _Peaks(network, layers), memory or MemoryLimit()
    for numbers, images in _batches(network, shard, excitation):
        largest = memory.run(partial(peaks, images), BATCH)
        excitation.count += len(numbers)
        for layer, (values, positions, width) in largest.items():
            if layer not in excitation.tallies:
                excitation.tallies[layer] = Tally(values.shape[1], top)
                excitation.widths[layer] = width
            excitation.tallies[layer].add(values, positions, numbers)
    return excitation


def _batches(network: Network, shard: Shard, excitation: Excitation) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers (N,) and images (N, C, H, W), on the CPU; what cannot be used is noted."""
    numbers: list[int] = []
    images: list[Tensor] = []
    for number, (name, content) in enumerate(shard.pictures, shard.start):
        try:
            images.append(show(network, picture_from_bytes(content, name), fit="crop").images)
            numbers.append(number)
        except PictureError as error:
            excitation.unreadable.append((name, str(error)))
        if len(images) == BATCH:
            yield torch.tensor(numbers), torch.cat(images)
            numbers, images = [], []
    if images:
        yield torch.tensor(numbers), torch.cat(images)


class _Peaks:
    """The largest value of each map and where it is, taken while the network runs, so that no map is kept.

    It runs no further than the last of the layers, so that what is behind needs no weights.
    """

    def __init__(self, network: Network, layers: Sequence[str]) -> None:
        self.network, self.count = network.twin(), len(layers)
        self.peaks: dict[str, tuple[Tensor, Tensor, int]] = {}
        for layer in layers:
            self.network.layers[network.qualified(layer)].register_forward_hook(self._note(layer))

    def __call__(self, images: Tensor, batch: int) -> dict[str, tuple[Tensor, Tensor, int]]:
        """By layer, values (N, C) and positions (N, C) for images that are shown `batch` at a time, and the width."""
        parts = [self._shown(part) for part in torch.split(images, batch)]
        return {
            layer: (torch.cat([part[layer][0] for part in parts]), torch.cat([part[layer][1] for part in parts]), width)
            for layer, (_, _, width) in parts[0].items()
        }

    def _shown(self, images: Tensor) -> dict[str, tuple[Tensor, Tensor, int]]:
        self.peaks = {}
        with suppress(AllSeen), forward_pass(self.network, images):
            self.network(images.to(self.network.device))
        return {
            layer: (values.cpu(), positions.cpu(), width) for layer, (values, positions, width) in self.peaks.items()
        }

    def _note(self, layer: str) -> Any:
        def note(_: nn.Module, __: object, maps: Tensor) -> None:
            if layer not in self.peaks:
                values, positions = maps.float().flatten(2).max(2)
                if not values.isfinite().all():
                    raise LayerError(f"{layer} gives values that are not finite; look for NaN among the weights.")
                self.peaks[layer] = values, positions, maps.shape[3]
                if len(self.peaks) == self.count:
                    raise AllSeen

        return note
