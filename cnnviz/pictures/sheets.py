"""Sheets: labelled tiles under a header.

A sheet reads like a contact print: the image it is about and what is shown at the top, then the tiles in reading
order, each with its label and, at the right, one number or word about it. The sheet is 16:9, as slides are, or as near
as its tiles allow.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from PIL import Image

from cnnviz.errors import OutputError, ShapeError, check_keywords
from cnnviz.files import whole_file
from cnnviz.pictures.colours import Pixels
from cnnviz.pictures.drawings import (
    FAINT,
    Drawing,
    PlacedImage,
    PlacedText,
    figure_of,
    figure_pixels,
    font,
    is_small,
    render,
    wrapped,
    write_figure,
)
from cnnviz.pictures.records import CARRIERS, record_text, sealed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".pdf": "PDF", ".svg": "SVG"}
LARGEST = {"PNG": 2**31 - 1, "JPEG": 65500, "WEBP": 16383}  # pixels a side
COMPRESSION: dict[str, Any] = {"PNG": {"compress_level": 4}, "JPEG": {"quality": 92}, "WEBP": {"quality": 92}}
GAP, MARGIN, LABEL, TITLE = 8, 16, 13, 17  # pixels; the last two are heights of type
LINE, HEADER_LINE, TITLE_LINE = LABEL + 4, LABEL + 8, TITLE + 12  # pixels from one line of text to the next
THUMBNAIL = 150
HATCH, HATCH_GROUND = (150, 150, 155), (225, 225, 228)
WIDEST_HEADER, COLOUR_BAR = 1200, 180
ACROSS, SMALLEST_TILE, LARGEST_TILE = 1568, 84, 320  # pixels; ACROSS and two margins are a slide of 1600 x 900
SLIDE = 16 / 9  # width to height of a sheet
EMPTY = 1.5  # what a share of empty places counts for, against the logarithm of a proportion
WIDER_THAN_HIGH = 2.1  # of the tiles alone, without the header above them
MOST_COLUMNS = 400  # that are tried
LARGEST_LAYOUT = {"columns": 10_000, "tile": 4096, "dpi": 1200}


class Layout(TypedDict, total=False):
    """How a sheet is laid out, where it is not as usual.

    Keys:
        columns: how many tiles stand side by side.
        tile: the width of a tile in pixels.
        title: above the header, whose first line then follows.
        captions: False for the bare tiles, without header and text.
        dpi: draw the sheet as a figure at this resolution; 100 pixels of a usual sheet are an inch.
    """

    columns: int | None
    tile: int | None
    title: str | None
    captions: bool
    dpi: int | None


def layout_settings(layout: Layout) -> dict[str, object]:
    """What a record keeps of a layout: nothing if it is the usual one.

    Raises:
        UnknownNameError: if it has a keyword that `Layout` has not.
    """
    check_keywords(layout, Layout, "layout option")
    given = {name: value for name, value in layout.items() if value is not None and value is not True}
    return {"layout": given} if given else {}


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
        made: how it was made, written into files as JSON.
        draw: makes the sheet as a matplotlib figure, for files whose text is text; by default it is one image.
        dpi: of the pixels, where they were drawn as a figure.
    """

    pixels: Pixels = field(repr=False)
    made: Mapping[str, object] = field(default_factory=dict)
    draw: "Callable[[], Figure] | None" = field(default=None, repr=False, compare=False)
    dpi: int | None = None

    def figure(self) -> "Figure":
        """The sheet as a matplotlib figure, its text as text."""
        if self.draw is not None:
            return self.draw()
        height, width = self.pixels.shape[:2]
        return figure_of(Drawing(width, height, [PlacedImage(self.pixels, 0, 0, width, height)], []))

    def save(self, path: str | Path) -> Path:
        """Write PNG, JPEG, WebP, PDF or SVG, by the ending, with `made` as its record.

        Raises:
            OutputError: if the ending is another, or the file cannot be written.
        """
        path = Path(path)
        kind = picture_format(path)
        if max(self.pixels.shape) > LARGEST.get(kind, math.inf):
            size = f"{self.pixels.shape[1]} x {self.pixels.shape[0]}"
            raise OutputError(f"cannot write {path.name}: {size} px are too many for {kind}; write a .png.")
        content = self.content(kind)
        with whole_file(path) as file:
            file.write(content)
        return path

    def content(self, kind: str) -> bytes:
        """The bytes of a file: a "PNG", "JPEG", "WEBP", "PDF" or "SVG"."""
        buffer = io.BytesIO()
        record = CARRIERS[kind].options(record_text(self.made, self.pixels, kind))
        if kind in LARGEST:
            resolution = {} if self.dpi is None else {"dpi": (self.dpi, self.dpi)}
            Image.fromarray(self.pixels).save(buffer, kind, **COMPRESSION[kind], **resolution, **record)
        else:
            write_figure(self.figure(), buffer, kind, dpi=self.dpi, **record)
        return sealed(buffer.getvalue())

    def png(self) -> bytes:
        """The bytes of a PNG file."""
        return self.content("PNG")

    def _repr_png_(self) -> bytes:
        return self.png()


def picture_format(path: Path) -> str:
    """The name of the format that a file's ending asks for.

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
    smooth: bool = False,
    **layout: Unpack[Layout],
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
        smooth: whether tiles are enlarged by interpolation rather than as squares.
        layout: see `Layout`.

    Raises:
        UnknownNameError: if there is no such keyword of the layout.
        ShapeError: if columns, tile or dpi is out of range.
    """
    check_keywords(layout, Layout, "layout option")
    drawing = _laid_out(tiles, lines, picture, colour_bars, factor, layout, smooth=smooth)
    draw, dpi = partial(figure_of, drawing), layout.get("dpi")
    return Sheet(render(drawing) if dpi is None else figure_pixels(draw(), dpi), made or {}, draw, dpi)


def _laid_out(
    tiles: Sequence[Tile],
    lines: Sequence[str],
    picture: Pixels | None,
    bars: Sequence[ColourBar],
    factor: int | None,
    layout: Layout,
    *,
    smooth: bool,
) -> Drawing:
    """The header, and below it rows of tiles, each as high as its captions need."""
    for name, largest in LARGEST_LAYOUT.items():
        value = layout.get(name)
        if value is not None and not (isinstance(value, int) and 1 <= value <= largest):
            raise ShapeError(f"{name} must be 1 to {largest}, not {value!r}.")
    captions = layout.get("captions", True)
    columns = min(layout.get("columns") or _columns(tiles, lines, picture, bars, factor, layout), len(tiles))
    tile_width, tile_height, cell = _cell(tiles[0], columns, factor, layout)
    inside = columns * cell - GAP
    head = _header(max(inside, WIDEST_HEADER), lines, picture, bars, layout)
    images, texts = list(head.images), list(head.texts)
    top = head.height + 2 * MARGIN if head.height else MARGIN
    for first in range(0, len(tiles), columns):
        row = tiles[first : first + columns]
        lowest = top + tile_height
        for column, tile in enumerate(row):
            left = MARGIN + column * cell
            pixels = _hatched(tile_height, tile_width) if tile.hatched else tile.pixels
            images.append(PlacedImage(pixels, left, top, tile_width, tile_height, smooth))
            if captions:
                own = _captions(tile, left, top + tile_height + 2, cell - GAP)
                lowest = max([lowest, *(text.top + LINE for text in own)])
                texts += own
        top = lowest + GAP
    return Drawing(max(inside, head.width) + 2 * MARGIN, top - GAP + MARGIN, images, texts)


def _columns(
    tiles: Sequence[Tile],
    lines: Sequence[str],
    picture: Pixels | None,
    bars: Sequence[ColourBar],
    factor: int | None,
    layout: Layout,
) -> int:
    """How many tiles stand side by side if nobody says so; all captions count as high as the longest."""
    head = _header(WIDEST_HEADER, lines, picture, bars, layout)
    wordiest = max(tiles, key=lambda tile: len("".join([tile.label, tile.note, *tile.below])))

    def size(columns: int) -> tuple[float, float]:
        _, row, cell = _cell(tiles[0], columns, factor, layout)
        if layout.get("captions", True):
            row = max([row, *(text.top + LINE for text in _captions(wordiest, 0, row + 2, cell - GAP))])
        height = math.ceil(len(tiles) / columns) * (row + GAP) - GAP + 2 * MARGIN
        return max(columns * cell - GAP, head.width) + 2 * MARGIN, height + (head.height + MARGIN if head.height else 0)

    return slide_columns(len(tiles), size)


def _cell(tile: Tile, columns: int, factor: int | None, layout: Layout) -> tuple[int, int, int]:
    """Width and height of a tile as it is drawn, and from its left side to the next one's."""
    (height, width), given = tile.pixels.shape[:2], layout.get("tile")
    factor = factor or enlargement(max(height, width), columns)
    size = (given, max(1, round(height * given / width))) if given else (width * factor, height * factor)
    return *size, (max(size[0], SMALLEST_TILE) if layout.get("captions", True) else size[0]) + GAP


def slide_columns(count: int, size: Callable[[int], tuple[float, float]]) -> int:
    """How many of `count` tiles stand side by side: a page as near to 16:9 as can be without many empty places.

    Args:
        size: of a number of columns, the width and height of the page.
    """

    def cost(columns: int) -> float:
        width, height = size(columns)
        empty = -count % columns / (columns * math.ceil(count / columns))
        return abs(math.log(width / height / SLIDE)) + EMPTY * empty

    return min(range(1, min(count, MOST_COLUMNS) + 1), key=cost)


def columns_for(count: int, aspect: float) -> int:
    """About how many tiles of that width to height will stand side by side, for who has to draw them first."""
    return max(1, min(count, round(math.sqrt(count * WIDER_THAN_HIGH / aspect))))


def enlargement(side: int, columns: int) -> int:
    """By which whole factor to enlarge tiles whose longer side is `side` pixels, if `columns` stand side by side."""
    return max(1, round(tile_side(columns) / side))


def tile_side(columns: int) -> float:
    """How many pixels long tiles should be at their longer side, if `columns` stand side by side."""
    return min(max(ACROSS / columns - GAP, SMALLEST_TILE), LARGEST_TILE)


def alike(numbers: Sequence[float]) -> list[str]:
    """Numbers with the same count of decimals, three digits for the largest."""
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0)
    decimals = min(6, max(0, 2 - math.floor(math.log10(largest)))) if largest > 0 else 0
    return [f"{number:.{decimals}f}" for number in numbers]


def _header(
    limit: int, lines: Sequence[str], picture: Pixels | None, bars: Sequence[ColourBar], layout: Layout
) -> Drawing:
    """The image with the lines at its right, as wide as they need, but no wider than `limit`."""
    title = layout.get("title")
    if title is not None:
        lines = [title, *lines]
    if not layout.get("captions", True):
        lines, picture, bars = lines[:1] if title is not None else [], None, ()
    images, texts = list[PlacedImage](), list[PlacedText]()
    left, y, right = MARGIN, MARGIN, 0
    if picture is not None:
        height, width = picture.shape[:2]
        scale = min(THUMBNAIL / height, 2 * THUMBNAIL / width)
        scale = max(1, math.floor(scale)) if is_small(picture) else min(1, scale)
        box = max(1, round(width * scale)), max(1, round(height * scale))
        images.append(PlacedImage(picture, left, y, *box))
        left += box[0] + 2 * GAP
    for number, line in enumerate(lines):
        size, step = (TITLE, TITLE_LINE) if number == 0 else (LABEL, HEADER_LINE)
        parts = wrapped(line, size, limit + MARGIN - left)
        for part in parts:
            texts.append(PlacedText(part, left, y, size))
            y += step if part is parts[-1] else size + 4
            right = max(right, left + _length(part, size))
    for bar in bars:
        strip = left + _length(bar.low, LABEL) + GAP
        high = strip + COLOUR_BAR + GAP
        texts += [PlacedText(bar.low, left, y + 2, LABEL), PlacedText(bar.high, high, y + 2, LABEL)]
        images.append(PlacedImage(bar.colours[None], strip, y + 2, COLOUR_BAR, LABEL + 2))
        y, right = y + HEADER_LINE, max(right, high + _length(bar.high, LABEL))
    lowest = max([y, *(image.top + image.height for image in images)])
    return Drawing(max(right - MARGIN, 0), lowest - MARGIN, images, texts)


def _captions(tile: Tile, left: int, top: int, width: int) -> list[PlacedText]:
    """The label with the note at its right, or below it where there is no room, and the lines below."""
    label, note = wrapped(tile.label, LABEL, width), wrapped(tile.note, LABEL, width)
    if _length(label[-1], LABEL) + _length("  " + note[0], LABEL) <= width:
        last = top + (len(label) - 1) * LINE
        beside = [PlacedText(note.pop(0), left + width, last, LABEL, FAINT, right_aligned=True)]
    else:
        beside = []
    below = [*note, *(part for line in tile.below for part in wrapped(line, LABEL, width))]
    lines = [PlacedText(text, left, top + number * LINE, LABEL) for number, text in enumerate(label)]
    lines += [
        PlacedText(text, left, top + number * LINE, LABEL, FAINT) for number, text in enumerate(below, start=len(label))
    ]
    return [text for text in [*lines, *beside] if text.text]


def _length(text: str, size: int) -> int:
    return math.ceil(font(size).getlength(text))


def _hatched(height: int, width: int) -> Pixels:
    """A tile with nothing to show: grey, with lines across that no map looks like."""
    rows, columns = np.indices((height, width))
    stripes: Pixels = np.where(((rows + columns) % 12 < 2)[..., None], HATCH, HATCH_GROUND).astype(np.uint8)
    return stripes
