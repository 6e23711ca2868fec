"""What textbooks say of convolutional networks, measured on VGG16: ``python gallery/claims.py``.

Prints the table of README.md in this folder, as the mean over the photographs here. Sparsity, edges and receptive
fields are measured by the functions of `cnnviz report` and `cnnviz layers`. How far an image is made of small parts is
measured here: it is cut into tiles, the tiles are shuffled, and what is left of its score is what small parts alone
are worth to the filter.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

import cnnviz
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network
from cnnviz.web.report_findings import depths_of, edges_of

BLOCKS = [f"block{block}" for block in range(1, 6)]
LAYERS = ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]
FILTERS, SIDE, TILE, SHUFFLES = 16, 96, 24, 8


def shuffled(images: Tensor, draws: torch.Generator) -> Tensor:
    """Images (N, C, SIDE, SIDE) with their square tiles in another order, the same for all."""
    tiles = images.unfold(2, TILE, TILE).unfold(3, TILE, TILE).flatten(2, 3)
    tiles = tiles[:, :, torch.randperm(tiles.shape[2], generator=draws)]
    rows = tiles.unflatten(2, (SIDE // TILE, SIDE // TILE)).permute(0, 1, 2, 4, 3, 5)
    return rows.reshape(images.shape)


def left_of_the_score(network: Network, layer: str) -> float:
    """The median, over filters, of what shuffling leaves of the mean activation, as a fraction of it."""
    images = cnnviz.filter_images(network, layer, range(FILTERS), size=SIDE, preset="draft").images
    draws, before = torch.Generator().manual_seed(0), layer + ":pre"

    def scores(images: Tensor) -> Tensor:
        maps = cnnviz.activations(network, images, [before])[before].relu()
        return maps.mean((2, 3))[range(FILTERS), range(FILTERS)]

    with torch.no_grad():
        after = torch.stack([scores(shuffled(images, draws)) for _ in range(SHUFFLES)]).mean(0)
        return (after / scores(images)).median().item()


def row(claim: str, numbers: Sequence[str], command: str) -> str:
    return f"| {claim} | {' | '.join(numbers)} | {command} |"


def main() -> None:
    network = cnnviz.load("vgg16")
    photographs = [show(network, path) for path in sorted((Path(__file__).parent / "photos").glob("*.jpg"))]
    by_photograph = [depths_of(network, shown, edges_of(shown.images[0])) for shown in photographs]
    depths = list(zip(*by_photograph, strict=True))
    edges = [f"{mean((each.edges or 0) - (each.turned or 0) for each in depth):.2f}" for depth in depths]
    zeros = [f"{mean(each.zeros for each in depth):.0%}" for depth in depths]
    pools = {layer.alias: layer for layer in cnnviz.layer_table(network)}
    steps = [f"{pools[f'{block}_pool'].step[0]:.0f} px" for block in BLOCKS]
    fields = [f"{depth[0].row.receptive_field[0]:.0f} px" for depth in depths]
    kept = [f"{left_of_the_score(network, layer):.0%}" for layer in LAYERS]
    print(row("", BLOCKS, "by"))
    print(row("---", ["---"] * len(BLOCKS), "---"))
    print(row("Early layers keep edges: correlation with them, beyond chance", edges, "`cnnviz report`"))
    print(row("Deeper maps are sparser: fraction of zeros", zeros, "`cnnviz report`"))
    print(row("Deeper values see more: receptive field", fields, "`cnnviz layers`"))
    print(row("A pool doubles the stride: behind it", steps, "`cnnviz layers`"))
    print(row("From edges to textures to parts: score left by shuffling", kept, "`python gallery/claims.py`"))


if __name__ == "__main__":
    main()
