"""What is written behind an option, read: numbers, sizes, lists.

To add a kind of value, write a function of the text that raises `click.BadParameter`, and give it to an option as its
type: its name in capitals is what help calls the value.
"""

import math
import re
from typing import Any, Literal

import click

from cnnviz.attribution.methods import method_named


class Finite(click.FloatRange):
    """A range of real numbers that NaN and infinity, which are neither below nor above, do not get into."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is no number in the range.", param, ctx)
        return number


def numbers(text: str) -> tuple[float, ...]:
    """Real numbers separated by commas: 0.485,0.456,0.406."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 0.13 or 0.485,0.456,0.406.") from None


def size(text: str) -> tuple[int, int]:
    """A side in pixels, 224, or height x width, 28x32."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if not match or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise click.BadParameter(f"{text!r} is no size such as 224 or 28x32 (height x width).")
    return int(match[1]), int(match[2] or match[1])


def side_or_auto(text: str) -> tuple[int, int] | Literal["auto"]:
    """A size such as 128 or 96x128 (height x width), or "auto"."""
    return "auto" if text == "auto" else size(text)


def seed(text: str) -> int:
    """A number that every one of PyTorch's generators takes as its seed."""
    if not re.fullmatch(r"\d{1,19}", text) or int(text) >= 2**63:
        raise click.BadParameter(f"{text!r} is no seed; seeds are whole numbers from 0 to 2**63 - 1.")
    return int(text)


def channels(text: str) -> tuple[int, ...]:
    """Numbers and ranges separated by commas, 0-63,128: each number once, in the order given."""
    listed: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise click.BadParameter(f"{part!r} is no channel or range of channels; write them like 0-63,128.")
        listed |= dict.fromkeys(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(listed)


def filters_or_all(text: str) -> tuple[int, ...] | Literal["all"]:
    """Numbers and ranges like 0-15,41, or "all"."""
    return "all" if text == "all" else channels(text)


def names(text: str) -> list[str]:
    """Names separated by commas; at least one."""
    listed = [name.strip() for name in text.split(",") if name.strip()]
    if not listed:
        raise click.BadParameter(f"{text!r} names nothing.")
    return listed


def methods(text: str) -> list[str]:
    """Names of methods of attribution, separated by commas, or "all" alone.

    Raises:
        UnknownNameError: if there is no such method; says which there are.
    """
    listed = names(text)
    for name in listed if listed != ["all"] else []:
        method_named(name)
    return listed
