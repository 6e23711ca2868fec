"""A page of images and texts at pixel positions, and its two renderings: pixels by Pillow, a figure by matplotlib.

Both use the same font at the same places, so a sheet looks alike as a PNG and as a PDF, whose text remains text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cnnviz.pictures.colours import Pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Colour = tuple[int, int, int]
INK, FAINT, PAPER = (25, 25, 30), (110, 110, 120), (255, 255, 255)
SMALL = 64  # pixels; the long side of images whose pixels are shown as squares
PER_INCH = 100  # pixels of a page to an inch of a figure
VECTOR_DPI = 200  # of the images inside a PDF or SVG
POINTS = 72  # to an inch
VECTOR_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "cnnviz"}
_settings = Lock()  # matplotlib's settings are the process's


@dataclass(frozen=True)
class PlacedImage:
    """(H, W, 3) pixels and the box they fill; `smooth` enlarges by interpolation, otherwise pixels become squares."""

    pixels: Pixels
    left: int
    top: int
    width: int
    height: int
    smooth: bool = False


@dataclass(frozen=True)
class PlacedText:
    """A line of text, its height in pixels, and its upper left corner; or its upper right one."""

    text: str
    left: int
    top: int
    size: int
    colour: Colour = INK
    right_aligned: bool = False


@dataclass(frozen=True)
class Drawing:
    """A page: its size in pixels, and what stands on it."""

    width: int
    height: int
    images: Sequence[PlacedImage]
    texts: Sequence[PlacedText]


def render(drawing: Drawing) -> Pixels:
    """The page as (H, W, 3), 0 to 255."""
    page = Image.new("RGB", (drawing.width, drawing.height), PAPER)
    for image in drawing.images:
        pixels = resized(image.pixels, image.height, image.width, smooth=image.smooth)
        page.paste(Image.fromarray(pixels), (image.left, image.top))
    pen = ImageDraw.Draw(page)
    for text in drawing.texts:
        anchor = "ra" if text.right_aligned else "la"
        pen.text((text.left, text.top), text.text, text.colour, font(text.size), anchor=anchor)
    return np.asarray(page)


def figure_of(drawing: Drawing) -> "Figure":
    """The page as a matplotlib figure; `PER_INCH` of its pixels are an inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(drawing.width / PER_INCH, drawing.height / PER_INCH), dpi=PER_INCH)
    FigureCanvasAgg(figure)
    figure.suppressComposite = True
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for image in drawing.images:
        box = (image.left, image.left + image.width, image.top + image.height, image.top)
        interpolation = "bicubic" if image.smooth else "nearest"
        axes.imshow(image.pixels, extent=box, interpolation=interpolation, aspect="auto")
    for text in drawing.texts:
        ascent, _ = font(text.size).getmetrics()
        axes.text(
            text.left,
            text.top + ascent,
            text.text,
            fontsize=text.size * POINTS / PER_INCH,
            fontfamily="DejaVu Sans",
            color=tuple(channel / 255 for channel in text.colour),
            ha="right" if text.right_aligned else "left",
            va="baseline",
            parse_math=False,
        )
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    return figure


def figure_pixels(figure: "Figure", dpi: float | None = None) -> Pixels:
    """A figure as (H, W, 3), 0 to 255, at its own dots per inch or at others."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if dpi is not None:
        figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels: Pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    return pixels


def write_figure(
    figure: "Figure", file: IO[bytes], kind: str, *, metadata: Mapping[str, str], dpi: float | None = None
) -> None:
    """Write a "PDF" or "SVG" with text as text; the same figure gives the same bytes, whatever the date.

    Args:
        metadata: what matplotlib is to write into the file, besides what it draws.
        dpi: of the images in it.
    """
    from matplotlib import rc_context

    undated = {"CreationDate": None} if kind == "PDF" else {"Date": None}
    with _settings, rc_context(VECTOR_SETTINGS):
        figure.savefig(file, format=kind.lower(), dpi=dpi or VECTOR_DPI, metadata=undated | dict(metadata))


def resized(pixels: Pixels, height: int, width: int, *, smooth: bool = True) -> Pixels:
    """Pixels (H, W, 3) in another size: averaged if it is smaller; if larger, interpolated or as squares."""
    if pixels.shape[:2] == (height, width):
        return pixels
    larger = height >= pixels.shape[0] and width >= pixels.shape[1]
    enlarging = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    way = enlarging if larger else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(pixels).resize((width, height), way))


def is_small(pixels: Pixels) -> bool:
    """Whether an image is so small that enlarging it should show its pixels as squares."""
    height, width = pixels.shape[:2]
    return bool(max(height, width) <= SMALL)


def wrapped(text: str, size: int, width: float) -> list[str]:
    """`text` in lines of at most `width` pixels, broken at spaces; in longer words, anywhere."""
    measure, lines = font(size).getlength, [""]
    for word in text.split():
        candidate = f"{lines[-1]} {word}".strip()
        if measure(candidate) <= width:
            lines[-1] = candidate
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and measure(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, from matplotlib's package, found without importing it."""
    package = find_spec("matplotlib")
    assert package is not None
    assert package.origin is not None
    return ImageFont.truetype(Path(package.origin).with_name("mpl-data") / "fonts" / "ttf" / "DejaVuSans.ttf", size)
