"""`cnnviz predict`: predictions for images."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cnnviz.cli import options
from cnnviz.cli.commands import command
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import about, named
from cnnviz.cli.terminal import echo, say_json


@command()
@options.pictures
@click.option("--top", type=options.AT_LEAST_ONE, metavar="N", default=5, help="Number of classes.")
@options.fit
@click.option(
    "--class", "names", multiple=True, metavar="CLASS", help="The probability of this class instead; may be repeated."
)
@options.network
@options.json
@click.option("--quiet", "-q", is_flag=True, help="No progress bar when weights are downloaded.")
def predict(
    pictures: tuple[Path, ...], top: int, fit: Any, names: tuple[str, ...], chosen: Chosen, as_json: bool, quiet: bool
) -> None:
    """Prediction: the most probable classes of IMAGE.

    \b
    Example:
      cnnviz predict cat.jpg --top 3
      cnnviz predict cat.jpg --class tabby --class "Egyptian cat"
    """
    from cnnviz.networks.predictions import class_index
    from cnnviz.networks.predictions import predict as predicted
    from cnnviz.pictures.reading import read_picture

    network = chosen.load(classes=True, quiet=quiet)
    indices = [class_index(network, name) for name in names]
    rows = []
    for picture in dict.fromkeys(pictures):
        image = read_picture(picture)
        ranks = predicted(network, image, top=sys.maxsize if indices else top, fit=fit)
        by_class = {prediction.index: prediction for prediction in ranks}
        ranks = [by_class[index] for index in indices if index in by_class] or ranks
        row = about(picture, image.sha256) | {"network": named(network), "fit": fit}
        rows.append(row | {"classes": [asdict(prediction) for prediction in ranks]})
        if not as_json:
            part = "center crop" if fit == "crop" else "full image"
            echo(f"{picture}, {part} ({network.name}, {network.weights})")
            for prediction in ranks:
                echo(f"  {prediction.text:>6}  {prediction.label}")
    if as_json:
        say_json({"network": named(network), "fit": fit, "predictions": rows})
