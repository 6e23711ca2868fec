"""From what a gallery is asked to hold to a folder that holds it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

from cnnviz.errors import OutputError, path_of, several, whole_number
from cnnviz.galleries.drawing import Drawing
from cnnviz.galleries.engines import Engine, InProcess
from cnnviz.galleries.plan import Plan, Request, chunks, joined
from cnnviz.galleries.store import Store
from cnnviz.networks.devices import LOG
from cnnviz.networks.network import Network, check_network
from cnnviz.networks.progress import Progress
from cnnviz.synthesis.recipes import Preset
from cnnviz.synthesis.settings import Precision


def building(engine: Engine, store: Store, request: Request) -> Iterator[Progress]:
    """Draw what a gallery is asked to hold and does not hold yet.

    Layers and filters are added to those that the gallery holds; an image that was drawn otherwise is drawn again,
    and if the network has other weights than it had, all are, which is said in a warning.
    Whoever stops early keeps what is finished.

    Yields:
        How far the build is, counted in floating-point operations and in filters.

    Raises:
        UnknownNameError, LayerError, ShapeError: if a layer, a filter or a setting does not fit the network.
        OutputError: if the folder cannot be written, or somebody else writes it.
    """
    asked = engine.plan(request)
    with store.writing():
        plan = joined(_replanned(engine, store, asked), asked)
        store.begin(plan)
        held = store.done(plan)
        work = list(chunks(plan, held))
        finished, done, total = sum(map(len, held.values())), 0, sum(chunk.cost for chunk in work)
        yield Progress(done, total, finished, plan.count)
        on_card = engine.network.device.type == "cuda"
        with _encoded_beside(store.add) if on_card else nullcontext(store.add) as add:
            for advance in engine.draw(work):
                if advance.drawn:
                    add(advance.drawn)
                finished, done, total = finished + len(advance.drawn), done + advance.done, total + advance.more
                yield Progress(done, total, finished, plan.count, advance.batch)


@contextmanager
def _encoded_beside(add: Callable[[Sequence[Drawing]], None]) -> Iterator[Callable[[Sequence[Drawing]], None]]:
    """Encode images in a thread while a graphics card goes on; they are added before the next ones, or at the end."""
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[list[Drawing]] | None = None

        def flush() -> None:
            nonlocal waiting
            if waiting is not None:
                drawings, waiting = waiting.result(), None
                add(drawings)

        def begin(drawings: Sequence[Drawing]) -> None:
            nonlocal waiting
            flush()
            waiting = pool.submit(lambda: [drawing.encoded() for drawing in drawings])

        try:
            yield begin
        finally:
            flush()


def _replanned(engine: Engine, store: Store, asked: Plan) -> Plan | None:
    """What the gallery holds, for the network as it is now.

    Raises:
        OutputError: if it is the gallery of another network.
    """
    before = store.plan()
    if before is None or before.seen == asked.seen:
        return before
    name, other = before.network["name"], asked.network["name"]
    if name != other:
        raise OutputError(f"{store.folder} holds a gallery of {name}; choose another folder for {other}.")
    LOG.warning(
        "%s was drawn with other weights (%s): all of it is drawn again with these (%s)",
        *(store.folder.name, before.network["weights"], asked.network["weights"]),
    )
    again = [engine.plan(Request((layer.layer,), layer.filters, layer.settings)) for layer in before.layers]
    return Plan(asked.network, tuple(layer for plan in again for layer in plan.layers))


def build_gallery(
    network: Network,
    folder: str | Path,
    layers: Sequence[str] = (),
    filters: Sequence[int] | None = None,
    *,
    recipe: str | None = None,
    preset: Preset = "default",
    steps: int | None = None,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    batch: int | None = None,
    precision: Precision = "auto",
) -> Plan:
    """Draw the filters of layers into a folder, or go on where an earlier call was interrupted.

    Args:
        network: a `Network`; make one of a plain ``nn.Module`` by `cnnviz.wrap`.
        folder: where the gallery is; it is made if it is not there.
        layers: names from ``network.layers``; all convolutions by default.
        filters: their numbers, in each layer as far as it has them; all by default.
        seed: each filter draws from (seed, layer, number).
        recipe, preset, steps, size, batch, precision: see `cnnviz.synthesis.settings.Settings`; the recipe by its name,
            or None to leave it to the layer.

    Returns:
        What the gallery holds.

    Raises:
        UnknownNameError, LayerError, ShapeError: if a layer, a filter or a setting does not fit the network.
        OutputError: if the folder cannot be written, or somebody else writes it.
    """
    check_network(network)
    store = Store(path_of(folder, "a gallery", OutputError))
    wanted = None if filters is None else tuple(whole_number(number, "a filter") for number in filters)
    numbers = {"steps": steps, "batch": batch, "seed": seed}
    whole = {name: None if number is None else whole_number(number, name) for name, number in numbers.items()}
    given_layers = tuple(several(layers, str, "layers are given by name"))
    named = {} if recipe is None else {"recipe": str(recipe)}
    settings = named | {"preset": preset, "size": size, "precision": precision} | whole
    for _ in building(InProcess(network), store, Request(given_layers, wanted, settings)):
        pass
    return store.planned()
