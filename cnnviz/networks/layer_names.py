"""The names of layers that people use for networks of the VGG family: ``block4_conv2``, ``block4_pool``."""

from torch import nn


def vgg_aliases(module: nn.Module) -> dict[str, str]:
    """``blockX_convY``, ``blockX_convY:pre`` and ``blockX_pool`` to PyTorch's names; empty outside the VGG family."""
    features = getattr(module, "features", None)
    if not isinstance(features, nn.Sequential) or not _is_vgg(features):
        return {}
    aliases: dict[str, str] = {}
    block, convolution = 1, 0
    for index, layer in features.named_children():
        if isinstance(layer, nn.Conv2d):
            convolution += 1
        elif isinstance(layer, nn.ReLU):
            aliases[f"block{block}_conv{convolution}"] = f"features.{index}"
        elif isinstance(layer, nn.MaxPool2d):
            aliases[f"block{block}_pool"] = f"features.{index}"
            block, convolution = block + 1, 0
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            aliases[f"block{block}_conv{convolution}:pre"] = f"features.{index}"
    return aliases


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
