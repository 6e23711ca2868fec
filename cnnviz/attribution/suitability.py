"""What a network is made of, as far as methods of attribution must know it.

Found out on tensors without numbers, so it costs next to nothing. captum's hooks see modules only: what a forward does
by functions of its own passes them unseen, and the result is wrong without a word.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnviz.attribution.methods import METHODS, Method, Need
from cnnviz.attribution.regions import RegionSum, gives_maps, maps_in
from cnnviz.errors import FORWARD_ERRORS, LayerError, ModelError
from cnnviz.networks.arrangements import Arrangement, ChannelAxes
from cnnviz.networks.network import Network, check_logits, forward_pass

Kind = type[nn.Module]
BATCH_STATISTICS, OF_TWO = "batch statistics", " of two"
BY_NUMBER = "a factor"  # what stands for a product or a quotient of a tensor and a number
# PyTorch's operations, without underscores around them and "with_indices" behind. What only moves numbers about:
MOVING = frozenset(
    [
        *("alias", "as_strided", "cat", "clone", "contiguous", "copy", "detach", "empty", "expand", "flatten"),
        *("lift_fresh", "permute", "pixel_shuffle", "reshape", "reshape_alias", "select", "slice", "split"),
        *("split_with_sizes", "squeeze", "stack", "t", "to_copy", "transpose", "unbind", "unsafe_view", "unsqueeze"),
        "view",
    ]
)
# What is linear in the image besides, so that attributions pass through it as they are:
LINEAR = MOVING | frozenset(
    [
        *("adaptive_avg_pool2d", "add", "addmm", "avg_pool2d", "bmm", "constant_pad_nd", "convolution"),
        *("cudnn_batch_norm", "mean", "mm", "native_batch_norm", "native_batch_norm_legit_no_training", "neg"),
        *("reflection_pad2d", "replication_pad2d", "rsub", "sub", "sum", "upsample_bilinear2d", "upsample_nearest2d"),
        BY_NUMBER,
    ]
)
PRODUCTS = {"addmm", "addmv", "baddbmm", "bmm", "convolution", "matmul", "mm", "mul", "mv"}  # linear in one factor
RECTIFYING = {"relu", "clamp", "clamp_min", "maximum", "threshold", "where"}  # what may be a ReLU
RESCALED: set[Kind] = {nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.MaxPool2d}
PROPAGATED: set[Kind] = {nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d}
PASSED_ON: set[Kind] = {nn.ReLU, nn.Tanh, nn.Dropout, nn.Flatten, nn.Identity}  # relevance goes through unchanged
TOGETHER = ("deeplift", "conductance")  # show the network an image and others in one batch, whatever its size
NO_DEFAULT = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d, nn.Dropout)


@dataclass(frozen=True)
class Structure:
    """What one forward pass did.

    Attributes:
        operations: PyTorch's operations, each with the kind of the innermost module in which it ran.
        leaves: kinds of modules that have no modules in them.
        reused: kinds of such modules of which one is used more than once.
        chain: whether every step has one predecessor: no sums of two branches, nothing concatenated.
        classes: how many logits there are.
        activations: how many numbers the modules give for one image of the network's own size.
        uses: how often modules, by name, run.
        maps: how modules by name arrange feature maps of more than one position, in the order they end in.
        features: those of `maps` among which the last one is looked at if none is named. Where scores are sums over a
            region, these are what the scores come of, less what has a map for each class.
        region: whether scores are sums over a region; see `cnnviz.attribution.regions`.
    """

    operations: frozenset[tuple[str, Kind]]
    leaves: frozenset[Kind]
    reused: frozenset[Kind]
    chain: bool
    classes: int
    activations: int
    uses: Mapping[str, int]
    maps: Mapping[str, Arrangement]
    features: tuple[str, ...]
    region: bool


def structure_of(network: Network) -> Structure:
    """What `network` is made of.

    Raises:
        ModelError, ShapeError: if it does not give a row of logits for an image of its own size.
    """
    images = torch.full((1, network.channels, *network.input_size), 0.5, device=network.device)
    try:
        structure = _followed(network.on_meta(), torch.empty_like(images, device="meta"))
    except FORWARD_ERRORS:  # a forward that looks at values
        with forward_pass(network, images):
            structure = _followed(network.twin(), images)
    if structure.features and structure.maps[structure.features[-1]].extra:
        with forward_pass(network, images):
            return replace(structure, features=_with_gradients(network.twin(), images, structure))
    return structure


def check(network: Network, structure: Structure, name: str) -> None:
    """Notice that captum would be wrong about this network with that method.

    Raises:
        ModelError: says why, and which methods can.
    """
    reason = _reason(structure, METHODS[name].needs)
    if name in TOGETHER and not network.independent:
        reason = "what it gives for an image depends on others in the batch, and it sees several at once"
    if reason:
        others = ", ".join(able(structure))
        raise ModelError(f"{METHODS[name].title} cannot explain {network.name}: {reason}; these methods can: {others}.")


def able(structure: Structure) -> list[str]:
    """The methods that captum is right about, for a network of this structure."""
    return [name for name, method in METHODS.items() if not _reason(structure, method.needs)]


def layer_for(network: Network, structure: Structure, method: Method, layer: str | None) -> str | None:
    """The layer a method looks at: the one asked for, or the last one with feature maps; None for most methods.

    Raises:
        UnknownNameError: if there is no layer of that name.
        LayerError: if it gives no feature maps, or none does.
    """
    if not method.layer:
        return None
    if layer is not None:
        if network.qualified(layer) not in structure.maps:
            raise LayerError(f"layer {layer!r} gives no feature maps that {method.title} could weigh; take another.")
        return layer
    mapped = (name for name in structure.features if not isinstance(network.layers[name], NO_DEFAULT))
    chosen = network.convolutions or list(mapped)
    if chosen:
        return chosen[-1]
    raise LayerError(f"{network.name} has no layer with feature maps, which {method.title} needs.")


def _reason(structure: Structure, need: Need | None) -> str:
    """Why captum would be wrong, or nothing."""
    return NEEDS[need](structure) if need else ""


def _relu_modules(structure: Structure) -> str:
    apart = {name for name, kind in structure.operations if name in RECTIFYING and not issubclass(kind, nn.ReLU)}
    if any(issubclass(kind, nn.ReLU) for kind in structure.leaves) and not apart:
        return ""
    return _unseen(apart) if apart else "it has no ReLU modules"


def _rescaled_modules(structure: Structure) -> str:
    return _without_rule(structure, RESCALED, LINEAR) or _used_again(structure, RESCALED)


def _chain(structure: Structure) -> str:
    if structure.region:
        return "its scores are sums over a region, which captum does not share out among the pixels"
    if not structure.chain:
        return "its layers are no chain (sums or concatenations of branches), for which captum's rules do not hold"
    ruled = PROPAGATED | PASSED_ON
    if unknown := structure.leaves - ruled:
        return f"there is no rule for its {' and '.join(sorted(kind.__name__ for kind in unknown))}"
    return _without_rule(structure, ruled, MOVING) or _used_again(structure, PROPAGATED)


NEEDS: dict[Need, Callable[[Structure], str]] = {
    "relu modules": _relu_modules,
    "rescaled modules": _rescaled_modules,
    "chain": _chain,
}


def _without_rule(structure: Structure, ruled: set[Kind], harmless: frozenset[str]) -> str:
    """What runs neither in a module that captum has a rule for nor leaves attributions as they are."""
    strange = {(name, kind) for name, kind in structure.operations if name not in harmless and kind not in ruled}
    products = sorted({name.removesuffix(OF_TWO) for name, _ in strange if name.endswith(OF_TWO)})
    if products:
        return f"its forward multiplies with each other what depends on the image ({' and '.join(products)})"
    if any(name == BATCH_STATISTICS for name, _ in strange):
        return "it normalises by statistics of what it is given, which is not linear"
    lacking = sorted({kind.__name__ for _, kind in strange if kind in structure.leaves and _is_pytorchs(kind)})
    if lacking:
        return f"there is no rule for its {' and '.join(lacking)}"
    return _unseen({name for name, _ in strange}) if strange else ""


def _is_pytorchs(kind: Kind) -> bool:
    return kind.__module__.startswith("torch.nn.")


def _unseen(names: set[str]) -> str:
    return f"its forward applies {' and '.join(sorted(names))} by functions, which captum's hooks cannot see"


def _used_again(structure: Structure, kinds: set[Kind]) -> str:
    again = sorted(kind.__name__ for kind in structure.reused & kinds)
    return f"it uses one {again[0]} module in several places, which captum cannot tell apart" if again else ""


class _Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which operations run in which modules, which modules run, and what they give.

    `module` is a copy of our own and keeps the hooks.
    """

    def __init__(self, module: nn.Module, axes: ChannelAxes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = {part: name for name, part in module.named_modules()}
        self.inside: list[nn.Module] = []
        self.operations: set[tuple[str, Kind]] = set()
        self.calls: Counter[nn.Module] = Counter()
        self.activations = 0
        self.maps: dict[str, Arrangement] = {}
        self.outputs: dict[str, tuple[int, Any]] = {}  # channels, and the step of the graph, of each of `maps`
        self.axes = axes
        for part in self.names:
            part.register_forward_pre_hook(self._begin)
            part.register_forward_hook(self._end)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.inside:  # else it is the normalisation
            name = function._schema.name.removeprefix("aten::").strip("_").removesuffix("_with_indices")
            self.operations.add((_operation(name, function, args), type(self.inside[-1])))
        return function(*args, **(kwargs or {}))

    def _begin(self, module: nn.Module, _: object) -> None:
        self.inside.append(module)

    def _end(self, module: nn.Module, _: object, output: object) -> None:
        self.inside.pop()
        self.calls[module] += 1
        if isinstance(output, Tensor) and _is_leaf(module):
            self.activations += output.numel()
        if isinstance(output, Tensor):
            self._note_maps(self.names[module], output)

    def _note_maps(self, name: str, output: Tensor) -> None:
        try:
            arrangement = self.axes.arrangement(output, name, 1)
        except LayerError:
            return
        if arrangement.positions(output.shape) > 1:
            self.maps.pop(name, None)  # the last time a module ends counts for its place
            self.maps[name] = arrangement
            self.outputs[name] = output.shape[arrangement.channels], output.grad_fn


def _operation(name: str, function: Any, args: Sequence[Any]) -> str:
    """What an operation counts as: its name, unless its arguments make it something else."""
    if name in ("mul", "div") and not all(isinstance(value, Tensor) for value in args[:2]):
        return BY_NUMBER
    named = {argument.name: value for argument, value in zip(function._schema.arguments, args, strict=False)}
    if "batch_norm" in name and named.get("training"):
        return BATCH_STATISTICS
    varying = sum(isinstance(value, Tensor) and value.requires_grad for value in args)
    return f"{name}{OF_TWO}" if name in PRODUCTS and varying > 1 else name


def _is_leaf(module: nn.Module) -> bool:
    return not list(module.children())


def _followed(network: Network, images: Tensor) -> Structure:
    given = images.requires_grad_()
    axes = ChannelAxes(given)
    watched = _Watched(network.module, axes)
    with watched, axes, torch.enable_grad():
        logits = network(given)
    if gives_maps(logits):
        output = maps_in(logits)
        text = f"{str(output.dtype).removeprefix('torch.')} of shape {' x '.join(map(str, output.shape))}"
        raise ModelError(
            f"{network.name} gives no single row of logits but {text}, a map for each class: `cnnviz saliency`"
            " explains a part of them, by --target-mask or --target-box (region= in Python)."
        )
    check_logits(logits, 1, network.name)
    region = any(isinstance(hook, RegionSum) for hook in network.module._forward_hooks.values())
    maps = {name: arrangement for name, arrangement in watched.maps.items() if name}
    return Structure(
        operations=frozenset(watched.operations),
        leaves=frozenset(type(part) for part in watched.names if _is_leaf(part)),
        reused=frozenset(type(part) for part, times in watched.calls.items() if times > 1 and _is_leaf(part)),
        chain=_is_chain(logits),
        classes=logits.shape[1],
        activations=watched.activations,
        uses={watched.names[part]: times for part, times in watched.calls.items()},
        maps=maps,
        features=tuple(_features(maps, watched, logits) if region else maps),
        region=region,
    )


def _features(maps: Mapping[str, Arrangement], watched: _Watched, logits: Tensor) -> Iterator[str]:
    """Of modules with maps those that the logits come of, and that have not a map for each class."""
    steps: set[Any] = set()
    waiting = [logits.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None and step not in steps:
            steps.add(step)
            waiting += [before for before, _ in step.next_functions]
    for name in maps:
        channels, step = watched.outputs[name]
        if step in steps and channels != logits.shape[1]:
            yield name


def _with_gradients(network: Network, images: Tensor, structure: Structure) -> tuple[str, ...]:
    """Of a structure's features those as wide as the last, of whose positions the logits depend on any; or else all.

    Where classes are read off a token of their own, no other one counts behind the last attention. `network` is a copy
    of our own and keeps the hooks.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        outputs[name] = output
        return output.clone()  # what follows may write into it

    for name in structure.features:
        network.layers[name].register_forward_hook(lambda _, __, output, name=name: keep(name, output))
    with torch.enable_grad():
        score = network(images.detach().requires_grad_())[:, 0].sum()
    names = [name for name in structure.features if outputs[name].requires_grad]
    gradients = torch.autograd.grad(score, [outputs[name] for name in names], allow_unused=True)
    widths = {name: outputs[name].shape[structure.maps[name].channels] for name in structure.features}
    counting = (
        name
        for name, gradient in zip(names, gradients, strict=True)
        if gradient is not None
        and widths[name] == widths[structure.features[-1]]
        and structure.maps[name].maps(gradient).any()
    )
    return tuple(counting) or structure.features


def _is_chain(logits: Tensor) -> bool:
    """Whether each step of the graph behind some logits has one predecessor that depends on the image."""
    step = logits.grad_fn
    while step is not None:
        before = [function for function, _ in step.next_functions if function is not None]
        if len(before) > 1:
            return False
        step = before[0] if before else None
    return True
