"""Which convolution feeds which, where that is plain to see, and with what weights.

Plain is a path through modules that keep channels apart: batch norm, activations, pools, dropout. Behind a sum, a
concatenation or a function that is no module, nothing is said.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnnviz.errors import FORWARD_ERRORS
from cnnviz.networks.network import Network, forward_pass

CHANNELWISE = (
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
)
STRONGEST = 8


class Wiring:
    """What convolutions are given.

    Args:
        network: stays as it is.
        layers: names to tell convolutions by: of a convolution, or of what follows it channel by channel.
    """

    def __init__(self, network: Network, layers: Sequence[str]) -> None:
        self.network = network
        try:
            traced = _trace(network.on_meta(), "meta")
        except FORWARD_ERRORS:  # a network that looks at values needs some
            traced = _trace(network.twin(), network.device)
        self._origin, self._given = traced
        self._names: dict[str, str] = {}
        for layer in layers:
            self._names.setdefault(self._origin.get(network.qualified(layer), ""), layer)

    def inputs(self, layer: str) -> str | None:
        """The layer, among those given, whose maps a layer's convolution is given."""
        convolution = self._origin.get(self.network.qualified(layer), "")
        return self._names.get(self._given.get(convolution, ""))

    def strongest(self, layer: str, number: int) -> list[tuple[int, float]]:
        """The channels that a filter weighs most, and how much: summed over the kernel, with sign, strongest first.

        Empty where `inputs` knows nothing.
        """
        if self.inputs(layer) is None:
            return []
        convolution = self.network.layers[self._origin[self.network.qualified(layer)]]
        assert isinstance(convolution, nn.Conv2d)
        weights = convolution.weight[number].float().sum((1, 2))
        order = weights.abs().argsort(descending=True, stable=True)[:STRONGEST]
        return [(channel, weights[channel].item()) for channel in order.tolist()]


@torch.no_grad()
def _trace(network: Network, device: str | torch.device) -> tuple[dict[str, str], dict[str, str]]:
    """By module, the convolution that it is behind; by convolution, the one that it is given. `network` is our own."""
    ran: Counter[str] = Counter()
    origin: dict[str, str] = {}
    given: dict[str, str] = {}
    sources: dict[tuple[int, int], str] = {}  # by a tensor's id and version: what is written into is another one
    kept: list[Tensor] = []  # a tensor that is freed would leave its id to another one

    def note(name: str, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        source = sources.get((id(arguments[0]), arguments[0]._version)) if arguments else None
        if isinstance(module, nn.Conv2d):
            ran[name] += 1
            if source and module.groups == 1:
                given[name] = source
            source = name
        elif not isinstance(module, CHANNELWISE):
            return
        if source and isinstance(output, Tensor):
            origin.setdefault(name, source)
            sources[id(output), output._version] = source
            kept.append(output)

    for name, module in network.module.named_modules():
        if isinstance(module, (nn.Conv2d, *CHANNELWISE)):
            module.register_forward_hook(
                lambda module, arguments, output, name=name: note(name, module, arguments, output)
            )
    images = torch.zeros(1, network.channels, *network.input_size, device=device)
    with forward_pass(network, images):
        network(images)
    return origin, {name: source for name, source in given.items() if ran[name] == ran[source] == 1}
