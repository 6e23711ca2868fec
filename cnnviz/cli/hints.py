"""What to say after click's own message where a line was probably meant in another way.

To add a hint, write a function of the command, its arguments and the word that click could not place, which gives a
sentence or nothing, and put it into `HINTS`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import click

from cnnviz.attribution.methods import METHODS, method_named
from cnnviz.errors import CnnvizError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".npy", ".gif", ".bmp")
LISTS = {"--layer": "layers", "--layers": "layers", "--method": "methods"}
CLASSES = ("--class", "--versus")


def hint(command: click.Command, args: Sequence[str], error: click.UsageError) -> str:
    """The first hint that applies, as it goes on after the error's message; empty if none does."""
    options = {name for param in command.params for name in param.opts}
    for stray in _strays(args, error):
        for suggest in HINTS:
            if text := suggest(options, args, stray):
                return f"{'' if error.message.endswith('.') else '.'} {text}"
    return ""


def closest(error: click.NoSuchOption) -> list[str]:
    """Of the options that click offers for an unknown one, those that begin like it, if any do; never --help."""
    offered = [name for name in error.possibilities or () if name != "--help"]
    begun = [name for name in offered if name.startswith(error.option_name[:6])]
    return begun or offered


def command_hint(name: str) -> str:
    """What an unknown command was meant to be, if it is the name of a method or of a kind of map."""
    method = _method(name)
    if method:
        return f" It is a method of attribution: cnnviz saliency IMAGE --method {method}."
    return " Heatmaps come from `cnnviz saliency IMAGE`." if re.match("(?i)heat|attrib|explain|cam", name) else ""


def _strays(args: Sequence[str], error: click.UsageError) -> list[str]:
    """The words of a line that this error may be about: those that it quotes or lists."""
    listed = re.search(r"unexpected extra arguments? \((.*)\)$", error.message.rstrip("."))
    quoted = re.search(r"'([^']*)' does not exist", error.message)
    words = listed[1].split() if listed else [quoted[1]] if quoted else []
    return [word for word in args if word in words]


def _forgotten_comma(_: set[str], args: Sequence[str], stray: str) -> str:
    """Where a list of layers or methods seems to go on after a blank."""
    for option, value, following in zip(args, args[1:], args[2:], strict=False):
        if option in LISTS and following == stray and _is_name(stray) and not Path(stray).exists():
            return f"Separate {LISTS[option]} with commas, without blanks: {option} {value.rstrip(',')},{stray}."
    return ""


def _forgotten_quotes(_: set[str], args: Sequence[str], stray: str) -> str:
    """Where a class's name seems to go on after a blank."""
    for option, value, following in zip(args, args[1:], args[2:], strict=False):
        if option in CLASSES and following == stray and not Path(stray).exists():
            return f'Put a name of several words into quotation marks: {option} "{value} {stray}".'
    return ""


def _channels(options: set[str], _: Sequence[str], stray: str) -> str:
    known = "--filters" in options and re.fullmatch(r"[\d,-]+", stray)
    return f"Filters are named by --filters {stray}." if known else ""


def _layer(options: set[str], _: Sequence[str], stray: str) -> str:
    known = "--layer" in options and _is_name(stray) and not _method(stray)
    return f"A layer is named by --layer {stray}." if known else ""


def _method_of(options: set[str], _: Sequence[str], stray: str) -> str:
    return f"A method is named by --method {_method(stray)}." if "--method" in options and _method(stray) else ""


def _model(options: set[str], _: Sequence[str], stray: str) -> str:
    if "--model" not in options:
        return ""
    from cnnviz.models import builtin, zoo

    known = stray.lower() in {builtin.NAME, *zoo.names()}
    return f"The network is named by --model {stray.lower()}." if known else ""


HINTS = (_forgotten_comma, _forgotten_quotes, _channels, _model, _layer, _method_of)


def _method(word: str) -> str | None:
    try:
        return method_named(word)
    except CnnvizError:
        return None


def _is_name(word: str) -> bool:
    """Whether this looks like the name of a layer or of a method, and not like an image's."""
    layer = re.fullmatch(r"[a-z]\w*\d[\w.:@-]*", word, re.IGNORECASE) and Path(word).suffix.lower() not in IMAGES
    return bool(layer) or word in METHODS
