"""How commands read a line and what their help looks like.

`command` makes a command of a function, as `click.command` does: its help lists the network's options last, in a
section of their own, and lists of names that are written with blanks are told to be written with commas. A group's help
lists its commands under the headings that it is given.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from cnnviz.attribution.methods import METHODS

NETWORK = ("model", "weights", "device", "input_size", "mean", "std", "labels", "kind_of_outputs")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".npy", ".gif", ".bmp")
LISTS = {"--layer": "layers", "--layers": "layers", "--method": "methods"}


class Command(click.Command):
    """A command whose help has a section "Network options"."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)  # click empties `args`
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.message += _forgotten_comma(given)  # type: ignore[misc]  # as in `cnnviz.cli`
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        network = [option for option in options if option.name in NETWORK]
        own = [option for option in options if option not in network]
        for title, listed in (("Options", own), ("Network options", network)):
            rows = [record for option in listed if (record := option.get_help_record(ctx))]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(click.Group):
    """A group whose help lists its commands under headings, each with its summary in full."""

    command_class = Command

    def __init__(self, *args: Any, headings: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.headings = headings

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in (self.headings or {"Commands": tuple(self.commands)}).items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=1000)) for name in names])


command = partial(click.command, cls=Command)


def _forgotten_comma(args: Sequence[str]) -> str:
    """What to say where a list of layers or methods seems to go on after a blank."""
    for option, value, stray in zip(args, args[1:], args[2:], strict=False):
        if option in LISTS and _is_name(stray) and not Path(stray).exists():
            return f" Separate {LISTS[option]} with commas: {option} {value},{stray}."
    return ""


def _is_name(word: str) -> bool:
    """Whether this looks like the name of a layer or of a method, and not like an image's."""
    layer = re.fullmatch(r"[a-z]\w*\d[\w.:@-]*", word, re.IGNORECASE) and Path(word).suffix.lower() not in IMAGES
    return bool(layer) or word in METHODS
