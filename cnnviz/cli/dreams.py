"""`cnnviz dream`, `cnnviz invert` and `cnnviz kernels`."""

from pathlib import Path
from typing import TYPE_CHECKING

from cnnviz.cli import figure_options, options
from cnnviz.cli.commands import command
from cnnviz.cli.options import Chosen, Layers
from cnnviz.cli.output import Target
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import echo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnviz.pictures.sheets import Layout
    from cnnviz.synthesis.dreams import ImageProgress
    from cnnviz.synthesis.results import Synthesis

result_size_option = options.size("Short side of the result in pixels.")


@command()
@options.picture
@options.layer("A layer. Default: a convolution in the middle.")
@result_size_option
@options.steps("Number of steps at each scale.", 20)
@options.seed
@figure_options.layout
@options.output
@options.network
@options.quiet
def dream(
    picture: Path,
    layer: str | None,
    size: int | None,
    steps: int,
    seed: int,
    layout: "Layout",
    target: Target,
    chosen: Chosen,
    quiet: bool,
) -> None:
    """DeepDream: change IMAGE to increase the activation of a layer.

    \b
    Example:
      cnnviz dream cat.jpg --layer block4_conv2 -o dream.png
    """
    target.check(picture)
    from cnnviz.networks.layers import middle_convolution
    from cnnviz.synthesis.dreams import dream_steps

    network = chosen.load(quiet=quiet)
    name = middle_convolution(network) if layer is None else network.listed(layer)
    synthesis = _optimized(dream_steps(network, picture, name, size=size, steps=steps, seed=seed), quiet=quiet)
    file = target.save(synthesis.sheet(**layout), target.file(picture.stem, network.name, "dream", name))
    if not quiet:
        echo(f"{file}: {synthesis.title}; score {synthesis.starts.item():.3g} to {synthesis.scores.item():.3g}")


@command()
@options.picture
@options.layers("A layer; may be repeated, for an image each. Default: a convolution in the middle.")
@result_size_option
@options.steps("Number of steps for each layer.", 384)
@options.seed
@figure_options.layout
@options.output
@options.network
@options.quiet
def invert(
    picture: Path,
    layers: Layers,
    size: int | None,
    steps: int,
    seed: int,
    layout: "Layout",
    target: Target,
    chosen: Chosen,
    quiet: bool,
) -> None:
    """Feature inversion: an image, optimized from noise, with the feature maps that a layer has for IMAGE.

    The score below is the fraction of activation energy reconstructed: 1 if the maps are the same.

    \b
    Example:
      cnnviz invert cat.jpg --layer block2_conv2 --layer block4_conv2 -o inverted.png
    """
    target.check(picture)
    from cnnviz.networks.layers import middle_convolution
    from cnnviz.synthesis.dreams import invert_steps

    network = chosen.load(quiet=quiet)
    names = layers.of(network, lambda network: [middle_convolution(network)])
    synthesis = _optimized(invert_steps(network, picture, names, size=size, steps=steps, seed=seed), quiet=quiet)
    file = target.file(picture.stem, network.name, "invert", "_".join(names)[:60])
    file = target.save(synthesis.sheet(**layout), file)
    if not quiet:
        echo(f"{file}: {synthesis.title}; score {', '.join(f'{score:.3g}' for score in synthesis.scores.tolist())}")


def _optimized(steps: "Iterator[ImageProgress]", *, quiet: bool) -> "Synthesis":
    """The result of an optimization, with a bar on a terminal that says how far it is."""
    with waiting("optimizing ...", quiet=quiet) as say:
        for progress in steps:
            say(f"step {progress.done} of {progress.total}", progress.share)
    assert progress.synthesis is not None
    return progress.synthesis


@command()
@options.layer("A convolution over colours. Default: the network's first one.")
@figure_options.layout
@options.output
@options.network
@options.quiet
def kernels(layer: str | None, layout: "Layout", target: Target, chosen: Chosen, quiet: bool) -> None:
    """Weights of a first layer's kernels, as images.

    \b
    Example:
      cnnviz kernels --model alexnet -o kernels.png
    """
    target.check()
    from cnnviz.features.kernels import kernel_sheet

    network = chosen.load(quiet=quiet)
    file = target.save(kernel_sheet(network, layer, **layout), target.file(network.name, "kernels", layer or "first"))
    if not quiet:
        echo(f"{file}: the kernels of {layer or 'the first convolution'} of {network.name}")
