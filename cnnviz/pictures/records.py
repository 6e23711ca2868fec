"""The record inside a PNG that cnnviz made: what it says of versions, how it is read, and found to be changed.

A record is plain JSON in an iTXt chunk, with the sha256 of itself and the pixels; `cnnviz.pictures.sheets` writes it.
"""

import hashlib
import io
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnnviz.errors import PictureError
from cnnviz.files import parsed
from cnnviz.isolation import quiet
from cnnviz.pictures.colours import Pixels
from cnnviz.pictures.reading import content_of

PACKAGES = ("cnnviz", "torch", "torchvision", "numpy", "pillow")
METADATA = "cnnviz"  # the keyword of the iTXt chunk
DIGEST = "sha256"  # the record's own entry for record and pixels together


@cache
def versions() -> dict[str, str]:
    """Of Python, of cnnviz and of what computes and draws."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


def read_record(path: str | Path) -> dict[str, object]:
    """The record inside a PNG that cnnviz made.

    Raises:
        PictureError: if the file is no image, carries no record, or is not as cnnviz wrote it.
    """
    return read_made(path)[0]


def read_made(path: str | Path) -> tuple[dict[str, Any], Pixels]:
    """The record inside a PNG, and its pixels (H, W, 3); errors as `read_record`."""
    path, content = Path(path), content_of(Path(path))
    name = path.name
    try:
        with quiet():  # large sheets, and whatever a damaged file provokes
            image = Image.open(io.BytesIO(content), formats=["PNG"])
            text = getattr(image, "text", {}).get(METADATA, "")
            pixels = np.asarray(image.convert("RGB"))
        record = dict(parsed(text))
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} has too many pixels to be opened safely.") from error
    except Exception as error:  # damaged files make Pillow raise almost anything
        raise PictureError(f"{name} carries no record of how it was made; only PNGs by cnnviz do.") from error
    if record.pop(DIGEST, None) != digest(record, pixels):
        raise PictureError(f"{name} is not as cnnviz wrote it: its record, or its pixels, were changed.")
    return record, pixels


def digest(record: Mapping[str, object], pixels: Pixels) -> str:
    """What tells whether a record or its image were changed: the sha256, in hexadecimal, of both."""
    text = json.dumps(record, sort_keys=True, default=list).encode()
    return hashlib.sha256(text + repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
