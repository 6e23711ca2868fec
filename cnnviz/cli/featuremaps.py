"""`cnnviz featuremaps`: what layers see in images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cnnviz.cli import figure_options, options, values
from cnnviz.cli.commands import command
from cnnviz.cli.options import Chosen, Layers
from cnnviz.cli.output import Target, about, array_name, check_npz, named, save_npz
from cnnviz.cli.terminal import echo, say_json

if TYPE_CHECKING:
    from cnnviz.features.maps import FeatureMaps
    from cnnviz.pictures.sheets import Layout


@command()
@options.pictures
@options.layers("A layer; may be repeated. Default: the last convolution of each block.")
@click.option(
    "--channels",
    "--filters",
    "numbers",
    type=values.filters_or_all,
    metavar="LIST",
    default="all",
    help="Which channels to draw, such as 0-63,128.",
)
@click.option("--top", type=options.AT_LEAST_ONE, metavar="N", help="Draw the N most active channels, in that order.")
@options.choice("--by", ["mean", "max"], "mean", "What --top ranks channels by.")
@options.choice("--scale", ["channel", "shared"], "channel", "A colour scale for each channel, or one for all.")
@click.option(
    "--cmap",
    metavar="NAME",
    help="A colour map of matplotlib's. Default: viridis; if values are below 0, RdBu_r around 0.",
)
@click.option("--overlay", is_flag=True, help="Lay the maps over IMAGE.")
@figure_options.layout
@click.option(
    "--grid", type=values.size, metavar="HxW", help="Rows and columns of a transformer's tokens, if not square."
)
@options.size()
@options.fit
@options.output
@options.arrays
@options.network
@options.json
@options.quiet
def featuremaps(
    pictures: tuple[Path, ...],
    layers: Layers,
    numbers: tuple[int, ...] | Literal["all"],
    top: int | None,
    by: Any,
    scale: Any,
    cmap: str | None,
    overlay: bool,
    layout: "Layout",
    grid: tuple[int, int] | None,
    size: int | None,
    fit: Any,
    target: Target,
    save_arrays: Path | None,
    chosen: Chosen,
    as_json: bool,
    quiet: bool,
) -> None:
    """Feature maps of IMAGE: a sheet per layer with a tile for each channel.

    \b
    Example:
      cnnviz featuremaps cat.jpg --layer block4_conv2 --top 32 -o maps.png
    """
    channels = None if numbers == "all" else numbers
    if channels is not None and top is not None:
        raise click.UsageError("--channels and --top both choose channels; give one of them.")
    check_npz(save_arrays)
    from cnnviz.features.maps import maps_of_layers
    from cnnviz.networks.inputs import show
    from cnnviz.networks.layers import last_convolutions
    from cnnviz.pictures.colours import colour_map

    if cmap is not None:
        colour_map(cmap)
    target.check(*pictures)
    network = chosen.load(quiet=quiet)
    names = layers.of(network, last_convolutions)
    files = _files(pictures, names, network.name, target)
    inputs = {picture: show(network, picture, fit=fit, size=size) for picture in pictures}
    arrays: dict[str, Any] = {}
    rows = []
    for picture, shown in inputs.items():
        maps_by_layer = maps_of_layers(network, shown, names, grid)
        chosen_channels = {layer: maps.order(by)[:top] if top else channels for layer, maps in maps_by_layer.items()}
        sheets = {
            layer: maps.sheet(chosen_channels[layer], scale=scale, cmap=cmap, overlay=overlay, **layout)
            for layer, maps in maps_by_layer.items()
        }
        for layer, sheet in sheets.items():
            file = target.save(sheet, files[picture, layer])
            rows.append(_row(picture, maps_by_layer[layer], chosen_channels[layer], file))
            if not (quiet or as_json):
                echo(_summary(rows[-1]))
        if save_arrays:
            kept = {"image": shown.images[0].cpu().numpy()} | {
                layer: maps.maps[0].numpy() for layer, maps in maps_by_layer.items()
            }
            several = len(pictures) > 1
            arrays |= {array_name(picture, name, several=several): array for name, array in kept.items()}
    if save_arrays:
        save_arrays = target.free(save_arrays)
        save_npz(save_arrays, arrays)
        if not (quiet or as_json):
            echo(f"{save_arrays}: {len(arrays)} arrays, float32")
    if as_json:
        say_json({"network": named(network), "fit": fit, "maps": rows})


def _files(pictures: tuple[Path, ...], layers: list[str], network: str, target: Target) -> dict[tuple[Path, str], Path]:
    """Where each sheet goes."""
    keys = [(picture, layer) for picture in dict.fromkeys(pictures) for layer in layers]
    files = {(picture, layer): target.file(picture.stem, network, "featuremaps", layer) for picture, layer in keys}
    target.check_distinct((picture, file) for (picture, _), file in files.items())
    return files


def _row(picture: Path, maps: "FeatureMaps", drawn: Any, file: Path) -> dict[str, Any]:
    from cnnviz.networks.layer_names import split_use

    channels = list(drawn) if drawn is not None else list(range(maps.maps.shape[1]))
    head = about(picture, maps.shown.sha256) | {"network": named(maps.network), "layer": maps.layer}
    use = {"use": split_use(maps.layer)[1], "uses": maps.network.uses(maps.layer)}
    return head | use | maps.statistics() | {"channels": channels, "file": str(file)}


def _summary(row: dict[str, Any]) -> str:
    from cnnviz.networks.layer_names import with_use

    count, height, width = row["shape"]
    layer = with_use(row["layer"], row["uses"])
    drawn = "" if len(row["channels"]) == count else f"{len(row['channels'])} of "
    inactive = f" {row['silent']} inactive (all zero)," if row["silent"] else ""
    return (
        f"{row['file']}: {layer} of {row['network']['name']}, {drawn}{count} maps of {width} x {height};"
        f"{inactive} values {row['min']:.3g} to {row['max']:.3g}"
    )
