"""`cnnviz evidence`: how far methods of attribution can be believed."""

from pathlib import Path

import click

from cnnviz.cli import options, values
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import check_sheet, sheet_file
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import echo, say_json
from cnnviz.cli.values import Finite


@click.command()
@click.argument("folder", type=options.A_FOLDER)
@options.methods("all")
@click.option("--grids", type=options.AT_LEAST_ONE, default=250, show_default=True, help="Grids of images to show.")
@click.option(
    "--cells",
    type=values.size,
    metavar="ROWSxCOLUMNS",
    default="2x2",
    show_default=True,
    help="Of a grid, each cell an image; 3x3 in Boehle et al. (2021), 1x2 for pairs.",
)
@click.option(
    "--images",
    "--pictures",
    "pictures",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="On which to compare with maps of randomized networks; 0 leaves that out.",
)
@click.option(
    "--confidence",
    type=Finite(0, 1),
    default=0.8,
    show_default=True,
    help="Least probability of the right class for an image to take part.",
)
@options.size("Side, in pixels, at which the network sees each image.")
@options.draws("Of the choice of images and all random numbers.")
@options.output
@options.network
@options.json
@options.quiet
def evidence(
    folder: Path,
    methods: list[str],
    grids: int,
    cells: tuple[int, int],
    pictures: int,
    confidence: float,
    size: int | None,
    seed: int,
    output: Path | None,
    chosen: Chosen,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare methods of attribution on the images of FOLDER, by two measures that need nobody's eye.

    The grid pointing game (Boehle et al. 2021): images of different classes stand in a grid, and a method is asked
    about one of them. What share of its positive attribution lies on that image? Chance is 25 % in a grid of 2 x 2.

    The randomization check: the network's weights are drawn anew, layer by layer from the top. How far do maps stay the
    same? What stays the same does not explain the network.

    Images lie in folders named after their classes (label, number or WordNet id), or right in FOLDER. Only those that
    the network is right and sure about take part. All methods together take many hours
    without a graphics card: name some, or ask for fewer --grids.

    \b
    Example:
      cnnviz evidence photographs --method grad-cam,guided-backprop,saliency
    """
    check_sheet(output)
    from cnnviz.attribution.comparison import compare_methods

    network = chosen.load(classes=True, quiet=quiet)
    with waiting("reading images", quiet=quiet) as say:
        comparison = compare_methods(
            network,
            folder,
            methods=methods,
            grids=grids,
            cells=cells,
            pictures=pictures,
            confidence=confidence,
            size=size,
            seed=seed,
            watch=say,
        )
    file = comparison.save(output or sheet_file(folder.resolve().name, network.name, "evidence"))
    if as_json:
        counts = {"grids": comparison.grids, "cells": list(cells), "pictures": comparison.pictures}
        say_json({"file": str(file), **counts, "methods": comparison.rows()})
    elif not quiet:
        for line in comparison.table().splitlines():
            echo(line)
        echo()
        echo(f"{file}: {comparison.grids} grids of {cells[0]} x {cells[1]} images, {network.name}, {network.weights}")
