"""vgg16-mini: VGG16's thirteen convolutions and five pools at a fraction of its width.

The network that cnnviz carries in its package, so that a first picture needs no download. Layer positions equal those
of torchvision's VGG16 (``features.0`` to ``features.30``); a global average and one linear layer replace VGG16's three
large ones, so any picture of at least 32 x 32 pixels fits. It is trained with batch normalisation (`vgg16_mini` with
``batch_norm=True``), which `folded` then merges into the convolutions.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

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


@torch.no_grad()
def unfolded(plain: VGGMini, images: Tensor) -> VGGMini:
    """The same function with batch normalisation, ready to be trained on: `folded` turned round.

    Args:
        plain: a network without batch normalisation.
        images: (N, 3, H, W), normalised, whose means and variances at every convolution the layers start with.
    """
    trained = vgg16_mini(batch_norm=True, classes=plain.classes)
    layers, maps = iter(trained.features), images
    for part in plain.features:
        layer = next(layers)
        if isinstance(part, nn.Conv2d) and isinstance(layer, nn.Conv2d):
            norm = cast("nn.BatchNorm2d", next(layers))
            size = part.weight.flatten(1).norm(dim=1).clamp(min=norm.eps)
            layer.weight.copy_(part.weight / size.view(-1, 1, 1, 1))
            raw = layer(maps)
            variance, mean = torch.var_mean(raw, (0, 2, 3))
            for own, value in ((norm.running_mean, mean), (norm.running_var, variance)):
                cast("Tensor", own).copy_(value)
            norm.weight.copy_(size * (variance + norm.eps).sqrt())
            norm.bias.copy_(cast("Tensor", part.bias) + size * mean)
        maps = part(maps)
    trained.classifier.load_state_dict(plain.classifier.state_dict())
    return trained.eval()


def freeze(network: VGGMini, blocks: int) -> None:
    """Keep the first blocks as they are, whatever the rest learns."""
    pools = [index for index, layer in enumerate(network.features) if isinstance(layer, nn.MaxPool2d)]
    kept = network.features[: pools[blocks - 1]] if blocks else nn.Sequential()
    kept.eval().requires_grad_(False)
