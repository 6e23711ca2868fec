"""How commands read a line and what their help looks like.

`command` makes a command of a function, as `click.command` does: its help lists the network's options last, in a
section of their own, and errors end with what was probably meant. A group's help lists its commands under the headings
that it is given.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import click

from cnnviz.cli.hints import closest, command_hint, hint

NETWORK = ("model", "weights", "device", "input_size", "mean", "std", "labels", "kind_of_outputs")


class Command(click.Command):
    """A command whose help has a section "Network options"."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)  # click empties `args`
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.NoSuchOption(error.option_name, possibilities=closest(error), ctx=error.ctx) from error
        except click.UsageError as error:
            error.message += hint(self, given, error)  # type: ignore[misc]  # as in `cnnviz.cli`
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            meant = command_hint(args[0])
            if meant:  # instead of commands that are merely spelled like it
                raise click.UsageError(f"No such command {args[0]!r}.{meant}", ctx) from error
            raise

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in (self.headings or {"Commands": tuple(self.commands)}).items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=1000)) for name in names])


command = partial(click.command, cls=Command)
