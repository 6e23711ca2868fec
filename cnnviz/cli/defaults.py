"""Defaults of options from `cnnviz.toml` in the working directory: `model = "vgg16-mini"`, `device = "cpu"`.

A table holds those of one command: ``top = 16`` beneath ``[featuremaps]``.

A folder that somebody else has filled must not run code: a network of one's own is named on the command line only.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cnnviz.errors import did_you_mean

FILE = Path("cnnviz.toml")


def defaults_of(group: click.Group) -> dict[str, Any]:
    """What click takes as `default_map`: the defaults of every command that has the option.

    Raises:
        ClickException: if the file cannot be read, names no option, or names code that would be run.
    """
    if not FILE.is_file():
        return {}
    try:
        given = tomllib.loads(FILE.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise click.ClickException(f"{FILE} is not valid TOML: {error}") from error
    _check(group, given)
    return _map(group, given) | {"rerun": {}}  # which takes everything from a record


def _check(command: click.Command, given: Mapping[str, Any]) -> None:
    known, commands = _options(command), command.commands if isinstance(command, click.Group) else {}
    for name, value in given.items():
        if isinstance(value, dict):
            if name not in commands:
                raise click.ClickException(f"{FILE}: no command named {name!r}{did_you_mean(name, commands)}")
            _check(commands[name], value)
        elif name not in known:
            whose = "no command has" if commands else f"{command.name} has not"
            raise click.ClickException(f"{FILE}: {whose} the option --{name}{did_you_mean(name, known)}")
        elif name == "model" and ":" in str(value):
            raise click.ClickException(
                f"{FILE} names code that would be executed; give it on the command line, as --model."
            )


def _options(command: click.Command) -> dict[str, click.Option]:
    """Options by their names without dashes, of a command or of all in a group."""
    if isinstance(command, click.Group):
        return {name: option for inner in command.commands.values() for name, option in _options(inner).items()}
    options = (param for param in command.params if isinstance(param, click.Option))
    return {name.removeprefix("--"): option for option in options for name in option.opts if name.startswith("--")}


def _map(command: click.Command, given: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(command, click.Group):
        shared = {name: value for name, value in given.items() if not isinstance(value, dict)}
        tables = {name: value for name, value in given.items() if isinstance(value, dict)}
        return {name: _map(inner, shared | tables.get(name, {})) for name, inner in command.commands.items()}
    own = _options(command)
    return {str(own[name].name): _value(own[name], given[name]) for name in own.keys() & given.keys()}


def _value(option: click.Option, value: Any) -> Any:
    """A value as it would be written on the command line: 0.5 as "0.5", [0.5, 0.4] as "0.5,0.4"."""
    if isinstance(value, bool):
        return value
    texts = [str(part) for part in (value if isinstance(value, list) else [value])]
    return texts if option.multiple else ",".join(texts)
