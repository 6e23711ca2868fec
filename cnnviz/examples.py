"""Pictures of a folder that a network is sure of, and right about: what methods of attribution are tried on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cnnviz.attribution import Explainer, explainer
from cnnviz.classes import class_index
from cnnviz.errors import PictureError
from cnnviz.inputs import show
from cnnviz.network import Network
from cnnviz.pictures import picture_files

CONFIDENCE = 0.8
BATCH = 32  # pictures that are looked at together


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
    count: int,
    confidence: float = CONFIDENCE,
    size: int | None = None,
    seed: int = 0,
    watch: Callable[[str, float], None] | None = None,
) -> list[Example]:
    """Up to `count` pictures of a folder, in an order drawn by `seed`.

    Args:
        folder: pictures in folders named after their classes, by label, number or WordNet id; or right in it, which are
            then taken for what the network is sure they are. What cannot be read is passed over.
        confidence: the least probability, in [0, 1], that the network must give to the right class, which must be its
            most probable one, when it sees the middle of the picture.
        size: of what it sees, in pixels; its own by default.
        watch: called with what is being done, and the share of it that is done.

    Raises:
        PictureError: if there is no picture in the folder.
        UnknownNameError: if a folder of pictures is named after no class.
    """
    folder, ready = Path(folder), explainer(network)
    files = picture_files(folder)
    truth = {path: _class_of(network, folder, path) for path in files}
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    found: list[Example] = []
    for start in range(0, len(files), BATCH):
        paths = [files[row] for row in order[start : start + BATCH]]
        found += [
            example
            for example in _recognised(ready, network, paths, size)
            if example.probability >= confidence and truth[example.path] in (None, example.index)
        ]
        if watch:
            watch("pictures that are recognised", min(1.0, max(len(found) / count, (start + BATCH) / len(files))))
        if len(found) >= count:
            break
    return found[:count]


def _class_of(network: Network, folder: Path, path: Path) -> int | None:
    """The class a picture's folder is named after; None for pictures right in the folder."""
    parts = path.relative_to(folder).parts
    return None if len(parts) == 1 else class_index(network, parts[0])


def _recognised(ready: Explainer, network: Network, paths: list[Path], size: int | None) -> Iterator[Example]:
    """Each picture that can be read, with its most probable class."""
    for path in paths:
        try:
            image = show(network, path, fit="crop", size=size).images
        except PictureError:
            continue
        probability, index = ready.probabilities(image)[0].max(0)
        yield Example(path, image.cpu(), int(index), probability.item())
