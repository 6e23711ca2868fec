"""What commands print: every line one line, and nothing in it that a terminal would obey."""

import json
import re
import sys
from contextlib import suppress
from io import UnsupportedOperation

import click

# Control characters, halves of surrogates, line separators, and what turns the direction of writing around.
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with what a terminal would obey, or could not show, written out: an escape character as \\x1b.

    File names and labels may hold anything.
    """
    return OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def echo(line: str = "", *, err: bool = False) -> None:
    """Print one line."""
    click.echo(printable(line), err=err)


def counted(number: int, noun: str) -> str:
    """ "1 filter", "0 filters", "2 filters"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def say_json(value: object) -> None:
    """Print a value as JSON, characters that a terminal would obey as JSON writes them."""
    unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    lines = json.dumps(value, indent=1, ensure_ascii=not unicode).split("\n")
    click.echo("\n".join(OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", line) for line in lines))


def spell_out_what_cannot_be_encoded() -> None:
    """Let stdout and stderr write out what their encoding lacks, where they would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, UnsupportedOperation):  # closed ones are None, replaced ones may be anything
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def print_table(columns: list[str], rows: list[list[str]], right: int) -> None:
    """Print rows under the names of their columns, the last `right` of which are aligned on the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index >= len(columns) - right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(printable, row))
    wanted = Console(width=10_000).measure(table).maximum
    Console(highlight=False, markup=False, width=wanted).print(table)  # a narrow terminal wraps lines, never cuts them
