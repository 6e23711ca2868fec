"""What cannot be looked into, noticed before anything else goes wrong: some modules, and outputs that are no logits."""

from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

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
    if any(is_lazy(tensor) for tensor in chain(module.parameters(), module.buffers())):
        raise ModelError(f"{name} has lazy layers that have no weights yet; let its factory show it some images first.")


def check_logits(output: object, count: int, name: str) -> Tensor:
    """What a network gave for `count` images, if that is a row of real numbers for each.

    Raises:
        ModelError: says what it is instead.
    """
    if isinstance(output, Tensor):
        rows = output.ndim == 2 and len(output) == count and output.shape[1] > 0
        if rows and output.is_floating_point():
            return output
        given = (
            f"{str(output.dtype).removeprefix('torch.')} of shape {' x '.join(map(str, output.shape)) or 'one number'}"
        )
    else:
        given = f"a {type(output).__name__}"
    raise ModelError(
        f"{name} is no classifier of single pictures: it gives no single row of logits but {given}; look at its layers"
        " and filters, or name a factory of a module that gives logits alone."
    )
