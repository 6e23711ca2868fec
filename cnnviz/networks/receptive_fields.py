"""Receptive fields of whatever a network computes, branches and functional calls included.

While `Fields` is active, every function of torch hands on which pixels its result depends on: for every position of a
tensor the first and the last one, once by the textbook's formulas, as if the image went on beyond its border, and once
as they lie in the image. What is said of a tensor is the textbook's field, and only if the image bears it out.

To teach it a function, write a rule and enter it in `RULES`, or enter its name in `ELEMENTWISE` or `MOVING`. What
depends on the image through any other function is unknown.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
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


WHOLE = Span(-math.inf, math.inf, math.inf)
PIXEL = Span(0, 0, 1)


@dataclass(frozen=True)
class Field:
    """The spans of a tensor along height and width, and which of its axes those are; None if one has no positions."""

    spans: tuple[Span, Span]
    axes: tuple[int, int] | None


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


LOW, HIGH, EVERYTHING, FIRST, LAST = range(5)
NOTHING, UNKNOWN = math.inf, -math.inf  # the one in all of the five, the other in the first two


@dataclass(frozen=True)
class Reach:
    """Which pixels the positions of a tensor depend on.

    Attributes:
        bounds: for rows and for columns of pixels a tensor (5, ...), whose other axes are those of the tensor, of size
            one where all positions are alike. Of all five the smallest is that of positions taken together:
            LOW and the negated HIGH by the textbook, UNKNOWN at times, NOTHING where only everything is left;
            EVERYTHING, negative if the whole image counts besides; FIRST and the negated LAST pixel in the image.
        shape: of the tensor.
        axes: along which rows and columns lie, for want of a second position; None if it is not known.
        steps: (rows, columns) in pixels from one position to the next, where there is but one.
        sides: (height, width) of the image.
    """

    bounds: tuple[Tensor, Tensor]
    shape: torch.Size
    axes: tuple[int, int] | None
    steps: tuple[float, float]
    sides: tuple[int, int]

    @cached_property
    def field(self) -> Field | None:
        """The field of every position; None if they do not lie at regular steps, or the image does not bear it out."""
        axes = self._positions()
        if axes is None:
            return None
        rows, columns = (self._span(image_axis, axis) for image_axis, axis in enumerate(axes))
        if rows is None or columns is None:
            return None
        first, second = axes
        return Field((rows, columns), None if first is None or second is None or first == second else (first, second))

    def _positions(self) -> tuple[int | None, int | None] | None:
        """The axes of rows and columns: what pixels change along, but for channels that stand for patches."""
        changing = [[axis for axis in range(len(self.shape)) if part.shape[axis + 1] > 1] for part in self.bounds]
        known = self.axes or (None, None)
        for rows, columns, channels in LAYOUTS.get(len(self.shape), ()):
            likely = self.axes == (rows, columns) or (rows is None and self.axes is None)
            likely |= self.axes is None and rows in changing[0] and columns in changing[1]
            if likely and set(changing[0]) <= {rows, channels} and set(changing[1]) <= {columns, channels}:
                return rows, columns
        if any(len(axes) > 1 for axes in changing):
            return None
        return (*changing[0], known[0])[0], (*changing[1], known[1])[0]

    def _span(self, image_axis: int, axis: int | None) -> Span | None:
        part, step, side = self.bounds[image_axis], self.steps[image_axis], self.sides[image_axis]
        if axis is None:  # of a vector all is told together
            part = _hull(part, side - max(step - 1, 0) if math.isfinite(step) else side, range(len(self.shape)))
        others = [each + 1 for each in range(len(self.shape)) if each != axis]
        low, high, everything, first, last = (part.amin(others) if others else part).reshape(5, -1)
        high, last = -high, -last
        if len(low) > 1:
            step = (low[1] - low[0]).item()
        elif axis is not None and self.shape[axis] > 1 and not everything.lt(0).all():
            step = 0
        even = low[0] + step * torch.arange(len(low), device="cpu") if len(low) > 1 else low
        regular = low.equal(even) and high.equal(even + (high[0] - low[0])) and not everything.lt(0).any()
        known_step = axis is not None and low.equal(even) and math.isfinite(step) and step > 0
        whole = Span(-math.inf, math.inf, _whole_number(step) if known_step else math.inf)
        if everything.lt(0).all():
            return whole
        inside = (low.lt(0) | first.eq(low)) & (high.ge(side) | last.eq(high)) & first.ge(low) & last.le(high)
        beyond = first.isinf() & (low.lt(0) | high.ge(side))
        if regular and step >= 0 and bool((inside | beyond).all()) and math.isfinite(low[0]):
            return Span(_whole_number(low[0]), _whole_number(high[0]), _whole_number(step))
        return whole if bool((first.le(0) & last.ge(side - 1)).all()) else None


LAYOUTS: Mapping[int, tuple[tuple[int | None, int | None, int], ...]] = {  # rows, columns, channels
    4: ((2, 3, 1), (1, 2, 3)),
    3: ((1, 2, 0), (0, 1, 2)),
    2: ((None, None, 1), (0, 1, -1)),
    1: ((None, None, 0),),
    0: ((None, None, -1),),
}


@dataclass(frozen=True)
class Call:
    """One call of a torch function.

    Attributes:
        arguments: by name, the first as "input".
        reaches: of the tensors that went in and depend on the image, by the tensors' ids.
        output: one of the tensors that came out, the `index`-th.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    arguments: Mapping[str, Any]
    reaches: Mapping[int, Reach]
    output: Tensor
    index: int

    @property
    def source(self) -> Reach | None:
        """Of the input, if nothing else depends on the image."""
        reach = self.reach(self.arguments.get("input"))
        return reach if len(self.reaches) == 1 else None

    def reach(self, tensor: object) -> Reach | None:
        return self.reaches.get(id(tensor))


Rule = Callable[[Call], Reach | None]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = _words(
    """
    add sub mul truediv div floordiv pow mod and or xor lshift rshift
    """
)
ORDERING = _words(
    """
    permute transpose swapaxes swapdims movedim moveaxis t T mT H mH unsqueeze
    """
)
EXPANDING = _words("expand expand_as broadcast_to broadcast_tensors")
MOVING = (
    ORDERING
    | EXPANDING
    | _words(
        """
    view reshape view_as reshape_as flatten unflatten ravel squeeze flip fliplr flipud roll rot90 fft_fftshift
    fft_ifftshift getitem select narrow index_select gather take_along_dim diagonal Tensor.unfold chunk split
    split_with_sizes tensor_split hsplit vsplit unsafe_chunk unsafe_split unbind cat concat concatenate stack hstack
    vstack dstack column_stack row_stack repeat tile repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle
    native_channel_shuffle atleast_2d atleast_3d
    """
    )
)
COPYING: Mapping[str, Callable[..., Any]] = {"view": Tensor.reshape, "view_as": Tensor.reshape_as}
ELEMENTWISE = OPERATORS | _words(
    """
    matmul relu relu6 leaky_relu rrelu elu selu celu gelu silu mish softplus softsign tanhshrink softshrink
    hardshrink hardtanh hardswish hardsigmoid threshold logsigmoid log_sigmoid sigmoid tanh dropout dropout1d
    dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout native_dropout subtract multiply divide
    true_divide floor_divide remainder fmod neg negative positive abs absolute sign sgn exp exp2 expm1 log log2
    log10 log1p sqrt rsqrt square reciprocal float_power sin cos tan asin acos atan arcsin arccos arctan sinh cosh
    asinh acosh atanh atan2 arctan2 sinc erf erfc erfinv lgamma digamma logit logaddexp logaddexp2 xlogy hypot lerp
    addcmul addcdiv maximum minimum fmax fmin clamp clamp_min clamp_max clip round floor ceil trunc fix frac
    nan_to_num heaviside where masked_fill copysign deg2rad rad2deg rsub invert eq ne lt le gt ge greater
    greater_equal less less_equal not_equal isclose isnan isinf isfinite isneginf isposinf logical_and logical_or
    logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not signbit type float double half
    bfloat16 int long short char byte bool cpu cuda requires_grad contiguous clone alias detach detach_copy data
    real imag angle conj resolve_conj resolve_neg fake_quantize_per_tensor_affine quantize_per_tensor dequantize
    """
)
CONSTANT = _words(
    """
    zeros_like ones_like full_like empty_like rand_like randn_like randint_like zero new_zeros new_ones new_full
    new_empty
    """
)
CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
POOL = ("input", "kernel_size", "stride", "padding", "dilation")
DIMENSIONS = (1, 2, 3)
REDUCTIONS = _words("mean sum prod amax amin max min std var all any logsumexp median nansum nanmean argmax argmin")


class Fields(TorchFunctionMode):
    """While active, keeps the field of every tensor that comes from one whose field is known.

    Attributes:
        known: the fields by tensor. None stands for a field that could not be followed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: Any = WeakTensorKeyDictionary()
        self._reaches: Any = WeakTensorKeyDictionary()
        self._written: dict[int | None, Any] = {}  # storages that are kept, lest another one gets their number

    def start(self, images: Tensor) -> None:
        """Let every position of `images`, (N, C, H, W), be one pixel."""
        height, width = images.shape[2:]
        rows, columns = _pixels(height)[:, None, None, :, None], _pixels(width)[:, None, None, None, :]
        self._keep(images, Reach((rows, columns), images.shape, (2, 3), (1, 1), (height, width)))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors([*args, *(value for name, value in kwargs.items() if name != "out")]))
        sources = {id(tensor): self._reaches.get(tensor) for tensor in tensors if self._depends(tensor)}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        written = [args[0]] if name == "__setitem__" or getattr(func, "__qualname__", "") == "data.__set__" else []
        in_place = name.endswith("_") or "out" in kwargs
        for index, output in enumerate(written or _tensors([result])):
            if self._depends(output) or (sources and _name(func) not in CONSTANT):
                reach = _reach(Call(func, args, kwargs, {}, sources, output, index))
                if in_place and any(output is each for each in _tensors([*tensors, *written, kwargs.get("out")])):
                    self._forget_views(output, reach)
                self._keep(output, reach)
        return result

    def _depends(self, tensor: Tensor) -> bool:
        return tensor in self._reaches or _storage(tensor) in self._written

    def _keep(self, tensor: Tensor, reach: Reach | None) -> None:
        self._reaches[tensor] = reach
        self.known[tensor] = reach.field if reach else None

    def _forget_views(self, tensor: Tensor, reach: Reach | None) -> None:
        """What shares the memory of a tensor that was written into is unknown from now on."""
        if self._reaches.get(tensor) is reach is not None:
            return
        storage = _storage(tensor)
        if storage is None:
            return
        self._written[storage] = tensor.untyped_storage()
        for other in [each for each in self._reaches if _storage(each) == storage]:
            self._keep(other, None)


def _reach(call: Call) -> Reach | None:
    """What comes out of a call depends on; None if it is not known."""
    rule, names = RULES.get(_name(call.function), (_unknown, ()))
    if None in call.reaches.values() or not call.reaches:
        return None
    arguments = {**dict(zip(names or ("input",), call.args, strict=False)), **call.kwargs}
    try:
        result = rule(replace(call, arguments=arguments))
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):  # arguments that a rule does not expect
        return None
    return result if result and result.shape == call.output.shape else None


def _name(function: Callable[..., Any]) -> str:
    """The name of a function whichever way it is called: add for torch.add, x.add_(y), x + y, 2 + x and x += y."""
    name = getattr(function, "__name__", "")
    if name == "__get__":  # of a property, such as x.T
        return getattr(getattr(function, "__self__", None), "__name__", "")
    bare = name.strip("_")
    if name.startswith(("__r", "__i")) and bare[1:] in OPERATORS:
        return bare[1:]
    return "Tensor.unfold" if function is Tensor.unfold else bare


def _unknown(_: Call) -> Reach | None:
    return None


def _constant(call: Call) -> Reach:
    """Only the shape of the input counts."""
    (height, width), shape = next(iter(call.reaches.values())).sides, call.output.shape
    nothing = _nothing([1] * len(shape))
    return Reach((nothing, nothing), shape, None, (math.inf, math.inf), (height, width))


def _elementwise(call: Call) -> Reach | None:
    """Every position depends on what stands at the same one in all inputs."""
    return _together(list(call.reaches.values()), call.output.shape)


def _together(reaches: Sequence[Reach], shape: torch.Size) -> Reach | None:
    """Of what depends on several tensors position by position, as the sum at the end of a residual block does."""
    first = reaches[0]
    if all(reach is first for reach in reaches) and first.shape == shape:
        return first
    if torch.broadcast_shapes(*(reach.shape for reach in reaches), shape) != shape:  # type: ignore[no-untyped-call]
        return None
    rows, columns = (
        reduce(torch.minimum, (_with_axes(reach.bounds[axis], len(shape)) for reach in reaches)) for axis in (0, 1)
    )
    axes = next((_counted(reach, shape) for reach in reaches if reach.axes), None)
    steps = min(reach.steps[0] for reach in reaches), min(reach.steps[1] for reach in reaches)
    return Reach((rows, columns), shape, axes, steps, first.sides)


def _counted(reach: Reach, shape: torch.Size) -> tuple[int, int] | None:
    """The axes of a tensor when it has taken another shape by broadcasting."""
    more = len(shape) - len(reach.shape)
    return reach.axes and (reach.axes[0] + more, reach.axes[1] + more)


def _moved(call: Call) -> Reach | None:
    """A function that moves positions and computes nothing is applied to what they depend on."""
    reaches = list(call.reaches.values())
    parts = [[_applied(call, image_axis, bound) for bound in range(5)] for image_axis in (0, 1)]
    rows, columns = (_compact(torch.stack(list(_narrowed(each)))) for each in parts)
    steps = min(reach.steps[0] for reach in reaches), min(reach.steps[1] for reach in reaches)
    return Reach((rows, columns), call.output.shape, _moved_axes(call, reaches[0]), steps, reaches[0].sides)


def _narrowed(parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Without the copies that `expand` only pretended to make."""
    for part in parts:
        alike = zip(*(each.stride() for each in parts), strict=True)
        yield part[tuple(slice(0, 1) if not any(strides) else slice(None) for strides in alike)]


def _applied(call: Call, image_axis: int, bound: int) -> Tensor:
    """The function's result for a bound in the place of what it bounds, and nothing in the place of constants."""

    def stand_in(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(stand_in, value))
        reach = call.reach(value)
        if reach:
            return reach.bounds[image_axis][bound].expand(reach.shape)
        if not isinstance(value, Tensor):
            return value
        return (
            torch.full(value.shape, NOTHING, dtype=torch.float, device="cpu")
            if value.is_floating_point()
            else value.cpu()
        )

    function = COPYING.get(_name(call.function), call.function)
    result = function(*stand_in(call.args), **{k: stand_in(v) for k, v in call.kwargs.items() if k != "out"})
    return list(_tensors([result]))[call.index]


def _moved_axes(call: Call, source: Reach) -> tuple[int, int] | None:
    """Where rows and columns lie after a function that moves positions."""
    if source.axes is None:
        return None
    before, after = source.shape, call.output.shape
    if _name(call.function) in ORDERING:
        options = {name: value for name, value in call.kwargs.items() if name != "input"}
        probe = torch.empty(*range(2, 2 + len(before)), device="cpu")
        order = [size - 2 for size in call.function(probe, *call.args[1:], **options).shape]
        return order.index(source.axes[0]), order.index(source.axes[1])
    counted = _counted(source, after)
    if _name(call.function) in EXPANDING:
        return counted
    for axes in filter(None, (counted, source.axes)):
        if all(0 <= new < len(after) and after[new] == before[old] for new, old in zip(axes, source.axes, strict=True)):
            return axes
    return None


def _written(call: Call) -> Reach | None:
    """x[:, :2] = y changes x."""
    target, index, value = call.args
    before, added = call.reach(target), call.reach(value)
    sides = next(iter(call.reaches.values())).sides
    if isinstance(index, Tensor) and call.reach(index) and index.shape == target.shape and not added:
        return _elementwise(call)  # x[x < 0] = 0
    if any(call.reach(each) for each in _tensors([index])):
        return None
    parts = []
    for image_axis in (0, 1):
        whole = before.bounds[image_axis] if before else _nothing([1] * target.ndim)
        part = whole.expand(5, *target.shape).clone()
        for bound in range(5):
            part[bound][index] = added.bounds[image_axis][bound].expand(added.shape) if added else NOTHING
        parts.append(_compact(part))
    known = before or added
    assert known is not None
    return Reach((parts[0], parts[1]), target.shape, before.axes if before else None, known.steps, sides)


def _copied(call: Call) -> Reach | None:
    """x.copy_(y) leaves nothing of x."""
    reach = call.reach(call.arguments["src"])
    return _together([reach], call.output.shape) if reach else _constant(call)


def _reduced(call: Call) -> Reach | None:
    """A mean, a sum or a maximum over some axes."""
    dims = call.arguments.get("dim")
    if isinstance(dims, Tensor) or isinstance(call.arguments.get("other"), Tensor):  # torch.max(x, y)
        return _elementwise(call)
    dims = None if isinstance(dims, bool) else dims  # torch.std(x, unbiased)
    return call.source and _over(call.source, dims, len(call.output.shape) == len(call.source.shape), call.output.shape)


def _over(source: Reach, dims: Any, kept: bool, shape: torch.Size) -> Reach:
    """Positions along some axes taken together; all axes if there are none."""
    count = len(source.shape)
    listed = [dims] if isinstance(dims, int) else list(dims or range(count))
    reduced = sorted({dim % count for dim in listed})
    rows, columns = (_hull(*each, reduced) for each in zip(source.bounds, _seen(source, reduced), strict=True))
    steps = [
        math.inf if source.axes and axis in reduced and source.shape[axis] > 1 else step
        for axis, step in zip(source.axes or (0, 0), source.steps, strict=True)
    ]
    axes = source.axes
    if not kept:
        rows, columns = (part.squeeze([dim + 1 for dim in reduced]) for part in (rows, columns))
        axes = _remaining(axes, reduced)
    return Reach((rows, columns), shape, axes, (steps[0], steps[1]), source.sides)


def _remaining(axes: tuple[int, int] | None, gone: Sequence[int]) -> tuple[int, int] | None:
    """Where rows and columns lie once some axes are gone."""
    if axes is None or set(axes) & set(gone):
        return None
    return axes[0] - sum(dim < axes[0] for dim in gone), axes[1] - sum(dim < axes[1] for dim in gone)


def _seen(source: Reach, reduced: Sequence[int]) -> list[float]:
    """How many (rows, columns) of pixels count as the whole image; never so many where only channels go together.

    A stride may leave out fewer pixels than there are from one position to the next.
    """
    return [
        math.inf
        if source.axes and source.axes[image_axis] not in reduced
        else side - (max(step - 1, 0) if math.isfinite(step) else 0)
        for image_axis, (side, step) in enumerate(zip(source.sides, source.steps, strict=True))
    ]


def _hull(part: Tensor, whole: float, dims: Iterable[int]) -> Tensor:
    """Positions along some axes taken together; everything, if that is `whole` pixels at least."""
    axes = [dim + 1 for dim in dims if part.shape[dim + 1] > 1]
    if not axes:
        return part
    hull = part.amin(axes, keepdim=True)
    everything = hull[FIRST].le(0) & hull[LAST].le(1 - whole)
    bounds = torch.stack([torch.full_like(hull[0], value) for value in (NOTHING, NOTHING, -1)])
    return torch.cat([torch.where(everything, bounds, hull[:FIRST]), hull[FIRST:]])


def _with_statistics(source: Reach, dims: Iterable[int]) -> Reach | None:
    """What is made of every position and of statistics over some axes."""
    count = len(source.shape)
    listed = {dim % count for dim in dims}
    shape = torch.Size(1 if dim in listed else size for dim, size in enumerate(source.shape))
    return _together([source, _over(source, sorted(listed), True, shape)], source.shape)


def _along(call: Call) -> Reach | None:
    """A softmax along an axis, or a vector's direction."""
    dims, source = call.arguments.get("dim", 1 if _name(call.function) == "normalize" else None), call.source
    return None if source is None or dims is None else _with_statistics(source, _listed(dims))


def _batch_norm(call: Call) -> Reach | None:
    if not call.arguments.get("training"):
        return call.source
    return call.source and _with_statistics(call.source, (each for each in range(len(call.source.shape)) if each != 1))


def _instance_norm(call: Call) -> Reach | None:
    if not call.arguments.get("use_input_stats", True):
        return call.source
    return call.source and _with_statistics(call.source, range(2, len(call.source.shape)))


def _group_norm(call: Call) -> Reach | None:
    source = call.source
    if source is None or (call.arguments["num_groups"] > 1 and any(part.shape[2] > 1 for part in source.bounds)):
        return None
    return _with_statistics(source, range(1, len(source.shape)))


def _layer_norm(call: Call) -> Reach | None:
    count = len(_listed(call.arguments["normalized_shape"]))
    return call.source and _with_statistics(call.source, range(-count, 0))


def _halves(call: Call) -> Reach | None:
    """One half of the channels, or of another axis, gates the other."""
    image = call.arguments["input"]
    halves = (image, 2, call.arguments.get("dim", -1))
    parts = [_moved(replace(call, function=torch.chunk, args=halves, kwargs={}, index=half)) for half in (0, 1)]
    return _together([part for part in parts if part], call.output.shape) if call.source and all(parts) else None


def _prelu(call: Call) -> Reach | None:
    return call.source


def _converted(call: Call) -> Reach | None:
    """x.to(y): only the kind of numbers of y counts."""
    return call.reach(call.arguments["input"])


def _same_channels(call: Call) -> Reach | None:
    """Over neighbouring channels, which are all alike."""
    source = call.source
    return source if source and all(part.shape[2] == 1 for part in source.bounds) else None


def _frequencies(call: Call) -> Reach | None:
    """A Fourier transform: every frequency depends on all positions."""
    source, name = call.source, _name(call.function)
    dims = call.arguments.get("dim", (-2, -1) if name.endswith("2") else None if name.endswith("n") else -1)
    return source and replace(_over(source, dims, True, call.output.shape), axes=None)


def _linear(call: Call) -> Reach | None:
    """A linear layer: works on the last axis, at every position apart."""
    source = call.source
    if source is None:
        return None
    last = len(source.shape) - 1
    axes = None if source.axes and last in source.axes else source.axes
    return replace(_over(source, last, True, call.output.shape), axes=axes)


def _product(call: Call) -> Reach | None:
    """A product of matrices: every row of the first with every column of the second."""
    tensors = (call.arguments["input"], call.arguments["other"])
    reaches = [call.reach(tensor) for tensor in tensors]
    if tensors[1].ndim == 1 and reaches[0] and not reaches[1]:
        return _over(reaches[0], -1, False, call.output.shape)
    if min(tensor.ndim for tensor in tensors) < 2:
        return None
    return _mixed(zip(reaches, ((-1,), (-2,)), strict=True), call.output.shape)


def _mixed(parts: Iterable[tuple[Reach | None, Sequence[int]]], shape: torch.Size) -> Reach | None:
    """Of what depends on several tensors, each over all positions along some of its axes."""
    over = []
    for source, dims in parts:
        if source:
            count = len(source.shape)
            listed = {dim % count for dim in dims}
            kept = torch.Size(1 if dim in listed else size for dim, size in enumerate(source.shape))
            over.append(_over(source, sorted(listed), True, kept))
    return _together(over, shape)


def _attention(call: Call) -> Reach | None:
    arguments = call.arguments
    if arguments.get("attn_mask") is not None or arguments.get("is_causal"):
        return None
    reaches = (call.reach(arguments[name]) for name in ("input", "key", "value"))
    return _mixed(zip(reaches, ((-1,), (-2, -1), (-2,)), strict=True), call.output.shape)


def _heads(call: Call) -> Reach | None:
    """Attention with several heads, of sequences (L, N, E) or (L, E); its weights are not followed."""
    arguments = call.arguments
    if arguments.get("attn_mask") is not None or arguments.get("key_padding_mask") is not None or call.index:
        return None
    reaches = (call.reach(arguments[name]) for name in ("input", "key", "value"))
    return _mixed(zip(reaches, ((-1,), (0, -1), (0, -1)), strict=True), call.output.shape)


def _contracted(call: Call) -> Reach | None:
    """einsum("nchw,kc->nkhw", maps, weight)"""
    equation, *operands = call.args
    operands = list(_tensors(operands))
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return None
    inputs, output = equation.replace(" ", "").split("->")
    parts = []
    for letters, tensor in zip(inputs.split(","), operands, strict=True):
        source = call.reach(tensor)
        if len(set(letters)) < len(letters):
            return None
        if source:
            gone = [axis for axis, letter in enumerate(letters) if letter not in output]
            left = "".join(letter for letter in letters if letter in output)
            parts.append(_spread(_over(source, gone, False, torch.Size(())) if gone else source, left, output, call))
    return _together(parts, call.output.shape)


def _spread(source: Reach, letters: str, output: str, call: Call) -> Reach:
    """Brings axes into another order, with axes of one position for those that it has not."""
    order = [0, *(letters.index(letter) + 1 for letter in output if letter in letters)]
    ones = [axis + 1 for axis, letter in enumerate(output) if letter not in letters]
    parts = [part.permute(order) for part in source.bounds]
    for axis in ones:
        parts = [part.unsqueeze(axis) for part in parts]
    sizes = (size if letter in letters else 1 for letter, size in zip(output, call.output.shape, strict=True))
    return replace(source, bounds=(parts[0], parts[1]), shape=torch.Size(sizes), axes=None)


Windows = Sequence[Sequence[int]]  # for every output the positions that it is made of; others than there are in padding


def _window(call: Call) -> Reach | None:
    """A convolution or a pool over neighbouring positions."""
    source, arguments, dims = call.source, call.arguments, _dimensions(call)
    if source is None:
        return None
    weight = arguments.get("weight")
    kernel = tuple(weight.shape[2:]) if weight is not None else _numbers(arguments["kernel_size"], dims)
    stride = _numbers(arguments.get("stride") or (1 if weight is not None else kernel), dims)
    dilation, padding = _numbers(arguments.get("dilation", 1), dims), arguments.get("padding", 0)
    if isinstance(padding, str):
        padding = [d * (k - 1) // 2 if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    windows = [
        [range(i * s - p, i * s - p + k * d, d) for i in range(count)]
        for count, k, s, p, d in zip(
            call.output.shape[-dims:], kernel, stride, _numbers(padding, dims), dilation, strict=True
        )
    ]
    mixed = (
        source
        if weight is None
        else _over_channels(source, arguments.get("groups", 1), call.output.shape[-dims - 1], dims)
    )
    return _slid(mixed, windows, stride, call.output.shape)


def _transposed_window(call: Call) -> Reach | None:
    source, arguments, dims = call.source, call.arguments, _dimensions(call)
    if source is None:
        return None
    kernel = arguments["weight"].shape[2:]
    stride, padding, dilation = (
        _numbers(arguments.get(name, default), dims)
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    windows = [
        [[(i + p - j * d) // s for j in range(k) if (i + p - j * d) % s == 0] for i in range(count)]
        for count, k, s, p, d in zip(call.output.shape[-dims:], kernel, stride, padding, dilation, strict=True)
    ]
    mixed = _over_channels(source, arguments.get("groups", 1), call.output.shape[-dims - 1], dims)
    return _slid(mixed, windows, [1 / each for each in stride], call.output.shape)


def _over_channels(source: Reach, groups: int, channels: int, dims: int) -> Reach:
    """The channels of every group taken together."""
    axis = len(source.shape) - dims  # of the bounds, which have one more
    rows, columns = (
        part
        if part.shape[axis] == 1
        else _unflat(part, axis, groups).amin(axis + 1).repeat_interleave(channels // groups, axis)
        for part in source.bounds
    )
    return replace(source, bounds=(_compact(rows), _compact(columns)))


def _adaptive(call: Call) -> Reach | None:
    """A pool whose windows share out the map."""
    source, dims = call.source, _dimensions(call)
    if source is None:
        return None
    before, after = source.shape[-dims:], call.output.shape[-dims:]
    whole = [axis - dims for axis in range(dims) if after[axis] == 1 < before[axis]]
    if whole:
        shape = list(source.shape)
        for axis in whole:
            shape[axis] = 1
        source = _over(source, whole, True, torch.Size(shape))
    pairs = list(zip(source.shape[-dims:], after, strict=True))
    windows = [[range(i * n // m, -((i + 1) * n // -m)) for i in range(m)] for n, m in pairs]
    return _slid(source, windows, [max(n / m, 1) for n, m in pairs], call.output.shape)


def _interpolated(call: Call) -> Reach | None:
    source, arguments, dims = call.source, call.arguments, call.output.ndim - 2
    mode, factor = arguments.get("mode", "nearest"), arguments.get("scale_factor")
    if source is None or mode == "bicubic" or arguments.get("antialias"):
        return None
    mode = "linear" if mode in ("bilinear", "trilinear") else mode
    scaled = factor is not None and not arguments.get("recompute_scale_factor")
    factors = [factor] * dims if isinstance(factor, int | float) else list(factor or ())
    windows = []
    for axis, (before, after) in enumerate(zip(source.shape[2:], call.output.shape[2:], strict=True)):
        size = {"scale_factor": factors[axis]} if scaled else {"size": after}
        single = torch.eye(before, dtype=torch.float, device="cpu")[:, None]
        weights = functional.interpolate(single, **size, mode=mode, align_corners=arguments.get("align_corners"))[:, 0]
        windows.append([column.gt(1e-6).nonzero().flatten().tolist() for column in weights.T])
    ratios = [before / after for before, after in zip(source.shape[2:], call.output.shape[2:], strict=True)]
    return _slid(source, windows, ratios, call.output.shape)


def _padded(call: Call) -> Reach | None:
    """Padding, or cutting where it is negative; what is repeated there counts in the image, not by the textbook."""
    source, pad = call.source, list(call.arguments["pad"])
    if source is None:
        return None
    mode, count = call.arguments.get("mode", "constant"), len(pad) // 2
    pairs = [(pad[2 * axis], pad[2 * axis + 1]) for axis in reversed(range(count))]
    sizes = list(zip(source.shape[-count:], pairs, strict=True))
    windows = [[[i] for i in range(-before, size + after)] for size, (before, after) in sizes]
    padded = _slid(source, windows, [1] * count, call.output.shape)
    if mode == "constant":
        return padded
    repeated = [
        [[int(i)] for i in functional.pad(torch.arange(size, device="cpu").float()[None, None], pair, mode)[0, 0]]
        for size, pair in sizes
    ]
    real = _slid(source, repeated, [1] * count, call.output.shape)
    rows, columns = map(_with_pixels, padded.bounds, real.bounds)
    return replace(padded, bounds=(rows, columns))


def _with_pixels(ideal: Tensor, real: Tensor) -> Tensor:
    """Bounds by the textbook of the one, in the image of the other."""
    ideal, real = torch.broadcast_tensors(ideal, real)  # type: ignore[no-untyped-call]
    return torch.cat([ideal[:FIRST], real[FIRST:]])


def _slid(source: Reach, windows: Sequence[Windows], strides: Sequence[float], shape: torch.Size) -> Reach:
    """Windows over the last axes."""
    parts, steps = list(source.bounds), list(source.steps)
    for axis, (along, stride) in enumerate(zip(windows, strides, strict=True), len(shape) - len(windows)):
        for image_axis, part in enumerate(parts):
            own = source.axes is not None and source.axes[image_axis] == axis
            step = steps[image_axis] if own else math.nan if source.axes is None else 0
            if part.shape[axis + 1] > 1 or (source.shape[axis] == 1 and (own or source.axes is None)):
                parts[image_axis] = _windowed(part, axis + 1, along, step, source.sides[image_axis])
            if own:
                steps[image_axis] = _step(part, axis + 1, step) * stride
    return Reach((_compact(parts[0]), _compact(parts[1])), shape, source.axes, (steps[0], steps[1]), source.sides)


def _step(part: Tensor, axis: int, otherwise: float) -> float:
    """In pixels from the first position to the second one, if there are two that do not just see everything."""
    if part.shape[axis] == 1:
        return otherwise
    step = part[LOW].diff(dim=axis - 1).flatten()[0].item()
    return step if math.isfinite(step) else otherwise


def _windowed(part: Tensor, axis: int, windows: Windows, step: float, side: int) -> Tensor:
    """The bounds of windows along one axis, on which positions beyond the first and the last may lie."""
    count = part.shape[axis]
    asked = [position for window in windows for position in window] or [0]
    before, after = max(0, -min(asked)), max(0, max(asked) - count + 1)
    nothing = torch.full_like(part.narrow(axis, 0, 1), NOTHING)
    pieces = [part, nothing]
    if before:
        pieces.insert(0, _beyond(part, axis, range(-before, 0), step, side))
    if after:
        pieces.insert(-1, _beyond(part, axis, range(count, count + after), step, side))
    longest, fill = max(map(len, windows)) or 1, before + count + after
    indices = [[*(each + before for each in window), *[fill] * (longest - len(window))] for window in windows]
    chosen = torch.cat(pieces, axis).index_select(axis, torch.tensor(indices, device="cpu").flatten())
    return _unflat(chosen, axis, len(windows)).amin(axis + 1)


def _beyond(part: Tensor, axis: int, positions: range, step: float, side: int) -> Tensor:
    """Padding: by the textbook what positions would depend on if the image went on; in the image, on nothing.

    Unknown if there would be pixels of the image, as at the border of a map that was cut.
    """
    shape = [1] * part.ndim
    ideal, first = part[:EVERYTHING], part[:EVERYTHING].narrow(axis, 0, 1)
    shape[0] = 2
    steps = torch.tensor([step, -step], dtype=torch.float, device="cpu").reshape(shape)
    if part.shape[axis] > 1:
        differences = ideal.diff(dim=axis)
        steps = differences.narrow(axis, 0, 1)
        steps = torch.where(differences.eq(steps).all(axis, keepdim=True), steps, math.nan)
    shape[0], shape[axis] = 1, len(positions)
    distances = torch.tensor(positions, dtype=torch.float, device="cpu").reshape(shape)
    bounds = torch.where(first.isinf() | steps.eq(0), first, first + steps * distances)
    outside = bounds[:1].lt(0) | bounds[1:].lt(1 - side) | steps.eq(0) | first.isinf()
    bounds = torch.where(outside, bounds, UNKNOWN)
    edge = part[EVERYTHING:FIRST].narrow(axis, 0 if positions.start < 0 else part.shape[axis] - 1, 1)
    everything = edge.expand_as(bounds[:1])
    return torch.cat([bounds, everything, torch.full_like(bounds, NOTHING)])


def _patches(call: Call) -> Reach | None:
    """Windows of a map next to one another, as functional.unfold cuts them out."""
    source, arguments = call.source, call.arguments
    if source is None or len(source.shape) != 4:
        return None
    kernel, dilation, padding, stride = (
        _numbers(arguments.get(name, default), 2)
        for name, default in (("kernel_size", 1), ("dilation", 1), ("padding", 0), ("stride", 1))
    )
    windows = [[[i] for i in range(-p, n + p)] for n, p in zip(source.shape[2:], padding, strict=True)]
    n, c, h, w = source.shape
    padded = _slid(source, windows, (1, 1), torch.Size((n, c, h + 2 * padding[0], w + 2 * padding[1])))
    image = torch.empty(0)
    function: Callable[[Tensor], Tensor] = lambda maps: functional.unfold(maps, kernel, dilation, 0, stride)  # noqa: E731
    return _moved(replace(call, function=function, args=(image,), kwargs={}, reaches={id(image): padded}))


def _put_together(call: Call) -> Reach | None:
    """functional.fold, if patches do not overlap and leave nothing out."""
    source = call.source
    if source is None:
        return None
    ones = torch.ones(source.shape, dtype=torch.float, device="cpu")
    covered = call.function(
        ones, *call.args[1:], **{name: each for name, each in call.kwargs.items() if name != "input"}
    )
    return _moved(call) if bool(covered.eq(1).all()) else None


RULES: Mapping[str, tuple[Rule, tuple[str, ...]]] = {
    **dict.fromkeys(ELEMENTWISE, (_elementwise, ())),
    **dict.fromkeys(MOVING, (_moved, ())),
    **dict.fromkeys(CONSTANT, (_constant, ())),
    **{f"conv{n}d": (_window, CONVOLUTION) for n in DIMENSIONS},
    **{f"conv_transpose{n}d": (_transposed_window, TRANSPOSED) for n in DIMENSIONS},
    **{f"max_pool{n}d{indices}": (_window, POOL) for n in DIMENSIONS for indices in ("", "_with_indices")},
    **{f"avg_pool{n}d": (_window, POOL[:4]) for n in DIMENSIONS},
    **{f"lp_pool{n}d": (_window, ("input", "norm_type", "kernel_size", "stride")) for n in DIMENSIONS},
    **{f"adaptive_avg_pool{n}d": (_adaptive, ()) for n in DIMENSIONS},
    **{f"adaptive_max_pool{n}d{indices}": (_adaptive, ()) for n in DIMENSIONS for indices in ("", "_with_indices")},
    "setitem": (_written, ()),
    "copy": (_copied, ("input", "src")),
    "pad": (_padded, ("input", "pad", "mode")),
    "interpolate": (
        _interpolated,
        ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"),
    ),
    "unfold": (_patches, ("input", "kernel_size", "dilation", "padding", "stride")),
    "fold": (_put_together, ()),
    **dict.fromkeys(REDUCTIONS, (_reduced, ("input", "dim"))),
    "norm": (_reduced, ("input", "p", "dim")),
    **dict.fromkeys(("softmax", "log_softmax", "softmin"), (_along, ("input", "dim"))),
    "normalize": (_along, ("input", "p", "dim")),
    "batch_norm": (_batch_norm, ("input", "", "", "", "", "training")),
    "instance_norm": (_instance_norm, ("input", "", "", "", "", "use_input_stats")),
    "group_norm": (_group_norm, ("input", "num_groups")),
    **dict.fromkeys(("layer_norm", "rms_norm"), (_layer_norm, ("input", "normalized_shape"))),
    "local_response_norm": (_same_channels, ()),
    "prelu": (_prelu, ()),
    **dict.fromkeys(("to", "type_as"), (_converted, ())),
    "glu": (_halves, ("input", "dim")),
    "linear": (_linear, ()),
    **dict.fromkeys(("matmul", "bmm", "mm"), (_product, ("input", "other"))),
    "einsum": (_contracted, ()),
    "scaled_dot_product_attention": (
        _attention,
        ("input", "key", "value", "attn_mask", "dropout_p", "is_causal"),
    ),
    "multi_head_attention_forward": (_heads, ("input", "key", "value")),
    **{
        f"fft_{name}": (_frequencies, ("input", "n", "dim"))
        for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
    },
    **{f"fft_{name}": (_frequencies, ("input", "s", "dim")) for name in ("fft2", "ifft2", "rfft2", "irfft2")},
    **{f"fft_{name}n": (_frequencies, ("input", "s", "dim")) for name in ("fft", "ifft", "rfft", "irfft")},
}


def _pixels(count: int) -> Tensor:
    """The bounds of single pixels along an axis of the image: (5, count)."""
    pixels = torch.arange(count, dtype=torch.float, device="cpu")
    return torch.stack([pixels, -pixels, torch.zeros_like(pixels), pixels, -pixels])


def _nothing(shape: Sequence[int]) -> Tensor:
    return torch.full((5, *shape), NOTHING, dtype=torch.float, device="cpu")


def _unflat(part: Tensor, axis: int, count: int) -> Tensor:
    """So many groups of neighbours along an axis become an axis before it."""
    return part.reshape(*part.shape[:axis], count, part.shape[axis] // count, *part.shape[axis + 1 :])


def _with_axes(part: Tensor, count: int) -> Tensor:
    """Bounds of a tensor that gets further axes in front by broadcasting."""
    return part.reshape(5, *[1] * (count + 1 - part.ndim), *part.shape[1:])


def _compact(part: Tensor) -> Tensor:
    """Axes along which all positions are alike are left with one."""
    for axis in range(1, part.ndim):
        first, last = part.narrow(axis, 0, 1), part.narrow(axis, -1, 1)
        if part.shape[axis] > 1 and first.equal(last) and bool(part.eq(first).all()):
            part = first
    return part.contiguous()


def _dimensions(call: Call) -> int:
    """2 for conv2d."""
    return next(int(character) for character in call.function.__name__ if character.isdigit())


def _numbers(value: Any, count: int) -> tuple[int, ...]:
    """One number for every axis: from 3, (3,) or (3, 5)."""
    values = _listed(value)
    return tuple(values) if len(values) == count else tuple(values[:1] * count)


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def _whole_number(value: Any) -> float:
    number = float(value)
    return int(number) if number.is_integer() else number


def _storage(tensor: Tensor) -> int | None:
    """A number of the memory that a tensor shares with its views; None if it has none of its own, as within vmap."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:
        return None


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
