"""Attributions as a sheet: map and overlay side by side, the evidence beneath."""

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cnnviz.heatmaps import SIGNED, UNSIGNED, overlaid, painted, placed
from cnnviz.mapsheets import unseen_dimmed
from cnnviz.methods import METHODS
from cnnviz.pictures import Pixels, colour_map
from cnnviz.sheets import PAPER, ColourBar, Sheet, Tile, sheet

if TYPE_CHECKING:
    from cnnviz.explanations import Attribution, Explanation

ALONE, AMONG_OTHERS = 420, 210  # pixels; the long side of a picture
SEAM = 2  # pixels, between a map and its overlay
NARROWEST = 150  # pixels; of a picture, for the evidence to be legible below two of them
ACROSS = 3  # attributions side by side, if they are of one class


def explanation_sheet(found: "Explanation", made: Mapping[str, object]) -> Sheet:
    """A tile per attribution, a column per class if there are several; see `Explanation.sheet`."""
    alone = len(found.attributions) == 1
    height, width = _size(found, ALONE if alone else AMONG_OTHERS)
    pairs = [_painted(found, one, (height, width)) for one in found.attributions]
    if alone:
        (one,), ((heat, over),) = found.attributions, pairs
        own = Image.fromarray(unseen_dimmed(found.shown, 0)).resize((width, height), Image.Resampling.LANCZOS)
        tiles = [
            Tile(np.asarray(own), found.shown.names[0]),
            Tile(heat, METHODS[one.method].title, _note(one), below=_evidence(one)),
            Tile(over, "laid over the picture"),
        ]
        columns = 3
    else:
        between = np.full((height, SEAM, 3), PAPER, dtype=np.uint8)
        each = zip(found.attributions, pairs, strict=True)
        tiles = [
            Tile(np.hstack([heat, between, over]), _title(found, one), _note(one), below=_evidence(one))
            for one, (heat, over) in each
        ]
        classes = list(dict.fromkeys(one.target for one in found.attributions))
        columns = len(classes) if len(classes) > 1 else min(len(tiles), ACROSS)
        tiles = [tile for row in range(len(tiles) // len(classes)) for tile in tiles[row :: len(tiles) // len(classes)]]
    picture = None if alone else unseen_dimmed(found.shown, 0)
    return sheet(
        tiles, lines=_lines(found), picture=picture, colour_bars=_bars(found), made=made, factor=1, columns=columns
    )


def overlay(found: "Explanation", number: int) -> Pixels:
    """One map laid over the picture, in the picture's own resolution."""
    one = found.attributions[number]
    values = placed(one.heat, found.shown, found.shown.pictures[0].shape[:2])
    return overlaid(found.shown, values, one.scale, signed=METHODS[one.method].signed)


def _painted(found: "Explanation", one: "Attribution", size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    values, signed = placed(one.heat, found.shown, size), METHODS[one.method].signed
    return painted(values, one.scale, signed=signed), overlaid(found.shown, values, one.scale, signed=signed)


def _size(found: "Explanation", side: int) -> tuple[int, int]:
    height, width = found.shown.pictures[0].shape[:2]
    factor = max(side / max(height, width), NARROWEST / width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _title(found: "Explanation", one: "Attribution") -> str:
    several = len({each.target for each in found.attributions}) > 1
    title = METHODS[one.method].title
    return f"{found.network.label(one.target.index)}: {title}" if several else title


def _note(one: "Attribution") -> str:
    if one.flat:
        return "flat"
    return f"{'±' if METHODS[one.method].signed else '0 to '}{one.scale:.2g}"


def _evidence(one: "Attribution") -> list[str]:
    """Lines of evidence, each with what to hold it against."""
    evidence = one.evidence
    lines = []
    if evidence.curves and evidence.reference:
        for number, name in enumerate(("deletion", "insertion")):
            own = getattr(evidence.curves, f"{name}_auc")
            random, centre = evidence.reference.random[number], evidence.reference.centre[number]
            lines.append(f"{name} {own:.1%} (random {random:.1%}, centre {centre:.1%})")
    if evidence.gap is not None:
        lines.append(f"sums up to the score but for {evidence.gap:.1%}")
    if evidence.sanity:
        verdict = ": does not explain the network" if evidence.unmoved else ""
        lines.append(f"network randomized: mean correlation {fmean(evidence.sanity.values()):.2f}{verdict}")
    if evidence.infidelity is not None:
        lines.append(f"infidelity {evidence.infidelity:.2g}")
    if evidence.sensitivity is not None:
        lines.append(f"largest change by a small disturbance {evidence.sensitivity:.0%}")
    return lines


def _lines(found: "Explanation") -> list[str]:
    classes = {one.target: one for one in found.attributions}
    named = ", ".join(f"{found.label(one)} ({one.probability:.1%})" for one in classes.values())
    seen = {"cropped": "its centre", "squeezed": "squeezed", "whole": "whole"}.get(found.shown.how, found.shown.how)
    height, width = found.shown.images.shape[2:]
    layers = dict.fromkeys(one.layer for one in found.attributions if one.layer)
    compared = any(METHODS[one.method].baseline or one.evidence.curves for one in found.attributions)
    lines = [
        f"Why {named}?",
        f"{found.shown.names[0]}, {seen}, shown to {found.network.name} ({found.network.weights})"
        f" at {width} x {height} px",
    ]
    if compared or layers:
        parts = [f"nothing to be seen is: {found.baseline}"] if compared else []
        parts += [f"layer: {', '.join(layers)}"] if layers else []
        lines.append("; ".join(parts))
    if any(one.evidence.curves for one in found.attributions):
        lines.append("deletion: mean probability while the hottest pixels go first, lower is better; insertion: higher")
    return lines


def _bars(found: "Explanation") -> list[ColourBar]:
    kinds = {METHODS[one.method].signed for one in found.attributions}
    numbers = len(found.attributions) == 1
    scale = f"{found.attributions[0].scale:.2g}"
    bars = []
    if True in kinds:
        low, high = (f"-{scale}, against", f"{scale}, for the class") if numbers else ("against", "for the class")
        bars.append(ColourBar(colour_map(SIGNED), low, high))
    if False in kinds:
        low, high = ("0", f"{scale}") if numbers else ("0, without sign", "most")
        bars.append(ColourBar(colour_map(UNSIGNED), low, high))
    return bars
