"""What an objective sees at one step: the images and what the network makes of them.

A `Viewer` is a network made ready for gradient ascent: a copy of its own in the layout and number format that are
fastest, run no deeper than the deepest layer asked for. If that layer is a convolution, only the channels asked for are
computed, and not even these for their mean: it is a fixed linear function of what the convolution is given.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnviz.errors import LayerError, ShapeError
from cnnviz.networks.activated import Activated, Activation, Call, Point, Use, module_of, point_of
from cnnviz.networks.activations import capture
from cnnviz.networks.arrangements import Arrangement, ChannelAxes
from cnnviz.networks.fast_copies import fastest
from cnnviz.networks.forward import as_rows
from cnnviz.networks.layer_names import split_use
from cnnviz.networks.network import Network, forward_pass
from cnnviz.synthesis.fused_convolutions import fuse

LOGITS = "(logits)"  # the name by which objectives ask for the network's output
ACTIVATED = ":activated"  # ends the name by which they ask for a layer with the activation behind it


class View:
    """What an objective sees at one step; ``view["block4_conv2"]`` is what a layer gives, as `map`.

    Attributes:
        images: (N, C, H, W) in [0, 1], as the network is about to see them.
        rows: (N,), int64, on the CPU: which of the job's images these are.
    """

    def __init__(
        self, images: Tensor, rows: Tensor, maps: Mapping[str, Any], last: "DeferredConvolution | None" = None
    ) -> None:
        self.images, self.rows, self._maps, self._last = images, rows, dict(maps), last

    def of(self, rows: Tensor) -> "View":
        """The same images as if they were these of the job's."""
        return View(self.images, rows, self._maps, self._last)

    def map(self, layer: str) -> Tensor:
        """What a layer gives, float32: (N, C', H', W') for maps, (N, C') for logits and vectors.

        Raises:
            LayerError: if the objective has not said that it asks for that layer.
        """
        deferred = self._deferred(layer)
        if deferred is not None:
            self._maps[layer] = deferred.output()
        if layer not in self._maps:
            raise LayerError(f"layer {layer!r} is not among the layers of the objective that asks for it.")
        values: Tensor = self._maps[layer]
        return values.float()

    def __getitem__(self, layer: str) -> Tensor:
        return self.map(layer)

    def mean(self, layer: str, channels: Tensor) -> Tensor:
        """(N,): the mean over positions of one channel per image; `channels` (N,) on the CPU. Errors as `map`."""
        deferred = self._deferred(layer)
        if deferred is not None:
            return deferred.mean(channels)
        return pick(self.map(layer), channels, layer).reshape(len(channels), -1).mean(1)

    def activation(self, layer: str, channels: Tensor) -> tuple[Tensor, Tensor]:
        """One channel per image before and after the activation behind a layer: two of (N, H', W'), float32.

        Both are what the layer gives where no activation follows it.

        Args:
            layer: as the objective names it, less `ACTIVATED`.
            channels: (N,), on the CPU.

        Raises:
            LayerError: as `map`.
            ShapeError: if there is no such channel.
        """
        deferred = self._deferred(layer + ACTIVATED)
        if deferred is not None:
            return deferred.activation(channels)
        if layer + ACTIVATED not in self._maps:
            raise LayerError(f"layer {layer!r} is not among the layers of the objective that asks for it.")
        activation = self._maps[layer + ACTIVATED]
        before = pick(activation.before, channels, layer).float()
        return before, before if activation.name is None else pick(activation.after, channels, layer).float()

    def activations(self, layer: str) -> Tensor:
        """(N, C, H', W'), float32: all channels behind the activation that follows a layer; `layer` as above."""
        deferred = self._deferred(layer + ACTIVATED)
        if deferred is not None:
            return deferred.activations().float()
        after: Tensor = self._maps[layer + ACTIVATED].after
        return after.float()

    def _deferred(self, layer: str) -> "DeferredConvolution | None":
        waits = layer not in self._maps and self._last is not None and layer in self._last.names
        return self._last if waits else None


def pick(maps: Tensor, channels: Tensor, layer: str) -> Tensor:
    """One channel per image: (N, C, ...) to (N, ...); `channels` (N,) on the CPU.

    Raises:
        ShapeError: if there is no such channel.
    """
    numbers = _checked(channels, maps.shape[1], layer)
    return maps[indices_on(tuple(range(len(maps))), maps.device), indices_on(numbers, maps.device)]


def _checked(channels: Tensor, count: int, layer: str) -> tuple[int, ...]:
    numbers = tuple(channels.tolist())
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong:
        what = "class" if layer == LOGITS else "filter"
        raise ShapeError(f"{layer} has no {what} {wrong[0]}; it has {count}, 0 to {count - 1}.")
    return numbers


@lru_cache(maxsize=256)
def indices_on(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Indices on a device, copied there once: a copy at every step would make the loop wait."""
    return torch.tensor(numbers, device=device)


MOST_TAPS = 25  # of a kernel, for which one product and as many sums are faster than a convolution per image
Kernels = dict[tuple[tuple[int, ...], torch.Size], Tensor]


class DeferredConvolution:
    """A convolution that has its input and computes what of its output is asked for, by one of its names.

    Args:
        module: the convolution.
        given: (N, C, H, W), its input.
        names: by which objectives ask for it.
        path: from its output to the activation behind it, channel by channel; empty if it is not asked for.
        kernels: what is computed once.
    """

    def __init__(
        self, module: nn.Conv2d, given: Tensor, names: Sequence[str], path: Sequence[Call], kernels: Kernels
    ) -> None:
        self.module, self.given, self.names, self.path, self.kernels = module, given, names, path, kernels

    def output(self) -> Tensor:
        output: Tensor = self.module(self.given)
        return output

    def mean(self, channels: Tensor) -> Tensor:
        """(N,): the mean of a channel per image; its gradient at the input does not depend on the input."""
        key = _checked(channels, self.module.out_channels, self.names[0]), self.given.shape
        if key not in self.kernels:
            self.kernels[key] = self._gradient(key[0])
        means = (self.given.float() * self.kernels[key]).flatten(1).sum(1)
        if self.module.bias is None:
            return means
        return means + self.module.bias.float()[indices_on(key[0], means.device)]

    def activation(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """One channel per image before and after the activation behind it, two of (N, H', W')."""
        numbers = indices_on(_checked(channels, self.module.out_channels, self.names[0]), self.given.device)
        before = self._before(numbers)
        after = before[None]  # images as channels, each with the parameters of its own
        for call in self.path[:-1]:
            after = call.of(numbers)(after)
        before, after = after, self.path[-1].of(numbers)(after.clone()) if self.path else after
        return before[0].float(), after[0].float()

    def activations(self) -> Tensor:
        """All channels behind the activation, (N, C, H', W')."""
        maps = self.output()
        for call in self.path:
            maps = call(maps)
        return maps

    def _before(self, numbers: Tensor) -> Tensor:
        """What the convolution gives of one channel per image, (N, H', W')."""
        module, weight = self.module, self.module.weight[numbers]
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        pad = partial(functional.pad, pad=module._reversed_padding_repeated_twice, mode=mode)
        if weight[0, 0].numel() <= MOST_TAPS and set(module.stride) == {1}:
            before = self._by_taps(weight, pad)
        else:
            alone = pad(self.given).flatten(0, 1)[None]  # one image, of which each group of channels is one of ours
            before = functional.conv2d(
                alone, weight, stride=module.stride, dilation=module.dilation, groups=len(weight)
            )[0]
        return before if module.bias is None else before + module.bias[numbers, None, None]

    def _by_taps(self, weight: Tensor, pad: Callable[[Tensor], Tensor]) -> Tensor:
        """The products with each of a kernel's few taps at all positions, added up where they belong."""
        given, sides = self.given, zip(weight.shape[2:], self.module.dilation, strict=True)
        products = weight.flatten(2).mT @ given.flatten(2)  # (N, kernel's height * width, H * W)
        products = pad(products.view(len(given), -1, *given.shape[2:]))
        places = (
            [slice(dilation * tap, length - dilation * (taps - 1 - tap)) for tap in range(taps)]
            for length, (taps, dilation) in zip(products.shape[2:], sides, strict=True)
        )
        parts = [products[:, number, rows, columns] for number, (rows, columns) in enumerate(product(*places))]
        return torch.stack(parts).float().sum(0).to(given.dtype)

    def _gradient(self, channels: Sequence[int]) -> Tensor:
        """(N, C, H, W): of each image's mean, with respect to the convolution's input."""
        with torch.enable_grad():
            given = torch.zeros_like(self.given[:1], dtype=torch.float32).requires_grad_()
            weight = self.module.weight.float()
            maps = self.module._conv_forward(given, weight, None)
            gradients = {
                channel: torch.autograd.grad(maps[0, channel].mean(), given, retain_graph=True)[0]
                for channel in set(channels)
            }
        return torch.cat([gradients[channel] for channel in channels]).to(self.given.device)


class Viewer:
    """A network ready for gradient ascent: a call on images (N, C, H, W) in [0, 1] gives a `View`.

    Args:
        network: stays as it is.
        layers: what objectives will ask for; names of layers, or `LOGITS`.
        images: like those it will be called on, (N, C, H, W); one forward pass finds out what works.
        dtype: float32, or bfloat16 for more speed at three digits.
        elided: whether a convolution at the end is left out while only means of its channels are asked for.
        redirected: whether ReLUs that pass no gradient at all for an image pass one that would open them.
        fused: whether convolutions run together with the ReLUs behind them where nobody looks in between.

    Raises:
        UnknownNameError, LayerError, ShapeError: if a layer is unknown, does not run, or the images do not fit.
    """

    def __init__(
        self,
        network: Network,
        layers: Iterable[str],
        images: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        elided: bool = True,
        redirected: bool = False,
        fused: bool = True,
    ) -> None:
        self.layers = sorted(layers)
        tried = partial(_tried, self.layers, images[:1].expand(2, -1, -1, -1))
        purpose = " and ".join("the output" if layer == LOGITS else f"layer {layer}" for layer in self.layers)
        self._network, self._layout, outputs, self._arrangements = fastest(network, dtype, tried, purpose)
        self._instead = {"relu": _Redirected.apply} if redirected else {}
        self._points = {layer: _point(self._network, layer) for layer in self.layers}
        self._names = {point: layer for layer, point in self._points.items()}
        self._last: nn.Conv2d | None = None
        self._path: Sequence[Call] = ()
        if elided and not redirected:
            self._defer([*outputs.items()])
        self._kernels: Kernels = {}
        followed = any(isinstance(point, Activated) and module_of(point) is not self._last for point in self._names)
        if fused and not redirected and not followed:  # these look at each function on its own
            fuse(self._network.module, network.device)

    def _defer(self, outputs: Sequence[tuple[Point, Any]]) -> None:
        """Leave the convolution out whose output, or what its activation makes of it, was known last."""
        if not outputs:
            return
        point, output = outputs[-1]
        module = module_of(point)
        if isinstance(point, Use) or not _plain(module) or any(module_of(other) is module for other, _ in outputs[:-1]):
            return
        if isinstance(output, Activation):
            channelwise = all(call.channel_by_channel for call in output.path)
            if module.groups > 1 or not channelwise:
                return
            self._path = output.path
        self._last = module

    def __call__(self, images: Tensor, rows: Tensor | None = None) -> View:
        rows = torch.arange(len(images)) if rows is None else rows
        if not self._points:
            return View(images, rows, {})
        given = images.contiguous(memory_format=self._layout)
        names = self._names
        if self._last is not None:
            names = {self._last if module_of(point) is self._last else point: name for point, name in names.items()}
        with forward_pass(self._network, images):
            outputs = capture(self._network, given, names, before=self._last, instead=self._instead)
        maps = {name: self._arranged(name, outputs[point]) for point, name in names.items() if point is not self._last}
        if LOGITS in maps:
            maps[LOGITS] = as_rows(maps[LOGITS], len(images))
        if self._last is None:
            return View(images, rows, maps)
        last = DeferredConvolution(self._last, outputs[self._last], [names[self._last]], self._path, self._kernels)
        return View(images, rows, maps, last)

    def _arranged(self, layer: str, output: Any) -> Any:
        """What a layer gives with its channels on the second axis."""
        arrangement = self._arrangements.get(layer)
        if arrangement is None or arrangement.usual:
            return output
        if isinstance(output, Activation):
            before, after = arrangement.maps(output.before), arrangement.maps(output.after)
            return replace(output, before=before, after=after)
        return arrangement.maps(output)


class _Redirected(torch.autograd.Function):
    """A ReLU by lucid's rule for starts at which everything is shut: where an image gets no gradient through it at all,
    it gets those that would open it.
    """

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return values.relu()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (values,), (gradient,) = context.saved_tensors, gradients
        plain = gradient * (values > 0)
        opening = gradient * ((values > 0) | (gradient < 0))
        shut = (plain == 0).flatten(1).all(1)
        return torch.where(shut.view(-1, *(1,) * (plain.ndim - 1)), opening, plain)


def _plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether this computes a convolution and nothing else."""
    return type(module) is nn.Conv2d and not module._forward_hooks and not module._forward_pre_hooks


def _point(network: Network, layer: str) -> Point:
    if layer == LOGITS:
        return network.module
    name = layer.removesuffix(ACTIVATED)
    module, use = network.layers[network.qualified(name)], split_use(name)[1]
    if not layer.endswith(ACTIVATED):
        return point_of(module, use)
    if use > 1:
        raise LayerError(
            f"the activation behind {name!r} is not known, only that of a layer's first use; maximise it by a function"
            f" of view[{name!r}]."
        )
    return Activated(module)


@torch.no_grad()
def _tried(
    layers: Sequence[str], images: Tensor, network: Network, layout: torch.memory_format
) -> tuple[Network, torch.memory_format, dict[Point, Any], dict[str, Arrangement]]:
    """A network differentiable up to these layers, its layout, and what they give, in the order they run in.

    And how they arrange it, by name.
    """
    names = {_point(network, layer): layer for layer in layers}
    if not names:
        return network, layout, {}, {}
    given = images.to(network.device).contiguous(memory_format=layout)
    with forward_pass(network, images), ChannelAxes(given) as axes:
        outputs = capture(network, given, names)
    arrangements = {}
    for point, output in outputs.items():
        after = output.after if isinstance(output, Activation) else output
        if after.ndim > 2:
            arrangements[names[point]] = axes.arrangement(after, names[point].removesuffix(ACTIVATED), len(given))
    return network, layout, outputs, arrangements
