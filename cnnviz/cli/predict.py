"""`cnnviz predict`: what a network takes images for."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cnnviz.cli import options
from cnnviz.cli.options import Chosen
from cnnviz.cli.terminal import echo, say_json


@click.command()
@options.pictures
@click.option("--top", type=options.AT_LEAST_ONE, default=5, show_default=True, help="How many classes to list.")
@options.fit("crop")
@click.option("--class", "names", multiple=True, help="Give the probability of this class instead; may be repeated.")
@options.network
@options.json
@click.option("--quiet", "-q", is_flag=True, help="Draw no progress bar when weights are downloaded.")
def predict(
    pictures: tuple[Path, ...], top: int, fit: Any, names: tuple[str, ...], chosen: Chosen, as_json: bool, quiet: bool
) -> None:
    """List the classes a network finds most probable for IMAGE.

    \b
    Example:
      cnnviz predict cat.jpg --top 3
      cnnviz predict cat.jpg --class tabby --class "Egyptian cat"
    """
    from cnnviz.networks.predictions import class_index
    from cnnviz.networks.predictions import predict as predicted

    network = chosen.load(classes=True, quiet=quiet)
    indices = [class_index(network, name) for name in names]
    predictions = {}
    for picture in pictures:
        ranks = predicted(network, picture, top=sys.maxsize if indices else top, fit=fit)
        by_class = {prediction.index: prediction for prediction in ranks}
        predictions[picture] = [by_class[index] for index in indices if index in by_class] or ranks
    if as_json:
        about = {"name": network.name, "weights": network.weights}
        say_json(
            [
                {"picture": str(picture), "network": about, "classes": [asdict(prediction) for prediction in ranks]}
                for picture, ranks in predictions.items()
            ]
        )
        return
    for picture, ranks in predictions.items():
        echo(f"{picture}, {'its centre' if fit == 'crop' else 'all of it'} ({network.name}, {network.weights})")
        for prediction in ranks:
            echo(f"  {prediction.text:>6}  {prediction.label}")
