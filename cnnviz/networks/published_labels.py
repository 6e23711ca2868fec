"""Names of classes that torchvision has published for a network, where its module tells what it is."""

from torch import nn

SEGMENTATION = "torchvision.models.segmentation."


def published_labels(module: nn.Module) -> list[str] | None:
    """The classes of torchvision's weights for segmentation, for a network of theirs with as many outputs; else None.

    All of these weights have the same 21, those of Pascal VOC. Nothing is downloaded.
    """
    if not type(module).__module__.startswith(SEGMENTATION):
        return None
    from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

    labels: list[str] = DeepLabV3_ResNet50_Weights.DEFAULT.meta["categories"]
    head = [part for part in module.get_submodule("classifier").modules() if isinstance(part, nn.Conv2d)]
    return labels if head and head[-1].out_channels == len(labels) else None
