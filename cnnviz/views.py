"""What an objective sees at one step: the images and what the network makes of them.

A `Viewer` is a network made ready to be climbed: a copy of its own in the layout and number format that are fastest,
run no deeper than the deepest layer asked for. If that layer is a convolution, it is not even run: the mean of one
of its channels is a fixed linear function of what it is given.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.errors import ShapeError
from cnnviz.hooks import capture
from cnnviz.network import FORWARD_ERRORS, Network, forward_pass, structural_copy

LOGITS = "logits"  # the name by which objectives ask for the network's output


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
        """What a layer gives, float32: (N, C', H', W') for maps, (N, C') for logits and vectors."""
        if layer not in self._maps and self._last is not None:
            self._maps[layer] = self._last.output()
        return self._maps[layer].float()

    def mean(self, layer: str, channels: Tensor) -> Tensor:
        """(N,): for each image, the mean over positions of one channel of a layer, of which `channels` (N,) tell."""
        if layer not in self._maps and self._last is not None:
            return self._last.mean(channels)
        return pick(self.map(layer), channels, layer).flatten(1).mean(1)


def pick(maps: Tensor, channels: Tensor, layer: str) -> Tensor:
    """One channel per image: (N, C, ...) to (N, ...).

    Raises:
        ShapeError: if there is no such channel.
    """
    _check(channels, maps.shape[1], layer)
    return maps[torch.arange(len(maps), device=maps.device), channels.to(maps.device)]


def _check(channels: Tensor, count: int, layer: str) -> None:
    wrong = [channel for channel in channels.tolist() if not 0 <= channel < count]
    if wrong:
        what = "class" if layer == LOGITS else "filter"
        raise ShapeError(f"{layer} has no {what} {wrong[0]}; it has {count}, 0 to {count - 1}.")


Kernels = dict[tuple[tuple[int, ...], torch.Size], Tensor]


class DeferredConvolution:
    """A convolution that has its input and runs when its whole output is asked for."""

    def __init__(self, module: nn.Conv2d, given: Tensor, layer: str, kernels: Kernels) -> None:
        self.module, self.given, self.layer, self.kernels = module, given, layer, kernels

    def output(self) -> Tensor:
        output: Tensor = self.module(self.given)
        return output

    def mean(self, channels: Tensor) -> Tensor:
        """(N,): the mean of a channel per image; its gradient at the input does not depend on the input."""
        _check(channels, self.module.out_channels, self.layer)
        key = tuple(channels.tolist()), self.given.shape
        if key not in self.kernels:
            self.kernels[key] = self._gradient(channels)
        means = (self.given.float() * self.kernels[key]).flatten(1).sum(1)
        return means if self.module.bias is None else means + self.module.bias.float()[channels.to(means.device)]

    def _gradient(self, channels: Tensor) -> Tensor:
        """(N, C, H, W): of each image's mean, with respect to the convolution's input."""
        with torch.enable_grad():
            given = torch.zeros_like(self.given[:1], dtype=torch.float32).requires_grad_()
            weight = self.module.weight.float()
            maps = self.module._conv_forward(given, weight, None)
            gradients = {
                channel: torch.autograd.grad(maps[0, channel].mean(), given, retain_graph=True)[0]
                for channel in set(channels.tolist())
            }
        return torch.cat([gradients[channel] for channel in channels.tolist()]).to(self.given.device)


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
        self._network, self._layout, order = _fastest(network, self.layers, images[:1], dtype)
        if redirected:
            redirect(self._network)
        self._modules = {layer: _module(self._network, layer) for layer in self.layers}
        self._names = {module: layer for layer, module in self._modules.items()}
        last = _module(self._network, order[-1]) if order else None
        self._last = last if elided and isinstance(last, nn.Conv2d) else None
        self._kernels: Kernels = {}

    def __call__(self, images: Tensor, rows: Tensor | None = None) -> View:
        rows = torch.arange(len(images)) if rows is None else rows
        if not self._modules:
            return View(images, rows, {})
        given = images.contiguous(memory_format=self._layout)
        with forward_pass(self._network, images):
            seen = capture(self._network, given, self._names, before=self._last)
        maps = {layer: seen[module] for layer, module in self._modules.items() if module is not self._last}
        if self._last is None:
            return View(images, rows, maps)
        return View(
            images,
            rows,
            maps,
            DeferredConvolution(self._last, seen[self._last], self._names[self._last], self._kernels),
        )


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


def _module(network: Network, layer: str) -> nn.Module:
    return network.module if layer == LOGITS else network.layers[network.qualified(layer)]


def _fastest(
    network: Network, layers: Sequence[str], images: Tensor, dtype: torch.dtype
) -> tuple[Network, torch.memory_format, list[str]]:
    """A copy of the network, its layout, channels last if it bears that, and the layers in the order they run in."""
    try:
        return _ready(network, layers, images, dtype, torch.channels_last)
    except FORWARD_ERRORS:  # a forward that calls x.view(...)
        with forward_pass(network, images):
            return _ready(network, layers, images, dtype, torch.contiguous_format)


@torch.no_grad()
def _ready(
    network: Network, layers: Sequence[str], images: Tensor, dtype: torch.dtype, layout: torch.memory_format
) -> tuple[Network, torch.memory_format, list[str]]:
    idle = _idle(network, layers, images)

    def convert(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() in idle:
            return tensor
        converted = tensor.to(dtype) if tensor.is_floating_point() else tensor
        return converted.contiguous(memory_format=layout) if converted.ndim == 4 else converted

    ready = structural_copy(network, convert)
    ready.mean, ready.std = network.mean.float(), network.std.float()
    names = {_module(ready, layer): layer for layer in layers}
    if not names:
        return ready, layout, []
    seen = capture(ready, images.to(network.device).contiguous(memory_format=layout), names)
    return ready, layout, [names[module] for module in seen]


def _idle(network: Network, layers: Sequence[str], images: Tensor) -> set[int]:
    """Addresses of the weights behind the deepest of the layers, most of VGG16's: copying them would be for nothing."""
    twin, ran = network.twin(), set[nn.Module]()
    for part in twin.modules():
        part.register_forward_pre_hook(lambda module, _: ran.add(module))
    capture(twin, images.to(network.device), {_module(twin, layer): layer for layer in layers})
    leaves = {part for part in twin.modules() if isinstance(part, nn.Linear | nn.Conv2d)}
    addresses = [
        {tensor.data_ptr() for part in parts for tensor in part.parameters(recurse=False)}
        for parts in (leaves - ran, {*twin.modules()} - (leaves - ran))
    ]
    return addresses[0] - addresses[1]
