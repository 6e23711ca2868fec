"""Measure the embedded network: ``python -m cnnviz.models.evaluate --data tiny-imagenet-200``.

Every validation picture goes through cnnviz's own preprocessing into the network as it is shipped, at several sizes.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import torch
from PIL import Image
from torch import Tensor

from cnnviz.inputs import show
from cnnviz.models import load, shipped
from cnnviz.models.photographs import read_split
from cnnviz.network import Network

SIDES = (64, 80, 96, 112, 128, 160, 224)
BATCH = 100


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Not the shipped ones.")
@click.option("--first", type=click.IntRange(min=1), help="Measure on this many pictures, spread evenly, only.")
def main(data: Path, weights: Path | None, first: int | None) -> None:
    """Print top-1 and top-5 on the validation pictures of DATA, enlarged to several sizes."""
    network = load(shipped.NAME, weights=weights)
    pictures, classes = read_split(data, "val")
    rows = torch.linspace(0, len(classes) - 1, first or len(classes)).round().long()
    click.echo(f"{network.name} ({network.weights}), {len(rows)} pictures\n\n| side | top-1 | top-5 |\n|---|---|---|")
    for side in SIDES:
        ranks = ranks_of_truth(network, [_image(pictures[row]) for row in rows], classes[rows], side)
        top1, top5 = ((ranks < top).float().mean().item() for top in (1, 5))
        click.echo(f"| {side} px | {top1:.1%} | {top5:.1%} |")


@torch.inference_mode()
def ranks_of_truth(network: Network, images: Sequence[Image.Image], classes: Tensor, side: int) -> Tensor:
    """How many classes a network finds more probable than the right one, per picture shown at `side` pixels: (N,)."""
    ranks = []
    for start in range(0, len(images), BATCH):
        batch = [show(network, image, size=side).images for image in images[start : start + BATCH]]
        logits = network(torch.cat(batch))
        truth = logits.gather(1, classes[start : start + BATCH, None].to(logits.device))
        ranks.append((logits > truth).sum(1).cpu())
    return torch.cat(ranks)


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()
