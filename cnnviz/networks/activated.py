"""The activation behind a layer: what goes into it and what comes out, whatever code the network is written in.

While `Following` is active, every function of torch is looked at. What a layer gives is followed through batch norm,
sums, dropout and pools, which keep channels apart, to the first activation; where something else comes first, there is
none.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Functions of torch by name, those that write into what they are given included.
# fmt: off
ACTIVATIONS = {
    "_threshold", "celu", "clamp", "clamp_min", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu",
    "log_sigmoid", "logsigmoid", "mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus",
    "softsign", "tanh", "threshold",
}
CHANNELWISE = {
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "add", "alpha_dropout", "avg_pool2d", "batch_norm", "bfloat16",
    "clone", "contiguous", "dropout", "dropout2d", "float", "group_norm", "half", "instance_norm", "max_pool2d",
    "max_pool2d_with_indices", "sub", "to",
}
PARAMETERS_PER_CHANNEL = {"batch_norm", "instance_norm", "prelu"}
# fmt: on


@dataclass(frozen=True)
class Call:
    """A call of a torch function on what is followed, with its other arguments."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]

    def __call__(self, values: Tensor) -> Tensor:
        output: Tensor = self.function(values, *self.arguments, **self.named)
        return output

    @property
    def channel_by_channel(self) -> bool:
        """Whether a channel depends on itself alone."""
        others = any(isinstance(value, Tensor) for value in (*self.arguments, *self.named.values()))
        return self.name != "group_norm" and (not others or self.name in PARAMETERS_PER_CHANNEL)

    def of(self, channels: Tensor) -> "Call":
        """The same for some channels, as maps (N, len(channels), H, W)."""

        def part(value: Any) -> Any:
            shared = self.name == "prelu" and isinstance(value, Tensor) and len(value) == 1
            return value[channels] if isinstance(value, Tensor) and not shared else value

        named = {name: part(value) for name, value in self.named.items()}
        return replace(self, arguments=tuple(map(part, self.arguments)), named=named)


@dataclass(frozen=True)
class Activated:
    """What a module gives, together with what the activation behind it makes of it; in place of the module itself."""

    module: nn.Module


@dataclass(frozen=True)
class Use:
    """What a module gives where it is used again: for the time of that number, counted from 1."""

    module: nn.Module
    number: int


Point = nn.Module | Activated | Use


def module_of(point: Point) -> nn.Module:
    return point.module if isinstance(point, Activated | Use) else point


def point_of(module: nn.Module, use: int) -> Point:
    return module if use == 1 else Use(module, use)


@dataclass(frozen=True)
class Activation:
    """What goes into an activation and what comes out.

    Attributes:
        before, after: (N, C, H, W). Where there is no activation, both are what the layer gives.
        path: the calls from the layer to `after`, the activation last; empty where there is none, or where the layer
            ends with it.
        name: of the activation's function, "relu"; None where there is none.
    """

    before: Tensor
    after: Tensor
    path: tuple[Call, ...] = ()
    name: str | None = None


class Following(TorchFunctionMode):
    """While active, follows what modules give to the activations behind them.

    Args:
        found: called with a module and its activation, as soon as it is known.
        instead: functions that run in the place of activations, by name.
    """

    def __init__(
        self,
        found: Callable[[nn.Module, Activation], None],
        instead: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.found, self.instead = found, instead or {}
        self._followed: dict[int, list[nn.Module]] = defaultdict(list)  # modules by the id of what they have become
        self._given: dict[nn.Module, Tensor] = {}
        self._paths: dict[nn.Module, tuple[Call, ...]] = {}
        self._kept: list[Tensor] = []  # a tensor that is freed would leave its id to another one
        self._latest: Activation | None = None

    def follow(self, module: nn.Module, output: Tensor) -> None:
        """Follow `output` from where a module has given it."""
        if self._latest is not None and self._latest.after is output:  # the module ends with an activation
            self.found(module, self._latest)
            return
        self._given[module], self._paths[module] = output, ()
        self._become(output, [module])

    def end(self) -> None:
        """The network is at its end, and what is still followed has no activation behind it."""
        for modules in list(self._followed.values()):
            self._without(modules)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        written = getattr(func, "__name__", "")
        name = written if written.startswith("_") else written.removesuffix("_")
        activates = name in ACTIVATIONS and len(args) > 0 and isinstance(args[0], Tensor)
        sources = [tensor for tensor in (*args, *kwargs.values()) if isinstance(tensor, Tensor)]
        before: Any = args[0] if activates else None
        writes = written != name or kwargs.get("inplace")
        if writes and args and (activates or id(args[0]) in self._followed):
            before = self._saved(args[0])
        result = self.instead[name](before) if activates and name in self.instead else func(*args, **kwargs)
        if not isinstance(result, Tensor):
            return result
        modules = [module for tensor in sources for module in self._followed.pop(id(tensor), [])]
        call = Call(name, self.instead.get(name, func), args[1:], kwargs)
        if activates:
            for module in modules:
                self.found(module, Activation(before, result, (*self._paths[module], call), name))
            result = result.clone() if modules else result  # what follows may write into it
            self._latest = Activation(before, result, name=name)
        elif name in CHANNELWISE and result.ndim == 4:
            for module in modules:
                self._paths[module] += (call,)
            self._become(result, modules)
        else:
            self._without(modules)
        return result

    def _saved(self, tensor: Tensor) -> Tensor:
        """A copy of what is about to be written into, also for the layers that have given it."""
        saved = tensor.clone()
        for module in self._followed.get(id(tensor), []):
            if self._given[module] is tensor:
                self._given[module] = saved
        return saved

    def _become(self, tensor: Tensor, modules: Sequence[nn.Module]) -> None:
        if modules:
            self._followed[id(tensor)].extend(modules)
            self._kept.append(tensor)

    def _without(self, modules: Sequence[nn.Module]) -> None:
        for module in modules:
            self.found(module, Activation(self._given[module], self._given[module]))
