"""Receptive fields of whatever a network computes, branches and functional calls included.

While `Fields` is active, every function of torch hands on which pixels its result depends on. To teach it a function,
write a rule and enter it in `RULES`; what has no rule counts as elementwise if it keeps the map's size.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True)
class Span:
    """The pixels along one axis that outputs depend on: output i on low + i * step to high + i * step."""

    low: float
    high: float
    step: float

    @property
    def size(self) -> float:
        return self.high - self.low + 1

    def windowed(self, kernel: int, stride: float, padding: int = 0, dilation: int = 1) -> "Span":
        """The span after a convolution or pool."""
        if math.isinf(self.low):
            return replace(self, step=self.step * stride)
        low = self.low - padding * self.step
        return Span(low, low + (self.high - self.low) + (kernel - 1) * dilation * self.step, self.step * stride)


WHOLE = Span(-math.inf, math.inf, math.inf)
PIXEL = Span(0, 0, 1)


@dataclass(frozen=True)
class Field:
    """The spans of a tensor along height and width, and which of its axes those are; none if it has no positions."""

    spans: tuple[Span, Span]
    axes: tuple[int, int] | None


@dataclass(frozen=True)
class Call:
    """One call of a torch function: the field of a source, that tensor, what came out, and the arguments by name."""

    field: Field
    source: Tensor
    output: Tensor
    arguments: Mapping[str, Any]


Rule = Callable[[Call], Field | None]
Region = tuple[slice, slice]  # of a map: its rows and columns


def unpadded(field: Field | None, size: tuple[int, int], positions: tuple[int, int]) -> Region | None:
    """The positions of a map whose values depend on no padding.

    Args:
        field: of the map; None if it is not known.
        size: (height, width) in pixels of the image.
        positions: (rows, columns) of the map.

    Returns:
        The rows and columns; None if there are none, or it is not known.
    """
    if field is None or field.axes != (2, 3):
        return None
    region = []
    for span, pixels, count in zip(field.spans, size, positions, strict=True):
        inside = [i for i in range(count) if span.low + i * span.step >= 0 and span.high + i * span.step <= pixels - 1]
        if not inside:
            return None
        region.append(slice(inside[0], inside[-1] + 1))
    return region[0], region[1]


class Fields(TorchFunctionMode):
    """While active, keeps the field of every tensor that comes from one whose field is known.

    Attributes:
        known: the fields by tensor. None stands for a field that could not be followed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: Any = WeakTensorKeyDictionary()

    def start(self, images: Tensor) -> None:
        """Let every position of `images`, (N, C, H, W), be one pixel."""
        self.known[images] = Field((PIXEL, PIXEL), (2, 3))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "__setitem__":  # x[:, :2] = y changes x and returns nothing
            parts = [self.known.get(tensor) for tensor in (args[0], args[2]) if isinstance(tensor, Tensor)]
            self.known[args[0]] = _union(parts) if None not in parts else None
        sources = [tensor for tensor in _tensors([*args, *(kwargs or {}).values()]) if tensor in self.known]
        if sources:
            for output in _tensors([result]):
                self.known[output] = self._field(func, sources, output, args, kwargs or {})
        return result

    def _field(
        self,
        func: Callable[..., Any],
        sources: list[Tensor],
        output: Tensor,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Field | None:
        rule, names = RULES.get(getattr(func, "__name__", ""), (_elementwise, ()))
        arguments = {**dict(zip(names, args, strict=False)), **kwargs, "rest": args[len(names) :]}
        fields = [self.known[source] for source in sources]
        if None in fields:
            return None
        calls = (Call(field, source, output, arguments) for field, source in zip(fields, sources, strict=True))
        results = [rule(call) for call in calls]
        return None if None in results else _union(result for result in results if result)


def _union(fields: Iterable[Field | None]) -> Field:
    """What depends on several sources at once, as the sum at the end of a residual block does."""
    listed = [field for field in fields if field is not None]
    spans = tuple(
        Span(min(span.low for span in along), max(span.high for span in along), min(span.step for span in along))
        for along in zip(*(field.spans for field in listed), strict=True)
    )
    return Field((spans[0], spans[1]), next((field.axes for field in listed if field.axes), None))


def _elementwise(call: Call) -> Field | None:
    """Positions stay what they are, if the map keeps its size; a map that was flattened depends on all of it."""
    field, source, output = call.field, call.source, call.output
    if field.axes is None:
        return field
    size = _size(source, field.axes)
    trailing = (output.ndim - 2, output.ndim - 1)
    was_trailing = field.axes == (source.ndim - 2, source.ndim - 1)
    if output.ndim >= 3 and was_trailing and (_size(output, trailing) == size or size == (1, 1)):
        return replace(field, axes=trailing)
    if output.ndim == source.ndim and _size(output, field.axes) == size:
        return field
    if output.ndim >= 3 and output.ndim == source.ndim:
        return None
    return replace(field, axes=None) if size == (1, 1) else Field((WHOLE, WHOLE), None)


def _window(call: Call) -> Field | None:
    """A convolution or a pool over neighbouring positions."""
    arguments = call.arguments
    if call.field.axes != (2, 3):
        return None
    kernel = tuple(arguments["weight"].shape[2:]) if "weight" in arguments else _pair(arguments["kernel_size"])
    stride = _pair(arguments.get("stride") or (1 if "weight" in arguments else kernel))
    dilation = _pair(arguments.get("dilation", 1))
    padding = arguments.get("padding", 0)
    if isinstance(padding, str):
        padding = [d * (k - 1) // 2 if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    axes = zip(call.field.spans, kernel, stride, _pair(padding), dilation, strict=True)
    rows, columns = (span.windowed(*window) for span, *window in axes)
    return replace(call.field, spans=(rows, columns))


def _adaptive(call: Call) -> Field | None:
    """A pool whose windows share out the map."""
    if call.field.axes != (2, 3):
        return None
    rows, columns = (
        WHOLE if after == 1 < before else span.windowed(_largest_share(before, after), before / after)
        for span, before, after in zip(call.field.spans, call.source.shape[2:], call.output.shape[2:], strict=True)
    )
    return replace(call.field, spans=(rows, columns))


def _largest_share(positions: int, windows: int) -> int:
    ends = ((index + 1) * positions for index in range(windows))
    return max(math.ceil(end / windows) - (end - positions) // windows for end in ends)


def _padded(call: Call) -> Field | None:
    before = list(call.arguments["pad"][::2])[:2]  # left, top
    if call.field.axes != (call.source.ndim - 2, call.source.ndim - 1) or len(before) < 2:
        return None
    rows, columns = (
        Span(span.low - shift * span.step, span.high - shift * span.step, span.step)
        for span, shift in zip(call.field.spans, before[::-1], strict=True)
    )
    return replace(call.field, spans=(rows, columns))


def _permuted(call: Call) -> Field:
    dims = call.arguments["dims"]  # permute(x, (0, 2, 3, 1)) or x.permute(0, 2, 3, 1)
    order = [dims, *call.arguments["rest"]] if isinstance(dims, int) else dims
    return _reordered(call.field, [axis % call.source.ndim for axis in order])


def _transposed(call: Call) -> Field:
    first, second = call.arguments["dim0"], call.arguments["dim1"]
    order = list(range(call.source.ndim))
    order[first], order[second] = order[second], order[first]
    return _reordered(call.field, order)


def _reordered(field: Field, order: Sequence[int]) -> Field:
    """The field of a tensor whose axes now stand in another order."""
    if field.axes is None:
        return field
    return replace(field, axes=(order.index(field.axes[0]), order.index(field.axes[1])))


def _reduced(call: Call) -> Field | None:
    """A mean, a sum or a maximum over some axes, or a softmax along one: over positions, all of them count."""
    dims = call.arguments.get("dim")
    axes = call.field.axes
    if axes is None:
        return call.field
    over = range(call.source.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    reduced = {axis % call.source.ndim for axis in over}
    spans = tuple(WHOLE if axis in reduced else span for axis, span in zip(axes, call.field.spans, strict=True))
    kept = call.output.ndim == call.source.ndim
    if not kept and not reduced >= set(axes):
        return None if reduced & set(axes) or max(reduced) > min(axes) else _elementwise(call)
    return Field((spans[0], spans[1]), axes if kept else None)


def _over_channels(call: Call) -> Field | None:
    """A linear layer: works on the last axis, at every position apart."""
    positions_last = call.field.axes is not None and call.source.ndim - 1 in call.field.axes
    return Field((WHOLE, WHOLE), None) if positions_last else call.field


def _mixing(call: Call) -> Field | None:
    """Everything may depend on everything, as in attention."""
    return Field((WHOLE, WHOLE), call.field.axes if call.output.ndim == call.source.ndim else None)


def _lost(_: Call) -> Field | None:
    return None


RULES: Mapping[str, tuple[Rule, tuple[str, ...]]] = {
    "conv2d": (_window, ("input", "weight", "bias", "stride", "padding", "dilation")),
    "max_pool2d": (_window, ("input", "kernel_size", "stride", "padding", "dilation")),
    "avg_pool2d": (_window, ("input", "kernel_size", "stride", "padding")),
    "lp_pool2d": (_window, ("input", "norm_type", "kernel_size", "stride")),
    "adaptive_avg_pool2d": (_adaptive, ()),
    "adaptive_max_pool2d": (_adaptive, ()),
    "pad": (_padded, ("input", "pad")),
    "permute": (_permuted, ("input", "dims")),
    "transpose": (_transposed, ("input", "dim0", "dim1")),
    "linear": (_over_channels, ()),
    "swapaxes": (_transposed, ("input", "dim0", "dim1")),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "softmax", "log_softmax"), (_reduced, ("input", "dim"))),
    "max_pool2d_with_indices": (_window, ("input", "kernel_size", "stride", "padding", "dilation")),
    "matmul": (_mixing, ()),
    "bmm": (_mixing, ()),
    "scaled_dot_product_attention": (_mixing, ()),
    "multi_head_attention_forward": (_mixing, ()),
    **dict.fromkeys(("roll", "flip", "cumsum", "gather", "sort", "grid_sample", "unfold", "fold"), (_lost, ())),
    **dict.fromkeys(("conv_transpose2d", "einsum", "interpolate", "pixel_shuffle", "pixel_unshuffle"), (_lost, ())),
}


def _size(tensor: Tensor, axes: tuple[int, int]) -> tuple[int, int]:
    return tensor.shape[axes[0]], tensor.shape[axes[1]]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
