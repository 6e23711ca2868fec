"""The table of layers: kernels, output shapes, parameters, receptive fields, for any CNN.

Nothing is looked up: the network runs once on tensors that have shapes but no numbers, while
`cnnviz.networks.receptive_fields` follows what depends on what. What comes out are the textbook's formulas,
(H - F + 2P) / S + 1 for the size of a map and K (F F D + 1) for the parameters of a convolution.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from cnnviz.errors import FORWARD_ERRORS, LayerError, ShapeError
from cnnviz.networks.inputs import check_side
from cnnviz.networks.layer_names import LayerName, block_of
from cnnviz.networks.network import Network, check_module, count_parameters, forward_pass, wrap
from cnnviz.networks.receptive_fields import Field, Fields


@dataclass(frozen=True)
class Layer:
    """One row of the table.

    Attributes:
        name, alias: PyTorch's name and, in the VGG family, the one like block4_conv2.
        kind: the module's class.
        kernel, stride, padding: (height, width) in positions, or None where the layer has none.
        output: shape without the batch: (C, H, W) for maps; empty if the layer did not run.
        parameters: how many numbers it learns; shared ones count at the first layer that has them.
        receptive_field: (height, width) in input pixels, not cut at the image's border; infinite where every output
            depends on the whole image; None where it is not known.
        step: (height, width) in input pixels between neighbouring outputs, likewise.
        start: (row, column) of the input pixel at which the first output's receptive field begins, negative where that
            is beyond the border, likewise.
        dilation: (height, width) in positions, between neighbours of a kernel; None where they are next to each other.
        groups: into which a convolution divides its channels.
    """

    name: str
    alias: str
    kind: str
    kernel: tuple[int, int] | None
    stride: tuple[int, int] | None
    padding: tuple[int, int] | None
    output: tuple[int, ...]
    parameters: int
    receptive_field: tuple[float, float] | None
    step: tuple[float, float] | None
    start: tuple[float, float] | None
    dilation: tuple[int, int] | None = None
    groups: int = 1


def layer_table(network: nn.Module, input_size: tuple[int, int] | None = None) -> list[Layer]:
    """Every layer without sublayers, in the order in which they run, then those with parameters that do not run.

    Modules with sublayers get a row as well if they hold parameters of their own. A module that is used more than once
    is listed at its first use.

    Args:
        network: a `Network`; or any ``nn.Module``, whose `input_size` must be given.
        input_size: (height, width) in pixels of the image; a `Network`'s own by default.

    Raises:
        ShapeError: if the network does not take images of that size, or it is not known.
        ModelError: if it is no module.
    """
    check_module(network)
    if not isinstance(network, Network):
        name = type(network).__name__
        if input_size is None:
            raise ShapeError(f"the input size of a plain {name} is not known; give it as (height, width) in pixels.")
        network = wrap(network, name=name, input_size=_height_width(input_size))
    height, width = _height_width(input_size or network.input_size)
    check_side(max(height, width))
    shape = (1, network.channels, height, width)
    try:
        traced, outputs = _trace(network.on_meta(), torch.empty(shape, device="meta"))
    except FORWARD_ERRORS:  # a network that looks at values needs some
        images = torch.zeros(shape, device=network.device)
        with forward_pass(network, images):
            traced, outputs = _trace(network.twin(), images)
    names = {part: name for name, part in traced.module.named_modules() if name}
    idle = (part for part in _rows(traced) if part not in outputs and count_parameters(part))
    order = [*outputs, *idle]
    counted: set[nn.Parameter] = set()
    rows = []
    for part in order:
        own = set(part.parameters(recurse=is_parametrized(part))) - counted
        counted |= own
        parameters = sum(parameter.numel() for parameter in own)
        rows.append(_row(network.name_of(names[part]), part, parameters, *outputs.get(part, ((), None))))
    return rows


def _height_width(size: object) -> tuple[int, int]:
    if not (isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(side, int) for side in size)):
        raise ShapeError(f"the input size is (height, width) in pixels, such as (224, 224), not {size!r}.")
    return size[0], size[1]


def convolutions(network: Network) -> list[str]:
    """As `all_convolutions`; empty if there is none."""
    blocks = {name.module.rpartition(".")[0] for name in network.names.values()}
    modules = network.module.named_modules()
    others = {path for path, part in modules if isinstance(part, nn.Conv2d) and path.rpartition(".")[0] not in blocks}
    rows = layer_table(network) if others else []
    return network.convolutions + [row.name for row in rows if row.name in others and row.output]


def all_convolutions(network: Network) -> list[str]:
    """The layers that "all" stands for: every convolution that runs, in the VGG family blockX_convY and any other.

    Raises:
        LayerError: if there is none.
    """
    names = convolutions(network)
    if not names:
        raise LayerError(f"{network.name} runs no convolution of two dimensions, so there are no filters to draw.")
    return names


def last_convolutions(network: Network) -> list[str]:
    """The last convolution of each block, and where blocks have no names, of each size of maps.

    Raises:
        LayerError: as `all_convolutions`.
    """
    names = all_convolutions(network)
    rows = layer_table(network) if any(name not in network.names for name in names) else []
    return last_of_each_block(network, names, rows)


def last_of_each_block(network: Network, names: Iterable[str], rows: Iterable[Layer]) -> list[str]:
    """Of layers the last one of each block of the VGG family, elsewhere of each size of maps; as they run.

    Args:
        rows: of the table of layers, those of layers that are in no block.
    """
    sizes = {row.name: row.output[1:] for row in rows}
    last: dict[object, str] = {}
    for name in names:
        group = block_of(name) if name in network.names else sizes[name]
        last.pop(group, None)  # a size that comes back counts where it comes last
        last[group] = name
    return list(last.values())


def middle_convolution(network: Network) -> str:
    """The convolution that is shown where none is named: the last one of the block in the middle.

    Raises:
        LayerError: as `all_convolutions`.
    """
    names = last_convolutions(network)
    return names[len(names) // 2]


Outputs = dict[nn.Module, tuple[tuple[int, ...], Field | None]]


@torch.no_grad()
def _trace(network: Network, images: Tensor) -> tuple[Network, Outputs]:
    """Shapes and fields of all rows that run; `network` is a copy of our own and keeps the hooks."""
    outputs: Outputs = {}
    fields = Fields()
    fields.start(images)

    def note(module: nn.Module, _: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(first, Tensor):
            outputs.setdefault(module, (tuple(first.shape[1:]), fields.known.get(first)))

    for part in _rows(network):
        part.register_forward_hook(note)
    with fields:
        network(images)
    return network, outputs


def _rows(network: Network) -> list[nn.Module]:
    """Modules without modules in them, but for what computes their weights, and others with weights of their own."""
    parts = {name: part for name, part in network.module.named_modules() if name}
    computing = tuple(f"{name}.parametrizations" for name, part in parts.items() if is_parametrized(part))
    return [part for name, part in parts.items() if not name.startswith(computing) and _is_row(part)]


def _is_row(part: nn.Module) -> bool:
    return not list(part.children()) or is_parametrized(part) or bool(list(part.parameters(recurse=False)))


def _row(name: LayerName, module: nn.Module, parameters: int, output: tuple[int, ...], field: Field | None) -> Layer:
    dilation = _pair(getattr(module, "dilation", None))
    return Layer(
        name=name.module,
        alias=name.name if name.name != name.module else "",
        kind=type(module).__name__,
        kernel=_pair(getattr(module, "kernel_size", None)),
        stride=_pair(getattr(module, "stride", None)),
        padding=_padding(module),
        output=output,
        parameters=parameters,
        receptive_field=(field.spans[0].size, field.spans[1].size) if field else None,
        step=(field.spans[0].step, field.spans[1].step) if field else None,
        start=(field.spans[0].low, field.spans[1].low) if field else None,
        dilation=None if dilation == (1, 1) else dilation,
        groups=module.groups if isinstance(module, nn.Conv2d) else 1,
    )


def _padding(module: nn.Module) -> tuple[int, int] | None:
    padding = getattr(module, "padding", None)
    if isinstance(padding, str) and isinstance(module, nn.Conv2d):
        before = [d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return (before[0], before[1]) if padding == "same" else (0, 0)
    return _pair(padding)


def _pair(value: object) -> tuple[int, int] | None:
    if isinstance(value, int):
        return (value, value)
    return (int(value[0]), int(value[1])) if isinstance(value, tuple) and len(value) == 2 else None
