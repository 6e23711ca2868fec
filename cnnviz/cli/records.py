"""`cnnviz inspect` and `cnnviz rerun`: how an image was made, and made again."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cnnviz.cli import options
from cnnviz.cli.commands import command
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import Target
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import echo, say_json

if TYPE_CHECKING:
    from cnnviz.cli.rerun import Verdict

file_argument = click.argument("file", type=options.A_FILE)


@command()
@file_argument
@options.json
def inspect(file: Path, as_json: bool) -> None:
    """Show how an image by cnnviz was made: command, network, settings, versions.

    \b
    Example:
      cnnviz inspect cat_vgg16_featuremaps_block4_conv2.png
    """
    from cnnviz.pictures.records import read_record

    record = read_record(file)
    if as_json:
        say_json(record)
        return
    for name, value in _flat(record):
        echo(f"{name + ':':26} {value}")
    echo()
    echo(f"`cnnviz rerun {file}` makes it again" + (", given --image PATH" if record.get("picture") else ""))


@command()
@file_argument
@click.option(
    "--image",
    "--picture",
    "picture",
    type=options.A_FILE,
    help="The image that FILE was made from; its record holds no path.",
)
@click.option(
    "--target-mask", "mask", type=options.A_FILE, help="The mask of the region; its record holds a hash only."
)
@click.option(
    "--folder", type=options.A_FOLDER, help="The folder of images that were used: references, evidence or a mean's."
)
@options.output
@options.network
@options.json
@options.quiet
@click.pass_context
def rerun(
    context: click.Context,
    file: Path,
    picture: Path | None,
    folder: Path | None,
    mask: Path | None,
    target: Target,
    chosen: Chosen,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make an image by cnnviz again and compare: exit status 0 if it is the same, 1 if not.

    The network is the one in the record. A file of weights, or a custom network, must be given again: no code is
    executed, and no file read, because a record names it. Differences, such as other weights or versions, are listed.

    \b
    Example:
      cnnviz rerun cat_vgg16_featuremaps_block4_conv2.png --image cat.jpg
    """
    from cnnviz.cli.rerun import Supplied, compared, remake
    from cnnviz.pictures.records import read_made

    target.check(file)
    if context.get_parameter_source("model") is not ParameterSource.COMMANDLINE:
        chosen = replace(chosen, model=None)  # the record's, whatever the environment or cnnviz.toml names
    record, content = read_made(file)
    network = _as_recorded(chosen, record).load(quiet=quiet)
    with waiting(f"{record.get('command')} again", quiet=quiet):
        again = remake(record, network, Supplied(picture, folder, mask))
    verdict = compared(record, content, again)
    output = None if target.output is None else target.save(again, target.file(file.stem, "again"))
    if as_json:
        say_json(vars(verdict) | {"file": str(file), "output": None if output is None else str(output)})
    elif not quiet:
        echo(f"{file}: {_sentence(verdict)}" + (f"; written to {output}" if output else ""))
    if not verdict.close:
        context.exit(1)


def _as_recorded(chosen: Chosen, record: Mapping[str, Any]) -> Chosen:
    """The network of a record, but for what the command line says of it."""
    from cnnviz.cli.rerun import check_record
    from cnnviz.networks.network import RANDOM
    from cnnviz.networks.provenance import NAMED, given_weights

    check_record(record)
    network = record["network"]
    name, weights = network["name"], given_weights(network)
    if chosen.model is None and network["weights"] == "as given":
        raise click.UsageError(f"{name} was made in Python; name what makes it with --model file.py:factory.")
    if chosen.model is None and ":" in name:  # whoever made the image may have put any name there
        raise click.UsageError(
            f"its record names a network of somebody's own, {name}, whose code would be run; name it with --model if"
            " you trust it."
        )
    if chosen.weights is None and weights not in (None, RANDOM) and NAMED not in str(weights):
        raise click.UsageError(f"{name} had the weights of {weights}; say where that file is with --weights PATH.")
    recorded = replace(chosen, model=chosen.model or name, weights=chosen.weights or weights)
    if ":" in name:
        size, mean, std = (tuple(network[setting]) for setting in ("input_size", "mean", "std"))
        recorded = replace(recorded, input_size=chosen.input_size or (size[0], size[1]))
        recorded = replace(recorded, mean=chosen.mean or mean, std=chosen.std or std)
        recorded = replace(recorded, kind_of_outputs=chosen.kind_of_outputs or network.get("outputs"))
    return recorded


def _sentence(verdict: "Verdict") -> str:
    if verdict.identical:
        return "identical"
    why = f" ({'; '.join(verdict.reasons)})" if verdict.reasons else ""
    if verdict.difference is None:
        return f"not the same{why}"
    same = "equal within rounding" if verdict.close else "not the same"
    return f"{same}: numbers differ by {verdict.difference:.2g} of the largest{why}"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Entries with their names in full, lists shortened."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            text = (
                ", ".join(map(str, value[:8])) + (f", ... ({len(value)})" if len(value) > 8 else "")
                if isinstance(value, list)
                else str(value)
            )
            yield before + name, text
