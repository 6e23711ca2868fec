"""The record inside an image that cnnviz made: where each format has it, how it is read, and found to be changed.

A record is plain JSON; `cnnviz.pictures.sheets` writes it. Its sha256 is that of record and pixels in a PNG, which may
be compressed again without harm, and of the whole file elsewhere, with `UNSEALED` in the place of the sha256.

To add a format, enter it in `CARRIERS`.
"""

import hashlib
import io
import json
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

import numpy as np
from PIL import Image, PngImagePlugin

from cnnviz.errors import PictureError, path_of
from cnnviz.files import parsed
from cnnviz.isolation import quiet
from cnnviz.pictures.colours import Pixels
from cnnviz.pictures.reading import content_of

PACKAGES = ("cnnviz", "torch", "torchvision", "numpy", "pillow")
METADATA = "cnnviz"  # the keyword of a PNG's iTXt chunk
DIGEST = "sha256"  # the record's own entry, the first one
UNSEALED = b"the sha256 of this file, with this line in the place of that one"  # as long as a sha256 in hexadecimal
EXIF_DESCRIPTION = 0x010E
COMMENT, LONGEST_COMMENT = b"\xff\xfe", 65533  # of a JPEG: the marker, and bytes in one
PDF_SUBJECT = re.compile(rb"/Subject \(((?:\\.|[^\\()])*)\)")
SVG_DESCRIPTION = re.compile(r"<dc:description>([^<]*)</dc:description>")


@cache
def versions() -> dict[str, str]:
    """Of Python, of cnnviz and of what computes and draws."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


@dataclass(frozen=True)
class Carrier:
    """Where files of a format have a record, as text in ASCII.

    Attributes:
        signature: what these files begin with.
        options: of the text, what Pillow's or matplotlib's ways to save a file are given to write it.
        text: of a file's bytes, the text in it; raises whatever it likes where there is none.
    """

    signature: bytes
    options: Callable[[str], dict[str, Any]]
    text: Callable[[bytes], str]


def _png_chunk(text: str) -> dict[str, Any]:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(METADATA, text, zip=True)
    return {"pnginfo": chunks}


def _jpeg_comments(text: str) -> dict[str, Any]:
    """As many comments as it takes."""
    parts = [text[start : start + LONGEST_COMMENT].encode() for start in range(0, len(text), LONGEST_COMMENT)]
    return {"extra": b"".join(COMMENT + (len(part) + 2).to_bytes(2, "big") + part for part in parts)}


def _jpeg_text(content: bytes) -> str:
    segments: list[tuple[str, bytes]] = getattr(_opened(content), "applist", [])
    return b"".join(part for name, part in segments if name == "COM").decode()


def _webp_exif(text: str) -> dict[str, Any]:
    exif = Image.Exif()
    exif[EXIF_DESCRIPTION] = text
    return {"exif": exif}


def _pdf_text(content: bytes) -> str:
    return re.sub(rb"\\(.)", rb"\1", PDF_SUBJECT.findall(content)[-1]).decode()


CARRIERS: Mapping[str, Carrier] = {
    "PNG": Carrier(b"\x89PNG", _png_chunk, lambda content: getattr(_opened(content), "text", {})[METADATA]),
    "JPEG": Carrier(b"\xff\xd8", _jpeg_comments, _jpeg_text),
    "WEBP": Carrier(b"RIFF", _webp_exif, lambda content: str(_opened(content).getexif()[EXIF_DESCRIPTION])),
    "PDF": Carrier(b"%PDF", lambda text: {"metadata": {"Subject": text}}, _pdf_text),
    "SVG": Carrier(
        b"<?xml",
        lambda text: {"metadata": {"Description": text}},
        lambda content: unescape(SVG_DESCRIPTION.findall(content.decode())[0]),
    ),
}


def read_record(path: str | Path) -> dict[str, object]:
    """The record inside a PNG, JPEG, WebP, PDF or SVG that cnnviz made; a GIF carries none.

    Raises:
        PictureError: if the file is no image, carries no record, or is not as cnnviz wrote it.
    """
    return read_made(path)[0]


def read_made(path: str | Path) -> tuple[dict[str, Any], bytes]:
    """The record inside an image, and the file's bytes; errors as `read_record`."""
    path = path_of(path, "an image", PictureError)
    content = content_of(path)
    name = path.name
    try:
        with quiet():  # large sheets, and whatever a damaged file provokes
            kind = kind_of(content)
            record = dict(parsed(CARRIERS[kind].text(content)))
            noted = str(record.pop(DIGEST, None))
            expected = digest(record, pixels_in(content)) if kind == "PNG" else _seal(content, noted)
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} has too many pixels to be opened safely.") from error
    except Exception as error:  # damaged files make Pillow raise almost anything
        raise PictureError(f"{name} carries no record of how it was made; only images by cnnviz do.") from error
    if noted != expected:
        raise PictureError(f"{name} is not as cnnviz wrote it: its record, or what it shows, was changed.")
    return record, content


def record_text(made: Mapping[str, object], pixels: Pixels, kind: str) -> str:
    """A record as a file of some format has it, until the file is `sealed`."""
    mark = digest(made, pixels) if kind == "PNG" else UNSEALED.decode()
    return json.dumps({DIGEST: mark, **made})


def digest(record: Mapping[str, object], pixels: Pixels) -> str:
    """What tells whether a record or its image were changed: the sha256, in hexadecimal, of both."""
    text = json.dumps(record, sort_keys=True, default=list).encode()
    return hashlib.sha256(text + repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def sealed(content: bytes) -> bytes:
    """A file with its sha256 in the place of `UNSEALED`."""
    return content.replace(UNSEALED, hashlib.sha256(content).hexdigest().encode())


def _seal(content: bytes, noted: str) -> str:
    """The sha256 of a file as it was before that was noted in it."""
    if len(noted) != len(UNSEALED):
        return ""
    return hashlib.sha256(content.replace(noted.encode(), UNSEALED)).hexdigest()


def kind_of(content: bytes) -> str:
    """The format of a file's bytes, of those in `CARRIERS`; StopIteration for others."""
    return next(kind for kind, carrier in CARRIERS.items() if content.startswith(carrier.signature))


def same_image(first: bytes, second: bytes) -> bool:
    """Whether two files of one format show the same: equal pixels, or with the same record, equal bytes."""
    if first == second:
        return True
    kind = kind_of(first)
    return kind not in ("PDF", "SVG") and np.array_equal(pixels_in(first), pixels_in(second))


def pixels_in(content: bytes) -> Pixels:
    """The pixels (H, W, 3) of an image in one of Pillow's formats."""
    return np.asarray(_opened(content).convert("RGB"))


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=[kind_of(content)])
