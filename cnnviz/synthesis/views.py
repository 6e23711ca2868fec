"""What an objective sees at one step: the images and what the network makes of them.

A `Viewer` is a network made ready to be climbed: a copy of its own in the layout and number format that are fastest,
run no deeper than the deepest layer asked for. If that layer is a convolution, it is not even run: the mean of one
of its channels is a fixed linear function of what it is given.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from cnnviz.errors import LayerError, ShapeError
from cnnviz.networks.activations import capture
from cnnviz.networks.fast_copies import fastest
from cnnviz.networks.network import Network, forward_pass

LOGITS = "(logits)"  # the name by which objectives ask for the network's output


class View:
    """What an objective sees at one step.

    Attributes:
        images: (N, C, H, W) in [0, 1], as the network is about to see them.
        rows: (N,), int64, on the CPU: which of the job's images these are.
    """

    def __init__(
        self, images: Tensor, rows: Tensor, maps: Mapping[str, Tensor], last: "DeferredConvolution | None" = None
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
        return self._maps[layer].float()

    def mean(self, layer: str, channels: Tensor) -> Tensor:
        """(N,): the mean over positions of one channel per image; `channels` (N,) on the CPU. Errors as `map`."""
        deferred = self._deferred(layer)
        if deferred is not None:
            return deferred.mean(channels)
        return pick(self.map(layer), channels, layer).reshape(len(channels), -1).mean(1)

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


Kernels = dict[tuple[tuple[int, ...], torch.Size], Tensor]


class DeferredConvolution:
    """A convolution that has its input and runs when its whole output is asked for, by one of its names."""

    def __init__(self, module: nn.Conv2d, given: Tensor, names: Sequence[str], kernels: Kernels) -> None:
        self.module, self.given, self.names, self.kernels = module, given, names, kernels

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
    """A network ready to be climbed: a call on images (N, C, H, W) in [0, 1] gives a `View`.

    Args:
        network: stays as it is.
        layers: what objectives will ask for; names of layers, or `LOGITS`.
        images: like those it will be called on, (N, C, H, W); one forward pass finds out what works.
        dtype: float32, or bfloat16 for more speed at three digits.
        elided: whether a convolution at the end is left out while only means of its channels are asked for.
        redirected: whether ReLUs that pass no gradient at all for an image pass one that would open them.

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
    ) -> None:
        self.layers = sorted(layers)
        tried = partial(_tried, self.layers, images[:1].expand(2, -1, -1, -1))
        purpose = " and ".join("the output" if layer == LOGITS else f"layer {layer}" for layer in self.layers)
        self._network, self._layout, order = fastest(network, dtype, tried, purpose)
        if redirected:
            redirect(self._network)
        self._modules = {layer: _module(self._network, layer) for layer in self.layers}
        self._names = {module: layer for layer, module in self._modules.items()}
        last = _module(self._network, order[-1]) if order else None
        self._last = last if elided and last is not None and _plain(last) else None
        self._kernels: Kernels = {}

    def __call__(self, images: Tensor, rows: Tensor | None = None) -> View:
        rows = torch.arange(len(images)) if rows is None else rows
        if not self._modules:
            return View(images, rows, {})
        given = images.contiguous(memory_format=self._layout)
        with forward_pass(self._network, images):
            outputs = capture(self._network, given, self._names, before=self._last)
        maps = {layer: outputs[module] for layer, module in self._modules.items() if module is not self._last}
        if self._last is None:
            return View(images, rows, maps)
        names = [layer for layer, module in self._modules.items() if module is self._last]
        return View(images, rows, maps, DeferredConvolution(self._last, outputs[self._last], names, self._kernels))


def redirect(network: Network) -> None:
    """Let each ReLU module of `network` pass gradients by lucid's rule for starts at which everything is shut.

    Where an image gets no gradient through a ReLU at all, it gets those that would open it.
    """
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.forward = _Redirected.apply  # type: ignore[method-assign]


class _Redirected(torch.autograd.Function):
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


def _module(network: Network, layer: str) -> nn.Module:
    return network.module if layer == LOGITS else network.layers[network.qualified(layer)]


@torch.no_grad()
def _tried(
    layers: Sequence[str], images: Tensor, network: Network, layout: torch.memory_format
) -> tuple[Network, torch.memory_format, list[str]]:
    """A network that can be climbed for these layers, its layout, and the layers in the order they run in."""
    names = {_module(network, layer): layer for layer in layers}
    if not names:
        return network, layout, []
    with forward_pass(network, images):
        maps = capture(network, images.to(network.device).contiguous(memory_format=layout), names)
    return network, layout, [names[module] for module in maps]
