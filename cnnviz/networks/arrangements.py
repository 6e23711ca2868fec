"""How a layer's numbers are arranged: where its channels are, and where its positions.

Convolutions give (N, C, H, W). Swin's and ConvNeXt's inner layers give (N, H, W, C), transformers give tokens,
(N, T, C) or (N, C, T), some of which may stand for no position. While `ChannelAxes` is active, every function of torch
hands on which axis has the channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from cnnviz.errors import LayerError
from cnnviz.networks.watching import Watching

Grid = tuple[int, int]
MOST_EXTRA = 8  # tokens that stand for no position: of the class, of distillation, registers
SECOND, LAST = {"conv2d", "conv_transpose2d", "batch_norm", "instance_norm", "group_norm"}, {"linear", "layer_norm"}


@dataclass(frozen=True)
class Arrangement:
    """Where a layer's output has channels and positions.

    Attributes:
        channels: the axis of the channels.
        grid: (rows, columns) of the tokens; None where the output has an axis each for rows and columns.
        extra: how many tokens at the front stand for no position.
    """

    channels: int = 1
    grid: Grid | None = None
    extra: int = 0

    @property
    def usual(self) -> bool:
        """Whether the output is (N, C, H, W) already."""
        return self == Arrangement()

    def positions(self, shape: Sequence[int]) -> int:
        """How many positions an output of that shape has."""
        axes = (shape[axis] for axis in range(1, len(shape)) if axis != self.channels)
        return math.prod(axes) if self.grid is None else math.prod(self.grid)

    def maps(self, output: Tensor) -> Tensor:
        """(N, C, H, W), of a layer's output."""
        maps = output.movedim(self.channels, 1)
        return maps if self.grid is None else maps[:, :, self.extra :].reshape(*maps.shape[:2], *self.grid)

    def output(self, maps: Tensor, whole: Tensor) -> Tensor:
        """What the layer would have given with these maps; `whole` is its output, for what stands for no position."""
        if self.grid is not None:
            front = whole.movedim(self.channels, 1)[:, :, : self.extra]
            maps = torch.cat([front, maps.flatten(2)], 2)
        return maps.movedim(1, self.channels)


class Arranged(nn.Module):
    """A layer whose maps (N, C, H, W) can be hooked into, at `point`, whatever its own arrangement is.

    Args:
        use: which of its uses in a pass is meant, counted from 1; `begin` begins a pass.
    """

    def __init__(self, layer: nn.Module, arrangement: Arrangement, use: int = 1) -> None:
        super().__init__()
        self.layer, self.arrangement, self.point = layer, arrangement, nn.Identity()
        self.use, self.calls = use, 0

    def begin(self, *_: object) -> None:
        self.calls = 0

    def forward(self, *given: Any, **named: Any) -> Tensor:
        whole: Tensor = self.layer(*given, **named)
        self.calls += 1
        if self.calls != self.use:
            return whole
        return self.arrangement.output(self.point(self.arrangement.maps(whole)), whole)

    def __getattr__(self, name: str) -> Any:
        """What others ask of the layer, such as its weight."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class ChannelAxes(Watching):
    """While active, keeps the axis of the channels of every tensor for which it is known.

    Attributes:
        grid: (rows, columns) of what the last convolution gave: of tokens that are made of it later.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._axes: Any = WeakTensorKeyDictionary()
        self._axes[images] = 1
        self.grid: Grid | None = None

    def of(self, output: Tensor) -> int | None:
        axis: int | None = self._axes.get(output)
        return axis

    def arrangement(self, output: Tensor, layer: str, images: int, grid: Grid | None = None) -> Arrangement:
        """The arrangement of what a layer gives for so many images; errors as `arranged`."""
        return arranged(output.shape, self.of(output), layer, images, grid or self.grid)

    def note(self, name: str, result: Any, given: Sequence[Any]) -> None:
        for output in result if isinstance(result, tuple | list) else [result]:
            if isinstance(output, Tensor) and output.ndim > 1:
                self._note_output(name, output, given)

    def _note_output(self, name: str, output: Tensor, given: Sequence[Any]) -> None:
        if name in SECOND:
            self._axes[output] = 1
            if name == "conv2d" and output.ndim == 4:
                self.grid = (output.shape[2], output.shape[3])
            return
        if name in LAST:
            self._axes[output] = output.ndim - 1
            return
        listed = (value if isinstance(value, tuple | list) else [value] for value in given)  # torch.cat is given a list
        sources = [value for value in chain.from_iterable(listed) if isinstance(value, Tensor)]
        known = next((source for source in sources if source in self._axes), None)
        axis = None if known is None else _handed_on(name, known, self._axes[known], output, given)
        if axis is not None:
            self._axes[output] = axis


def _handed_on(name: str, source: Tensor, axis: int, output: Tensor, given: Sequence[Any]) -> int | None:
    """The axis of the channels behind a function, or nothing where it is not known."""
    order = _order(name, source.ndim, given[1:])
    if order is not None:
        return order.index(axis)
    moved = output.ndim != source.ndim or name in ("view", "reshape", "unflatten")
    if not moved:
        return axis
    if axis == source.ndim - 1 and output.shape[-1] == source.shape[-1]:
        return output.ndim - 1
    return axis if axis < output.ndim and output.shape[: axis + 1] == source.shape[: axis + 1] else None


def _order(name: str, ndim: int, given: Sequence[Any]) -> list[int] | None:
    """Which axes of its source a function puts one after the other; None if it is none that does."""
    if name == "permute":
        listed = given[0] if isinstance(given[0], Sequence) else given
        return [axis % ndim for axis in listed]
    if name in ("transpose", "swapaxes", "swapdims"):
        first, second = (axis % ndim for axis in given[:2])
        order = list(range(ndim))
        order[first], order[second] = second, first
        return order
    if name in ("movedim", "moveaxis") and all(isinstance(axis, int) for axis in given[:2]):
        order = [axis for axis in range(ndim) if axis != given[0] % ndim]
        order.insert(given[1] % ndim, given[0] % ndim)
        return order
    return None


def arranged(shape: Sequence[int], channels: int | None, layer: str, images: int, grid: Grid | None) -> Arrangement:
    """The arrangement of an output of that shape.

    Args:
        shape: of the whole output.
        channels: the axis of the channels, if it is known.
        layer: its name, for errors.
        images: how many it is for.
        grid: (rows, columns) that tokens are in, if it is known.

    Raises:
        LayerError: if its first axis is not the images, or it gives no feature maps; says what it gives.
    """
    given = " x ".join(map(str, shape))
    if not shape or shape[0] != images:
        raise LayerError(
            f"layer {layer!r} gives {given} for {images} image{'s' * (images > 1)}: its first axis is not the images"
            " but, say, parts or views of them; choose a layer before they are cut, or where they are together again."
        )
    if len(shape) == 4:
        tokens = channels is None and grid is not None and 0 <= shape[2] - math.prod(grid) <= MOST_EXTRA
        if not tokens or shape[2] * shape[3] == 1:
            return Arrangement(1 if channels is None else channels)
    if len(shape) == 3:
        axis = 2 if channels is None else channels
        extra = shape[3 - axis] - math.prod(grid) if grid is not None else -1
        if grid is not None and axis in (1, 2) and 0 <= extra <= MOST_EXTRA:
            return Arrangement(axis, grid, extra)
        side = math.isqrt(shape[3 - axis])
        extra = shape[3 - axis] - side * side
        most = 1 if grid is not None else MOST_EXTRA  # behind no convolution, there is nothing else to know tokens by
        if axis in (1, 2) and side > 1 and extra <= most:
            return Arrangement(axis, (side, side), extra)
    text = " x ".join(map(str, shape[1:]))
    raise LayerError(f"layer {layer!r} gives no feature maps but {text} numbers; choose a convolution, ReLU or pool.")
