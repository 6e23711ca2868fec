"""Pictures of a folder that a network is sure of, and right about: what methods of attribution are tried on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cnnviz.classes import class_index
from cnnviz.errors import PictureError
from cnnviz.explainers import Explainer, explainer
from cnnviz.inputs import show
from cnnviz.network import Network
from cnnviz.pictures import picture_files

CONFIDENCE = 0.8


@dataclass(frozen=True)
class Example:
    """A picture's file, what the network is shown of it (1, C, H, W), its class and that class's probability."""

    path: Path
    image: Tensor
    index: int
    probability: float


def examples(
    network: Network,
    folder: str | Path,
    *,
    confidence: float = CONFIDENCE,
    size: int | None = None,
    seed: int = 0,
) -> Iterator[Example]:
    """Pictures of a folder, in an order drawn by `seed`, found as they are asked for.

    Args:
        folder: pictures in folders named after their classes, by label, number or WordNet id; or right in it, which are
            then taken for what the network is sure they are. What cannot be read is passed over.
        confidence: the least probability, in [0, 1], that the network must give to the right class, which must be its
            most probable one, when it sees the middle of the picture.
        size: of what it sees, in pixels; its own by default.

    Raises:
        PictureError: if there is no picture in the folder.
        UnknownNameError: if a folder of pictures is named after no class.
    """
    folder, ready = Path(folder), explainer(network)
    files = picture_files(folder)
    truth = {
        name: class_index(network, name) for name in sorted({_class_folder(folder, path) for path in files} - {""})
    }
    for row in torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist():
        found = _recognised(ready, network, files[row], size)
        if found is None or found.probability < confidence:
            continue
        if truth.get(_class_folder(folder, found.path), found.index) == found.index:
            yield found


def _class_folder(folder: Path, path: Path) -> str:
    """The name of the folder in `folder` that a picture lies in; empty if it lies right there."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _recognised(ready: Explainer, network: Network, path: Path, size: int | None) -> Example | None:
    """A picture with its most probable class; None if it cannot be read."""
    try:
        image = show(network, path, fit="crop", size=size).images
    except PictureError:
        return None
    probability, index = ready.probabilities(image)[0].max(0)
    return Example(path, image.cpu(), int(index), probability.item())
