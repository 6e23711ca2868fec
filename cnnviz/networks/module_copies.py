"""Copies of modules, to be hooked, changed and run as one likes while the original stays as it is.

Whatever wraps modules is left out of a copy: compilers and data parallel training. Hooks that a user has registered run
in it, as part of what the network computes, but what they write to is a copy too.
"""

import copy
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from cnnviz.errors import ModelError

Module = TypeVar("Module", bound=nn.Module)
CONTAINERS = (list, dict, set, deque)
# fmt: off
IN_PLACE = (  # PyTorch's modules that may write into what they are given
    nn.CELU, nn.ELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.RReLU, nn.SELU,
    nn.SiLU, nn.Threshold, nn.modules.dropout._DropoutNd,
)
HOOKS = (  # where PyTorch keeps those of a forward pass
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
)
# fmt: on


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside what torch.compile and data parallel training make of one."""
    while (inside := _inside(module)) is not None:
        module = inside
    return module


def frozen_copy(module: Module) -> Module:
    """A copy that shares the numbers, in eval mode, without gradients, whose activations write into nothing."""
    frozen = structural_copy(module, lambda tensor: tensor.detach())
    try:
        frozen.eval()
    except NotImplementedError:  # what torch.export makes is in the mode in which it was exported
        for part in frozen.modules():
            part.training = False
    for part in frozen.modules():
        if isinstance(part, IN_PLACE) and hasattr(part, "inplace"):
            part.inplace = False
        _own_hooks(part)
    return frozen


@torch.inference_mode(False)  # what is made inside could not be differentiated
def structural_copy(module: Module, convert: Callable[[Tensor], Tensor]) -> Module:
    """A copy of the modules in which every tensor is `convert` of the original's; no parameter asks for gradients.

    Raises:
        ModelError: if it holds something that cannot be copied.
    """
    memo: dict[int, Any] = {}
    for tensor in _tensors(module):
        own = tensor.clone() if tensor.is_inference() else tensor.detach()
        converted = convert(own)
        is_weight = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(converted, requires_grad=False) if is_weight else converted
    try:
        for part in reversed([*module.modules()]):  # the innermost first
            if _inside(part) is not None:
                memo[id(part)] = copy.deepcopy(unwrapped(part), memo)
        copied = copy.deepcopy(module, memo)
        for part in module.modules():
            if isinstance(part, GraphModule):  # its own __deepcopy__ leaves hooks out
                _keep_hooks(part, memo)
        if not isinstance(copied, GraphModule if isinstance(module, GraphModule) else type(module)):
            raise TypeError("its __deepcopy__ gives something else")
    except Exception as error:  # a user's class may raise anything
        raise ModelError(f"{type(module).__name__} holds something that cannot be copied: {error}.") from error
    for part in copied.modules():
        vars(part).pop("_compiled_call_impl", None)  # of module.compile(), which hooks do not reach into
    return copied


def _keep_hooks(module: nn.Module, memo: dict[int, Any]) -> None:
    """Give the copy that `memo` has of a module its forward hooks, but for PyTorch's, which admit one batch size."""
    for name in HOOKS:
        kept = {
            number: value
            for number, value in getattr(module, name).items()
            if not str(getattr(value, "__module__", "")).startswith("torch.")
        }
        getattr(memo[id(module)], name).update(copy.deepcopy(kept, memo))


def _inside(module: nn.Module) -> nn.Module | None:
    """What a wrapper wraps; None if this is none."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        wrapped: nn.Module = module.module
        return wrapped
    compiled = getattr(module, "_orig_mod", None)
    return compiled if isinstance(compiled, nn.Module) else None


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Every tensor that a module and those in it hold, also in lists and dicts, each once."""
    known: set[int] = set()
    waiting: list[object] = [vars(part) for part in module.modules()]
    while waiting:
        value = waiting.pop()
        if id(value) in known or isinstance(value, nn.Module):
            continue
        known.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set | frozenset | deque):
            waiting.extend(value)


def _own_hooks(module: nn.Module) -> None:
    """Have a user's hooks on this copy write to copies of what they write to."""
    for hooks, kind in ((module._forward_pre_hooks, _private), (module._forward_hooks, _OwnHook)):
        for number, hook in hooks.items():
            if not str(getattr(hook, "__module__", "")).startswith(("torch.", "cnnviz.")):
                hooks[number] = kind(hook)


class _OwnHook:
    """A user's forward hook; one that changes nothing of what its module gives is not called again.

    It would gather what cnnviz shows the network.
    """

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = _private(hook)
        self.matters: bool | None = None

    def __call__(self, module: nn.Module, *given: Any) -> Any:
        if self.matters is False:
            return None
        output = given[-1]
        version = output._version if isinstance(output, Tensor) and not output.is_inference() else None
        result = self.hook(module, *given)
        if self.matters is None:
            written = version is not None and output._version != version
            self.matters = result is not None or written or not isinstance(output, Tensor)
        return result


def _private(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with copies of the lists and dicts that it knows by name."""
    if isinstance(hook, types.BuiltinMethodType) and isinstance(hook.__self__, CONTAINERS):  # such as seen.append
        method: Callable[..., Any] = getattr(copy.copy(hook.__self__), hook.__name__)
        return method
    if not isinstance(hook, types.FunctionType):
        return hook
    known = hook.__globals__
    used = {name: copy.copy(known[name]) for name in hook.__code__.co_names if isinstance(known.get(name), CONTAINERS)}
    cells = tuple(_private_cell(cell) for cell in hook.__closure__ or ())
    private = types.FunctionType(hook.__code__, {**known, **used}, hook.__name__, hook.__defaults__, cells)
    private.__kwdefaults__ = hook.__kwdefaults__
    return private


def _private_cell(cell: types.CellType) -> types.CellType:
    try:
        value = cell.cell_contents
    except ValueError:  # nothing has been put in yet
        return cell
    return types.CellType(copy.copy(value)) if isinstance(value, CONTAINERS) else cell
