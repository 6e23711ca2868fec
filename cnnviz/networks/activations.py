"""Activations of chosen layers, by forward hooks that never outlive one call."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.errors import LayerError, several
from cnnviz.networks.activated import Activated, Activation, Following, Point, Use, module_of, point_of
from cnnviz.networks.arrangements import Arrangement, ChannelAxes, Grid
from cnnviz.networks.forward import as_rows
from cnnviz.networks.inputs import check_finite, check_range
from cnnviz.networks.layer_names import split_use
from cnnviz.networks.network import Network, as_network, check_logits, forward_pass
from cnnviz.networks.receptive_fields import Field, Fields


class AllSeen(BaseException):
    """Ends a forward pass once every layer asked for has run; no ``except Exception`` of a user's forward stops it."""


def activations(
    network: nn.Module, images: Tensor, layers: str | nn.Module | Sequence[str | nn.Module]
) -> dict[str, Tensor]:
    """What chosen layers give for a batch of images.

    The network itself is not hooked, so threads may share it; a twin of it runs, no further than the last of these
    layers to run. A module that is used more than once gives its first output, or as ``relu@2`` its second. Outputs are
    safe from in-place operations behind the layer, and carry gradients where `images` does. They are given as they are,
    also where they are NaN; `cnnviz.feature_maps` refuses that.

    Args:
        network: a `Network`; or any ``nn.Module``, to which the images are then given as they are, without
            normalisation.
        images: (N, C, H, W), in [0, 1] for a `Network`, on any device.
        layers: one or more, each by a name that `network` answers to, or as its module, from ``network.layers`` or of
            the plain module.

    Returns:
        The outputs by the names that were asked for, in that order: (N, C', H', W') for layers with feature maps. A
        layer that was given as its module has PyTorch's name.

    Raises:
        ShapeError: if `images` is no tensor of such numbers, or the network takes none of that shape.
        UnknownNameError: if a layer is not among ``network.layers``.
        LayerError: if a layer gives no tensor or does not run.
        WeightsError: if a layer needs weights that are missing and cannot be had.
    """
    network, plain = as_network(network, images), not isinstance(network, Network)
    (check_finite if plain else check_range)(images)
    given = several(layers, str | nn.Module, "layers are given by name or as modules")
    names = {layer: network.qualified(layer) for layer in map(network.layer_name, given)}

    def captured() -> dict[str, Tensor]:
        twin = network.twin()
        points = _points(twin, names)
        outputs = capture(twin, images.to(network.device), {point: layer for layer, point in points.items()})
        kept = {layer: outputs[point] for layer, point in points.items()}
        return kept if torch.is_grad_enabled() else {layer: output.detach() for layer, output in kept.items()}

    return network.completed(captured, f"layer {', '.join(names)}")


def _points(twin: Network, names: Mapping[str, str]) -> dict[str, Point]:
    """Where to look for layers that were asked for by name; `names` are PyTorch's."""
    return {layer: point_of(twin.layers[name], split_use(layer)[1]) for layer, name in names.items()}


@torch.no_grad()
def layer_maps(
    network: Network, images: Tensor, layers: Sequence[str], grid: Grid | None = None, *, activated: bool = False
) -> dict[str, Tensor]:
    """The feature maps of chosen layers, channels first, however the layers arrange them.

    Args:
        images, layers: as for `activations`.
        grid: (rows, columns) in which a layer's tokens are to be put; by default that of the convolution that they were
            made by, or a square.
        activated: whether the maps are to be those behind the activation that follows a layer, if one does.

    Returns:
        (N, C, H', W') by the names that were asked for.

    Raises:
        UnknownNameError, WeightsError: as `activations`.
        LayerError: if a layer gives no feature maps, or not one for each image.
    """
    names = {layer: network.qualified(layer) for layer in layers}

    def captured() -> dict[str, Tensor]:
        twin, given = network.twin(), images.detach().to(network.device)
        points = _points(twin, names)
        if activated:
            points = {layer: Activated(module_of(point)) for layer, point in points.items()}
        with ChannelAxes(given) as axes:
            outputs = capture(twin, given, {point: layer for layer, point in points.items()})
        maps = {}
        for layer, point in points.items():
            output = outputs[point].after if activated else outputs[point]
            maps[layer] = axes.arrangement(output, layer, len(images), grid).maps(output).detach()
        return maps

    return network.completed(captured, f"layer {', '.join(layers)}")


@dataclass(frozen=True)
class Response:
    """What is known of what a layer gives, and of the activation behind it, for one image of some size.

    Attributes:
        shape: (1, C, H', W') of the maps behind the activation; of the layer's own output where there is none.
        field: the pixels that they depend on, as in `cnnviz.networks.receptive_fields`; None where it is not known.
        activation: the name of the activation's function, "relu"; None where there is none.
    """

    shape: torch.Size
    field: Field | None
    activation: str | None


@torch.no_grad()
def response(network: Network, layer: str, size: tuple[int, int]) -> Response:
    """What a layer and the activation behind it give for an image of (height, width) pixels.

    One pass with real numbers, no further than the activation: on PyTorch's meta device it imports more than a pass
    costs.

    Raises:
        UnknownNameError, LayerError: if there is no such layer, or it does not run.
        ShapeError: if the network takes no images of that size.
    """
    path = network.qualified(layer)
    images = torch.full((1, network.channels, *size), 0.5, device=network.device)

    def traced() -> Response:
        twin, fields = network.twin(), Fields()
        point = Activated(twin.layers[path])
        fields.start(images)
        with forward_pass(network, images), ChannelAxes(images) as axes, fields:
            activation = capture(twin, images, {point: layer})[point]
        assert isinstance(activation, Activation)
        after, field = activation.after, fields.known.get(activation.after)
        if after.ndim < 3:
            return Response(after.shape, field, activation.name)
        arrangement = axes.arrangement(after, layer, 1)
        field = field if arrangement.usual else _of_maps(field, arrangement)
        return Response(arrangement.maps(after).shape, field, activation.name)

    return network.completed(traced, f"layer {layer}")


def _of_maps(field: Field | None, arrangement: Arrangement) -> Field | None:
    """The field of maps (N, C, H, W) that were (N, H, W, C); that of tokens is not known."""
    return replace(field, axes=(2, 3)) if field and arrangement.grid is None else None


def capture(
    network: Network,
    images: Tensor,
    names: Mapping[Point, str],
    before: nn.Module | None = None,
    instead: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> dict[Point, Any]:
    """What modules of `network` give for images on its device, in the order in which it is known.

    Args:
        network: nobody else's, for it has hooks meanwhile.
        names: the modules, with the names to call them in errors. Of an `Activated` one it is what goes into the
            activation behind it and what comes out, an `Activation`.
        before: the module among them that is not run any more: what it would be given is kept instead, under the
            module. It must be the last one to run.
        instead: functions in the place of activations, by their names.

    Raises:
        LayerError: if a module gives no tensor or does not run.
    """
    outputs: dict[Point, Any] = {}
    followed = {point.module: name for point, name in names.items() if isinstance(point, Activated)}

    def found(module: nn.Module, activation: Activation) -> None:
        add(Activated(module), activation)

    def add(point: Point, value: Any) -> None:
        if point not in outputs:
            outputs[point] = value
            if len(outputs) == len(names):
                raise AllSeen

    following = Following(found, instead)

    def keep(module: nn.Module, _: object, output: object) -> Tensor | None:
        seen[module] += 1
        point = point_of(module, seen[module])
        if point not in names and not (module in followed and seen[module] == 1):
            return None
        if module is network.module:
            check_logits(as_rows(output, len(images)), len(images), network.name)
        if not isinstance(output, Tensor):
            name, kind = names.get(point) or followed[module], type(output).__name__
            raise LayerError(f"layer {name!r} gives a {kind}, not a tensor; choose a layer inside it.")
        if module in followed and seen[module] == 1:
            following.follow(module, output)
        if point not in names:
            return None
        if len(outputs) + 1 == len(names):
            add(point, output)
        # What follows may write into what it is given, as F.relu(x, inplace=True) does, or into what the layer was
        # given, which is the same tensor behind nn.Dropout. The kept one is in between, for gradients to reach it.
        add(point, output.clone())
        passed: Tensor = outputs[point].clone()
        return passed

    def stop(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        outputs[module] = arguments[0]
        raise AllSeen

    seen: Counter[nn.Module] = Counter()
    hooked = dict.fromkeys(map(module_of, names))
    handles = [module.register_forward_hook(keep) for module in hooked if module is not before]
    handles += [before.register_forward_pre_hook(stop)] if before else []
    try:
        with following if followed or instead else nullcontext():
            network(images)
            following.end()
    except AllSeen:
        pass
    finally:
        for handle in handles:
            handle.remove()
    for point, name in names.items():
        if isinstance(point, Use) and point not in outputs and seen[point.module]:
            raise LayerError(
                f"{network.name} uses {split_use(name)[0]!r} {seen[point.module]} times; there is no {name!r}."
            )
        if point not in outputs:
            raise LayerError(
                f"layer {name!r} of {network.name} does not run for an image, or only by its forward(), past hooks;"
                " choose another layer, or have the network call it."
            )
    return outputs
