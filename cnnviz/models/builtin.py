"""The embedded network, vgg16-mini: what it is made of, how its weights file is written and read.

It is trained with batch normalisation and shipped without: `folded` turns the one into the other.
``vgg16-mini.safetensors``, inside the package, holds the folded network in half precision. Its metadata holds
everything else a `Network` must know, so that file and code cannot disagree.
"""

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cnnviz.files import whole_file
from cnnviz.isolation import seeded
from cnnviz.models.weights import SEED, Origin, fill, fit, read_weights
from cnnviz.networks.network import Crop, Network, count_parameters, wrap

NAME = "vgg16-mini"
SIDE = 128  # pixels; the size at which it is most often right, see gallery/MODEL_CARD.md
FILE = Path(__file__).with_name("vgg16-mini.safetensors")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's own, as torchvision's networks use
CONVOLUTIONS = (2, 2, 3, 3, 3)  # per block, as in VGG16
WIDTHS = (16, 32, 64, 192, 192)  # VGG16 has 64, 128, 256, 512, 512
CLASSES = 200


class VGGMini(nn.Module):
    """VGG's blocks, the mean over positions, one linear layer: images (N, 3, H, W) to logits (N, classes)."""

    def __init__(self, features: nn.Sequential, channels: int, classes: int) -> None:
        super().__init__()
        self.features, self.classes = features, classes
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(channels, classes)))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(images)))
        return logits

    @torch.no_grad()
    def divide_logits(self, temperature: float) -> None:
        """Make the network as much less sure of its classes as dividing its logits does, for good."""
        for parameter in self.classifier.parameters():
            parameter.div_(temperature)


def vgg16_mini(*, batch_norm: bool = False, classes: int = CLASSES) -> VGGMini:
    """The network with PyTorch's default initialisation, in training mode."""
    return VGGMini(nn.Sequential(*_blocks(batch_norm)), WIDTHS[-1], classes)


def folded(trained: VGGMini) -> VGGMini:
    """The same function without batch normalisation: each one merged into the convolution before it.

    Args:
        trained: a network made with ``batch_norm=True``, in eval mode.
    """
    layers: list[nn.Module] = []
    for layer in trained.features:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(cast("nn.Conv2d", layers[-1]), layer)
        else:
            layers.append(layer)
    plain = vgg16_mini(classes=trained.classes)
    plain.features.load_state_dict(nn.Sequential(*layers).state_dict())
    plain.classifier.load_state_dict(trained.classifier.state_dict())
    return plain.eval()


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
    origin = Origin("built in", None)
    if weights is None:
        fit(module, read_weights(FILE), NAME, FILE.name)
    else:
        origin = fill(module, weights, NAME)
    network = wrap(
        module,
        name=NAME,
        input_size=SIDE,
        mean=MEAN,
        std=STD,
        labels=tuple(classes.values()),
        wnids=tuple(classes),
        weights=origin.source,
        crop=Crop(resize=SIDE, side=SIDE, interpolation="BILINEAR"),
        channels=3,
        any_size=True,
        outputs="logits",
    )
    network.weights_sha256 = origin.sha256
    return network


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


def _blocks(batch_norm: bool) -> Iterator[nn.Module]:
    channels = 3
    for convolutions, width in zip(CONVOLUTIONS, WIDTHS, strict=True):
        for _ in range(convolutions):
            yield nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=not batch_norm)
            if batch_norm:
                yield nn.BatchNorm2d(width)
            yield nn.ReLU(inplace=True)
            channels = width
        yield nn.MaxPool2d(2)
