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

DIGITS = 2  # of correlations
SMALL, SMALL_SHARE = 0.02, 0.1  # changes from the first depth to the last that decide nothing: in all, of the larger
JUDGED = 3  # depths, at least, for a verdict on what changes with depth


def percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"


def correlation(value: float | None) -> str:
    return "none" if value is None else f"{value:z.{DIGITS}f}"


def beyond(depth: Depth) -> float | None:
    """By how much maps look more like the edges than by chance: the difference of both numbers as they are shown."""
    if depth.edges is None or depth.turned is None:
        return None
    return round(round(depth.edges, DIGITS) - round(depth.turned, DIGITS), DIGITS)


@dataclass(frozen=True)
class Measure:
    """What is followed through the network: its key, its name in sentences, where it comes from, how it is written.

    `of` gives None where the measure does not apply: it is not judged there. `expected` is what textbooks say it
    does with depth (Chollet 2021, *Deep Learning with Python*, 2nd edition, section 9.4.1).
    """

    key: str
    name: str
    expected: str
    of: Callable[[Depth], float | None]
    text: Callable[[float | None], str]


MEASURES = (
    Measure("zeros", "fraction of zeros", "rises", lambda depth: depth.zeros if depth.rectified else None, percent),
    Measure(
        "inactive",
        "fraction of inactive channels",
        "rises",
        lambda depth: depth.maps.silent_fraction if depth.rectified else None,
        percent,
    ),
    Measure("edges", "correlation with the image's edges", "falls", lambda depth: depth.edges, correlation),
)
TURNED = Measure(
    "turned",
    "chance level of the correlation (edge map rotated by 180\N{DEGREE SIGN})",
    "falls",
    lambda depth: depth.turned,
    correlation,
)
BEYOND = Measure("beyond", "edge correlation above chance level", "falls", beyond, correlation)


def course(measure: Measure, before: Depth, after: Depth) -> str | None:
    """Whether a measure "rises", "falls" or "stays", by the numbers as they are shown; None where there are not two."""
    first, last = measure.of(before), measure.of(after)
    if first is None or last is None:
        return None
    if measure.text(first) == measure.text(last):
        return "stays"
    return "rises" if last > first else "falls"


def change(measure: Measure, before: Depth | None, after: Depth) -> str:
    """A clause: the fraction of zeros is 61.2 %; or, where there are two depths, rises from 40.0 % to it."""
    last, went = measure.text(measure.of(after)), before and course(measure, before, after)
    if before is None or went is None:
        return f"the {measure.name} is {last}"
    first = measure.text(measure.of(before))
    return f"the {measure.name} {f'stays at {last}' if went == 'stays' else f'{went} from {first} to {last}'}"


def depth_sentence(depth: Depth, before: Depth | None) -> str:
    """What one depth is like, compared with the one before it; only of measures that apply."""
    *clauses, last = [change(measure, before, depth) for measure in MEASURES if measure.of(depth) is not None] or [""]
    sentence = " and ".join([", ".join(clauses), last] if clauses else [last])
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def claims() -> str:
    """What textbooks say that is judged, as a list of clauses."""
    *clauses, last = [f"the {measure.name} {measure.expected}" for measure in (*MEASURES, BEYOND)]
    return f"{', '.join(clauses)}, and {last}"


def overall(depths: Sequence[Depth]) -> list[str]:
    """A sentence on each measure from the first depth to the last, and whether that is what textbooks say.

    None of fewer than three depths, from which no trend can be read.
    """
    if len(depths) < JUDGED:
        return []
    applicable = [measure for measure in (*MEASURES, BEYOND) if course(measure, depths[0], depths[-1])]
    return [_overall(measure, depths) for measure in applicable]


def _overall(measure: Measure, depths: Sequence[Depth]) -> str:
    first, last = depths[0], depths[-1]
    went, claim = course(measure, first, last), f"the textbook claim that it {measure.expected} with depth"
    span = f"From {first.layer} to {last.layer}, "
    if hardly_changes(measure, first, last):
        values = " to ".join(measure.text(measure.of(depth)) for depth in (first, last))
        return f"{span}the {measure.name} hardly changes ({values}): this neither supports nor contradicts {claim}."
    steady = {course(measure, *pair) for pair in pairwise(depths)} == {went}
    steps = " at every step" if steady else ", but not at every step"
    agrees = ("" if steady else "on the whole ") + ("consistent with" if went == measure.expected else "contrary to")
    return f"{span}{change(measure, first, last)}{steps}: {agrees} {claim}."


def hardly_changes(measure: Measure, before: Depth, after: Depth) -> bool:
    """Whether a measure changes by less than 0.02, or by less than a tenth of the larger value."""
    first, last = measure.of(before) or 0, measure.of(after) or 0
    return abs(last - first) < max(SMALL, SMALL_SHARE * max(abs(first), abs(last)))


def unrectified_note(depths: Sequence[Depth]) -> str | None:
    """Why zeros are not counted in some layers."""
    layers = ", ".join(depth.layer for depth in depths if not depth.rectified)
    return f"No ReLU follows {layers} directly: zeros and inactive channels are not counted there." if layers else None


def seen_sentence(shown: Shown) -> str:
    """What of the image the network was shown."""
    picture, (left, top, right, bottom) = shown.pictures[0], shown.seen
    height, width = picture.shape[:2]
    share = (min(right, width) - max(left, 0)) * (min(bottom, height) - max(top, 0)) / (width * height)
    what = "full image" if percent(share) == percent(1) else f"center crop, {percent(share)} of the image"
    size = f"{shown.images.shape[3]} {TIMES} {shown.images.shape[2]} px"
    return f"Network input: {size} ({what}; image {width} {TIMES} {height} px)."


def verdict(report: Findings) -> str:
    """How many maps are better than random orders, by either curve and by both."""
    attributions = report.explanation.attributions if report.explanation else ()
    standings = [attribution.evidence.standings or () for attribution in attributions]
    deletion, insertion = (sum(pair[place : place + 1] == ("better",) for pair in standings) for place in (0, 1))
    both = standings.count(("better", "better"))
    return (
        f"Better than random orders, of {len(attributions)} maps: {deletion} by deletion, {insertion} by insertion,"
        f" {both} by both."
    )


def field(depth: Depth) -> str:
    """How much of what the network saw one value depends on."""
    sides = depth.row.receptive_field
    if sides is None or math.inf in sides:
        return "unknown" if sides is None else "full input"
    return f"{sides[1]:g} {TIMES} {sides[0]:g} px"


def command(report: Findings) -> str:
    """The command line that makes the report again, in the image's folder."""
    settings = report.made["settings"]
    words = ["cnnviz", "report", report.shown.names[0], *model_words(report.made["network"])]
    words += ["--filters", settings["filters"], "--seed", settings["seed"], "--method", ",".join(settings["methods"])]
    words += ["--steps", settings["steps"]] if settings["steps"] is not None else []
    return shlex.join(map(str, words))
