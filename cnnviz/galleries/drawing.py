"""Filters to finished images with what is known of them, ready to be written by whoever keeps the gallery."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch

from cnnviz.galleries.plan import Chunk
from cnnviz.galleries.wiring import Wiring
from cnnviz.networks.layers import all_convolutions
from cnnviz.networks.network import Network
from cnnviz.networks.provenance import record
from cnnviz.pictures.colours import drawable
from cnnviz.pictures.records import versions
from cnnviz.pictures.sheets import Sheet
from cnnviz.synthesis.jobs import SynthesizedImage
from cnnviz.synthesis.maximization import filter_job, recorded_layer


@dataclass(frozen=True)
class Drawing:
    """A filter's image and its record, plain enough for JSON.

    Attributes:
        encode: gives the bytes of a PNG; who keeps the image calls it, in a thread of his own if he likes.
    """

    layer: str
    number: int
    encode: Callable[[], bytes]
    record: dict[str, Any]

    @cached_property
    def png(self) -> bytes:
        return self.encode()

    def encoded(self) -> "Drawing":
        """The same with the bytes alone, to be sent elsewhere."""
        return replace(self, encode=partial(bytes, self.png))


@dataclass(frozen=True)
class Advance:
    """How far a chunk is: operations done since the last one, and those more to do because a filter failed.

    Attributes:
        drawn: what was finished.
        batch: filters at a time from here on, where memory just ran out for more.
    """

    done: int
    more: int
    drawn: Sequence[Drawing]
    batch: int | None = None


def draw(network: Network, chunk: Chunk) -> Iterator[Advance]:
    """Draw the filters of a chunk; each is handed over as soon as nothing can change it any more."""
    settings = {**chunk.settings, "size": tuple(chunk.settings["size"])}
    layer = recorded_layer(network, chunk.layer, settings.pop("objective", None))
    job = filter_job(network, layer, chunk.filters, **settings)
    wiring = Wiring(network, all_convolutions(network))
    done, total, left = 0, len(chunk.filters) * job.steps, set(range(len(chunk.filters)))
    since = time.perf_counter()
    for progress in job.run():
        ready = [row for row in sorted(left & progress.images.keys()) if progress.images[row].ok]
        left -= set(ready)
        seconds = (time.perf_counter() - since) / max(1, len(ready))
        drawn = [_drawn(network, chunk, row, progress.images[row], wiring, seconds) for row in ready]
        since = time.perf_counter() if ready else since
        new, more = progress.done - done, progress.total - total
        yield Advance(new * chunk.weight, more * chunk.weight, drawn, progress.batch)
        done, total = progress.done, progress.total
    seconds = (time.perf_counter() - since) / max(1, len(left))
    drawn = [_drawn(network, chunk, row, progress.images[row], wiring, seconds) for row in sorted(left)]
    yield Advance(0, 0, drawn)


def _drawn(
    network: Network, chunk: Chunk, row: int, image: SynthesizedImage, wiring: Wiring, seconds: float
) -> Drawing:
    number, judgement = chunk.filters[row], image.judgement
    settings = {"layer": chunk.layer, "filter": number, **chunk.settings, "batch": image.batch}
    recorded = record("gallery", network, settings=settings, results={"score": [judgement.score]})
    picture = Sheet(drawable(image.image), recorded)
    return Drawing(
        chunk.layer,
        number,
        picture.png,
        {
            "filter": number,
            "key": chunk.keys[row],
            "score": judgement.score,
            "start": image.start,
            "percentile": judgement.percentile,
            "mean": judgement.mean,
            "max": judgement.maximum,
            "status": judgement.status,
            "tries": image.tries,
            "batch": image.batch,
            "curve": [float(f"{value:.4g}") for value in image.curve.tolist()],
            "inputs": wiring.strongest(chunk.layer, number),
            "seconds": round(seconds, 3),
            "device": network.device.type,
            "threads": torch.get_num_threads(),
            "versions": versions(),
        },
    )
