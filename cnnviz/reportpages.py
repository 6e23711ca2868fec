"""A report as one page of HTML: its sentences, its chart, its pictures as data, and the template filled in.

Sentences say what was measured, in numbers as they are shown: two that look the same on the page count as the same.
"""

import base64
import io
import json
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnnviz.filtersheets import drawable
from cnnviz.galleries import pages
from cnnviz.galleries.cutting import part_of
from cnnviz.galleries.drawings import AXES
from cnnviz.heatmaps import full_scale, overlaid, painted, placed
from cnnviz.inputs import Shown
from cnnviz.mapsheets import unseen_dimmed
from cnnviz.methods import METHODS
from cnnviz.pictures import Pixels
from cnnviz.provenance import model_words

if TYPE_CHECKING:
    from jinja2 import Environment

    from cnnviz.report import Depth, Fired, Report

HERE = Path(__file__).parent
PICTURE, OVERLAY, TILE = 480, 240, 128  # pixels; the long side of the picture, of what is laid over it, of small tiles
TILES = 8  # maps that are shown of a layer
QUALITY = 82


def percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def correlation(value: float | None) -> str:
    return "none" if value is None else f"{value:z.2f}"


def beyond(depth: "Depth") -> float | None:
    """By how much maps look more like the edges than by chance."""
    return None if depth.edges is None or depth.turned is None else depth.edges - depth.turned


@dataclass(frozen=True)
class Measure:
    """What is followed through the network: its key, its name in sentences, where it comes from, how it is written.

    `expected` is what textbooks say becomes of it with depth (Chollet 2021, *Deep Learning with Python*, 2nd edition,
    section 9.4.1).
    """

    key: str
    name: str
    expected: str
    of: "Callable[[Depth], float | None]"
    text: Callable[[float | None], str]


MEASURES = (
    Measure("zeros", "the share of zeros", "rises", lambda depth: depth.zeros, percent),
    Measure("silent", "the share of silent channels", "rises", lambda depth: depth.maps.silent_fraction, percent),
    Measure("edges", "the likeness to the picture's edges", "falls", lambda depth: depth.edges, correlation),
)
TURNED = Measure("turned", "the likeness to the turned edges", "falls", lambda depth: depth.turned, correlation)
BEYOND = Measure("beyond", "the likeness beyond that to turned edges", "falls", beyond, correlation)


def course(measure: Measure, before: "Depth", after: "Depth") -> str | None:
    """Whether a measure "rises", "falls" or "stays", by the numbers as they are shown; None where there are not two."""
    first, last = measure.of(before), measure.of(after)
    if first is None or last is None:
        return None
    if measure.text(first) == measure.text(last):
        return "stays"
    return "rises" if last > first else "falls"


def change(measure: Measure, before: "Depth", after: "Depth") -> str:
    """A clause about two depths: the share of zeros rises from 40.0 % to 61.2 %."""
    first, last = (measure.text(measure.of(depth)) for depth in (before, after))
    went = course(measure, before, after)
    if went is None:
        return f"{measure.name} cannot be compared (it is {first} and {last})"
    return f"{measure.name} stays at {last}" if went == "stays" else f"{measure.name} {went} from {first} to {last}"


def depth_sentence(depth: "Depth", before: "Depth | None") -> str:
    """What one depth is like, compared with the one before it."""
    if before is not None:
        zeros, silent, edges = (change(measure, before, depth) for measure in MEASURES)
        return f"{zeros[0].upper()}{zeros[1:]}, {silent}, and {edges}."
    zeros, silent, edges = (measure.text(measure.of(depth)) for measure in MEASURES)
    like = "no map can be compared with the picture's edges"
    if depth.edges is not None:
        like = f"the maps look like the picture's edges with a mean correlation of {edges}"
    return f"To begin with, {zeros} of all values are zero, {silent} of the channels are silent, and {like}."


def overall(depths: "Sequence[Depth]") -> list[str]:
    """A sentence on each measure from the first depth to the last, and whether that is what textbooks say."""
    return [_overall(measure, depths) for measure in (*MEASURES, BEYOND)] if len(depths) > 1 else []


def _overall(measure: Measure, depths: "Sequence[Depth]") -> str:
    first, last = depths[0], depths[-1]
    went, text = course(measure, first, last), change(measure, first, last)
    said = f"From {first.layer} to {last.layer}, {text}"
    if went is None:
        return f"{said}."
    steps = {course(measure, *pair) for pair in pairwise(depths)}
    if len(depths) > 2:
        said += ", at every step" if steps == {went} else ", though not at every step"
    return f"{said}: {'as' if went == measure.expected else 'other than'} textbooks say, where it {measure.expected}."


def signed_note(depths: "Sequence[Depth]") -> str | None:
    """Why there may be no zeros, where values lie below zero."""
    layers = ", ".join(depth.layer for depth in depths if depth.signed)
    if not layers:
        return None
    return f"There are values below zero in {layers}: a convolution's own, before any ReLU. Red is above zero."


def seen_sentence(shown: Shown) -> str:
    """What of the picture the network was shown."""
    picture, (left, top, right, bottom) = shown.pictures[0], shown.seen
    height, width = picture.shape[:2]
    share = (min(right, width) - max(left, 0)) * (min(bottom, height) - max(top, 0)) / (width * height)
    what = "the whole picture" if percent(share) == percent(1) else f"the centre, {percent(share)} of the picture"
    size = f"{shown.images.shape[3]} {pages.TIMES} {shown.images.shape[2]} px"
    return f"The network was shown {what} of {width} {pages.TIMES} {height} px, scaled to {size}."


def verdict(report: "Report") -> str:
    """How many maps say more than chance."""
    found = report.explanation.attributions if report.explanation else ()
    pairs = [(one.evidence.curves, one.evidence.reference) for one in found]
    better = [
        own.deletion_auc < chance.random[0] and own.insertion_auc > chance.random[1]
        for own, chance in pairs
        if own and chance
    ]
    return f"Of these {len(found)} maps, {sum(better)} do better than a random order both ways."


def field(depth: "Depth") -> str:
    """How much of what the network saw one value depends on."""
    sides = depth.row.receptive_field
    if sides is None or math.inf in sides:
        return "an unknown part" if sides is None else "all of it"
    return f"{sides[1]:g} {pages.TIMES} {sides[0]:g} px"


def command(report: "Report") -> str:
    """The command line that makes the report again, in the picture's folder."""
    settings = report.made["settings"]
    words = ["cnnviz", "report", report.shown.names[0], *model_words(report.made["network"])]
    words += ["--filters", settings["filters"], "--seed", settings["seed"], "--method", ",".join(settings["methods"])]
    words += ["--steps", settings["steps"]] if settings["steps"] is not None else []
    return shlex.join(map(str, words))


@dataclass(frozen=True)
class Line:
    """A measure in the chart: where it is at each depth, in the chart's units, and what it says there."""

    key: str
    name: str
    points: Sequence[tuple[float, float, str]]


def chart(depths: "Sequence[Depth]") -> list[Line]:
    """Lines from left to right by depth; 0 is at the bottom and 1 at the top."""
    left, right, top, bottom = AXES
    step = (right - left) / max(1, len(depths))
    lines = []
    for measure in (*MEASURES, TURNED):
        values = [(place, depth.layer, measure.of(depth)) for place, depth in enumerate(depths)]
        points = [
            (round(left + (place + 0.5) * step, 1), round(bottom - (bottom - top) * value, 1), f"{layer}: {value:.3g}")
            for place, layer, value in values
            if value is not None
        ]
        lines.append(Line(measure.key, measure.name, points))
    return lines


def uri(pixels: Pixels, *, exact: bool = False) -> str:
    """(H, W, 3), 0 to 255, as an address that holds the picture itself."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=QUALITY, lossless=exact)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Tile:
    """A map as a picture of its own, 0 black and its highest value brightest."""

    channel: int
    mean: float
    maximum: float
    silent: bool
    source: str


def tiles(depth: "Depth") -> Iterator[Tile]:
    """The most active maps."""
    maps = depth.maps
    for channel in maps.order()[:TILES]:
        values = _smaller(maps.maps[0, channel])
        mean, highest = maps.mean[0, channel].item(), maps.maximum[0, channel].item()
        colours = painted(values.numpy(), values.abs().max().item(), signed=depth.signed)
        yield Tile(channel, mean, highest, bool(maps.silent[0, channel]), uri(colours, exact=True))


@dataclass(frozen=True)
class Card:
    """A channel that fired: its map over the picture, where it fired most, and what it looks for."""

    channel: int
    mean: float
    maximum: float
    score: float
    status: str
    over: str
    part: str | None
    image: str


def cards(fired: "Fired", seen: Shown) -> Iterator[Card]:
    """The channels of one depth; `seen` is from `only_seen`."""
    maps = fired.depth.maps
    for place, (channel, cut) in enumerate(zip(fired.channels, fired.cuts, strict=True)):
        yield Card(
            channel=channel,
            mean=maps.mean[0, channel].item(),
            maximum=maps.maximum[0, channel].item(),
            score=fired.images.scores[place].item(),
            status=fired.images.status[place],
            over=_over(seen, maps.maps[0, channel], signed=fired.depth.signed),
            part=uri(np.asarray(cut.tile)) if cut else None,
            image=uri(drawable(fired.images.images[place])),
        )


def only_seen(shown: Shown, side: int) -> Shown:
    """The part of the picture that the network saw as a picture of its own, `side` pixels long."""
    part = part_of(Image.fromarray(shown.pictures[0]), shown.seen, side)
    return replace(shown, pictures=(np.asarray(part),), seen=(0, 0, part.width, part.height))


def page(report: "Report") -> str:
    """The report as a document of HTML; everything that others named is escaped."""
    picture = Image.fromarray(unseen_dimmed(report.shown, 0))
    picture.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS)
    large, small = (only_seen(report.shown, side) for side in (OVERLAY, TILE))
    found = report.explanation.attributions if report.explanation else ()
    edges = report.edges / (report.edges.max() or 1)
    template = _environment().get_template("report.html")
    return template.render(
        report=report,
        style=(pages.HERE / "static" / "style.css").read_text(encoding="utf-8"),
        picture=uri(np.asarray(picture)),
        picture_size=picture.size,
        saw=uri(large.pictures[0]),
        edges=uri(drawable(_smaller(edges)[None])),
        tiles=[list(tiles(depth)) for depth in report.depths],
        lines=chart(report.depths),
        classes=list(dict.fromkeys(one.target for one in found)),
        overlays=[_over(large, one.heat, signed=METHODS[one.method].signed) for one in found],
        cards=[list(cards(fired, small)) for fired in report.fired],
        record=json.dumps(report.made, indent=1, ensure_ascii=False),
    )


def _over(seen: Shown, values: Tensor, *, signed: bool) -> str:
    size = seen.pictures[0].shape[:2]
    return uri(overlaid(seen, placed(values, seen, size), full_scale(values), signed=signed))


def _smaller(values: Tensor) -> Tensor:
    """(H, W), averaged down to a tile if it is larger."""
    height, width = (min(side, TILE) for side in values.shape)
    return torch.nn.functional.adaptive_avg_pool2d(values[None], (height, width))[0]


def _environment() -> "Environment":
    made = pages.environment(HERE / "templates")
    made.filters |= {"percent": percent, "correlation": correlation, "field": field}
    sentences = (depth_sentence, overall, signed_note, seen_sentence, verdict, command)
    made.globals |= {each.__name__: each for each in sentences}
    made.globals |= {"states": pages.STATES, "methods": METHODS}
    return made
