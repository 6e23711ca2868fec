"""`cnnviz predict`: what a network takes pictures for."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cnnviz.cli.options import Chosen, json_option, network_options, picture_argument, say_json


@click.command()
@picture_argument
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="How many classes to list.")
@click.option(
    "--fit",
    type=click.Choice(["whole", "crop"]),
    default="crop",
    show_default=True,
    help="Show the network the centre that its published preprocessing leaves, or the whole picture.",
)
@network_options
@json_option
def predict(pictures: tuple[Path, ...], top: int, fit: Any, chosen: Chosen, as_json: bool) -> None:
    """List the classes a network finds most probable for PICTURE.

    \b
    Example:
      cnnviz predict cat.jpg --top 3
    """
    from cnnviz.predictions import predict as predicted

    network = chosen.load()
    found = {picture: predicted(network, picture, top=top, fit=fit) for picture in pictures}
    if as_json:
        rows = [
            {"picture": str(picture), "classes": [asdict(one) for one in ranks]} for picture, ranks in found.items()
        ]
        say_json(rows)
        return
    for picture, ranks in found.items():
        click.echo(f"{picture} ({network.name}, {network.weights})")
        for one in ranks:
            click.echo(f"  {one.probability:6.1%}  {one.label}")
