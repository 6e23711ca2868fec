"""`cnnviz featuremaps`: what layers see in images."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnviz.cli import options, values
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import check_apart, check_npz, save_npz, sheet_file
from cnnviz.cli.terminal import echo, say_json

if TYPE_CHECKING:
    from cnnviz.features.maps import FeatureMaps
    from cnnviz.networks.network import Network


@click.command()
@options.pictures
@click.option("--layer", "single", multiple=True, help="A layer, as `cnnviz layers` lists it; may be repeated.")
@click.option("--layers", "listed", help="Several layers, separated by commas, or 'all' convolutions.")
@click.option(
    "--channels",
    type=values.channels,
    metavar="LIST",
    help="Which channels to draw, such as 0-63,128; all by default.",
)
@click.option("--top", type=options.AT_LEAST_ONE, help="Draw the N most active channels, the first one first.")
@options.choice("--by", ["mean", "max"], "mean", "What --top goes by.")
@options.choice("--scale", ["channel", "shared"], "channel", "Let each map use all colours, or give one scale to all.")
@click.option("--cmap", default="viridis", show_default=True, help="One of matplotlib's colour maps.")
@click.option(
    "--grid", type=values.size, metavar="HxW", help="Rows and columns of a transformer's tokens, if they are no square."
)
@options.size()
@options.fit("whole")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="A .png, .jpg or .webp file; a folder for several."
)
@options.arrays
@options.network
@options.json
@options.quiet
def featuremaps(
    pictures: tuple[Path, ...],
    single: tuple[str, ...],
    listed: str | None,
    channels: tuple[int, ...] | None,
    top: int | None,
    by: Any,
    scale: Any,
    cmap: str,
    grid: tuple[int, int] | None,
    size: int | None,
    fit: Any,
    output: Path | None,
    save_arrays: Path | None,
    chosen: Chosen,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show what layers see in IMAGE: a sheet with a tile for each channel.

    \b
    Example:
      cnnviz featuremaps cat.jpg --layer block4_conv2 --top 32 -o maps.png
    """
    if not single and listed is None:
        raise click.UsageError("name a layer with --layer, or take --layers all; `cnnviz layers` lists them.")
    if channels is not None and top is not None:
        raise click.UsageError("--channels and --top both choose channels; give one of them.")
    check_npz(save_arrays)
    from cnnviz.features.maps import maps_of_layers
    from cnnviz.files import check_writable
    from cnnviz.networks.inputs import show
    from cnnviz.pictures.colours import colour_map

    colour_map(cmap)
    network = chosen.load(quiet=quiet)
    layers = _layers(network, single, listed)
    files = _files(pictures, layers, network.name, output)
    check_writable(next(iter(files.values())))
    inputs = {picture: show(network, picture, fit=fit, size=size) for picture in pictures}
    arrays: dict[str, Any] = {}
    rows = []
    for picture, shown in inputs.items():
        maps_by_layer = maps_of_layers(network, shown, layers, grid)
        chosen_channels = {layer: maps.order(by)[:top] if top else channels for layer, maps in maps_by_layer.items()}
        sheets = {
            layer: maps.sheet(chosen_channels[layer], scale=scale, cmap=cmap) for layer, maps in maps_by_layer.items()
        }
        for layer, sheet in sheets.items():
            file = sheet.save(files[picture, layer])
            rows.append(_row(picture, maps_by_layer[layer], chosen_channels[layer], file))
            if not (quiet or as_json):
                echo(_summary(rows[-1]))
        if save_arrays:
            kept = {"image": shown.images[0].cpu().numpy()} | {
                layer: maps.maps[0].numpy() for layer, maps in maps_by_layer.items()
            }
            arrays |= {_key(picture, name, pictures): array for name, array in kept.items()}
    if save_arrays:
        save_npz(save_arrays, arrays)
        if not (quiet or as_json):
            echo(f"{save_arrays}: {len(arrays)} arrays, float32")
    if as_json:
        say_json(rows)


def _layers(network: "Network", single: tuple[str, ...], listed: str | None) -> list[str]:
    """The layers asked for, each once; unknown names are noticed before any work."""
    from cnnviz.networks.layers import all_convolutions

    named = [*single, *((listed or "").split(",") if listed != "all" else ())]
    if listed == "all":
        named += all_convolutions(network)
    layers = list(dict.fromkeys(name.strip() for name in named if name.strip()))
    if not layers:
        raise click.UsageError("no layer is named; `cnnviz layers` lists them.")
    for layer in layers:
        network.qualified(layer)
    return layers


def _files(
    pictures: tuple[Path, ...], layers: list[str], network: str, output: Path | None
) -> dict[tuple[Path, str], Path]:
    """Where each sheet goes."""
    from cnnviz.pictures.sheets import picture_format

    keys = [(picture, layer) for picture in dict.fromkeys(pictures) for layer in layers]
    if output is not None and output.suffix and not output.is_dir():
        picture_format(output)
        if len(keys) > 1:
            raise click.UsageError(f"{len(keys)} sheets do not fit into one file; give -o a folder.")
        files = {keys[0]: output}
    else:
        names = [sheet_file(picture.stem, network, layer) for picture, layer in keys]
        files = {key: (output or Path()) / name for key, name in zip(keys, names, strict=True)}
    makers: dict[Path, Path] = {}
    for (picture, _), file in files.items():
        for given in pictures:
            check_apart(file, given)
        if file in makers:
            raise click.UsageError(
                f"the sheets of {makers[file]} and {picture} would both be {file}; take them in turn."
            )
        makers[file] = picture
    return files


def _key(picture: Path, layer: str, pictures: tuple[Path, ...]) -> str:
    """The name of an array; a zip file's names are UTF-8, a file's need not be."""
    return layer if len(pictures) == 1 else f"{os.fsencode(picture.stem).decode('utf-8', 'replace')}/{layer}"


def _row(picture: Path, maps: "FeatureMaps", drawn: Any, file: Path) -> dict[str, Any]:
    from cnnviz.networks.layer_names import split_use

    network = {"name": maps.network.name, "weights": maps.network.weights}
    channels = list(drawn) if drawn is not None else list(range(maps.maps.shape[1]))
    head = {"picture": str(picture), "network": network, "layer": maps.layer}
    use = {"use": split_use(maps.layer)[1], "uses": maps.network.uses(maps.layer)}
    return head | use | maps.statistics() | {"channels": channels, "file": str(file)}


def _summary(row: dict[str, Any]) -> str:
    from cnnviz.networks.layer_names import with_use

    count, height, width = row["shape"]
    layer = with_use(row["layer"], row["uses"])
    return (
        f"{row['file']}: {layer} of {row['network']['name']}, {count} maps of {width} x {height},"
        f" {row['silent']} silent, values {row['min']:.3g} to {row['max']:.3g}"
    )
