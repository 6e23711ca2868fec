"""Galleries whose records and images are made up, and how galleries differ."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnnviz.galleries.drawing import Drawing
from cnnviz.galleries.plan import LayerPlan, Plan
from cnnviz.galleries.store import Store, file_name
from cnnviz.galleries.verification import check

HOSTILE = '<img src=x onerror=alert(1)> "q" \'a\' "><script>alert(2)</script> javascript:alert(3) {{7*7}} #1 50%20?.jpg'
SETTINGS = {
    "seed": 3,
    "recipe": "fourier",
    "steps": 32,
    "size": [24, 32],
    "batch": 4,
    "precision": "float32",
    "tries": 4,
}
NETWORK = {
    "name": "vgg-tiny",
    "weights": "built in",
    "fingerprint": "0123456789abcdef" * 4,
    "structure": "fedcba9876543210" * 4,
    "input_size": [32, 32],
    "mean": [0.48500001430511475, 0.5, -0.25],
    "std": [0.2290000021457672, 1.0, 0.5],
}
STATES = ("ok", "weak", "dead")


def planned(widths: dict[str, int], **network: Any) -> Plan:
    """Layers one behind the other; the maps of the last one are half as large."""
    layers: list[LayerPlan] = []
    for place, (name, width) in enumerate(widths.items()):
        side = 16 if place == len(widths) - 1 else 32
        before = layers[-1].layer if layers else None
        field = ("all", "all") if place == 2 else (3.0, 5.0)
        shape = (width, side, side)
        layers.append(LayerPlan(name, tuple(range(width)), SETTINGS, shape, field, (1, 1), before, 10, place))
    return Plan(NETWORK | network, tuple(layers))


def colour(number: int) -> tuple[int, int, int]:
    return (40 * number % 256, 90, 255 - 25 * number % 256)


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), colour(number)).save(buffer, "PNG")
    return buffer.getvalue()


def drawn(plan: Plan, layer: LayerPlan, number: int, picture: bytes | None = None) -> Drawing:
    """Scores -1, 6, 3, 0, 7, 4, 1, 8, 5; ok, weak and dead in turn."""
    weights = [[channel, 0.5 - channel] for channel in range(3)] if layer.inputs else []
    record = {
        "filter": number,
        "key": plan.key(layer, number),
        "score": float(number * 7 % 10 - 1),
        "start": -1.0,
        "percentile": 97.5,
        "mean": 1.5,
        "max": 20.0,
        "status": STATES[number % 3],
        "tries": 2,
        "batch": 2,
        "curve": [-1.0, 0.5, 2.25],
        "inputs": weights,
    }
    return Drawing(layer.layer, number, partial(bytes, picture or png(number)), record)


def gallery(folder: Path, plan: Plan, missing: int = 5) -> Store:
    """All filters drawn but those with one number."""
    store = Store(folder)
    store.begin(plan)
    store.add([drawn(plan, layer, n) for layer in plan.layers for n in layer.filters if n != missing])
    return store


def add_examples(store: Store, picture: str = "cats/1.jpg") -> None:
    """Three images for every filter; no tiles for filter 1."""
    plan = store.planned()
    about = {"folder": HOSTILE, "pictures": 70, "unreadable": [], "top": 3, "tile": 8, "seen": plan.seen}
    (store.folder / "examples.json").write_text(json.dumps(about))
    for layer in plan.layers:
        part = f"examples/{file_name(layer.layer)}"
        (store.folder / part).mkdir(parents=True)
        lines = []
        for number in layer.filters:
            file = f"{part}/{number:04d}.webp" if number != 1 else None
            top = [{"picture": picture, "value": 4.5 - row, "box": [0, 0, 8, 8]} for row in range(3)]
            histogram = {"top": 8.0, "counts": [60, 9, *[0] * 61, 1]}
            lines.append(json.dumps({"filter": number, "file": file, "top": top, "histogram": histogram}))
            if file:
                Image.new("RGB", (24, 8), colour(number)).save(store.folder / file)
        (store.folder / f"{part}.jsonl").write_text("\n".join(lines))


def differences(one: Path, other: Path) -> list[str]:
    """What two galleries differ in: files, keys or pixels; and what is wrong with them."""
    found = [fault.file for folder in (one, other) for fault in check(folder)[1]]
    listed = [{path.relative_to(each).as_posix() for path in each.rglob("*")} for each in (one, other)]
    found += sorted(listed[0] ^ listed[1])
    stores = [Store(one), Store(other)]
    for layer in stores[0].planned().layers:
        records = [store.records(layer.layer) for store in stores]
        for number in layer.filters:
            pixels = [np.asarray(Image.open(store.image(layer.layer, number))) for store in stores]
            if records[0][number]["key"] != records[1][number]["key"] or not np.array_equal(*pixels):
                found.append(f"{layer.layer} {number}")
    return found
