"""What a network is made of, as far as methods of attribution must know it.

Found out on tensors without numbers, so it costs next to nothing. captum's hooks see modules only: what a forward does
by functions of its own passes them unseen, and the result is wrong without a word.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnviz.errors import LayerError, ModelError
from cnnviz.methods import METHODS, Method, Need
from cnnviz.network import FORWARD_ERRORS, Network, forward_pass

# Operations that captum treats in a way of its own, and the module that it must find around them.
HOOKED: dict[str, type[nn.Module]] = {
    "aten::relu": nn.ReLU,
    "aten::relu_": nn.ReLU,
    "aten::clamp_min": nn.ReLU,
    "aten::max_pool2d_with_indices": nn.MaxPool2d,
}
# Activations that DeepLift has no rule for, and layer-wise relevance propagation neither.
WITHOUT_RULE = {"aten::silu", "aten::gelu", "aten::hardswish", "aten::hardsigmoid", "aten::hardtanh", "aten::mish"}
POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)


@dataclass(frozen=True)
class Structure:
    """What one forward pass did.

    Attributes:
        functional: names of modules whose work is done by functions, such as "ReLU", where captum cannot see it.
        reused: whether a ReLU module is used more than once.
        relus: how many ReLU modules were used.
        without_rule: activations other than ReLU, such as "gelu".
        chain: whether every step has one predecessor: no sums of two branches, nothing concatenated.
        classes: how many logits there are.
        activations: how many numbers the modules give for one image of the network's own size.
        maps: modules by name that give feature maps (N, C, H, W) of more than one position, in the order they end in.
    """

    functional: tuple[str, ...]
    reused: bool
    relus: int
    without_rule: tuple[str, ...]
    chain: bool
    classes: int
    activations: int
    maps: tuple[str, ...]


def structure(network: Network) -> Structure:
    """What `network` is made of.

    Raises:
        ModelError, ShapeError: if it does not give a row of logits for an image of its own size.
    """
    try:
        return _followed(network.on_meta(), torch.empty(1, network.channels, *network.input_size, device="meta"))
    except FORWARD_ERRORS:  # a forward that looks at values
        images = torch.full((1, network.channels, *network.input_size), 0.5, device=network.device)
        with forward_pass(network, images):
            return _followed(network.twin(), images)


def check(network: Network, made: Structure, name: str) -> None:
    """Notice that captum would be wrong about this network with that method.

    Raises:
        ModelError: says why, and which methods can.
    """
    reason = _reason(made, METHODS[name].needs)
    if reason:
        others = ", ".join(able(made))
        raise ModelError(f"{METHODS[name].title} cannot explain {network.name}: {reason}; these methods can: {others}.")


def able(made: Structure) -> list[str]:
    """The methods that captum is right about, for a network of this structure."""
    return [name for name, method in METHODS.items() if not _reason(made, method.needs)]


def layer_for(network: Network, made: Structure, method: Method, asked: str | None) -> str | None:
    """The layer a method looks at: the one asked for, or the last one with feature maps; None for most methods.

    Raises:
        UnknownNameError: if there is no layer of that name.
        LayerError: if it gives no feature maps, or none does.
    """
    if not method.layer:
        return None
    if asked is not None:
        if network.qualified(asked) not in made.maps:
            raise LayerError(f"layer {asked!r} gives no feature maps that {method.title} could weigh; take another.")
        return asked
    blocks = [alias for alias in network.aliases if "conv" in alias and ":" not in alias]
    if blocks or made.maps:
        return blocks[-1] if blocks else made.maps[-1]
    raise LayerError(f"{network.name} has no layer with feature maps, which {method.title} needs.")


def _reason(made: Structure, need: Need | None) -> str:
    """Why captum would be wrong, or nothing."""
    if need == "relu modules":
        if "ReLU" in made.functional:
            return "its forward applies ReLU by a function, which captum's hooks cannot see"
        return "" if made.relus else "it has no ReLU modules"
    if need == "rescaled modules":
        if made.functional:
            return f"its forward applies {' and '.join(made.functional)} by functions, which captum's hooks cannot see"
        if made.reused:
            return "it uses one ReLU module in several places, which captum cannot tell apart"
    if need == "chain" and not made.chain:
        return "its layers are no chain (sums or concatenations of branches), for which captum's rules do not hold"
    if need in ("chain", "rescaled modules") and made.without_rule:
        return f"there is no rule for its {' and '.join(made.without_rule)}"
    return ""


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[function._schema.name] += 1
        return function(*args, **(kwargs or {}))


def _followed(network: Network, images: Tensor) -> Structure:
    names = {module: name for name, module in network.module.named_modules() if name}
    calls: Counter[nn.Module] = Counter()
    sizes: Counter[str] = Counter()
    maps: dict[str, None] = {}
    counted = _Counted()
    with _hooked(names, calls, sizes, maps), counted, torch.enable_grad():
        logits = network(images.requires_grad_())
    if not isinstance(logits, Tensor) or logits.ndim > 2 or len(logits) != 1:
        raise ModelError(f"{network.name} is no classifier of single pictures: it gives no single row of logits.")
    by_module = {
        kind: sum(times for module, times in calls.items() if isinstance(module, kind)) for kind in HOOKED.values()
    }
    by_any = {kind: sum(counted.counts[name] for name, own in HOOKED.items() if own is kind) for kind in by_module}
    return Structure(
        functional=tuple(kind.__name__ for kind in by_module if by_any[kind] > by_module[kind]),
        reused=any(times > 1 for module, times in calls.items() if isinstance(module, nn.ReLU)),
        relus=by_module[nn.ReLU],
        without_rule=tuple(sorted(name.split("::")[1] for name in WITHOUT_RULE & counted.counts.keys())),
        chain=_is_chain(logits),
        classes=logits.shape[1] if logits.ndim == 2 else 1,
        activations=sizes.total(),
        maps=tuple(maps),
    )


@contextmanager
def _hooked(
    names: dict[nn.Module, str], calls: Counter[nn.Module], sizes: Counter[str], maps: dict[str, None]
) -> Iterator[None]:
    """Note which modules run how often, and which give maps; the last time one ends counts for its place."""

    def note(module: nn.Module, _: object, output: object) -> None:
        calls[module] += 1
        if isinstance(output, Tensor) and not list(module.children()):
            sizes[names[module]] += output.numel()
        spread = isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1
        if spread and not isinstance(module, (*POOLS, nn.Dropout)):
            maps.pop(names[module], None)
            maps[names[module]] = None

    handles = [module.register_forward_hook(note) for module in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_chain(logits: Tensor) -> bool:
    """Whether each step of the graph behind some logits has one predecessor that depends on the image."""
    step = logits.grad_fn
    while step is not None:
        before = [function for function, _ in step.next_functions if function is not None]
        if len(before) > 1:
            return False
        step = before[0] if before else None
    return True
