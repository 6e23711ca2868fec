"""`cnnviz evidence`: attribution methods compared, quantitatively."""

from pathlib import Path

import click

from cnnviz.cli import options, values
from cnnviz.cli.commands import command
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import Target, named
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import counted, echo, say_json
from cnnviz.cli.values import Finite


@command()
@click.argument("folder", type=options.A_FOLDER)
@options.methods("all")
@click.option("--grids", type=options.AT_LEAST_ONE, metavar="N", default=250, help="Number of grids.")
@click.option(
    "--cells",
    type=values.size,
    metavar="ROWSxCOLUMNS",
    default="2x2",
    help="Cells of a grid, each an image; 3x3 in Boehle et al. (2021), 1x2 for pairs.",
)
@click.option(
    "--images",
    "--pictures",
    "pictures",
    type=click.IntRange(min=0),
    metavar="N",
    default=50,
    help="Number of images for the randomization check; 0 leaves it out.",
)
@click.option(
    "--confidence",
    type=Finite(0, 1),
    metavar="P",
    default=0.8,
    help="Minimum probability of the correct class for an image to be used.",
)
@options.size("Side of each image in pixels.")
@options.seed_of("Random seed, of the choice of images too.")
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
    target: Target,
    chosen: Chosen,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare attribution methods on the images of FOLDER by two quantitative measures.

    The grid pointing game (Boehle et al. 2021): images of different classes form a grid, and a method explains the
    class of one of them. Measured is the share of positive attribution on the correct image; chance is 25 % in a grid
    of 2 x 2.

    The randomization check (Adebayo et al. 2018): the network's weights are randomized, layer by layer from the top. A
    map that stays the same fails: it does not explain the network.

    Images lie in folders named after their classes (label, number or WordNet id), or directly in FOLDER. Only images
    that the network classifies correctly and confidently are used. All methods together take many hours without a
    GPU: name some, or ask for fewer --grids.

    \b
    Example:
      cnnviz evidence photographs --method grad-cam,guided-backprop,saliency
    """
    target.check()
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
    file = target.save(comparison.sheet(), target.file(folder.resolve().name, network.name, "evidence"))
    if as_json:
        counts = {"grids": comparison.grids, "cells": list(cells), "pictures": comparison.pictures}
        say_json({"file": str(file), "network": named(network), **counts, "methods": comparison.rows()})
    elif not quiet:
        for line in comparison.table().splitlines():
            echo(line)
        echo()
        shown = f"{counted(comparison.grids, 'grid')} of {cells[0]} x {cells[1]} images"
        echo(f"{file}: {shown}, {network.name}, {network.weights}")
