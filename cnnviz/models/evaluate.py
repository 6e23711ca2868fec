"""Measure the embedded network: ``python -m cnnviz.models.evaluate --data tiny-imagenet-200``.

Every validation image goes through cnnviz's own preprocessing into the network as it is shipped: how often it is
right, how far its probabilities can be believed, which classes it confuses, which filters never fire. What is printed
is Markdown, made for the model card. `cnnviz.models.train` measures by the same functions.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cnnviz.models import builtin, load
from cnnviz.models.tiny_imagenet import read_split
from cnnviz.networks.activations import activations
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network

SIDES = (64, 80, 96, 112, 128, 160, 224)
BATCH = 100
LISTED = 10  # classes and confusions that are named
BINS = 15  # of probability, for the calibration error


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Not the shipped ones.")
@click.option(
    "--side", "sides", type=click.IntRange(1), multiple=True, default=SIDES, help="Size in pixels; repeatable."
)
@click.option("--first", type=click.IntRange(min=1), help="Measure on this many images, spread evenly, only.")
@click.option("--device", default="cpu", show_default=True)
def main(data: Path, weights: Path | None, sides: tuple[int, ...], first: int | None, device: str) -> None:
    """Print how often the network is right on the validation images of DATA, where it errs, and its dead filters.

    Errors and dead filters are those at the network's own size, if that is among the sides.
    """
    network = load(builtin.NAME, weights=weights, device=device)
    pictures, classes = read_split(data, "val")
    rows = torch.linspace(0, len(classes) - 1, first or len(classes)).round().long()
    images, classes = [_image(pictures[row]) for row in rows], classes[rows]
    click.echo(f"{network.name} ({network.weights}), {len(rows)} images\n")
    click.echo("| side | top-1 | top-5 | calibration error |\n|---|---|---|---|")
    logits = {}
    for side in sides:
        logits[side] = logits_of(network, images, side)
        top1, top5 = (share_right(logits[side], classes, top) for top in (1, 5))
        error = expected_calibration_error(logits[side], classes)
        click.echo(f"| {side} px | {top1:.1%} | {top5:.1%} | {error:.1%} |")
    if builtin.SIDE in logits:
        click.echo(f"\nAt {builtin.SIDE} px:\n\n" + "\n".join(per_class(network, logits[builtin.SIDE], classes)))
        click.echo("\n| layer | filters | dead |\n|---|---|---|")
        for layer, dead in dead_filters(network, images, builtin.SIDE).items():
            click.echo(f"| {layer} | {len(dead)} | {int(dead.sum())} |")


@torch.inference_mode()
def logits_of(network: Network, images: Sequence[Image.Image], side: int) -> Tensor:
    """Logits (N, C) of images shown at `side` pixels."""
    return torch.cat([network(batch).cpu() for batch in _batches(network, images, side)])


def share_right(logits: Tensor, classes: Tensor, top: int = 1) -> float:
    """Share of images whose class is among the `top` most probable; what ties with it counts as less probable."""
    truth = logits.gather(1, classes[:, None])
    return ((logits > truth).sum(1) < top).double().mean().item()


def fitted_temperature(logits: Tensor, classes: Tensor) -> float:
    """The number by which to divide logits (N, C) so that the classes (N,) that are true become most likely."""
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(logits.double() / log_temperature.exp(), classes)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return log_temperature.exp().item()


def expected_calibration_error(logits: Tensor, classes: Tensor) -> float:
    """How far, on average, the probability of the class on top lies from the share of cases in which it is right.

    Args:
        logits: (N, C).
        classes: (N,), the true ones.

    Returns:
        A number in [0, 1]: over 15 bins of equal width in probability, the mean distance weighted by their cases.
    """
    confidence, guess = logits.double().softmax(1).max(1)
    right = (guess == classes).double()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, right - confidence)
    return (gaps.abs().sum() / len(classes)).item()


def per_class(network: Network, logits: Tensor, classes: Tensor) -> Iterator[str]:
    """Lines on the classes most and least often right, and on which are taken for which."""
    guess, count = logits.argmax(1), logits.shape[1]
    confusion = torch.zeros(count, count).index_put((classes, guess), torch.ones(len(classes)), accumulate=True)
    share = confusion.diagonal() / confusion.sum(1)
    ranked = [int(index) for index in share.argsort(descending=True, stable=True) if not share[index].isnan()]
    for title, chosen in (("most often right", ranked[:LISTED]), ("least often right", ranked[::-1][:LISTED])):
        yield f"- {title}: " + ", ".join(f"{network.label(index)} {share[index]:.0%}" for index in chosen)
    wrong = confusion.clone().fill_diagonal_(0).flatten()
    pairs = [divmod(int(index), count) for index in wrong.argsort(descending=True, stable=True)[:LISTED]]
    named = (f"{network.label(a)} for {network.label(b)} ({confusion[a, b]:.0f})" for a, b in pairs)
    yield "- most often taken: " + ", ".join(named)


@torch.inference_mode()
def dead_filters(network: Network, images: Sequence[Image.Image], side: int) -> dict[str, Tensor]:
    """For every convolution, which of its filters (C,) fire on none of the images."""
    layers = network.convolutions
    alive = {layer: torch.tensor(False, device=network.device) for layer in layers}
    for batch in _batches(network, images, side):
        for layer, maps in activations(network, batch, layers).items():
            alive[layer] = alive[layer] | (maps > 0).any(3).any(2).any(0)
    return {layer: ~fired for layer, fired in alive.items()}


def _batches(network: Network, images: Sequence[Image.Image], side: int) -> Iterator[Tensor]:
    for start in range(0, len(images), BATCH):
        yield torch.cat(
            [show(network, image, fit="whole", size=side).images for image in images[start : start + BATCH]]
        )


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()
