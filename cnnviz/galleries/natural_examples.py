"""Natural examples: of a folder of images, what excites each filter of a gallery most.

    examples.json                       which images they are from
    examples/block4_conv2.jsonl         a line per filter: the images, values and places, and a histogram
    examples/block4_conv2/0041.webp     those places as a row of square tiles

One pass over the images finds them; it can be interrupted at any time and goes on where it was. Tiles are cut at the
receptive field out of the image itself, in its own pixels, as far as the network saw it, and the position of the
maximum is outlined. People predict what a unit does from such examples better than from synthesized images (Borowski
et al. 2021, *Exemplary Natural Images Explain CNN Activations Better than State-of-the-Art Feature Visualization*).
"""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from PIL import Image

from cnnviz.errors import OutputError, PictureError
from cnnviz.features.crops import TILE, Place, cut_out, strip
from cnnviz.files import whole_file
from cnnviz.galleries.engines import Engine
from cnnviz.galleries.excitation import Excitation, Shard, Tally
from cnnviz.galleries.plan import LayerPlan, Plan, digest
from cnnviz.galleries.store import EXAMPLES, Store, write_json, write_lines
from cnnviz.networks.layers import layer_table
from cnnviz.networks.network import Network
from cnnviz.networks.progress import Progress
from cnnviz.networks.provenance import describe
from cnnviz.pictures.reading import picture_files, read_picture

TOP = 9
SHARD = 128  # images
QUALITY = 75  # of the tiles
UNFINISHED = ".examples.state"


def find_examples(engine: Engine, store: Store, folder: Path, top: int = TOP) -> Iterator[Progress]:
    """Find the images of a folder, and of the folders in it, that excite the filters of a gallery most.

    Args:
        engine: with the network that the gallery is about.
        top: how many per filter.

    Yields:
        How far the pass is, after each part; what is done, but not finished, could not be used.

    Raises:
        PictureError: if there is no image, or none that can be used.
        OutputError: if the gallery is about another network, or cannot be written.
    """
    plan = store.planned()
    if Plan(describe(engine.network), ()).seen != plan.seen:
        raise OutputError(f"the gallery in {store.folder} is of another network, or of other weights or preprocessing.")
    files = picture_files(folder)
    layers = [layer.layer for layer in plan.layers]
    names = [os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "replace") for path in files]
    with store.writing():
        identity = _identity(plan, layers, top, files, names)
        excitation = _resumed(store, identity)
        for part in engine.excite(layers, top, _shards(files, names, excitation.shards)):
            excitation.merge(part)
            store.check_there()
            _keep(store, identity, excitation)
            done = excitation.count + len(excitation.unreadable)
            yield Progress(done, len(files), excitation.count, len(files))
        if not excitation.count:
            raise PictureError(
                f"none of the {len(files)} images in {folder} can be used; the first: {excitation.unreadable[0][1]}"
            )
        (store.folder / EXAMPLES).unlink(missing_ok=True)  # until all is written, there are no examples
        for layer in plan.layers:
            store.check_there()
            _write_layer(store, engine.network, layer, excitation, files, names)
        summary = {
            "folder": folder.resolve().name,
            "pictures": excitation.count,
            "top": top,
            "tile": TILE,
            "outlined": True,
        }
        unreadable = [{"picture": name, "why": why} for name, why in excitation.unreadable]
        write_json(store.folder / EXAMPLES, summary | {"seen": plan.seen, "layers": layers, "unreadable": unreadable})
        (store.folder / UNFINISHED).unlink(missing_ok=True)


def _shards(files: list[Path], names: list[str], done: set[int]) -> Iterator[Shard]:
    """Images as bytes, so that nobody else needs the folder; what cannot be read has none."""
    for start in range(0, len(files), SHARD):
        if start not in done:
            pictures = zip(names[start : start + SHARD], files[start : start + SHARD], strict=True)
            yield Shard(start, tuple((name, _bytes(path)) for name, path in pictures))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _identity(plan: Plan, layers: list[str], top: int, files: list[Path], names: list[str]) -> str:
    """What an interrupted pass must have in common with one that goes on."""
    return digest([plan.seen, layers, top, SHARD, names, [_size(path) for path in files]])


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # a link that leads nowhere, a file that was just removed
        return None


def _resumed(store: Store, identity: str) -> Excitation:
    """The interrupted pass over the same images, or a new one."""
    path = store.folder / UNFINISHED
    try:
        kept = torch.load(path, weights_only=True)
        if kept["identity"] == identity:
            return Excitation.from_state(kept["found"])
    except (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, UnpicklingError):
        pass  # there is none, or it is damaged
    return Excitation()


def _keep(store: Store, identity: str, excitation: Excitation) -> None:
    buffer = io.BytesIO()  # of a disk that is full, torch.save tells only that a position is unexpected
    torch.save({"identity": identity, "found": excitation.state()}, buffer)
    with whole_file(store.folder / UNFINISHED) as file:
        file.write(buffer.getvalue())


def _write_layer(
    store: Store,
    network: Network,
    layer: LayerPlan,
    excitation: Excitation,
    files: Sequence[Path],
    names: Sequence[str],
) -> None:
    tally, width = excitation.tallies[layer.layer], excitation.widths[layer.layer]
    best = {number: _best(tally, number, width) for number in layer.filters}
    places = [place for peaks in best.values() for place, _ in peaks]
    rows = {row.name: row for row in layer_table(network)}
    row = rows.get(network.qualified(layer.layer))
    cuts = iter(cut_out(network, row, layer.shape[1:], places, lambda number: read_picture(files[number])))
    lines = {}
    for number, peaks in best.items():
        cut_peaks = [(*pair, next(cuts)) for pair in peaks]
        examples = [
            {"picture": names[place.picture], "value": value, "box": [round(side, 2) for side in cut.box]}
            for place, value, cut in cut_peaks
        ]
        histogram = {"top": 2.0 ** int(tally.powers[number]), "counts": tally.counts[number].tolist()}
        written = _write_strip(store, layer.layer, number, [cut.tile for _, _, cut in cut_peaks])
        lines[number] = {"filter": number, **written, "top": examples, "histogram": histogram}
    write_lines(store.example_lines(layer.layer), lines)


def _best(tally: Tally, number: int, width: int) -> list[tuple[Place, float]]:
    """Where a filter was excited most, and how much."""
    columns = (tally.pictures[number], tally.positions[number], tally.values[number])
    peaks = zip(*(values.tolist() for values in columns), strict=True)
    return [(Place(picture, divmod(position, width)), value) for picture, position, value in peaks if value > 0]


def _write_strip(store: Store, layer: str, number: int, tiles: Sequence[Image.Image]) -> dict[str, str | None]:
    """The tiles as a file; there is none for a filter that no image excites."""
    path = store.example_strip(layer, number)
    if not tiles:
        path.unlink(missing_ok=True)
        return {"file": None, "sha256": None}
    buffer = io.BytesIO()
    strip(tiles).save(buffer, "WEBP", quality=QUALITY, method=2)
    with whole_file(path) as file:
        file.write(buffer.getvalue())
    return {"file": store.name(path), "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
