"""Copies of a network that compute fast: in one kind of numbers, channels last in memory where the network bears that.

Convolutions are converted once for each network and kind of numbers; whoever uses a copy gets a twin of it, whose
modules are his own to hook while the numbers are shared.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cnnviz.errors import FORWARD_ERRORS, fault_of_machine
from cnnviz.networks.missing_weights import MissingWeightsError
from cnnviz.networks.network import Network

Result = TypeVar("Result")


class _Copies:
    """The copies of one network, with the weights and on the device that it has now."""

    def __init__(self, network: Network) -> None:
        self.state = network.device, network.versions
        self.layout = torch.channels_last
        self.by_dtype: dict[torch.dtype, Network] = {}


_copies: "WeakKeyDictionary[Network, _Copies]" = WeakKeyDictionary()


def fastest(
    network: Network, dtype: torch.dtype, attempt: Callable[[Network, torch.memory_format], Result], purpose: str
) -> Result:
    """What `attempt` gives for a fast copy and its layout, to which images are to be brought too.

    A forward that calls ``x.view(...)`` does not bear channels last: if `attempt` raises, it is tried in the usual
    layout, which is remembered where it helps. Copies are made anew when weights have been written into, unless by way
    of ``.data``.

    Args:
        dtype: of weights and images in the copy.
        attempt: runs the copy; what it raises in the usual layout is raised.
        purpose: what for, should weights be missing.
    """
    return network.completed(partial(_fastest, network, dtype, attempt), purpose)


@torch.inference_mode(False)  # what is made inside could not be differentiated later
def _fastest(network: Network, dtype: torch.dtype, attempt: Callable[[Network, torch.memory_format], Result]) -> Result:
    copies = _copies.get(network)
    if copies is None or copies.state != (network.device, network.versions):
        copies = _copies[network] = _Copies(network)
    if dtype not in copies.by_dtype:
        copies.by_dtype[dtype] = _converted(network, dtype, copies.layout)
    if copies.layout is torch.channels_last:
        try:
            return attempt(copies.by_dtype[dtype].twin(), torch.channels_last)
        except MissingWeightsError:
            raise
        except FORWARD_ERRORS as error:
            if fault_of_machine(error):
                raise
        plain = _converted(network, dtype, torch.contiguous_format)
        result = attempt(plain.twin(), torch.contiguous_format)
        copies.layout, copies.by_dtype = torch.contiguous_format, {dtype: plain}
        return result
    return attempt(copies.by_dtype[dtype].twin(), copies.layout)


def _converted(network: Network, dtype: torch.dtype, layout: torch.memory_format) -> Network:
    def convert(tensor: Tensor) -> Tensor:
        converted = tensor.to(dtype) if tensor.is_floating_point() else tensor
        return converted.contiguous(memory_format=layout) if converted.ndim == 4 else converted

    copy = network.copy(convert)
    copy.mean, copy.std, copy.computes_in = network.mean.float(), network.std.float(), dtype
    return copy
