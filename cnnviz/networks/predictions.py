"""Classes by name, and the ones that a network finds most probable for an image."""

from dataclasses import dataclass

import torch

from cnnviz.errors import ModelError, ShapeError, UnknownNameError, did_you_mean
from cnnviz.networks.inputs import Fit, Source, of_images, show
from cnnviz.networks.network import Network, check_logits, check_network, forward_pass
from cnnviz.networks.outputs import probabilities_of

CLOSE = 0.75  # letters of a name that is suggested; with less in common it is of something else
SHOWN = 8  # how many of several matching names an error lists


@dataclass(frozen=True)
class Prediction:
    """A class by number and label.

    Attributes:
        probability: in [0, 1]; None where outputs are values, which have none.
        score: the network's own output.
    """

    index: int
    label: str
    probability: float | None
    score: float

    @property
    def text(self) -> str:
        """What the network says of the class, for people: "35.1%", or "37.2" where outputs are values."""
        return said(self.probability, self.score)


def said(probability: float | None, score: float) -> str:
    """A probability for people, "35.1%"; the network's output itself where there is none."""
    return f"{score:.4g}" if probability is None else f"{probability:.1%}"


def class_index(network: Network, name: str | int) -> int:
    """The class that a name stands for.

    Names are tried in this order, capitals or not: the class's number, its WordNet id, any of its synonyms as a whole
    ("tabby cat"), a word of a synonym and the beginning of one; the last two if they are of one class only.

    Args:
        network: a `Network`; make one of a plain ``nn.Module`` by `cnnviz.wrap`.
        name: such as 30, "30", "n02123045", "tabby", "Tabby cat", "tabb".

    Raises:
        ShapeError: if there is no class of that number.
        UnknownNameError: if no class has that name, which then says what is close; or if several might be meant.
    """
    check_network(network)
    text = str(name).strip().lower()
    if text.lstrip("-").isdecimal():
        return _by_number(network, int(text))
    if network.labels is None:
        raise UnknownNameError(
            f"{network.name} has no class names; give the number of a class, or names with --labels."
        )
    synonyms = {
        index: [synonym.strip().lower() for synonym in label.split(",")] for index, label in enumerate(network.labels)
    }
    if network.wnids is not None and text in network.wnids:
        return network.wnids.index(text)
    exact = [index for index, names in synonyms.items() if text in names]
    worded = [index for index, names in synonyms.items() if any(text in synonym.split() for synonym in names)]
    begun = [index for index, names in synonyms.items() if text and any(synonym.startswith(text) for synonym in names)]
    for matches in (exact, worded, begun):
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(f"{network.label(index)} ({index})" for index in matches[:SHOWN])
            more = f" and {len(matches) - SHOWN} more" if len(matches) > SHOWN else ""
            raise UnknownNameError(f"{name!r} may be {listed}{more}; give the number of the class you mean.")
    hint = did_you_mean(text, [synonym for names in synonyms.values() for synonym in names], cutoff=CLOSE)
    raise UnknownNameError(
        f"{network.name} knows no class {name!r}{hint} `cnnviz classes` for the same --model lists its"
        f" {len(network.labels)} classes."
    )


def check_labels(network: Network, classes: int) -> None:
    """Notice class names that belong to another network.

    Raises:
        ModelError: if there are not as many as classes.
    """
    if network.labels is not None and len(network.labels) != classes:
        given = f"{len(network.labels)} class names for {classes} classes"
        raise ModelError(f"{network.name} has {given}; give one name for each.")


@of_images
@torch.no_grad()
def predict(
    network: Network,
    picture: Source,
    *,
    top: int = 5,
    fit: Fit = "crop",
) -> list[Prediction]:
    """The most probable classes of one image, or the largest values, the first one first.

    Args:
        network: a `Network`; make one of a plain ``nn.Module`` by `cnnviz.wrap`.
        picture: a file, a PIL image, an array (H, W) or (H, W, C) of uint8, uint16 or real numbers in [0, 1], or a
            tensor (C, H, W) in [0, 1]. Of a list or tuple of these, a list of the results is given.
        top: how many classes; all of them if there are fewer.
        fit: "crop", the network's published preprocessing, or "whole"; see `cnnviz.networks.inputs`.

    Raises:
        PictureError, ShapeError: if the image cannot be read or shown to the network.
        ModelError: if the network's output is not one row of finite logits, one for each label.
    """
    check_network(network)
    if top < 1:
        raise ShapeError(f"the number of classes to show must be at least 1, not {top}.")
    images = show(network, picture, fit=fit).images
    if len(images) != 1:
        raise ShapeError(
            f"one image is classified at a time; this is a batch of {len(images)}. Give a list of images, list(batch)."
        )
    with forward_pass(network, images):
        logits = check_logits(network(images), 1, network.name)
    if not logits.isfinite().all():
        raise ModelError(f"{network.name} gives logits that are not finite; look for NaN among its weights.")
    check_labels(network, logits.shape[1])
    scores = logits.float()
    ranked, indices = probabilities_of(scores, network.outputs)[0].topk(min(top, scores.shape[1]))
    return [
        Prediction(
            index=index,
            label=network.label(index),
            probability=None if network.outputs == "value" else share,
            score=scores[0, index].item(),
        )
        for index, share in zip(indices.tolist(), ranked.tolist(), strict=True)
    ]


def _by_number(network: Network, index: int) -> int:
    count = len(network.labels) if network.labels is not None else None
    if index < 0 or (count is not None and index >= count):
        known = f"its {count} classes are 0 to {count - 1}" if count else "classes are counted from 0"
        raise ShapeError(f"{network.name} has no class {index}; {known}.")
    return index
