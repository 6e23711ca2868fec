"""`cnnviz layers`, `models`, `classes`, `weights`: networks, and what they consist of."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cnnviz.cli import options
from cnnviz.cli.commands import command
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import named
from cnnviz.cli.terminal import counted, echo, print_table, say_json

if TYPE_CHECKING:
    from cnnviz.networks.layers import Layer


@command()
@options.size("Side of the image in pixels; the network's input size by default.")
@options.network
@options.json
def layers(size: int | None, chosen: Chosen, as_json: bool) -> None:
    """List every layer: its names, kernel, output, parameters and receptive field.

    The receptive field is the part of the image that one output depends on; its stride is the distance between those of
    neighbouring outputs; both in pixels of the image.

    \b
    Example:
      cnnviz layers --model resnet18
    """
    from cnnviz.networks.layers import layer_table
    from cnnviz.networks.network import count_parameters

    network = chosen.outline()
    shown = (size, size) if size else network.input_size
    table, total = layer_table(network, shown), count_parameters(network)
    if as_json:
        rows = [_finite(asdict(row)) for row in table]
        say_json({"network": network.name, "input_size": shown, "parameters": total, "layers": rows})
        return
    columns = ["layer", "alias", "kind", "kernel", "stride", "padding", "output", "parameters"]
    columns += ["receptive field", "stride (input px)"]
    cells = [_cells(row) for row in table]
    keep = [index for index, name in enumerate(columns) if name != "alias" or network.names]
    print_table([columns[index] for index in keep], [[row[index] for index in keep] for row in cells], right=4)
    rest = total - sum(row.parameters for row in table)
    outside = f", {rest:,} of them in no layer" if rest else ""
    echo(f"{network.name} at {shown[0]} x {shown[1]}: {counted(len(table), 'layer')}, {total:,} parameters{outside}")


@command()
@options.word
@options.json
def models(word: str, as_json: bool) -> None:
    """List the built-in and torchvision networks, or those with WORD in their name.

    \b
    Example:
      cnnviz models resnet
    """
    from cnnviz.models import builtin, vgg16, zoo

    others = (zoo.describe(name) for name in zoo.names() if name != vgg16.NAME)
    rows = [builtin.describe(), vgg16.describe(), *others]
    rows = [row for row in rows if word.lower() in row["name"]]
    if as_json:
        say_json({"models": rows})
        return
    cells = [
        [row["name"], f"{row['parameters']:,}", f"{row['top1']:.1f} %", str(row["classes"]), row["here"]]
        for row in rows
    ]
    print_table(["model", "parameters", "top-1", "classes", "weights"], cells, right=1)
    echo("A network of your own: --model file.py:factory, with --input-size, --mean, --std, --weights, --labels.")


@command()
@options.word
@options.network
@options.json
def classes(word: str, chosen: Chosen, as_json: bool) -> None:
    """List a network's classes, or those with WORD in their names or as their WordNet id.

    \b
    Example:
      cnnviz classes --model vgg16 cat
    """
    network = chosen.outline(classes=True)
    labels, wnids = network.labels, network.wnids
    if labels is None:
        raise click.UsageError("this network has no class names; give them with --labels FILE.")
    rows = [
        {"index": index, "wnid": wnids[index] if wnids else None, "label": label} for index, label in enumerate(labels)
    ]
    matches = [row for row in rows if word.lower() in f"{row['label']} {row['wnid'] or ''}".lower()]
    if as_json:
        say_json({"network": named(network), "classes": matches})
        return
    for row in matches:
        echo(f"{row['index']:5d}  {row['label']}" + (f"  ({row['wnid']})" if row["wnid"] else ""))
    if not matches:
        echo(f"none of the {len(labels)} classes has {word!r} in its name", err=True)


@command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@options.json
@options.quiet
def weights(names: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """List the pretrained weights on this machine; download those of MODEL, if named.

    \b
    Example:
      cnnviz weights vgg16
    """
    from cnnviz.models import builtin, zoo

    if builtin.NAME in names:
        raise click.UsageError(f"{builtin.NAME} is built in; there is nothing to download.")
    for name in names:
        zoo.published(name)
    for name in names:
        zoo.download(name, progress=not quiet)
    rows = [zoo.describe(name) for name in names or zoo.names()]
    cached = [row for row in rows if row["file"]]
    if as_json:
        say_json({"folder": str(zoo.cache_folder()), "weights": cached})
    elif not quiet:
        for row in cached:
            echo(f"{row['name']}: {row['file']} ({row['megabytes']:.0f} MB)")
        if not cached:
            echo(f"no pretrained weights in {zoo.cache_folder()}; `cnnviz weights vgg16` downloads VGG16's.")


def _cells(row: "Layer") -> list[str]:
    return [
        row.name,
        row.alias,
        row.kind,
        _kernel(row),
        _sides(row.stride),
        _sides(row.padding),
        " x ".join(map(str, row.output)) or "not run",
        f"{row.parameters:,}" if row.parameters else "",
        _sides(row.receptive_field, unknown="?" if row.output else ""),
        _sides(row.step, unknown="?" if row.output else ""),
    ]


def _kernel(row: "Layer") -> str:
    dilation = f", dilation {_sides(row.dilation)}" if row.dilation else ""
    groups = f", {row.groups} groups" if row.groups > 1 else ""
    return f"{_sides(row.kernel)}{dilation}{groups}"


def _sides(pair: Sequence[float] | None, unknown: str = "") -> str:
    if pair is None:
        return unknown
    first, second = ("all" if math.isinf(side) else f"{side:g}" for side in pair)
    return first if first == second else f"{first} x {second}"


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a side that depends on the whole image is written as "all"."""
    for name in ("receptive_field", "step", "start"):
        row[name] = row[name] and ["all" if math.isinf(side) else side for side in row[name]]
    return row
