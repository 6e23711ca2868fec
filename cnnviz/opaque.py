"""Modules into which nobody can look, noticed before anything else goes wrong with them."""

from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin

from cnnviz.errors import ModelError


def check_open(module: nn.Module, name: str) -> None:
    """Notice a module that has no layers to be hooked, no gradients or no weights.

    Raises:
        ModelError: says what to give instead.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"{name} is TorchScript, whose layers cannot be looked into; give the module it was made of.")
    if any("quantized" in type(part).__module__.split(".") for part in module.modules()):
        raise ModelError(f"{name} is quantized and has no gradients; give the network as it was before.")
    if any(isinstance(tensor, UninitializedTensorMixin) for tensor in chain(module.parameters(), module.buffers())):
        raise ModelError(f"{name} has lazy layers that have no weights yet; let its factory show it some images first.")
