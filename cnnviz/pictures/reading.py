"""Image files in, colour maps on.

A `Picture` is what a person sees when the file is opened: upright, its colours as RGB, or grey; nothing cropped.
"""

import hashlib
import io
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cnnviz.errors import PictureError
from cnnviz.isolation import quiet
from cnnviz.pictures.colours import Pixels
from cnnviz.pictures.exact_values import Values, eight_bits, values_in_file, values_of_array, values_of_image

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
LARGEST_FILE = 2**30  # bytes; as many pixels as Pillow thinks safe, 16 bits deep and not compressed, take less
PROGRAMS = ("EPS",)  # formats that Pillow has another program run, Ghostscript, before there are pixels
TOO_MANY = "{} has too many pixels to be opened safely; make it smaller first."
NPY = b"\x93NUMPY"
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
    """An image, upright.

    Attributes:
        image: of mode RGB or L, as it is drawn.
        name: the file's base name.
        sha256: of the file's bytes.
        values: (H, W, C) in [0, 1], what 8 bits could not hold of it; None where `image` is all there is.
    """

    image: Image.Image
    name: str
    sha256: str
    values: Values | None = field(default=None, compare=False, repr=False)

    def pixels(self) -> Pixels:
        """(H, W, 3), 0 to 255."""
        return np.asarray(self.image.convert("RGB"))


def picture_files(folder: Path) -> list[Path]:
    """The images in a folder and the folders in it, by their endings, in order.

    Raises:
        PictureError: if there is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise PictureError(f"there is no image in {folder}; give a folder of photographs.")
    return files


def read_picture(path: str | Path) -> Picture:
    """Read JPEG, PNG, WebP, GIF (its first frame), TIFF, BMP or whatever else Pillow knows.

    And arrays in ``.npy`` files. The EXIF orientation is applied, transparency is laid over white, and what is finer
    than 8 bits, or has more channels than colours, is kept as `Picture.values`.

    Raises:
        PictureError: if the file is missing, is no image, is damaged, or is larger than Pillow thinks safe.
    """
    if not isinstance(path, str | Path):
        raise PictureError(f"an image is read from a file; give its path, not a {type(path).__name__}.")
    path = Path(path)
    content = content_of(path)
    if not content:
        raise PictureError(f"{path} is empty; give the path of an image.")
    return picture_from_bytes(content, os.fsencode(path.name).decode("utf-8", "replace"))


def content_of(path: Path) -> bytes:
    """What a file that may be an image holds; never of a pipe or a device, which might have no end.

    Raises:
        PictureError: if there is no such file, it cannot be read, or it is larger than any image.
    """
    try:
        if not path.is_file():
            raise PictureError(
                f"{path} is {'not a file' if path.exists() else 'not there'}; give the path of an image."
            )
        if path.stat().st_size > LARGEST_FILE:
            raise PictureError(f"{path} is larger than 1 GiB; an image that can be opened safely is smaller.")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise PictureError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error


def picture_from_bytes(content: bytes, name: str) -> Picture:
    """An image from a file's bytes, under a name to show; see `read_picture`."""
    if content.startswith(NPY):
        return picture_of_array(_array_in(content, name), name, hashlib.sha256(content).hexdigest())
    with _readable(name):
        values = values_in_file(content, name)
        if values is not None:
            return _exact(values, name, hashlib.sha256(content).hexdigest(), _orientation_in(content))
        opened = Image.open(io.BytesIO(content))
        if math.prod(opened.size) > (Image.MAX_IMAGE_PIXELS or math.inf):  # of which Pillow only warns
            raise PictureError(TOO_MANY.format(name))
        if opened.format in PROGRAMS:
            raise PictureError(f"{name} is {opened.format}, a program rather than an image; save it as PNG first.")
        if opened.format == "TIFF" and not _is_whole(opened):
            raise PictureError(f"{name} is damaged and cannot be read: its strips are not all of it.")
        opened.load()
        upright = _upright(opened)
        values = values_of_image(upright, name)
        image = as_shown(upright) if values is None else Image.fromarray(eight_bits(values))
    return Picture(image, name, hashlib.sha256(content).hexdigest(), values)


def picture_of_array(pixels: NDArray[Any], name: str = "image", sha256: str = "") -> Picture:
    """An image from an array (H, W) or (H, W, C): uint8, uint16, or real numbers from 0 to 1.

    Four channels of uint8 are colours and how opaque they are; all others are kept as they are.

    Raises:
        PictureError: if it is another array.
    """
    if pixels.dtype == np.uint8 and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))):
        if 0 in pixels.shape:
            raise PictureError(f"an image has at least one pixel; {name} is {' x '.join(map(str, pixels.shape))}.")
        return Picture(
            as_shown(Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels)), name, sha256
        )
    return _exact(values_of_array(pixels, name), name, sha256)


def _exact(values: Values, name: str, sha256: str, orientation: int | None = None) -> Picture:
    if orientation in TURNS:
        channels = [Image.fromarray(values[..., number]) for number in range(values.shape[2])]
        values = np.stack([np.asarray(channel.transpose(TURNS[orientation])) for channel in channels], 2)
    return Picture(Image.fromarray(eight_bits(values)), name, sha256, values)


def _array_in(content: bytes, name: str) -> NDArray[Any]:
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise PictureError(f"{name} is damaged, or no array of numbers: {error}.") from error
    return np.asarray(array)


def picture_of(image: Image.Image) -> Picture:
    """An image that somebody opened with Pillow.

    Raises:
        PictureError: if the file behind it is damaged, or there is no pixel.
    """
    if 0 in image.size:
        raise PictureError(f"an image has at least one pixel; this one is {image.width} x {image.height}.")
    with _readable("image"):
        values = values_of_image(image, "image")
        shown = as_shown(image) if values is None else Image.fromarray(eight_bits(values))
        return Picture(shown, "image", "", values)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Say in one line why Pillow cannot make an image of a file.

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
            f"{name} is not an image; cnnviz reads JPEG, PNG, WebP, GIF, TIFF, BMP and what else Pillow knows."
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
    """The image turned and mirrored as its EXIF orientation says."""
    orientation = _orientation(image)
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _orientation(image: Image.Image) -> int | None:
    """EXIF's orientation; a block in disorder says nothing."""
    try:
        orientation: int | None = image.getexif().get(ORIENTATION)
    except (OSError, SyntaxError, ValueError, TypeError, AttributeError, KeyError, struct.error):
        return None
    return orientation


def _orientation_in(content: bytes) -> int | None:
    """The orientation of a file, if Pillow knows it."""
    try:
        return _orientation(Image.open(io.BytesIO(content)))
    except UnidentifiedImageError:
        return None


def as_shown(image: Image.Image) -> Image.Image:
    """`image`, of 8 bits, as RGB, or L if it has no colours, the way a person sees it."""
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), layers).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
