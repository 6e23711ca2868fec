"""The small drawings of pages: strips of tiles, optimization curves, histograms.

Curve and histogram are paths and ticks in an image of WIDTH x HEIGHT units; the template `chart.html` makes SVG of
them. To add a chart, write a function that gives a `Chart`.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from cnnviz.errors import OutputError, PictureError
from cnnviz.pictures.reading import read_picture

WIDTH, HEIGHT = 360, 220
AXES = LEFT, RIGHT, TOP, BOTTOM = 46, 350, 26, 172
POINTS = 32  # of a curve: more are not seen, and every page has one
TINY = 1e-300  # below, powers of ten have no digits left
BLANK = (128, 128, 134)


@dataclass(frozen=True)
class Tick:
    """A place along an axis and what is written there."""

    place: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A path with its two axes.

    Attributes:
        path: the `d` of an SVG path.
        filled: whether the path is an area.
        x_label, y_label: what the axes count.
        summary: what the drawing shows, in words.
        mark: a line across, if any.
    """

    path: str
    filled: bool
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    x_label: str
    y_label: str
    summary: str
    mark: Tick | None = None


def optimization_curve(scores: Sequence[float]) -> Chart:
    """An optimization curve: the scores of an image, one a step."""
    last = len(scores) - 1
    low, high = _range(min(scores), max(scores))
    picked = sorted({round(place * last / (POINTS - 1)) for place in range(POINTS)})
    points = [f"{_x(step, 0, max(last, 1)):.4g},{_y(scores[step], low, high):.4g}" for step in picked]
    return Chart(
        path="M" + " ".join(points),
        filled=False,
        x_ticks=[Tick(_x(step, 0, max(last, 1)), f"{step:g}") for step in ticks(0, last)],
        y_ticks=[Tick(_y(value, low, high), f"{value:.6g}") for value in ticks(low, high)],
        x_label="step",
        y_label="score",
        summary=f"The score goes from {short(scores[0])} to {short(scores[-1])} in {len(scores)} steps.",
    )


def histogram(counts: Sequence[int], top: float, reached: float | None) -> Chart:
    """The distribution of a filter's maximal activation over images, and what its feature visualization reaches.

    The counts are drawn by their logarithm: most images activate it little, and the few that do are what counts.

    Args:
        counts: of images, in bins of one width between 0 and `top`.
        reached: the mark, if there is an image; the axis is as long as both need.
    """
    right = 1.04 * max(top, reached or 0) or 1.0
    width = (top or right / 50) / len(counts)  # bins that are all zero are drawn narrow, but drawn
    highest = max(1.0, math.log10(1 + max(counts)))
    ends = [place for place in range(1, len(counts) + 1) if place == len(counts) or counts[place] != counts[place - 1]]
    steps = [f"V{_y(math.log10(1 + counts[end - 1]), 0, highest):.4g}H{_x(end * width, 0, right):.4g}" for end in ends]
    mark = None if reached is None else Tick(_x(reached, 0, right), f"visualization: {short(reached)}")
    powers = [10**power for power in range(7) if math.log10(1 + 10**power) <= highest]
    return Chart(
        path=f"M{LEFT},{BOTTOM}{''.join(steps)}V{BOTTOM}Z",
        filled=True,
        x_ticks=[Tick(_x(value, 0, right), f"{value:.6g}") for value in ticks(0, right)],
        y_ticks=[Tick(_y(math.log10(1 + power), 0, highest), str(power)) for power in powers],
        x_label="maximal activation in an image",
        y_label="images (log scale)",
        summary=f"{sum(counts)} images, maximal activation up to {short(top)}" + (f"; {mark.text}." if mark else "."),
        mark=mark,
    )


def strip(files: Sequence[Path | None], side: int) -> Image.Image:
    """Images as square tiles of `side` pixels, side by side; None leaves a grey tile.

    Raises:
        OutputError: if an image cannot be read.
    """
    tiles = Image.new("RGB", (len(files) * side, side))
    with ThreadPoolExecutor() as pool:
        for place, tile in enumerate(pool.map(lambda file: _tile(file, side), files)):
            tiles.paste(tile, (place * side, 0))
    return tiles


def short(value: float) -> str:
    """Three digits, zeros among them, and never an exponent for large numbers."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".removesuffix(".")


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between two others."""
    rough = (high - low) / 5
    if rough < TINY:
        return [low]
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _tile(file: Path | None, side: int) -> Image.Image:
    if file is None:
        return Image.new("RGB", (side, side), BLANK)
    try:
        image = read_picture(file).image.convert("RGB")
        return ImageOps.fit(image, (side, side), Image.Resampling.BOX)
    except PictureError as error:
        raise OutputError(
            f"cannot read {file}: it is damaged; build the gallery again, which makes it anew."
        ) from error


def _range(low: float, high: float) -> tuple[float, float]:
    """With zero inside if it is not far, and never empty."""
    low, high = min(low, 0.0) if low < high / 2 else low, max(high, 0.0) if high > low / 2 else high
    beside = max(0.5, abs(low) / 2)  # of a large number, half a unit would be lost in rounding
    return (low, high) if low < high else (low - beside, high + beside)


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (RIGHT - LEFT) * (value - low) / (high - low)


def _y(value: float, low: float, high: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)
