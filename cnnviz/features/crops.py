"""What a unit saw of an image: its receptive field in the image's own pixels, cut out, with its position outlined."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from cnnviz.networks.inputs import Shown, show
from cnnviz.networks.layers import Layer
from cnnviz.networks.network import Network
from cnnviz.pictures.reading import Picture

TILE = 80  # pixels a side
MARK, SMALLEST_MARK = 0.07, 10  # how large an outline is at least, as a share of a crop's side and in pixels
MARK_COLOURS = ((0, 0, 0), (255, 225, 0), (255, 225, 0), (0, 0, 0))  # inwards; seen on any ground
BESIDE = (128, 128, 128)  # where a receptive field that the border cuts leaves a tile empty
Box = tuple[float, float, float, float]  # left, top, right, bottom
Span = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """A position (row, column) of a layer's maps, for the image of that number."""

    picture: int
    position: tuple[int, int]


@dataclass(frozen=True)
class Cut:
    """The receptive field of a unit, cut out of an image.

    Attributes:
        tile: a square of `TILE` pixels, `mark` outlined.
        box: what the tile shows, in the image's pixels.
        mark: the position of the unit in the image's pixels: the middle of its receptive field, one step of the maps
            wide; None if the layer has no row in the table.
    """

    tile: Image.Image
    box: Box
    mark: Box | None


def cut_out(
    network: Network,
    row: Layer | None,
    maps: Sequence[int],
    places: Sequence[Place],
    pictures: Callable[[int], Picture],
) -> list[Cut]:
    """What the units at some places of a layer saw; every image is opened once.

    Args:
        row: of the table of layers; without one, or a known receptive field, all that the network saw is cut.
        maps: (height, width) of the layer's maps.
        pictures: gives an image by its number.
    """
    by_picture: dict[int, list[int]] = defaultdict(list)
    for index, place in enumerate(places):
        by_picture[place.picture].append(index)
    cuts: dict[int, Cut] = {}
    for number, indices in by_picture.items():
        picture = pictures(number)
        shown = show(network, picture, fit="crop")
        for index in indices:
            box = _box(row, places[index].position, shown.seen, shown.images.shape)
            mark = _mark(row, maps, places[index].position, shown)
            cuts[index] = Cut(_tile(picture.image, box, mark), box, mark)
    return [cuts[index] for index in range(len(places))]


def strip(tiles: Sequence[Image.Image]) -> Image.Image:
    """Tiles side by side."""
    image = Image.new("RGB", (TILE * len(tiles), TILE), BESIDE)
    for number, tile in enumerate(tiles):
        image.paste(tile, (number * TILE, 0))
    return image


def _box(row: Layer | None, position: tuple[int, int], seen: Box, shape: Sequence[int]) -> Box:
    """The receptive field of a position, in the image's pixels, as far as the network saw it."""
    return image_box(_span(row, 0, position[0], shape[2]), _span(row, 1, position[1], shape[3]), seen, shape)


def _mark(row: Layer | None, maps: Sequence[int], position: tuple[int, int], shown: Shown) -> Box | None:
    """Where a position of a layer's maps is in the image's pixels; where nobody knows, maps cover the input evenly."""
    if row is None:
        return None
    spans = []
    for axis, place in enumerate(position):
        first, step, field = (known and known[axis] for known in (row.start, row.step, row.receptive_field))
        if first is None or step is None or field is None or math.isinf(field):
            first, step = 0, shown.images.shape[2 + axis] / max(1, maps[axis])
            field = step
        middle = first + place * step + field / 2
        spans.append((middle - step / 2, middle + step / 2))
    return image_box(spans[0], spans[1], shown.seen, shown.images.shape)


def image_box(vertical: Span, horizontal: Span, seen: Box, shape: Sequence[int]) -> Box:
    """A part of a network's input in the image's own pixels.

    Args:
        vertical, horizontal: from where to where it goes, in pixels of the input.
        seen: the part of the image that the input shows, in its pixels.
        shape: of the input, (N, C, H, W).
    """
    left, top, right, bottom = seen
    wide, high = (right - left) / shape[3], (bottom - top) / shape[2]
    return (
        left + horizontal[0] * wide,
        top + vertical[0] * high,
        left + horizontal[1] * wide,
        top + vertical[1] * high,
    )


def _span(row: Layer | None, axis: int, position: int, side: int) -> Span:
    """From where to where a unit looks along an axis of `side` input pixels."""
    if row is None or row.start is None or row.step is None or row.receptive_field is None:
        return 0, side
    if math.isinf(row.receptive_field[axis]):
        return 0, side
    low = row.start[axis] + position * row.step[axis]
    first = min(max(0.0, low), side - 1.0)  # a field that lies wholly in the padding is given the nearest pixel
    return first, max(first + 1, min(float(side), low + row.receptive_field[axis]))


def part_of(image: Image.Image, box: Box, side: int, *, squares: bool = False) -> Image.Image:
    """A part of an image, as far as it is inside, scaled so that its longer side is `side` pixels.

    Args:
        squares: whether the image's own pixels stay squares where they are enlarged.
    """
    inside = max(0, box[0]), max(0, box[1]), min(image.width, box[2]), min(image.height, box[3])
    factor = side / max(inside[2] - inside[0], inside[3] - inside[1])
    width, height = (max(1, round((inside[axis + 2] - inside[axis]) * factor)) for axis in (0, 1))
    how = Image.Resampling.NEAREST if squares and factor > 1 else Image.Resampling.LANCZOS
    return image.resize((width, height), how, box=inside)


def marked(image: Image.Image, box: Box, mark: Box | None, side: int) -> Image.Image:
    """A part of an image as `part_of` has it, pixels as squares, with an outline around another one."""
    part = part_of(image, box, side, squares=True)
    if mark is None:
        return part
    left, top = max(0, box[0]), max(0, box[1])  # where the part begins
    factor = part.width / (min(image.width, box[2]) - left)
    x, y = factor * ((mark[0] + mark[2]) / 2 - left), factor * ((mark[1] + mark[3]) / 2 - top)
    wide, high = (max(MARK * side, SMALLEST_MARK, factor * (mark[2 + axis] - mark[axis])) / 2 for axis in (0, 1))
    pen = ImageDraw.Draw(part)
    for less, colour in enumerate(MARK_COLOURS if side > TILE else MARK_COLOURS[:2]):
        across, down = max(0, wide - less), max(0, high - less)
        pen.rectangle((x - across, y - down, x + across, y + down), outline=colour)
    return part


def _tile(image: Image.Image, box: Box, mark: Box | None) -> Image.Image:
    """A part of an image in the middle of a square, a position in it outlined."""
    part = marked(image.convert("RGB"), box, mark, TILE)
    tile = Image.new("RGB", (TILE, TILE), BESIDE)
    tile.paste(part, ((TILE - part.width) // 2, (TILE - part.height) // 2))
    return tile
