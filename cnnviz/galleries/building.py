"""From what a gallery is asked to hold to a folder that holds it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnviz.galleries.engines import Engine, InProcess
from cnnviz.galleries.plan import Plan, Request, chunks, joined
from cnnviz.galleries.store import Store
from cnnviz.network import Network


@dataclass(frozen=True)
class Progress:
    """How far a build is.

    Attributes:
        done, total: floating-point operations; the total grows if filters have to be drawn again.
        finished, filters: how many are in the folder, of how many.
        batch: filters at a time, where memory did not do for as many as planned.
    """

    done: int
    total: int
    finished: int
    filters: int
    batch: int | None


def building(engine: Engine, store: Store, request: Request) -> Iterator[Progress]:
    """Draw what a gallery is asked to hold and does not hold yet.

    Layers and filters are added to those that the gallery holds; a picture that was drawn otherwise is drawn again.
    Whoever stops early keeps what is finished.

    Raises:
        UnknownNameError, LayerError, ShapeError: if a layer, a filter or a setting does not fit the network.
        OutputError: if the folder cannot be written, or somebody else writes it.
    """
    asked = engine.plan(request)
    with store.writing():
        plan = joined(store.plan(), asked)
        store.begin(plan)
        held = store.done(plan)
        work = list(chunks(plan, held))
        finished, done, total = sum(map(len, held.values())), 0, sum(chunk.cost for chunk in work)
        yield Progress(done, total, finished, plan.count, None)
        for advance in engine.draw(work):
            if advance.drawn:
                store.add(advance.drawn)
            finished, done, total = finished + len(advance.drawn), done + advance.done, total + advance.more
            yield Progress(done, total, finished, plan.count, advance.batch)


def build_gallery(
    network: Network,
    folder: str | Path,
    layers: Sequence[str] = (),
    filters: Sequence[int] | None = None,
    *,
    seed: int = 0,
    **settings: Any,
) -> Plan:
    """Draw the filters of layers into a folder, or go on where an earlier call was interrupted.

    Args:
        layers: names from ``network.layers``; all convolutions by default.
        filters: their numbers, in each layer as far as it has them; all by default.
        seed: each filter draws from (seed, layer, number).
        settings: recipe (by its name), preset, steps, size, batch, precision, tries; see `cnnviz.settings.Settings`.

    Returns:
        What the gallery holds.

    Raises:
        UnknownNameError, LayerError, ShapeError: if a layer, a filter or a setting does not fit the network.
        OutputError: if the folder cannot be written, or somebody else writes it.
    """
    store = Store(folder)
    wanted = None if filters is None else tuple(filters)
    for _ in building(InProcess(network), store, Request(tuple(layers), wanted, settings | {"seed": seed})):
        pass
    return store.planned()
