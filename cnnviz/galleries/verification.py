"""Reading a whole gallery again, to name what is wrong with it."""

from pathlib import Path
from typing import Any

from cnnviz.galleries.plan import Plan
from cnnviz.galleries.store import EXAMPLES, Fault, Store, example_complete, read_examples, read_lines


def check(folder: Path) -> tuple[Plan, list[Fault]]:
    """What the gallery is to hold, and everything that is missing, damaged, stale or left over in it.

    Raises:
        OutputError: if there is no gallery in the folder.
    """
    store = Store(folder)
    plan = store.planned()
    return plan, [*store.faults(plan), *_examples(store, plan)]


def _examples(store: Store, plan: Plan) -> list[Fault]:
    """Faults among natural examples, if there are any."""
    about = store.folder / EXAMPLES
    if not about.is_file():
        return []
    try:
        summary = read_examples(about)
    except (OSError, ValueError):
        return [Fault("damaged", about.name, "tells of no natural examples")]
    if summary["seen"] != plan.seen:
        return [Fault("stale", about.name, "found with another network, or other weights or preprocessing")]
    faults = []
    for layer in plan.layers:
        lines = read_lines(store.example_lines(layer.layer))
        for number in layer.filters:
            faults += _strip_fault(store, layer.layer, number, lines.get(number))
    return faults


def _strip_fault(store: Store, layer: str, number: int, line: dict[str, Any] | None) -> list[Fault]:
    path = store.example_strip(layer, number)
    if line is None or not example_complete(line):
        return [Fault("missing", store.name(path), "no examples were looked for")]
    fault = store.fault_of(path, line.get("sha256")) if line.get("file") else None
    return [fault] if fault else []
