"""`cnnviz dream`, `cnnviz invert` and `cnnviz kernels`."""

from pathlib import Path

import click

from cnnviz.cli import options
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import check_apart, check_sheet, sheet_file
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import echo

result_size_option = options.size("Short side of the result in pixels.")
image_seed_option = options.seed("Another one gives another image.")


@click.command()
@options.picture
@click.option("--layer", required=True, help="A layer, as `cnnviz layers` lists it.")
@result_size_option
@options.steps("At each scale.", 20)
@image_seed_option
@options.output
@options.network
@options.quiet
def dream(
    picture: Path, layer: str, size: int | None, steps: int, seed: int, output: Path | None, chosen: Chosen, quiet: bool
) -> None:
    """Change IMAGE so that a layer sees more and more of what it already sees in it (DeepDream).

    \b
    Example:
      cnnviz dream cat.jpg --layer block4_conv2 -o dream.png
    """
    file = _file(picture, output, "dream", layer)
    from cnnviz.synthesis.dreams import dream as dreamt

    network = chosen.load(quiet=quiet)
    with waiting("dreaming ...", quiet=quiet):
        synthesis = dreamt(network, picture, layer, size=size, steps=steps, seed=seed)
    synthesis.save(file)
    if not quiet:
        echo(f"{file}: {synthesis.title}; score {synthesis.starts.item():.3g} to {synthesis.scores.item():.3g}")


@click.command()
@options.picture
@click.option("--layer", "layers", multiple=True, required=True, help="A layer; may be repeated, for an image each.")
@result_size_option
@options.steps("For each layer.", 384)
@image_seed_option
@options.output
@options.network
@options.quiet
def invert(
    picture: Path,
    layers: tuple[str, ...],
    size: int | None,
    steps: int,
    seed: int,
    output: Path | None,
    chosen: Chosen,
    quiet: bool,
) -> None:
    """Draw what a layer keeps of IMAGE: another one, made from noise, that the layer sees much like it.

    The score below is 1 if the layer cannot tell the two apart; what is missed of the maps' energy is taken off.

    \b
    Example:
      cnnviz invert cat.jpg --layer block2_conv2 --layer block4_conv2 -o kept.png
    """
    file = _file(picture, output, "invert", "_".join(layers))
    from cnnviz.synthesis.dreams import invert as inverted

    network = chosen.load(quiet=quiet)
    with waiting("inverting ...", quiet=quiet):
        synthesis = inverted(network, picture, list(dict.fromkeys(layers)), size=size, steps=steps, seed=seed)
    synthesis.save(file)
    if not quiet:
        echo(f"{file}: {synthesis.title}")


@click.command()
@click.option("--layer", help="A convolution over colours; the network's first one by default.")
@options.output
@options.network
@options.quiet
def kernels(layer: str | None, output: Path | None, chosen: Chosen, quiet: bool) -> None:
    """Draw the raw weights of a first layer's kernels.

    \b
    Example:
      cnnviz kernels --model alexnet -o kernels.png
    """
    check_sheet(output)
    from cnnviz.features.kernels import kernel_sheet

    network = chosen.load(quiet=quiet)
    file = output or sheet_file(network.name, layer or "first", "kernels")
    kernel_sheet(network, layer).save(file)
    if not quiet:
        echo(f"{file}: the kernels of {layer or 'the first convolution'} of {network.name}")


def _file(picture: Path, output: Path | None, what: str, layers: str) -> Path:
    """Where the sheet goes: never onto the image."""
    check_sheet(output)
    file = output or sheet_file(picture.stem, what, layers)
    check_apart(file, picture)
    return file
