"""A report as one page of HTML: its chart, its images as data, and the template `report.html` filled in.

What the sentences on it say is in `cnnviz.web.report_sentences`.
"""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnnviz.attribution.evidence import RANDOM_ORDERS
from cnnviz.attribution.explanations import NO_BETTER
from cnnviz.attribution.methods import METHODS
from cnnviz.features.crops import marked, part_of
from cnnviz.networks.inputs import Shown, unseen_dimmed
from cnnviz.networks.overlays import map_over, overlaid, placed
from cnnviz.pictures.colours import FEATURES, SIGNED, UNSIGNED, Pixels, Values, colour_map, drawable, painted_between
from cnnviz.web.charts import AXES
from cnnviz.web.report_findings import Depth, Findings, Fired
from cnnviz.web.report_sentences import (
    MEASURES,
    TURNED,
    beyond,
    claims,
    command,
    correlation,
    depth_sentence,
    field,
    overall,
    percent,
    seen_sentence,
    unrectified_note,
    verdict,
)
from cnnviz.web.templating import HERE, STATES, environment

if TYPE_CHECKING:
    from jinja2 import Environment

PICTURE, OVERLAY, PART, TILE = 480, 400, 200, 128  # pixels; the long side of the image, overlays, crops, small tiles
TILES = 8  # maps that are shown of a layer
QUALITY = 82


def page(report: Findings) -> str:
    """The report as a document of HTML; everything that others named is escaped."""
    picture = Image.fromarray(unseen_dimmed(report.shown, 0))
    picture.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS)
    seen = only_seen(report.shown, OVERLAY)
    attributions = report.explanation.attributions if report.explanation else ()
    edges = report.edges / (report.edges.max() or 1)
    template = _environment().get_template("report.html")
    return template.render(
        report=report,
        style=(HERE / "static" / "style.css").read_text(encoding="utf-8"),
        picture=uri(np.asarray(picture)),
        picture_size=picture.size,
        saw=uri(seen.pictures[0]),
        edges=uri(drawable(_smaller(edges)[None])),
        tiles=[list(tiles(depth)) for depth in report.depths],
        lines=chart(report.depths),
        classes=list(dict.fromkeys(attribution.target for attribution in attributions)),
        overlays=[
            uri(overlaid(seen, _on(seen, one.heat), one.scale, signed=METHODS[one.method].signed))
            for one in attributions
        ],
        cards=[list(cards(fired, seen)) for fired in report.fired],
        bars={name: uri(colour_map(name)[None], exact=True) for name in (FEATURES, SIGNED, UNSIGNED)},
        record=json.dumps(report.made, indent=1, ensure_ascii=False),
    )


@dataclass(frozen=True)
class Line:
    """A measure in the chart: where it is at each depth, in the chart's units, and what it says there."""

    key: str
    name: str
    points: Sequence[tuple[float, float, str]]


def chart(depths: Sequence[Depth]) -> list[Line]:
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
        if points:
            lines.append(Line(measure.key, measure.name, points))
    return lines


def uri(pixels: Pixels, *, exact: bool = False) -> str:
    """(H, W, 3), 0 to 255, as an address that holds the image itself."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=QUALITY, lossless=exact)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Tile:
    """A map as an image of its own, in the colours of sheets from its minimum to its maximum."""

    channel: int
    mean: float
    maximum: float
    silent: bool
    source: str


def tiles(depth: Depth) -> Iterator[Tile]:
    """The most active maps."""
    maps = depth.maps
    for channel in maps.order()[:TILES]:
        values = _smaller(maps.maps[0, channel])
        mean, highest = maps.mean[0, channel].item(), maps.maximum[0, channel].item()
        pixels = painted_between(values.numpy(), values.min().numpy(), values.max().numpy(), FEATURES)
        yield Tile(channel, mean, highest, bool(maps.silent[0, channel]), uri(pixels, exact=True))


@dataclass(frozen=True)
class Card:
    """An active channel: its map over the image, the crop that activates it most, its feature visualization.

    `best` is what scores highest of the patterns, noise and photographs that the feature visualization is compared
    with.
    """

    channel: int
    mean: float
    minimum: float
    maximum: float
    score: float
    status: str
    best: str
    best_score: float
    over: str
    part: str | None
    image: str


def cards(fired: Fired, seen: Shown) -> Iterator[Card]:
    """The channels of one depth; `seen` is from `only_seen`."""
    maps = fired.depth.maps
    image = Image.fromarray(maps.shown.pictures[0])
    for place, (channel, cut) in enumerate(zip(fired.channels, fired.cuts, strict=True)):
        yield Card(
            channel=channel,
            mean=maps.mean[0, channel].item(),
            minimum=maps.minimum[0, channel].item(),
            maximum=maps.maximum[0, channel].item(),
            score=fired.images.scores[place].item(),
            status=fired.images.status[place],
            best=fired.images.synthesized[place].judgement.best,
            best_score=fired.images.synthesized[place].judgement.best_score,
            over=uri(map_over(seen, maps.maps[0, channel])),
            part=uri(np.asarray(marked(image, cut.box, cut.mark, PART))) if cut else None,
            image=uri(drawable(fired.images.images[place])),
        )


def only_seen(shown: Shown, side: int) -> Shown:
    """The part of the image that the network saw as an image of its own, `side` pixels long."""
    part = part_of(Image.fromarray(shown.pictures[0]), shown.seen, side)
    return replace(shown, pictures=(np.asarray(part),), seen=(0, 0, part.width, part.height))


def _on(seen: Shown, values: Tensor) -> Values:
    """A map in the pixels of what the network saw."""
    return placed(values, seen, (seen.pictures[0].shape[0], seen.pictures[0].shape[1]), mode="bicubic")


def _smaller(values: Tensor) -> Tensor:
    """(H, W), averaged down to a tile if it is larger."""
    height, width = (min(side, TILE) for side in values.shape)
    return torch.nn.functional.adaptive_avg_pool2d(values[None], (height, width))[0]


def _environment() -> "Environment":
    sentences = (claims, depth_sentence, overall, unrectified_note, seen_sentence, verdict, command)
    pages = environment()
    pages.filters |= {"percent": percent, "correlation": correlation, "field": field, "beyond": beyond}
    pages.globals |= {sentence.__name__: sentence for sentence in sentences}
    pages.globals |= {"states": STATES, "methods": METHODS, "no_better": NO_BETTER, "random_orders": RANDOM_ORDERS}
    return pages
