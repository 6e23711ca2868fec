"""Picture files in, colour maps on.

A `Picture` is what a person sees when the file is opened: upright, its colours as RGB, or grey; nothing cropped.
"""

import hashlib
import io
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cnnviz.errors import PictureError
from cnnviz.isolation import quiet
from cnnviz.pictures.colours import Pixels

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
LARGEST_FILE = 2**30  # bytes; as many pixels as Pillow thinks safe, 16 bits deep and not compressed, take less
PROGRAMS = ("EPS",)  # formats that Pillow has another program run, Ghostscript, before there are pixels
TOO_MANY = "{} has too many pixels to be opened safely; make it smaller first."
ORIENTATION = 0x0112  # EXIF's tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """A picture, upright: a ``PIL.Image`` of mode RGB or L, the file's base name, and the sha256 of its bytes."""

    image: Image.Image
    name: str
    sha256: str

    def pixels(self) -> Pixels:
        """(H, W, 3), 0 to 255."""
        return np.asarray(self.image.convert("RGB"))


def picture_files(folder: Path) -> list[Path]:
    """The pictures in a folder and the folders in it, by their endings, in order.

    Raises:
        PictureError: if there is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise PictureError(f"there is no picture in {folder}; give a folder of photographs.")
    return files


def read_picture(path: str | Path) -> Picture:
    """Read JPEG, PNG, WebP, GIF (its first frame), TIFF, BMP or whatever else Pillow knows.

    The EXIF orientation is applied, transparency is laid over white, 16 bits become 8.

    Raises:
        PictureError: if the file is missing, is no picture, is damaged, or is larger than Pillow thinks safe.
    """
    path = Path(path)
    content = content_of(path)
    if not content:
        raise PictureError(f"{path} is empty; give the path of a picture.")
    return picture_from_bytes(content, os.fsencode(path.name).decode("utf-8", "replace"))


def content_of(path: Path) -> bytes:
    """What a file that may be a picture holds; never of a pipe or a device, which might have no end.

    Raises:
        PictureError: if there is no such file, it cannot be read, or it is larger than any picture.
    """
    try:
        if not path.is_file():
            raise PictureError(
                f"{path} is {'not a file' if path.exists() else 'not there'}; give the path of a picture."
            )
        if path.stat().st_size > LARGEST_FILE:
            raise PictureError(f"{path} is larger than 1 GiB; a picture that can be opened safely is smaller.")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise PictureError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error


def picture_from_bytes(content: bytes, name: str) -> Picture:
    """A picture from a file's bytes, under a name to show; see `read_picture`."""
    with _readable(name):
        opened = Image.open(io.BytesIO(content))
        if math.prod(opened.size) > (Image.MAX_IMAGE_PIXELS or math.inf):  # of which Pillow only warns
            raise PictureError(TOO_MANY.format(name))
        if opened.format in PROGRAMS:
            raise PictureError(f"{name} is {opened.format}, a program rather than a picture; save it as PNG first.")
        if opened.format == "TIFF" and not _is_whole(opened):
            raise PictureError(f"{name} is damaged and cannot be read: its strips are not all of it.")
        opened.load()
        image = as_shown(_upright(opened), name)
    return Picture(image, name, hashlib.sha256(content).hexdigest())


def picture_of(image: Image.Image) -> Picture:
    """A picture that somebody opened with Pillow.

    Raises:
        PictureError: if the file behind it is damaged, or there is no pixel.
    """
    if 0 in image.size:
        raise PictureError(f"a picture has at least one pixel; this one is {image.width} x {image.height}.")
    with _readable("picture"):
        return Picture(as_shown(image, "picture"), "picture", "")


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Say in one line why Pillow cannot make a picture of a file.

    Raises:
        PictureError: for whatever Pillow raises; its decoders may raise anything.
    """
    try:
        with quiet():  # a wrong tag in a file that opens all the same is nobody's business
            yield
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{name} is not a picture; cnnviz reads JPEG, PNG, WebP, GIF, TIFF, BMP and what else Pillow knows."
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(TOO_MANY.format(name)) from error
    except Exception as error:
        raise PictureError(f"{name} is damaged and cannot be read: {error}".rstrip(".") + ".") from error


def _is_whole(image: Image.Image) -> bool:
    """Whether the parts that a TIFF holds are as large as it says to be; what is missing, Pillow leaves black."""
    corners = [part[1] or (0, 0, *image.size) for part in getattr(image, "tile", ())]
    return sum((right - left) * (bottom - top) for left, top, right, bottom in corners) >= math.prod(image.size)


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned and mirrored as its EXIF orientation says; an EXIF block in disorder says nothing."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except (OSError, SyntaxError, ValueError, TypeError, AttributeError, KeyError, struct.error):
        orientation = None
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def as_shown(image: Image.Image, name: str) -> Image.Image:
    """`image` as RGB, or L if it has no colours, the way a person sees it."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image, dtype=np.float64), image.mode, name))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), layers).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _eight_bits(values: NDArray[np.float64], mode: str, name: str) -> Pixels:
    """Grey values of 16 bits, or real numbers from 0 to 1, as 8 bits."""
    full = 1.0 if mode == "F" else 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > full:
        raise PictureError(
            f"{name} has grey values outside 0 to {full:g}; scale it to that range, or save it as 8 bits."
        )
    return np.rint(values * (255 / full)).astype(np.uint8)
