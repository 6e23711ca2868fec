"""VGG16 itself: its thirteen convolutions lie in this package, its classifier is fetched when a class is asked for.

``vgg16-conv.safetensors`` holds torchvision's ``VGG16_Weights.IMAGENET1K_V1`` without the classifier, in half
precision, and the names of the classes; ``vgg16-NOTICE.txt`` says whose they are. Where the published file is in torch
hub's cache, it is used for everything instead.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from cnnviz.models import zoo
from cnnviz.models.builtin import MEAN, STD
from cnnviz.models.weights import fit, read_weights
from cnnviz.networks.network import Crop, Network, wrap

NAME = "vgg16"
FILE = Path(__file__).with_name("vgg16-conv.safetensors")
PUBLISHED = "VGG16_Weights.IMAGENET1K_V1"
CACHED = "vgg16-397923af.pth"  # torch hub's name for the published file
BUILT_IN = "VGG16, convolutions built in, float16"
WIDTHS = (*(64, 64, "pool"), *(128, 128, "pool"), *(256, 256, 256, "pool"), *2 * (512, 512, 512, "pool"))
SIDE, RESIZE = 224, 256  # pixels, of the published preprocessing
CLASSES = 1000


class VGG(nn.Module):
    """torchvision's VGG16, layer by layer, for whoever does not want to wait for the import of torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolutions())
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        hidden = (nn.Linear(512 * 7 * 7, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(True))
        self.classifier = nn.Sequential(*hidden, nn.Dropout(), nn.Linear(4096, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(images)).flatten(1))
        return logits


def _convolutions() -> Iterator[nn.Module]:
    channels = 3
    for width in WIDTHS:
        if isinstance(width, str):
            yield nn.MaxPool2d(kernel_size=2, stride=2)
        else:
            yield nn.Conv2d(channels, width, kernel_size=3, padding=1)
            yield nn.ReLU(inplace=True)
            channels = width


def build(*, progress: bool) -> Network:
    """VGG16 with the published file's weights if it is in the cache, else with the convolutions built in.

    Args:
        progress: whether a download, should there be one, draws a progress bar on stderr.

    Raises:
        WeightsError: if the cached file is bad.
    """
    with torch.device("meta"):
        module = VGG()
    whole = cached()
    if whole:
        fit(module, zoo.read_cached(whole), NAME, whole.name, whole=True)
    else:
        fit(module, read_weights(FILE), NAME, FILE.name)
    network = wrap(
        module,
        name=NAME,
        input_size=SIDE,
        mean=MEAN,
        std=STD,
        labels=class_names(),
        weights=PUBLISHED if whole else BUILT_IN,
        crop=Crop(RESIZE, SIDE, "BILINEAR"),
        channels=3,
        any_size=True,
        outputs="logits",
    )
    network.fetch = partial(_complete, progress=progress)
    return network


def cached() -> Path | None:
    """The published file, if it is in torch hub's cache."""
    file = zoo.cache_folder() / CACHED
    return file if zoo.is_there(file) else None


def class_names() -> list[str]:
    """Of ImageNet's 1000 classes, in the order of the logits."""
    with safe_open(FILE, framework="pt") as file:
        return list(json.loads(file.metadata()["classes"]))


def _complete(network: Network, *, progress: bool) -> None:
    """Give a network with the built-in convolutions all weights of the published file.

    Raises:
        WeightsError: if they cannot be had; says what to do.
    """
    weights = {name: tensor.to(network.device) for name, tensor in zoo.download(NAME, progress=progress).items()}
    fit(network.module, weights, NAME, CACHED, whole=True)
    network.module.requires_grad_(False)
    network.weights = PUBLISHED


def describe() -> dict[str, Any]:
    """The row in the list of models."""
    row = zoo.describe(NAME)
    return row if cached() else row | {"here": f"convolutions built in; classifier {row['here']}"}
