"""Coverage-guided fuzzing of what reads bytes of others: ``python tests/long_runs/fuzzing.py png --seconds 300``.

Needs atheris (``pip install atheris``), which nothing else here does. Bytes are mutated so that they reach ever more
lines; whatever a reader raises that is no `CnnvizError` ends the run, with the bytes in a file ``crash-...``.

To add a target, write a function of bytes and a function that gives the first ones, and enter both in `TARGETS`.
"""

import argparse
import io
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import atheris
import numpy as np
import torch
from safetensors.torch import save
from torch._weights_only_unpickler import Unpickler

with atheris.instrument_imports(include=["cnnviz", "PIL"]):
    from PIL import Image

    from cnnviz.cli.records import _flat
    from cnnviz.cli.rerun import check_record
    from cnnviz.errors import CnnvizError
    from cnnviz.galleries.store import Store
    from cnnviz.galleries.verification import check
    from cnnviz.models.weights import fit, read_weights
    from cnnviz.pictures.records import DIGEST, read_made
    from cnnviz.pictures.sheets import Sheet
    from cnnviz.web.gallery_site import write_site

Unpickler.load = atheris.instrument_func(Unpickler.load)
GALLERY = Path(__file__).parents[2] / "gallery" / "vgg16-mini"
FOLDER = Path(tempfile.mkdtemp(prefix="cnnviz-fuzzing-"))
PIXEL = Image.new("RGB", (1, 1))


def png(content: bytes) -> None:
    """A whole PNG; or, after the byte J, a record that is given the digest it must have."""
    path = FOLDER / "made.png"
    path.write_bytes(content)
    if content.startswith(b"J"):
        with suppress(ValueError, RecursionError):
            made = json.loads(content[1:])
            if isinstance(made, dict):
                _sheet(made).save(path)
    made, _ = read_made(path)
    for _ in _flat(made):
        pass
    check_record(made)


def pngs() -> Iterable[bytes]:
    made = {"command": "filters", "network": {"name": "vgg16-mini", "weights": "built in"}, "settings": {"layer": "a"}}
    yield _sheet(made).png()
    whole = json.loads((GALLERY / "gallery.json").read_text())["network"]
    yield b"J" + json.dumps(made | {"network": whole, "versions": {}, "results": {"score": [1.5]}}).encode()


def _sheet(made: dict[str, object]) -> Sheet:
    pixels = np.asarray(PIXEL)
    return Sheet(pixels, {name: value for name, value in made.items() if name != DIGEST})


def gallery(content: bytes) -> None:
    """Four files, one behind the other: the plan, records, examples.json and lines about examples."""
    parts = [*content.split(b"\0", 3), b"", b"", b""]
    files = ("gallery.json", f"records/{LAYER}.jsonl", "examples.json", f"examples/{LAYER}.jsonl")
    for name, part in zip(files, parts, strict=False):
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(part)
    store = Store(FOLDER)
    plan = store.planned()
    if plan.count < MANY:
        check(FOLDER)
        write_site(store)


LAYER, MANY = "block1_conv1", 20


def galleries() -> Iterable[bytes]:
    plan = json.loads((GALLERY / "gallery.json").read_text())
    layer = next(each for each in plan["layers"] if each["layer"] == LAYER)
    plan["layers"] = [layer | {"filters": [0, 1]}]
    image = FOLDER / "images" / LAYER / "0000.png"
    image.parent.mkdir(parents=True)
    image.write_bytes((GALLERY / "images" / LAYER / "0000.png").read_bytes())
    rest = [_start(GALLERY / name) for name in (f"records/{LAYER}.jsonl", "examples.json", f"examples/{LAYER}.jsonl")]
    yield b"\0".join([json.dumps(plan).encode(), *rest])
    yield json.dumps(plan).encode()


def _start(path: Path) -> bytes:
    """A file of one document, or the first line of many."""
    content = path.read_bytes()
    return content if path.suffix == ".json" else content.partition(b"\n")[0]


def weights(content: bytes) -> None:
    path = FOLDER / "file.pth"
    path.write_bytes(content)
    fit(torch.nn.Linear(2, 1), read_weights(path), "linear", path.name)


def weight_files() -> Iterable[bytes]:
    state = torch.nn.Linear(2, 1).state_dict()
    yield save(state)
    for content in (state, {"state_dict": state}):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            yield buffer.getvalue()


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterable[bytes]]]] = {
    "png": (png, pngs),
    "gallery": (gallery, galleries),
    "weights": (weights, weight_files),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=300)
    asked = parser.parse_args()
    target, seeds = TARGETS[asked.target]
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds()):
        (corpus / str(number)).write_bytes(content)
        with suppress(CnnvizError):
            target(content)
    warnings.simplefilter("ignore")

    def once(content: bytes) -> None:
        with suppress(CnnvizError):
            target(content)

    limits = [f"-max_total_time={asked.seconds}", "-max_len=16384", "-timeout=60", "-rss_limit_mb=6000"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
