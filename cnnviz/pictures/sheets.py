"""Sheets: labelled tiles under a header, composed as one array.

A sheet reads like a contact print: the image it is about and what is shown at the top, then the tiles in reading
order, each with its label and, at the right, one number or word about it.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from cnnviz.errors import OutputError
from cnnviz.files import whole_file
from cnnviz.pictures.colours import Pixels
from cnnviz.pictures.records import DIGEST, METADATA, digest

ENDINGS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LARGEST = {"PNG": 2**31 - 1, "JPEG": 65500, "WEBP": 16383}  # pixels a side
GAP, MARGIN, LABEL, TITLE = 8, 16, 13, 17  # pixels; the last two are heights of type
THUMBNAIL = 150
SHORTEST = 4  # letters of a label that may be shortened to make room for its note
INK, FAINT, PAPER = (25, 25, 30), (110, 110, 120), (255, 255, 255)
HATCH, HATCH_GROUND = (150, 150, 155), (225, 225, 228)
WIDEST_HEADER, COLOUR_BAR = 1200, 180
ACROSS, SMALLEST_TILE, LARGEST_TILE = 1400, 84, 320
WIDER_THAN_HIGH = 1.25


@dataclass(frozen=True)
class Tile:
    """(H, W, 3) pixels, a label, a note at its right, lines below; hatched over if there is nothing to show."""

    pixels: Pixels
    label: str
    note: str = ""
    hatched: bool = False
    below: Sequence[str] = ()


@dataclass(frozen=True)
class ColourBar:
    """What the colours mean: 256 colours from `low` to `high`."""

    colours: Pixels
    low: str
    high: str


@dataclass(frozen=True)
class Sheet:
    """A finished sheet.

    Attributes:
        pixels: (H, W, 3), 0 to 255.
        made: how it was made, written into PNG files as JSON.
    """

    pixels: Pixels = field(repr=False)
    made: Mapping[str, object] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write PNG, JPEG or WebP, by the ending; only PNG carries `made`.

        Raises:
            OutputError: if the ending is another, or the file cannot be written.
        """
        path = Path(path)
        kind = picture_format(path)
        if max(self.pixels.shape) > LARGEST[kind]:
            size = f"{self.pixels.shape[1]} x {self.pixels.shape[0]}"
            raise OutputError(f"cannot write {path.name}: {size} px are too many for {kind}; write a .png.")
        with whole_file(path) as file:
            self._write(file, kind)
        return path

    def _write(self, file: IO[bytes], kind: str) -> None:
        image = Image.fromarray(self.pixels)
        if kind == "PNG":
            text = PngImagePlugin.PngInfo()
            made = {**self.made, DIGEST: digest(self.made, self.pixels)}
            text.add_itxt(METADATA, json.dumps(made), zip=True)
            image.save(file, kind, pnginfo=text, compress_level=4)
        else:
            image.save(file, kind, quality=92)

    def png(self) -> bytes:
        """The bytes of a PNG file."""
        buffer = io.BytesIO()
        self._write(buffer, "PNG")
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()


def picture_format(path: Path) -> str:
    """Pillow's name of the format that a file's ending asks for.

    Raises:
        OutputError: if cnnviz writes none with that ending.
    """
    if path.suffix.lower() not in ENDINGS:
        raise OutputError(f"cannot write {path.name or path}: images end in {', '.join(ENDINGS)}.")
    return ENDINGS[path.suffix.lower()]


def sheet(
    tiles: Sequence[Tile],
    *,
    lines: Sequence[str],
    picture: Pixels | None = None,
    colour_bars: Sequence[ColourBar] = (),
    made: Mapping[str, object] | None = None,
    factor: int | None = None,
    columns: int | None = None,
) -> Sheet:
    """Compose tiles of one size into a sheet.

    Args:
        tiles: at least one; all of the same height and width. Small ones are enlarged by a whole factor, so that every
            value stays one square.
        lines: the header, the first one as its title.
        picture: (H, W, 3), what the sheet is about, shown before all else.
        colour_bars: what the tiles' colours mean.
        made: how the sheet was made; see `Sheet`.
        factor: by which to enlarge the tiles; chosen by their number and size by default.
        columns: how many tiles stand side by side; chosen likewise.
    """
    height, width = tiles[0].pixels.shape[:2]
    columns = columns or columns_for(len(tiles), width / height)
    factor = factor or enlargement(max(height, width), columns)
    lines_below = 1 + max(len(tile.below) for tile in tiles)
    cell = (height * factor + lines_below * (LABEL + 4) + GAP, max(width * factor, SMALLEST_TILE) + GAP)
    rows = math.ceil(len(tiles) / columns)
    inside = columns * cell[1] - GAP
    head = _header(max(inside, WIDEST_HEADER), lines, picture, colour_bars)
    across = max(inside, head.width) + 2 * MARGIN
    top = head.height + 2 * MARGIN
    canvas = np.full((top + rows * cell[0] + MARGIN - GAP, across, 3), PAPER, dtype=np.uint8)
    canvas[MARGIN : MARGIN + head.height, MARGIN : MARGIN + head.width] = np.asarray(head)
    corners = [(top + index // columns * cell[0], MARGIN + index % columns * cell[1]) for index in range(len(tiles))]
    for tile, (y, x) in zip(tiles, corners, strict=True):
        pixels = tile.pixels.repeat(factor, 0).repeat(factor, 1)
        canvas[y : y + pixels.shape[0], x : x + pixels.shape[1]] = _hatched(pixels.shape) if tile.hatched else pixels
    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    for tile, (y, x) in zip(tiles, corners, strict=True):
        _label(pen, tile, (x, y + height * factor + 2), cell[1] - GAP)
    return Sheet(np.asarray(image), made or {})


def columns_for(count: int, aspect: float) -> int:
    """How many tiles of that width to height stand side by side: a sheet a little wider than high, few cells empty."""
    ideal = math.sqrt(count * WIDER_THAN_HIGH / aspect)
    choices = range(max(1, math.ceil(ideal * 0.75)), min(count, math.ceil(ideal * 1.3)) + 1)
    return min(choices, key=lambda columns: (-count % columns, abs(columns - ideal)), default=count)


def enlargement(side: int, columns: int) -> int:
    """By which whole factor to enlarge tiles whose longer side is `side` pixels, if `columns` stand side by side."""
    wanted = min(max(ACROSS / columns, SMALLEST_TILE), LARGEST_TILE)
    return max(1, round(wanted / side))


def _header(limit: int, lines: Sequence[str], picture: Pixels | None, bars: Sequence[ColourBar]) -> Image.Image:
    """The image with the lines at its right, as wide as they need, but no wider than `limit`."""
    height, left = TITLE + 12 + (LABEL + 8) * (len(lines) - 1 + len(bars)), 0
    head = Image.new("RGB", (limit, max(height, THUMBNAIL * (picture is not None))), PAPER)
    pen, y, right = ImageDraw.Draw(head), 0, 0.0
    if picture is not None:
        thumbnail = Image.fromarray(picture)
        thumbnail.thumbnail((2 * THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        head.paste(thumbnail, (0, 0))
        left = thumbnail.width + 2 * GAP
    for number, line in enumerate(lines):
        size = TITLE if number == 0 else LABEL
        text = fitted(line, size, limit - left)
        pen.text((left, y), text, INK, font(size))
        y, right = y + size + (12 if number == 0 else 8), max(right, left + font(size).getlength(text))
    for bar in bars:
        right, y = max(right, _draw_bar(head, pen, bar, left, y + 2)), y + LABEL + 8
    return head.crop((0, 0, min(limit, math.ceil(right)), head.height))


def _draw_bar(head: Image.Image, pen: ImageDraw.ImageDraw, bar: ColourBar, x: int, y: int) -> float:
    """Draw the bar between its two texts; gives where they end."""
    pen.text((x, y), bar.low, INK, font(LABEL))
    x += math.ceil(font(LABEL).getlength(bar.low)) + GAP
    strip = Image.fromarray(bar.colours[None]).resize((COLOUR_BAR, LABEL + 2), Image.Resampling.NEAREST)
    head.paste(strip, (x, y))
    x += strip.width + GAP
    pen.text((x, y), bar.high, INK, font(LABEL))
    return x + font(LABEL).getlength(bar.high)


def _label(pen: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], width: int) -> None:
    x, y = corner
    beside = width - math.ceil(font(LABEL).getlength("  " + tile.note))
    noted = bool(tile.note) and font(LABEL).getlength(tile.label[:SHORTEST]) <= beside
    pen.text((x, y), fitted(tile.label, LABEL, beside if noted else width), INK, font(LABEL))
    if noted:
        pen.text((x + width, y), tile.note, FAINT, font(LABEL), anchor="ra")
    for number, line in enumerate(tile.below, start=1):
        pen.text((x, y + number * (LABEL + 4)), fitted(line, LABEL, width), FAINT, font(LABEL))


def _hatched(shape: Sequence[int]) -> Pixels:
    """A tile with nothing to show: grey, with lines across that no map looks like."""
    rows, columns = np.indices(shape[:2])
    stripes: Pixels = np.where(((rows + columns) % 12 < 2)[..., None], HATCH, HATCH_GROUND).astype(np.uint8)
    return stripes


def fitted(text: str, size: int, width: int) -> str:
    """`text` on one line, its end cut off if it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, from matplotlib's package, found without importing it."""
    package = find_spec("matplotlib")
    assert package is not None
    assert package.origin is not None
    return ImageFont.truetype(Path(package.origin).with_name("mpl-data") / "fonts" / "ttf" / "DejaVuSans.ttf", size)
