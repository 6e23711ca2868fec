"""Command lines as tests run them."""

from collections.abc import Callable, Iterator

import click
from click.testing import Result

from cnnviz.cli import cli

Run = Callable[..., Result]


def faults(result: Result) -> str:
    """What a command says on stderr, but for what is probably forgotten of a user's own network."""
    lines = result.stderr.splitlines(keepends=True)
    hints = "so it is untrained", "no mean and std"
    return "".join(line for line in lines if not (line.startswith("warning: ") and any(hint in line for hint in hints)))


def _leaves(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _leaves(inner, (*words, name))
    else:
        yield words, command


COMMANDS = dict(_leaves(cli))  # by the words that call them: ("gallery", "build")
