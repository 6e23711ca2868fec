"""Weights that a network has not got: they lie on PyTorch's meta device, and their modules say so when they are to run.

A network can be looked into as far as its weights go. Nobody is shown what random numbers in their place would give.
"""

from typing import Any

from torch import nn

from cnnviz.errors import WeightsError


class MissingWeightsError(WeightsError):
    """Raised where a module without weights is to run; `cnnviz.networks.network.Network.completed` handles it."""


def missing_weights(module: nn.Module) -> tuple[str, ...]:
    """Names of the weights and buffers that are missing; none where a network has no numbers at all, only shapes."""
    state = module.state_dict()
    missing = tuple(name for name, tensor in state.items() if getattr(tensor, "is_meta", False))
    return missing if len(missing) < len(state) else ()


def guard(module: nn.Module) -> None:
    """Have every part of `module` that lacks weights say so instead of running."""
    owners = dict.fromkeys(name.rpartition(".")[0] for name in missing_weights(module))
    for path in owners:
        module.get_submodule(path).register_forward_pre_hook(_Guard(path))


class _Guard:
    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        shapes_alone = any(getattr(value, "is_meta", False) for value in inputs)
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if not shapes_alone and any(tensor.is_meta for tensor in own):
            raise MissingWeightsError(f"there are no weights for {self.path}.")
