"""Activations of chosen layers, by forward hooks that never outlive one call."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cnnviz.errors import LayerError
from cnnviz.networks.network import Network, check_logits, forward_pass
from cnnviz.networks.receptive_fields import Field, Fields


class _AllSeen(BaseException):
    """Ends a forward pass once every layer asked for has run; no ``except Exception`` of a user's forward stops it."""


def activations(network: Network, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """What chosen layers give for a batch of images.

    The network itself is not hooked, so threads may share it; a twin of it runs, no further than the last of these
    layers to run. A module that is used more than once gives its
    first output. Outputs are safe from in-place operations behind the layer, and carry gradients where `images` does.

    Args:
        images: (N, C, H, W) in [0, 1], on any device.
        layers: names that `network` answers to.

    Returns:
        The outputs by the names that were asked for, in that order: (N, C', H', W') for layers with feature maps.

    Raises:
        TypeError: if `images` is no tensor, or `layers` a single name.
        UnknownNameError: if a name is not among ``network.layers``.
        LayerError: if a layer gives no tensor or does not run.
        WeightsError: if a layer needs weights that are missing and cannot be had.
    """
    if isinstance(layers, str) or not isinstance(images, Tensor):
        raise TypeError("activations() takes a tensor of images and a list of layer names")
    names = {layer: network.qualified(layer) for layer in layers}

    def captured() -> dict[str, Tensor]:
        twin = network.twin()
        modules = {layer: twin.layers[name] for layer, name in names.items()}
        outputs = capture(twin, images.to(network.device), {module: layer for layer, module in modules.items()})
        return {layer: outputs[module] for layer, module in modules.items()}

    return network.completed(captured, f"layer {', '.join(layers)}")


@torch.no_grad()
def output_field(network: Network, layer: str, size: tuple[int, int]) -> tuple[torch.Size, Field | None]:
    """The shape of what a layer gives for one image of (height, width) pixels, and the pixels that it depends on.

    One pass with real numbers, no further than the layer: on the meta device PyTorch imports more than a pass costs.

    Returns:
        (1, C, H', W') for feature maps; the field as in `cnnviz.networks.receptive_fields`, None where it is not known.

    Raises:
        UnknownNameError, LayerError: if there is no such layer, or it does not run.
        ShapeError: if the network takes no images of that size.
    """
    images = torch.full((1, network.channels, *size), 0.5, device=network.device)
    fields = Fields()
    fields.start(images)
    with forward_pass(network, images), fields:
        output = activations(network, images, [layer])[layer]
    return output.shape, fields.known.get(output)


def capture(
    network: Network, images: Tensor, names: Mapping[nn.Module, str], before: nn.Module | None = None
) -> dict[nn.Module, Tensor]:
    """What modules of `network` give for images on its device, in the order in which they run.

    Args:
        network: nobody else's, for it has hooks meanwhile.
        names: the modules, with the names to call them in errors.
        before: the one among them that is not run any more: what it would be given is kept instead. It must be the
            last one to run.

    Raises:
        LayerError: if a module gives no tensor or does not run.
    """
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, output: object) -> Tensor | None:
        if module in outputs:
            return None
        if module is network.module:
            check_logits(output, len(images), network.name)
        if not isinstance(output, Tensor):
            kind = type(output).__name__
            raise LayerError(f"layer {names[module]!r} gives a {kind}, not a tensor; choose a layer inside it.")
        if len(outputs) + 1 == len(names):
            outputs[module] = output
            raise _AllSeen
        # What follows may write into what it is given, as F.relu(x, inplace=True) does, or into what the layer was
        # given, which is the same tensor behind nn.Dropout. The kept one is in between, for gradients to reach it.
        outputs[module] = output.clone()
        return outputs[module].clone()

    def stop(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        outputs[module] = arguments[0]
        raise _AllSeen

    handles = [module.register_forward_hook(keep) for module in names if module is not before]
    handles += [before.register_forward_pre_hook(stop)] if before else []
    try:
        network(images)
    except _AllSeen:
        pass
    finally:
        for handle in handles:
            handle.remove()
    for module, layer in names.items():
        if module not in outputs:
            raise LayerError(f"layer {layer!r} of {network.name} does not run when the network classifies a picture.")
    return outputs
