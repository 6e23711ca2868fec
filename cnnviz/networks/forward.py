"""How a network's module is run, and what it gives, whatever its author took for granted.

A forward may write into what it is given, or ask for gradients where nobody needs them; and its rows may come in other
shapes than (N, classes).
"""

from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.errors import FORWARD_ERRORS, CnnvizError, fault_of_machine
from cnnviz.isolation import exact


def run(module: nn.Module, inputs: Tensor) -> Any:
    """What `module` gives for a copy of normalised images (N, C, H, W); without gradients, where it bears that.

    A forward that fails without gradients, as one does that hooks its activations, is run again with them; one that
    fails on several images, as an exported one does, is given one at a time. float32 is computed as such.
    """
    try:
        with exact():
            return module(inputs.clone())
    except FORWARD_ERRORS as error:
        if inputs.is_meta or isinstance(error, CnnvizError) or fault_of_machine(error):
            raise
        for otherwise in (_with_gradients, _one_at_a_time):
            try:
                return otherwise(module, inputs)
            except FORWARD_ERRORS:
                continue
        raise


def _with_gradients(module: nn.Module, inputs: Tensor) -> Any:
    if torch.is_grad_enabled() and inputs.requires_grad:
        raise ValueError("there are gradients already")
    with torch.inference_mode(False), torch.enable_grad(), exact():
        output = module(inputs.clone().detach().requires_grad_())
    return output if torch.is_grad_enabled() else _detached(output)


def _one_at_a_time(module: nn.Module, inputs: Tensor) -> Any:
    if len(inputs) < 2:
        raise ValueError("it is one image already")
    return torch.cat([run(module, image) for image in torch.split(inputs, 1)])


def _detached(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    return type(output)(map(_detached, output)) if type(output) in (tuple, list) else output


def as_rows(output: Any, count: int) -> Any:
    """The rows (N, classes) that a network's output for `count` images stands for; as it is, if it stands for none.

    Understood are N x classes x 1 x 1, and what is left when axes of length one are squeezed out of it.
    """
    if not isinstance(output, Tensor) or output.ndim == 2:
        return output
    if output.ndim > 2 and len(output) == count and output.shape[2:].numel() == 1:
        return output.flatten(1)
    if output.ndim < 2 and count == 1:
        return output.reshape(1, -1)
    return output[:, None] if output.ndim == 1 and len(output) == count else output
