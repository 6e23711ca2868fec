"""The folder of a gallery: what lies where, and how it stays whole.

    gallery.json                      the plan
    images/block4_conv2/0041.png      an image per filter
    records/block4_conv2.jsonl        a line per filter: key, sha256 of its image, scores, status, curve, time

Every file appears whole or not at all, images before the records that name them, so that whatever interrupts, the
folder is in order, and what has a record is done. One build at a time writes.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from cnnviz.errors import OutputError
from cnnviz.files import PARTIAL, is_list, is_real, is_text, is_whole, parsed, whole_file
from cnnviz.galleries.drawing import Drawing
from cnnviz.galleries.plan import MOST_FILTERS, LayerPlan, Plan
from cnnviz.networks.layer_names import PRE
from cnnviz.pictures.records import versions
from cnnviz.synthesis.judgement import Status

PLAN, EXAMPLES, LOCK, WORKING = "gallery.json", "examples.json", ".lock", ".working.json"


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be: a file, relative to the gallery, and what is wrong with it."""

    kind: Literal["missing", "damaged", "stale", "left over"]
    file: str
    why: str


class Store:
    """A gallery's folder, which need not be there yet."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def plan(self) -> Plan | None:
        """What the gallery is to hold; None if there is none yet.

        Raises:
            OutputError: if its plan cannot be read.
        """
        path = self.folder / PLAN
        if not path.is_file():
            return None
        try:
            data = parsed(path.read_bytes())
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot read {path}: {error}.") from error
        return Plan.from_json(data)

    def planned(self) -> Plan:
        """The plan.

        Raises:
            OutputError: if there is none, or it cannot be read.
        """
        plan = self.plan()
        if plan is None:
            raise OutputError(f"there is no gallery in {self.folder}; `cnnviz gallery build {self.folder}` makes one.")
        return plan

    def image(self, layer: str, number: int) -> Path:
        return self.folder / "images" / file_name(layer) / f"{number:04d}.png"

    def records(self, layer: str) -> dict[int, dict[str, Any]]:
        """By filter, what is known of it; lines that are no records are passed over."""
        return {number: line for number, line in read_lines(self._records(layer)).items() if _complete(line)}

    def example_lines(self, layer: str) -> Path:
        return self.folder / "examples" / f"{file_name(layer)}.jsonl"

    def example_strip(self, layer: str, number: int) -> Path:
        return self.folder / "examples" / file_name(layer) / f"{number:04d}.webp"

    def done(self, plan: Plan) -> dict[str, set[int]]:
        """By layer, the filters whose image is there, undamaged, and as planned."""
        return {
            layer.layer: {number for number, fault in self._checked(plan, layer) if fault is None}
            for layer in plan.layers
        }

    def faults(self, plan: Plan) -> list[Fault]:
        """Everything that is missing, damaged, stale or left over; every image is read."""
        faults = [fault for layer in plan.layers for _, fault in self._checked(plan, layer) if fault is not None]
        return faults + [Fault("left over", self.name(path), "belongs to nothing") for path in self._left_over(plan)]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes.

        Raises:
            OutputError: if somebody else does; says who.
        """
        working = self.folder / WORKING
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_ours()
            lock = FileLock(self.folder / LOCK)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(f"{self.folder} is being written by {_who(working)}; wait for it, or stop it.") from error
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror}; choose another place.") from error
        try:
            with whole_file(working) as file:
                file.write(json.dumps({"process": os.getpid(), "since": time.strftime("%H:%M:%S")}).encode())
            yield
        finally:
            working.unlink(missing_ok=True)
            lock.release()

    def _check_ours(self) -> None:
        """Nothing of the user's is written over or taken away."""
        strange = {path.name for path in self.folder.iterdir() if not _of_a_beginning(path.name)}
        if strange and PLAN not in strange:
            raise OutputError(f"{self.folder} is not empty and holds no gallery; choose a new folder.")
        self.check_inside()

    def check_inside(self) -> None:
        """Notice links: who made the gallery could have them lead to any file of who writes to it.

        Raises:
            OutputError: if there is one.
        """
        for folder, folders, files in os.walk(self.folder):
            for path in (os.path.join(folder, name) for name in (*folders, *files)):
                if os.path.islink(path):
                    raise OutputError(
                        f"{path} is a symbolic link, and may lead out of the gallery; put there what it leads to."
                    )

    def begin(self, plan: Plan) -> None:
        """Write the plan, and take away what does not belong to it."""
        write_json(self.folder / PLAN, plan.to_json() | {"versions": versions()})
        for path in self._left_over(plan):
            path.unlink()

    def add(self, drawings: Sequence[Drawing]) -> None:
        """Keep images, then the records that name them."""
        self.check_there()
        for drawing in drawings:
            with whole_file(self.image(drawing.layer, drawing.number)) as file:
                file.write(drawing.png)
        for layer in dict.fromkeys(drawing.layer for drawing in drawings):
            new = {drawing.number: self._entry(drawing) for drawing in drawings if drawing.layer == layer}
            write_lines(self._records(layer), self.records(layer) | new)

    def check_there(self) -> None:
        """Notice a folder that was moved or removed while it is written, rather than begin a new one in its place.

        Raises:
            OutputError: if it was.
        """
        if not (self.folder / PLAN).is_file():
            raise OutputError(f"{self.folder} was moved or removed meanwhile; give the command again for where it is.")

    def _entry(self, drawing: Drawing) -> dict[str, Any]:
        file = self.name(self.image(drawing.layer, drawing.number))
        return drawing.record | {"file": file, "sha256": hashlib.sha256(drawing.png).hexdigest()}

    def _records(self, layer: str) -> Path:
        return self.folder / "records" / f"{file_name(layer)}.jsonl"

    def _checked(self, plan: Plan, layer: LayerPlan) -> Iterator[tuple[int, Fault | None]]:
        known = self.records(layer.layer)
        for number in layer.filters:
            yield number, self._fault(plan, layer, number, known.get(number))

    def _fault(self, plan: Plan, layer: LayerPlan, number: int, known: Mapping[str, Any] | None) -> Fault | None:
        path = self.image(layer.layer, number)
        if known is None:
            return Fault("missing", self.name(path), "not drawn yet")
        if path.is_file() and known.get("key") != plan.key(layer, number):
            return Fault("stale", self.name(path), "drawn with another network or other settings")
        return self.fault_of(path, known.get("sha256"))

    def fault_of(self, path: Path, sha256: str | None) -> Fault | None:
        """What is wrong with an image whose record names it by this sha256."""
        if not path.is_file():
            return Fault("missing", self.name(path), "the image is gone")
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            return Fault("damaged", self.name(path), "is not the file that its record names")
        return None

    def _left_over(self, plan: Plan) -> list[Path]:
        """Files of interrupted writing, images of filters that are not planned, records of layers that are not."""
        ours = {self.image(layer.layer, number) for layer in plan.layers for number in layer.filters}
        ours |= {self._records(layer.layer) for layer in plan.layers}
        files = [*self.folder.glob("images/*/[0-9]*.png"), *self.folder.glob("records/*.jsonl")]
        partial = [path for part in ("", "images/*/", "records/") for path in self.folder.glob(f"{part}.*{PARTIAL}")]
        return sorted({*(path for path in files if path not in ours), *partial})

    def name(self, path: Path) -> str:
        """A file as records call it: from the gallery's folder on."""
        return path.relative_to(self.folder).as_posix()


def _of_a_beginning(name: str) -> bool:
    """Whether a file may be there before the plan is, also where writing was killed."""
    return name in (LOCK, WORKING) or (name.startswith((f".{PLAN}.", f".{WORKING}.")) and name.endswith(PARTIAL))


def file_name(layer: str) -> str:
    """A layer's name as the name of a file, another one for each: `:pre` becomes `-pre`, odd names get a number."""
    plain = layer.removesuffix(PRE)
    if re.fullmatch(r"\w[\w.]{0,79}", plain, re.ASCII):
        return plain + "-pre" * (plain != layer)
    safe = re.sub(r"[^\w.-]+", "-", layer, flags=re.ASCII)[:80].lstrip(".")
    encoded = layer.encode("utf-8", "surrogatepass")
    return f"{safe}-{hashlib.sha256(encoded).hexdigest()[:8]}"


def write_json(path: Path, data: object) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(data, indent=1).encode() + b"\n")


def write_lines(path: Path, records: Mapping[int, Mapping[str, Any]]) -> None:
    """Records by filter as lines of JSON, in order."""
    with whole_file(path) as file:
        for _, entry in sorted(records.items()):
            file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")


def example_complete(line: Mapping[str, Any]) -> bool:
    """Whether a line about natural examples holds what is needed of it."""
    histogram = line.get("histogram")
    return (
        all(line.get(name) is None or is_text(line[name]) for name in ("file", "sha256"))
        and is_list(line.get("top"), _is_example)
        and isinstance(histogram, dict)
        and set(histogram) == {"top", "counts"}
        and is_real(histogram["top"])
        and histogram["top"] >= 0
        and is_list(histogram["counts"], is_whole)
        and bool(histogram["counts"])
    )


def read_examples(path: Path) -> dict[str, Any]:
    """The contents of an ``examples.json``.

    Raises:
        ValueError: if it is no such thing.
        OSError: if it cannot be read.
    """
    data = parsed(path.read_bytes())
    numbers = isinstance(data, dict) and all(is_whole(data.get(name)) for name in ("pictures", "top", "tile"))
    if not numbers or not is_text(data.get("folder")) or not is_text(data.get("seen")):
        raise ValueError("it tells of no natural examples")
    return dict(data)


def read_lines(path: Path) -> dict[int, dict[str, Any]]:
    """Records by filter; what is no record is passed over.

    Raises:
        OutputError: if the file cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}.") from error
    records: dict[int, dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            data = parsed(line)
        except ValueError:
            continue
        if isinstance(data, dict) and is_whole(data.get("filter"), below=MOST_FILTERS):
            records[data["filter"]] = data
    return records


def _complete(record: Mapping[str, Any]) -> bool:
    """Whether a record holds what is needed of it."""
    numbers = all(is_real(record.get(name)) for name in ("score", "percentile", "mean", "max"))
    counts = is_whole(record.get("tries"), 1) and is_whole(record.get("batch", 1), 1)
    listed = is_list(record.get("curve"), is_real) and is_list(record.get("inputs"), _is_weight)
    return numbers and counts and listed and record.get("status") in get_args(Status)


def _is_weight(value: object) -> bool:
    """Whether this is the number of a filter and how much it counts."""
    return is_list(value, is_real, 2) and is_whole(value[0])  # type: ignore[index]


def _is_example(value: object) -> bool:
    return isinstance(value, dict) and is_text(value.get("picture")) and is_real(value.get("value"))


def _who(working: Path) -> str:
    try:
        data = parsed(working.read_bytes())
        return f"process {data['process']}, since {data['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
