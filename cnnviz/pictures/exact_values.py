"""Values that 8 bits cannot hold: images of 16 bits, of real numbers, and of any number of channels.

What a network is given keeps them as they are in the file; 8 bits are for drawing.
"""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnviz.errors import PictureError

if TYPE_CHECKING:
    from cnnviz.pictures.colours import Pixels

Values = NDArray[np.float32]
DEEPEST = 65535.0  # of 16 bits
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners have
PNG, TIFF = b"\x89PNG", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OPACITY = (1, 2)  # what TIFF calls further samples that say how opaque the image is


def values_of_array(pixels: NDArray[Any], name: str) -> Values:
    """(H, W, C) in [0, 1], of an array (H, W) or (H, W, C) of whole numbers of 8 or 16 bits, or real ones from 0 to 1.

    Raises:
        PictureError: if it has another shape, kind or range; says which is possible.
    """
    whole = pixels.dtype in (np.uint8, np.uint16)
    if not (whole or pixels.dtype.kind == "f") or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        given = f"{pixels.dtype}, {' x '.join(map(str, pixels.shape))}"
        raise PictureError(
            f"an array of pixels is uint8, uint16 or real numbers from 0 to 1, H x W or H x W x C; {name} is {given}."
        )
    full = float(np.iinfo(pixels.dtype).max) if whole else 1.0
    return _scaled(pixels, full, name)


def values_in_file(content: bytes, name: str) -> Values | None:
    """(H, W, C) in [0, 1], of a PNG of 16 bits, or a TIFF that Pillow does not read as it is; None of all others.

    Raises:
        PictureError: if real numbers are outside 0 to 1.
    """
    if content.startswith(PNG) and content[24:25] == b"\x10":
        return _without_alpha(_decoded_png(content))
    if content.startswith(TIFF):
        return _decoded_tiff(content, name)
    return None


def values_of_image(image: Image.Image, name: str) -> Values | None:
    """(H, W, 1) in [0, 1], of an image of Pillow's that has more than 8 bits; None of all others."""
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled(np.asarray(image, dtype=np.float64), 1.0 if image.mode == "F" else DEEPEST, name)
    return None


def eight_bits(values: Values) -> "Pixels":
    """Values (H, W, C) for drawing: (H, W) or (H, W, 3), 0 to 255, in the depth that they use of 16 bits."""
    shown = values[..., :3] if values.shape[2] >= 3 else values[..., 0]
    highest = round(float(shown.max()) * DEEPEST)
    used = next((2**bits - 1 for bits in DEPTHS if highest <= 2**bits - 1), DEEPEST)
    if highest < 1 or not np.allclose(shown * DEEPEST, np.rint(shown * DEEPEST), atol=1e-2):  # real numbers
        used = DEEPEST
    pixels: Pixels = np.rint(shown * (255 * DEEPEST / used)).clip(0, 255).astype(np.uint8)
    return pixels


def planes(values: Values, channels: int, name: str) -> list[Image.Image]:
    """The channels that a network takes, as images of real numbers, to be resized as others are.

    Raises:
        PictureError: if there is another number of channels, and not grey for colours or colours for grey.
    """
    count = values.shape[2]
    if count == 3 and channels == 1:
        values = values @ np.array([[0.299], [0.587], [0.114]], np.float32)  # as Pillow does
    elif count == 1 and channels > 1:
        values = np.repeat(values, channels, axis=2)
    elif count != channels:
        raise PictureError(f"{name} has {count} channels; the network takes {channels}.")
    return [Image.fromarray(np.ascontiguousarray(values[..., channel])) for channel in range(channels)]


def _scaled(pixels: NDArray[Any], full: float, name: str) -> Values:
    values = pixels.reshape(*pixels.shape[:2], -1)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > full:
        kind = "grey values" if values.shape[2] == 1 else "values"
        raise PictureError(f"{name} has {kind} outside 0 to {full:g}; scale it to that range, or save it as 8 bits.")
    return (values / full).astype(np.float32)


def _decoded_png(content: bytes) -> Values:
    """(H, W, C), by torchvision: Pillow would cut colours of 16 bits to 8."""
    import torch
    from torchvision.io import ImageReadMode, decode_png

    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    decoded = decode_png(data, ImageReadMode.UNCHANGED).permute(1, 2, 0)
    return (decoded.to(torch.int32).numpy() / DEEPEST).astype(np.float32)


def _without_alpha(values: Values) -> Values:
    """Laid over white, if there is a second or fourth channel: how opaque it is."""
    if values.shape[2] not in (2, 4):
        return values
    alpha = values[..., -1:]
    return values[..., :-1] * alpha + (1 - alpha)


def _is_usual(page: Any) -> bool:
    """Whether this is an image of 8 bits, grey or in colours, as Pillow knows them."""
    single = page.photometric.name in ("MINISBLACK", "MINISWHITE", "PALETTE")
    colours = page.samplesperpixel - sum(int(kind) in OPACITY for kind in page.extrasamples)
    return page.dtype == np.bool_ or (page.dtype == np.uint8 and colours in ((1,) if single else (3, 4)))


def _decoded_tiff(content: bytes, name: str) -> Values | None:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        if _is_usual(page) or page.dtype is None or page.shape[0] * page.shape[1] > (Image.MAX_IMAGE_PIXELS or np.inf):
            return None
        try:
            pixels = page.asarray()
        except (ValueError, RuntimeError, KeyError):  # a compression that it has no codec for
            return None
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    return values_of_array(pixels, name)
