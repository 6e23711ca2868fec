"""The names that people use for a network's layers beside PyTorch's own: ``block4_conv2``, ``block4_pool``.

A family of networks is a function from a module to its `LayerName`s, empty where the module is none of the family. To
name the layers of another family, write such a function and put it into `FAMILIES`; everything else follows.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

PRE = ":pre"  # ends the name of what enters a convolution's activation


@dataclass(frozen=True)
class LayerName:
    """One name of one layer.

    Attributes:
        name: such as "block4_conv2", after the activation, "block4_conv2:pre", before it, or "block4_pool".
        module: PyTorch's qualified name, "features.19".
        convolution: whether this is a convolution's map, before or after its activation.
    """

    name: str
    module: str
    convolution: bool = False

    @property
    def plain(self) -> str:
        """The name after the activation: "block4_conv2" of "block4_conv2:pre"."""
        return self.name.removesuffix(PRE)

    @property
    def before_activation(self) -> bool:
        return self.name.endswith(PRE)


def split_use(layer: str) -> tuple[str, int]:
    """A layer's name and which of its uses is meant: ("relu", 2) of "relu@2"; the first, if none is said."""
    name, at, number = layer.rpartition("@")
    return (name, int(number)) if at and number.isdecimal() and int(number) > 0 else (layer, 1)


def with_use(layer: str, uses: int) -> str:
    """A layer's name in a title: "relu (2nd of 3 uses)" of "relu@2", where a network uses it more than once."""
    name, number = split_use(layer)
    ending = {1: "st", 2: "nd", 3: "rd"}.get(0 if number % 100 in (11, 12, 13) else number % 10, "th")
    return f"{name} ({number}{ending} of {uses} uses)" if uses > 1 else layer


def as_listed(layer: str) -> str:
    """A layer's name as the VGG family spells it: "block4_conv2" of "conv4_2", "Block4-Conv2" or "BLOCK4_CONV2"."""
    plain = layer.lower().replace("-", "_")
    return re.sub(
        r"^(conv|pool)(\d+)(?:_(\d+))?(?=:|@|$)", lambda name: f"block{name[2]}_{name[1]}{name[3] or ''}", plain
    )


def layer_names(module: nn.Module) -> dict[str, LayerName]:
    """The names of a network's layers by themselves; empty where no family knows the network."""
    families = ({name.name: name for name in family(module)} for family in FAMILIES)
    return next(filter(None, families), {})


def block_of(name: str) -> str | None:
    """The block that a name says its layer stands in: "block4" of "block4_conv2"; None if it says none."""
    block = re.match(r"[a-z]+\d+(?=_conv\d)", name)
    return block[0] if block else None


def vgg_names(module: nn.Module) -> Iterator[LayerName]:
    """``blockX_convY``, ``blockX_convY:pre`` and ``blockX_pool`` of the VGG family."""
    features = getattr(module, "features", None)
    if not isinstance(features, nn.Sequential) or not _is_vgg(features):
        return
    block, convolution = 1, 0
    for index, layer in features.named_children():
        path = f"features.{index}"
        if isinstance(layer, nn.Conv2d):
            convolution += 1
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):  # with batch norm, what it gives enters the ReLU
            yield LayerName(f"block{block}_conv{convolution}{PRE}", path, convolution=True)
        elif isinstance(layer, nn.ReLU):
            yield LayerName(f"block{block}_conv{convolution}", path, convolution=True)
        elif isinstance(layer, nn.MaxPool2d):
            yield LayerName(f"block{block}_pool", path)
            block, convolution = block + 1, 0


def _is_vgg(features: nn.Sequential) -> bool:
    """Whether these are 3 x 3 convolutions, each with a ReLU, in blocks that end in a pool of 2 x 2."""
    kinds = "".join(
        {nn.Conv2d: "c", nn.BatchNorm2d: "b", nn.ReLU: "r", nn.MaxPool2d: "p"}.get(type(layer), "?")
        for layer in features
    )
    blocks = kinds.replace("cbr", "c").replace("cr", "c").split("p")
    small = all(layer.kernel_size in (3, (3, 3)) for layer in features if isinstance(layer, nn.Conv2d))
    distinct = len({id(layer) for layer in features}) == len(features)  # a shared one has only one output to show
    return (
        distinct
        and small
        and len(blocks) > 1
        and blocks[-1] == ""
        and all(set(block) == {"c"} for block in blocks[:-1])
    )


FAMILIES: tuple[Callable[[nn.Module], Iterator[LayerName]], ...] = (vgg_names,)
