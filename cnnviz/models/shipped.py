"""The embedded network: its weights file inside the package, how it is read and how it is written.

``vgg16-mini.safetensors`` holds the folded network in half precision. Its metadata holds everything else a `Network`
must know, so that file and code cannot disagree.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from cnnviz.files import whole_file
from cnnviz.models.mini import VGGMini, vgg16_mini
from cnnviz.models.weights import SEED, fill
from cnnviz.network import Crop, Network, count_parameters, wrap
from cnnviz.shared import seeded

NAME = "vgg16-mini"
SIDE = 112  # pixels; the size at which it is most often right, see gallery/MODEL_CARD.md
FILE = Path(__file__).with_name("vgg16-mini.safetensors")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's own, as torchvision's networks use


def write_weights(path: Path, network: VGGMini, labels: Mapping[str, str], top1: float) -> None:
    """Write a folded network, in half precision, with what belongs to it.

    Args:
        labels: WordNet id to synonyms, in the order of the logits.
        top1: share of validation photographs it gets right, in per cent.
    """
    tensors = {
        name: tensor.detach().cpu().to(torch.float16).contiguous() for name, tensor in network.state_dict().items()
    }
    metadata = {"classes": json.dumps(labels), "top1": f"{top1:.2f}"}
    with whole_file(path) as file:
        file.write(save(tensors, metadata=metadata))


def class_names() -> dict[str, str]:
    """The 200 classes in the order of the logits: WordNet id to synonyms, "n02123045" to "tabby, tabby cat"."""
    with safe_open(FILE, framework="pt") as file:
        return dict(json.loads(file.metadata()["classes"]))


def build(weights: str | Path | None) -> Network:
    """The embedded network with its own weights, or others."""
    classes = class_names()
    with seeded(SEED):
        module = vgg16_mini()
    source = fill(module, FILE if weights is None else weights, NAME)
    return wrap(
        module,
        name=NAME,
        input_size=SIDE,
        mean=MEAN,
        std=STD,
        labels=tuple(classes.values()),
        wnids=tuple(classes),
        weights="built in" if weights is None else source,
        crop=Crop(resize=SIDE, side=SIDE, interpolation="BILINEAR"),
    )


def describe() -> dict[str, Any]:
    """The embedded network's row in the list of models."""
    with safe_open(FILE, framework="pt") as file:
        top1 = float(file.metadata()["top1"])
    with torch.device("meta"):
        module = vgg16_mini()
    return {
        "name": NAME,
        "parameters": count_parameters(module),
        "top1": top1,
        "classes": len(class_names()),
        "here": "built in",
        "file": None,
        "megabytes": FILE.stat().st_size / 1e6,
    }
