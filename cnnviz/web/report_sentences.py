"""The sentences of a report, and the measures that they follow through the network.

They say what was measured, in numbers as they are shown: two that look the same on the page count as the same. To
follow another measure, enter it in `MEASURES`; to add a sentence, write a function and name it in
`cnnviz.web.report_page`.
"""

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cnnviz.networks.inputs import Shown
from cnnviz.networks.provenance import model_words
from cnnviz.web.report_findings import Depth, Findings
from cnnviz.web.templating import TIMES


def percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def correlation(value: float | None) -> str:
    return "none" if value is None else f"{value:z.2f}"


def beyond(depth: Depth) -> float | None:
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
    of: Callable[[Depth], float | None]
    text: Callable[[float | None], str]


MEASURES = (
    Measure("zeros", "the share of zeros", "rises", lambda depth: None if depth.signed else depth.zeros, percent),
    Measure("silent", "the share of silent channels", "rises", lambda depth: depth.maps.silent_fraction, percent),
    Measure("edges", "the likeness to the image's edges", "falls", lambda depth: depth.edges, correlation),
)
TURNED = Measure("turned", "the likeness to the turned edges", "falls", lambda depth: depth.turned, correlation)
BEYOND = Measure("beyond", "the likeness beyond that to turned edges", "falls", beyond, correlation)


def course(measure: Measure, before: Depth, after: Depth) -> str | None:
    """Whether a measure "rises", "falls" or "stays", by the numbers as they are shown; None where there are not two."""
    first, last = measure.of(before), measure.of(after)
    if first is None or last is None:
        return None
    if measure.text(first) == measure.text(last):
        return "stays"
    return "rises" if last > first else "falls"


def change(measure: Measure, before: Depth, after: Depth) -> str:
    """A clause about two depths: the share of zeros rises from 40.0 % to 61.2 %."""
    first, last = (measure.text(measure.of(depth)) for depth in (before, after))
    went = course(measure, before, after)
    if went is None:
        return f"{measure.name} cannot be compared (it is {first} and {last})"
    return f"{measure.name} stays at {last}" if went == "stays" else f"{measure.name} {went} from {first} to {last}"


def depth_sentence(depth: Depth, before: Depth | None) -> str:
    """What one depth is like, compared with the one before it."""
    if before is not None:
        zeros, silent, edges = (change(measure, before, depth) for measure in MEASURES)
        return f"{zeros[0].upper()}{zeros[1:]}, {silent}, and {edges}."
    zeros, silent, edges = (measure.text(measure.of(depth)) for measure in MEASURES)
    values = "values lie on both sides of zero" if depth.signed else f"{zeros} of all values are zero"
    like = "no map can be compared with the image's edges"
    if depth.edges is not None:
        like = f"the maps look like the image's edges with a mean correlation of {edges}"
    return f"To begin with, {values}, {silent} of the channels are silent, and {like}."


def overall(depths: Sequence[Depth]) -> list[str]:
    """A sentence on each measure from the first depth to the last, and whether that is what textbooks say."""
    return [_overall(measure, depths) for measure in (*MEASURES, BEYOND)] if len(depths) > 1 else []


def _overall(measure: Measure, depths: Sequence[Depth]) -> str:
    first, last = depths[0], depths[-1]
    went, text = course(measure, first, last), change(measure, first, last)
    said = f"From {first.layer} to {last.layer}, {text}"
    if went is None:
        return f"{said}."
    steps = {course(measure, *pair) for pair in pairwise(depths)}
    if len(depths) > 2:
        said += ", at every step" if steps == {went} else ", though not at every step"
    return f"{said}: {'as' if went == measure.expected else 'other than'} textbooks say, where it {measure.expected}."


def signed_note(depths: Sequence[Depth]) -> str | None:
    """Why there may be no zeros, where values lie below zero."""
    layers = ", ".join(depth.layer for depth in depths if depth.signed)
    if not layers:
        return None
    return f"There are values below zero in {layers}: no ReLU follows directly. Red is above zero."


def seen_sentence(shown: Shown) -> str:
    """What of the image the network was shown."""
    picture, (left, top, right, bottom) = shown.pictures[0], shown.seen
    height, width = picture.shape[:2]
    share = (min(right, width) - max(left, 0)) * (min(bottom, height) - max(top, 0)) / (width * height)
    what = "the whole image" if percent(share) == percent(1) else f"the centre, {percent(share)} of the image"
    size = f"{shown.images.shape[3]} {TIMES} {shown.images.shape[2]} px"
    return f"The network was shown {what} of {width} {TIMES} {height} px, scaled to {size}."


def verdict(report: Findings) -> str:
    """How many maps say more than chance."""
    attributions = report.explanation.attributions if report.explanation else ()
    better = sum(
        curves.deletion_auc < chance.random[0] and curves.insertion_auc > chance.random[1]
        for attribution in attributions
        if (curves := attribution.evidence.curves) and (chance := attribution.evidence.reference)
    )
    return f"Of these {len(attributions)} maps, {better} do better than a random order both ways."


def field(depth: Depth) -> str:
    """How much of what the network saw one value depends on."""
    sides = depth.row.receptive_field
    if sides is None or math.inf in sides:
        return "an unknown part" if sides is None else "all of it"
    return f"{sides[1]:g} {TIMES} {sides[0]:g} px"


def command(report: Findings) -> str:
    """The command line that makes the report again, in the image's folder."""
    settings = report.made["settings"]
    words = ["cnnviz", "report", report.shown.names[0], *model_words(report.made["network"])]
    words += ["--filters", settings["filters"], "--seed", settings["seed"], "--method", ",".join(settings["methods"])]
    words += ["--steps", settings["steps"]] if settings["steps"] is not None else []
    return shlex.join(map(str, words))
