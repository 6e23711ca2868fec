"""What a network takes a picture for."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cnnviz.classes import check_labels
from cnnviz.errors import ModelError, ShapeError
from cnnviz.inputs import Fit, Source, show
from cnnviz.network import Network, forward_pass
from cnnviz.refusals import check_logits


@dataclass(frozen=True)
class Prediction:
    """A class by number and label, and its probability in [0, 1]."""

    index: int
    label: str
    probability: float


@torch.no_grad()
def predict(
    network: Network,
    picture: Source,
    *,
    top: int = 5,
    fit: Fit = "crop",
) -> list[Prediction]:
    """The most probable classes of one picture, the first one first.

    Args:
        picture: a file, a PIL image, an array (H, W, 3), uint8, or a tensor (C, H, W) in [0, 1].
        top: how many classes; all of them if there are fewer.
        fit: "crop", the network's published preprocessing, or "whole"; see `cnnviz.inputs`.

    Raises:
        PictureError, ShapeError: if the picture cannot be read or shown to the network.
        ModelError: if the network's output is not one row of finite logits, one for each label.
    """
    if top < 1:
        raise ShapeError(f"the number of classes to show must be at least 1, not {top}.")
    images = show(network, picture, fit=fit).images
    with forward_pass(network, images):
        logits = check_logits(network(images), 1, network.name)
    if not logits.isfinite().all():
        raise ModelError(f"{network.name} gives logits that are not finite; look for NaN among its weights.")
    check_labels(network, logits.shape[1])
    probabilities, indices = probabilities_of(logits.float())[0].topk(min(top, logits.shape[1]))
    pairs = zip(indices.tolist(), probabilities.tolist(), strict=True)
    return [Prediction(index, network.label(index), probability) for index, probability in pairs]


def probabilities_of(logits: Tensor) -> Tensor:
    """(N, classes) in [0, 1]; of a network with a single output what the logistic function makes of it."""
    return logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()
