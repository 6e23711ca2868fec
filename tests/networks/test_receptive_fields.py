"""Fields against the Jacobian: from which pixel to which one an output depends, at every position."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.nn import functional
from torchvision.ops import deform_conv2d

from cnnviz.models import outline
from cnnviz.networks.layers import layer_table
from cnnviz.networks.receptive_fields import PIXEL, WHOLE, Field, Fields, Span

Function = Callable[[Tensor], Tensor]
SHAPE = (1, 2, 9, 8)


def weight(*kernel: int) -> Tensor:
    return torch.rand(2, 2, *kernel, dtype=torch.double) + 0.1


def followed(function: Function, shape: tuple[int, ...] = SHAPE) -> tuple[Field | None, Tensor]:
    fields, images = Fields(), torch.rand(shape, dtype=torch.double)
    fields.start(images)
    with fields:
        output = function(images)
    assert output in fields.known
    return fields.known[output], output


def reached(function: Function, shape: tuple[int, ...] = SHAPE, images: int = 6) -> Tensor:
    """Whether an output depends on a pixel: (*output, *image)."""
    torch.manual_seed(1)
    pictures = [torch.rand(shape, dtype=torch.double) for _ in range(images)]  # a maximum hides pixels from one image
    return torch.stack([jacobian(function, picture) for picture in pictures]).ne(0).any(0)  # type: ignore[no-untyped-call]


def check(function: Function) -> None:
    """Every output begins and ends to depend on pixels where its field says, unless that is beyond the border."""
    field, output = followed(function)
    assert field is not None
    assert field.axes is not None
    touched = reached(function)
    for span, axis, pixel_axis in zip(field.spans, field.axes, (2, 3), strict=True):
        side = SHAPE[pixel_axis]
        others = [each for each in range(touched.ndim) if each not in (axis, output.ndim + pixel_axis)]
        rows = [pixels.nonzero().flatten().tolist() for pixels in touched.sum(others).bool()]
        if math.isinf(span.low):
            assert math.isinf(span.high)
            assert all((row[0], row[-1]) == (0, side - 1) for row in rows)
            continue
        ends = [(span.low + position * span.step, span.high + position * span.step) for position in range(len(rows))]
        assert all(low <= pixel <= high for row, (low, high) in zip(rows, ends, strict=True) for pixel in row)
        first = [row[0] == low for row, (low, _) in zip(rows, ends, strict=True) if row and low >= 0]
        last = [row[-1] == high for row, (_, high) in zip(rows, ends, strict=True) if row and high < side]
        assert first
        assert last
        assert all(first + last)


def _gate(maps: Tensor) -> Tensor:
    return maps * maps.mean((2, 3), keepdim=True)


def _residual(maps: Tensor) -> Tensor:
    return functional.conv2d(maps, weight(3, 1), padding=(1, 0)) + functional.conv2d(maps, weight(1, 5), padding=(0, 2))


def _written(maps: Tensor) -> Tensor:
    changed = maps.clone()
    changed[:, :1] = functional.avg_pool2d(maps, (3, 5), 1, (1, 2))[:, :1]
    return changed


def _asymmetric(maps: Tensor) -> Tensor:
    """A window that is not the same in both directions, so that axes that are mixed up are noticed."""
    return functional.conv2d(maps, weight(4, 2), None, (2, 1), (1, 0))


FOLLOWED: dict[str, Function] = {
    "convolution": lambda maps: functional.conv2d(maps, weight(3, 2)),
    "convolution, by position": lambda maps: functional.conv2d(maps, weight(3, 2), None, (2, 3), (1, 2), (2, 1)),
    "convolution, by name": lambda maps: functional.conv2d(
        input=maps, weight=weight(3, 2), stride=(1, 2), padding=(2, 0), dilation=(1, 3)
    ),
    "convolution, one number": lambda maps: functional.conv2d(maps, weight(2, 3), stride=2, padding=1, dilation=2),
    "convolution, one number in a tuple": lambda maps: functional.conv2d(maps, weight(2, 3), stride=(2,), padding=(1,)),
    "same padding": lambda maps: functional.conv2d(maps, weight(3, 5), padding="same", dilation=(2, 1)),
    "no padding": lambda maps: functional.conv2d(maps, weight(3, 5), padding="valid"),
    "maximum": lambda maps: functional.max_pool2d(maps, 3),
    "maximum, by position": lambda maps: functional.max_pool2d(maps, (3, 2), (2, 1), (1, 0), (1, 2)),
    "maximum and indices": lambda maps: functional.max_pool2d(maps, (2, 3), 1, (0, 1), return_indices=True)[0],
    "mean of a window": lambda maps: functional.avg_pool2d(maps, (2, 3)),
    "mean of a window, by position": lambda maps: functional.avg_pool2d(maps, (3, 2), (1, 2), (1, 0)),
    "norm of a window": lambda maps: functional.lp_pool2d(maps, 2, (3, 2), 2),
    "pools that share out": lambda maps: functional.adaptive_avg_pool2d(maps, (3, 4)),
    "pool over everything": lambda maps: functional.adaptive_avg_pool2d(maps, 1),
    "pool over columns": lambda maps: functional.adaptive_avg_pool2d(maps, (9, 1)),
    "one window after another": lambda maps: functional.max_pool2d(_asymmetric(maps), 2, 1),
    "padding": lambda maps: functional.pad(functional.max_pool2d(maps, 2, 1), (1, 0, 2, 0)),
    "padding, reflected": lambda maps: functional.conv2d(functional.pad(maps, (2, 1, 1, 3)), weight(5, 4)),
    "padding at a step": lambda maps: functional.max_pool2d(functional.pad(_asymmetric(maps), (1, 1, 1, 1)), 3, 1),
    "padding of channels too": lambda maps: functional.max_pool2d(functional.pad(maps, (1, 0, 2, 0, 0, 1)), 2, 1),
    "elementwise": lambda maps: _asymmetric(maps).sigmoid() * 3,
    "by name": lambda maps: torch.add(input=_asymmetric(maps), other=_asymmetric(maps)),
    "branches": lambda maps: torch.cat([_residual(maps), maps], 1),
    "residual": _residual,
    "gated": _gate,
    "written into": _written,
    "channels apart": lambda maps: torch.stack(_asymmetric(maps).split(1, 1), 0),
    "channels in groups": lambda maps: _asymmetric(maps).view(1, 2, 1, 4, 7),
    "channels last": lambda maps: _asymmetric(maps).permute(0, 2, 3, 1),
    "channels last and a layer": lambda maps: functional.linear(
        torch.permute(_asymmetric(maps), (0, 2, 3, 1)), torch.ones(3, 2).double()
    ),
    "channels last, from the end": lambda maps: _asymmetric(maps).permute((0, -2, -1, 1)).relu(),
    "and back": lambda maps: _asymmetric(_asymmetric(maps).permute(0, 2, 3, 1).sin().permute(0, 3, 1, 2)),
    "transposed": lambda maps: _asymmetric(maps).transpose(2, 3),
    "transposed, by name": lambda maps: _asymmetric(maps).transpose(dim0=-1, dim1=1),
    "transposed twice": lambda maps: _asymmetric(_asymmetric(maps).swapaxes(2, 3).relu().swapaxes(-1, -2)),
    "channels summed": lambda maps: _asymmetric(maps).sum(1),
    "channels summed, kept": lambda maps: _asymmetric(maps).sum(dim=1, keepdim=True),
    "channels weighed": lambda maps: _asymmetric(maps).softmax(1),
    "batch summed": lambda maps: _asymmetric(maps).sum(0).cos(),
    "rows summed": lambda maps: _asymmetric(maps).sum(-2, keepdim=True),
    "columns weighed": lambda maps: _asymmetric(maps).log_softmax(3),
    "largest of the columns": lambda maps: _asymmetric(maps).amax(dim=(3,), keepdim=True),
    "smallest of the rows": lambda maps: _asymmetric(maps).amin(2, keepdim=True),
    "all summed, kept": lambda maps: _asymmetric(maps).sum((1, 2, 3), keepdim=True),
    "attention between rows": lambda maps: functional.scaled_dot_product_attention(maps, maps, maps),
    "mixed": lambda maps: torch.matmul(torch.rand(9, 9, dtype=torch.double), maps) @ torch.rand(8, 8).double(),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_field_begins_and_ends_where_the_jacobian_does(name: str) -> None:
    function = FOLLOWED[name]

    def seeded(maps: Tensor) -> Tensor:
        torch.manual_seed(0)
        return function(maps)

    check(seeded)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_same_padding_of_an_even_window() -> None:
    check(lambda maps: functional.conv2d(maps, torch.ones(2, 2, 4, 2).double(), padding="same"))


@pytest.mark.parametrize("after", range(1, 14))
@pytest.mark.parametrize("before", [1, 3, 7, 8, 9, 13])
def test_a_pool_that_shares_out_a_map_is_known_if_its_windows_are_regular(before: int, after: int) -> None:
    def pool(maps: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(maps, (after, 1))

    shape = (1, 1, before, 2)
    rows = [pixels.nonzero().flatten() for pixels in reached(pool, shape)[0, 0, :, 0, 0, 0, :, 0]]
    first = [row[0].item() for row in rows]
    regular = len({later - sooner for sooner, later in pairwise(first)}) <= 1 and len(set(map(len, rows))) == 1
    field = followed(pool, shape)[0]
    assert (field is not None) == regular
    assert followed(lambda maps: functional.adaptive_max_pool2d(maps, (after, 1)), shape)[0] == field
    if field and after > 1:
        assert field == Field((Span(0, len(rows[0]) - 1, first[1]), WHOLE), (2, 3))
    if after == 1 < before:
        assert field == Field((WHOLE, WHOLE), (2, 3))


def _windows(maps: Tensor, side: int) -> Tensor:
    """(N, C, H, W) as (N * windows, positions, C), as in Swin."""
    n, c, h, w = maps.shape
    parts = maps.permute(0, 2, 3, 1).view(n, h // side, side, w // side, side, c)
    return parts.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, c)


def _map(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    parts = windows.view(-1, height // side, width // side, side, side, windows.shape[-1])
    return parts.permute(0, 5, 1, 3, 2, 4).reshape(-1, windows.shape[-1], height, width)


def _crossed(maps: Tensor) -> Tensor:
    """Attention in windows, after which not all positions are alike."""
    windows = _windows(maps, 2)
    return _map(functional.scaled_dot_product_attention(windows, windows, windows), 2, *maps.shape[2:])


def _deep(maps: Tensor) -> Tensor:
    n, c, h, w = maps.shape
    return maps.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, c * 4, h // 2, w // 2)


def _merged(maps: Tensor) -> Tensor:
    """Every second position of four maps as channels, as between the stages of Swin."""
    parts = [maps[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.cat(parts, 1)


def _mixed(maps: Tensor, channels: int = 2, kernel: tuple[int, int] = (1, 1), **options: Any) -> Tensor:
    filters = torch.rand(channels, maps.shape[1] // options.get("groups", 1), *kernel, dtype=torch.double) + 0.1
    return functional.conv2d(maps, filters, **options)


def _transposed(maps: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    filters = torch.rand(maps.shape[1], 2, kernel, kernel, dtype=torch.double) + 0.1
    return functional.conv_transpose2d(maps, filters, None, stride, padding)


def _training(maps: Tensor) -> Tensor:
    return functional.batch_norm(maps, None, None, training=True)


STEPS: dict[str, Function] = {
    "convolution": lambda maps: _mixed(maps, kernel=(3, 2), padding=(1, 0)),
    "strided": lambda maps: _mixed(maps, kernel=(3, 3), stride=2, padding=1),
    "dilated": lambda maps: _mixed(maps, kernel=(2, 3), dilation=(2, 1), padding=(0, 2)),
    "groups": lambda maps: _mixed(maps, maps.shape[1], (3, 3), padding=1, groups=maps.shape[1]),
    "transposed": lambda maps: _transposed(maps, 3, 2, 1),
    "transposed, in steps of 1": lambda maps: _transposed(maps, 3, 1, 1),
    "pool": lambda maps: functional.avg_pool2d(maps, 3, 2, ceil_mode=True),
    "pool of columns": lambda maps: functional.avg_pool2d(maps, (1, 2), 1, (0, 1)),
    "norm of windows": lambda maps: functional.lp_pool2d(maps, 2, 2, 2, ceil_mode=True),
    "shares": lambda maps: functional.adaptive_avg_pool2d(maps, (4, 5)),
    "mirror": lambda maps: _mixed(functional.pad(maps, (1, 1, 2, 2), mode="reflect"), kernel=(5, 3)),
    "repeated border": lambda maps: _mixed(functional.pad(maps, (1, 0, 1, 1), mode="replicate"), kernel=(3, 2)),
    "circle": lambda maps: _mixed(functional.pad(maps, (1, 1, 1, 1), mode="circular"), kernel=(3, 3)),
    "padding": lambda maps: functional.pad(maps, (1, 0, 1, 2)),
    "border cut": lambda maps: functional.pad(maps, (-1, 0, 0, -1)),
    "slices": lambda maps: maps[:, :, 1:, ::2],
    "enlarged": lambda maps: functional.interpolate(maps, scale_factor=2.0),
    "enlarged smoothly": lambda maps: functional.interpolate(
        maps, scale_factor=2.0, mode="bilinear", align_corners=False
    ),
    "reduced": lambda maps: functional.interpolate(maps, scale_factor=0.5),
    "flipped": lambda maps: maps.flip(2),
    "rolled": lambda maps: maps.roll(1, 3),
    "turned": lambda maps: maps.transpose(2, 3),
    "in depth": lambda maps: _deep(maps),
    "unshuffled": lambda maps: functional.pixel_unshuffle(maps, 2),
    "shuffled": lambda maps: functional.pixel_shuffle(torch.cat([maps, maps * 2], 1), 2),
    "merged": _merged,
    "windows and back": lambda maps: _map(_windows(maps, 2).sin(), 2, *maps.shape[2:]),
    "attention in windows": _crossed,
    "patches": lambda maps: functional.unfold(maps, 2, stride=2).unflatten(2, [side // 2 for side in maps.shape[2:]]),
    "patches and back": lambda maps: functional.fold(functional.unfold(maps, 2, stride=2), maps.shape[2:], 2, stride=2),
    "channels last": lambda maps: functional.layer_norm(maps.permute(0, 2, 3, 1), maps.shape[1:2]).permute(0, 3, 1, 2),
    "flat and back": lambda maps: maps.flatten(2).transpose(1, 2).sin().transpose(1, 2).reshape(maps.shape),
    "group norm": lambda maps: functional.group_norm(maps, 1),
    "instance norm": functional.instance_norm,
    "batch norm in training": _training,
    "batch norm": lambda maps: functional.batch_norm(
        maps, torch.zeros(maps.shape[1]).double(), maps.new_ones(maps.shape[1])
    ),
    "layer norm": lambda maps: functional.layer_norm(maps, maps.shape[1:]),
    "frequencies": lambda maps: torch.fft.fft2(maps).real,
    "gate": lambda maps: maps * (1 + maps.mean((2, 3), keepdim=True)).reciprocal(),
    "different channels": lambda maps: torch.cat([maps, functional.avg_pool2d(maps, 3, 1, 1)], 1),
    "first channels": lambda maps: maps[:, :2],
    "last channels": lambda maps: maps.chunk(2, 1)[-1],
    "residual": lambda maps: maps + _mixed(maps, maps.shape[1], (3, 3), padding=1),
    "another residual": lambda maps: torch.add(maps, functional.avg_pool2d(maps, 5, 1, 2), alpha=2),
    "halves of channels": lambda maps: functional.glu(torch.cat([maps, maps], 1), 1),
}


@given(names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4), side=st.integers(5, 12))
@settings(max_examples=30, deadline=None)
def test_whatever_is_known_is_what_the_jacobian_says(names: list[str], side: int) -> None:
    """Linear functions of positive weights, one after another: nothing cancels."""

    def network(maps: Tensor) -> Tensor:
        torch.manual_seed(0)
        for name in names:
            maps = STEPS[name](maps)
        return maps

    shape = (1, 2, side, 8)
    try:
        field, output = followed(network, shape)
    except (RuntimeError, ValueError):  # the sizes do not fit
        assume(False)
    assume(0 < output.numel() < 2000)
    if field and field.axes:
        compare(field, output, reached(network, shape, 2), shape)


def compare(field: Field, output: Tensor, touched: Tensor, shape: tuple[int, ...]) -> None:
    """Nothing beyond a field, and both its ends, unless they are beyond the border."""
    assert field.axes
    for span, axis, pixel_axis in zip(field.spans, field.axes, (2, 3), strict=True):
        others = [each for each in range(touched.ndim) if each not in (axis, output.ndim + pixel_axis)]
        for position, pixels in enumerate(touched.sum(others).bool()):
            row, last = pixels.nonzero().flatten().tolist(), shape[pixel_axis] - 1
            if math.isinf(span.low):
                assert row[0] == 0
                assert row[-1] > last - 4  # of which a stride may leave out some
                continue
            low, high = span.low + position * span.step, span.high + position * span.step
            assert all(low <= pixel <= high for pixel in row)
            assert low < 0 or high > last or (row[0], row[-1]) == (low, high)
            assert low < 0 or not row or row[0] == low
            assert high > last or not row or row[-1] == high


def _into(maps: Tensor, function: Callable[[Tensor], object]) -> Tensor:
    function(maps)
    return maps


class Gated(nn.Module):
    """Traced by torch.fx, which calls functions, methods and operators."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act = nn.BatchNorm2d(2).double().eval(), nn.Hardswish(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.act(self.norm(maps)) + maps.neg()
        return functional.dropout(torch.where(maps > 0, maps, 2 - maps), training=self.training)


FORMS: dict[str, Function] = {
    "function": lambda maps: torch.add(maps, 1),
    "method": lambda maps: maps.add(1),
    "operator": lambda maps: maps + 1,
    "reflected": lambda maps: 2 - maps,
    "reflected power": lambda maps: 2**maps,
    "divided": lambda maps: (1 / maps) // 0.5 % 3,
    "in place": lambda maps: maps.add_(1),
    "in place, by operator": lambda maps: _into(maps, lambda each: each.__iadd__(1)),
    "in place, by function": lambda maps: functional.relu(maps, inplace=True),
    "in place, by torch": torch.relu_,
    "out": lambda maps: torch.mul(maps, 2, out=torch.empty(0).double()),
    "out, twice": lambda maps: torch.mul(maps, 2, out=maps.clone().roll(1, 2)),
    "written into nothing": lambda maps: _set(torch.zeros_like(maps), maps),
    "by name": lambda maps: torch.clamp(input=maps, min=0.5),
    "masked": lambda maps: _into(maps, lambda each: each.__setitem__(each < 0.5, 0)),
    "copied over what counts everything": lambda maps: (
        maps.mean((2, 3), keepdim=True).expand_as(maps).clone().copy_(maps)
    ),
    "to the type of what counts everything": lambda maps: maps.to(maps.mean()).type_as(maps.sum()),
    "halves": lambda maps: functional.glu(torch.cat([maps, maps], 1), 1),
    "another type": lambda maps: maps.to(torch.float32).double().contiguous().clone().detach(),
    "data": lambda maps: maps.data,
    "compared": lambda maps: torch.where(maps.le(0.5), maps, torch.zeros_like(maps)),
    "largest of two": lambda maps: torch.max(maps, torch.ones_like(maps)),
    "parameters per channel": lambda maps: functional.prelu(maps, torch.ones(2).double()),
    "in evaluation": lambda maps: functional.dropout2d(maps, training=False),
    "batch norm by torch": lambda maps: torch.batch_norm(
        maps, None, None, torch.zeros(2).double(), torch.ones(2).double(), False, 0.1, 1e-5, False
    ),
    "instance norm of old statistics": lambda maps: functional.instance_norm(
        maps, torch.zeros(2).double(), torch.ones(2).double(), use_input_stats=False
    ),
    "properties": lambda maps: maps.mT.mT,
    "squeezed": lambda maps: maps.squeeze(0).unsqueeze_(0),
    "stacked": lambda maps: torch.stack([maps, maps], 1).unbind(1)[1],
    "normalised over channels": lambda maps: functional.normalize(maps),
    "einsum": lambda maps: torch.einsum("nchw,kc->nkhw", maps, torch.ones(2, 2).double()),
    "neighbouring channels": lambda maps: functional.local_response_norm(maps, 2),
    "traced": lambda maps: torch.fx.symbolic_trace(Gated())(maps),
    "Fourier transform of channels": lambda maps: torch.fft.fft(maps, dim=1).abs(),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_function_is_known_whichever_way_it_is_called(name: str) -> None:
    plain = followed(_asymmetric)[0]
    assert plain == Field((Span(-1, 2, 2), Span(0, 1, 1)), (2, 3))
    field = followed(lambda maps: FORMS[name](_asymmetric(maps)))[0]
    assert field is not None
    assert field.spans == plain.spans


NORMS: dict[str, tuple[Function, tuple[bool, bool]]] = {  # and whether all rows, and all columns, count
    "groups": (lambda maps: functional.group_norm(maps, 2), (True, True)),
    "layer": (lambda maps: functional.layer_norm(maps, (2, 9, 8)), (True, True)),
    "layer, of rows": (lambda maps: functional.layer_norm(maps, (8,)), (False, True)),
    "root mean square": (lambda maps: functional.rms_norm(maps, (8,)), (False, True)),
    "instance": (functional.instance_norm, (True, True)),
    "batch": (_training, (True, True)),
    "channels last": (
        lambda maps: functional.layer_norm(maps.permute(0, 2, 3, 1), (2,)).permute(0, 3, 1, 2),
        (False, False),
    ),
    "directions": (lambda maps: functional.normalize(maps, dim=2), (True, False)),
    "frequencies of columns": (lambda maps: torch.fft.rfft(maps).abs() + torch.zeros(1, 2, 9, 5), (False, True)),
    "frequencies": (lambda maps: torch.fft.fftn(maps).real, (True, True)),
}


@pytest.mark.parametrize("name", NORMS)
def test_statistics_see_all_that_they_are_taken_over(name: str) -> None:
    function, whole = NORMS[name]
    field = followed(function)[0]
    assert field is not None
    assert tuple(math.isinf(span.size) for span in field.spans) == whole
    assert all(span.size in (1, math.inf) for span in field.spans)


@pytest.mark.parametrize(
    "name", ["densenet121", "efficientnet_b0", "mnasnet0_5", "regnet_y_400mf", "shufflenet_v2_x0_5"]
)
def test_all_layers_of_convolutional_networks_are_known(name: str) -> None:
    assert all(row.receptive_field and row.step for row in layer_table(outline(name), (65, 80)) if row.output)


@pytest.mark.parametrize("name", ["swin_t", "vit_b_16"])
def test_the_first_and_the_last_layer_of_transformers_are_known(name: str) -> None:
    table = [row for row in layer_table(outline(name)) if row.output]
    side = table[0].kernel
    assert (table[0].receptive_field, table[0].step, table[0].start) == (side, side, (0, 0))
    assert table[-1].receptive_field == (math.inf, math.inf)


UNKNOWN: dict[str, Function] = {
    "rolled": lambda maps: maps.roll(1, 2),
    "flipped": lambda maps: maps.flip(3),
    "turned": lambda maps: maps.rot90(1, (2, 3)),
    "summed on and on": lambda maps: maps.cumsum(2),
    "sorted": lambda maps: maps.sort(3)[0],
    "largest ones": lambda maps: maps.topk(3, 2)[0],
    "gathered": lambda maps: maps.gather(2, torch.arange(9)[:, None].flip(0).expand(1, 2, 9, 8)),
    "gathered by what is seen": lambda maps: maps.gather(2, maps.argmax(2, keepdim=True)),
    "rows by number": lambda maps: maps[:, :, [3, 1, 2]],
    "rows by a tensor": lambda maps: maps[:, :, torch.tensor([3, 1, 2])],
    "columns of an index": lambda maps: maps.index_select(3, torch.tensor([0, 4, 1])),
    "chosen by what is seen": lambda maps: maps[:, :, maps.mean((0, 1, 3)) > 0],
    "sampled": lambda maps: functional.grid_sample(maps, torch.zeros(1, 9, 8, 2).double(), align_corners=False),
    "deformed": lambda maps: deform_conv2d(maps, torch.zeros(1, 18, 7, 6).double(), weight(3, 3)),
    "weights of what is seen": lambda maps: functional.conv2d(maps, maps[:, :, :3, :3].expand(2, 2, 3, 3)),
    "added in places": lambda maps: maps.clone().index_add_(2, torch.tensor([1]), torch.ones(1, 2, 1, 8).double()),
    "a view written into": lambda maps: _view_written_into(maps.clone(), maps),
    "cells of a view": lambda maps: _view_written_into(torch.zeros(SHAPE).double(), maps) + maps,
    "patches in a row": lambda maps: functional.unfold(maps, 3),
    "patches that overlap": lambda maps: functional.fold(functional.unfold(maps, 3), (9, 8), 3),
    "positions in a row": lambda maps: maps.flatten(2),
    "enlarged": lambda maps: functional.interpolate(maps, scale_factor=2),
    "enlarged, smoothly": lambda maps: functional.interpolate(maps, (13, 15), mode="bilinear", align_corners=True),
    "transposed convolution": lambda maps: functional.conv_transpose2d(maps, weight(3, 3), stride=2),
    "more cells than there are": lambda maps: functional.adaptive_avg_pool2d(maps, (12, 11)),
    "cells of different sizes": lambda maps: functional.adaptive_avg_pool2d(maps, (5, 8)),
    "around the corner": lambda maps: functional.conv2d(
        functional.pad(maps, (1, 1, 1, 1), mode="circular"), weight(3, 3)
    ),
    "mirrored": lambda maps: functional.pad(maps, (2, 2, 2, 2), mode="reflect"),
    "cut, then padded": lambda maps: functional.conv2d(maps[:, :, 1:], weight(3, 3), padding=1),
    "padding between rows": lambda maps: torch.cat([maps, torch.zeros(SHAPE).double(), maps], 2),
    "added to what is unknown": lambda maps: maps + maps.roll(1, 2),
    "written into something": lambda maps: _set(torch.zeros(SHAPE).double(), maps.roll(1, 2)),
    "written over": lambda maps: _set(maps.clone(), maps.roll(1, 2)),
    "groups of different channels": lambda maps: functional.group_norm(torch.cat([maps, _gate(maps)], 1), 4),
    "masked attention": lambda maps: functional.scaled_dot_product_attention(maps, maps, maps, is_causal=True),
    "a product the other way round": lambda maps: maps.__rmatmul__(torch.ones(9, 9).double()),
    "rows against columns": lambda maps: maps[..., :8, :] + maps[..., :8, :].transpose(2, 3),
}


def _view_written_into(maps: Tensor, images: Tensor) -> Tensor:
    maps[:, :, 2:4].add_(functional.avg_pool2d(images, 3, 1, 1)[:, :, :2])
    return maps


def _set(maps: Tensor, values: Tensor) -> Tensor:
    maps[:, :1] = values[:, :1]
    return maps


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_followed_is_unknown(name: str) -> None:
    assert followed(UNKNOWN[name])[0] is None


EVERYTHING = Field((WHOLE, WHOLE), None)
OF_EVERYTHING: dict[str, tuple[Function, Field]] = {
    "flat": (lambda maps: maps.flatten(1), EVERYTHING),
    "flat, and on": (lambda maps: functional.linear(maps.flatten(1), torch.ones(3, 144).double()).relu(), EVERYTHING),
    "mean": (lambda maps: maps.mean((2, 3)), EVERYTHING),
    "mean and deviation": (lambda maps: torch.std(maps, False) + maps.norm(), EVERYTHING),
    "mean, from the end": (lambda maps: maps.mean(dim=(-1, -2)), EVERYTHING),
    "mean of all": (lambda maps: maps.mean(), EVERYTHING),
    "mean, then a sum": (lambda maps: maps.mean((2, 3)).sum(1), EVERYTHING),
    "mean, and another order": (lambda maps: maps.mean((2, 3)).transpose(0, 1), EVERYTHING),
    "a layer over columns": (
        lambda maps: functional.linear(maps, torch.ones(3, 8).double()),
        Field((PIXEL, WHOLE), None),
    ),
    "one of two axes summed": (lambda maps: maps.sum(3), Field((PIXEL, WHOLE), None)),
    "one of two axes summed, in another order": (
        lambda maps: maps.permute(0, 2, 3, 1).sum(1),
        Field((WHOLE, PIXEL), None),
    ),
    "products": (lambda maps: torch.bmm(maps.flatten(2), maps.flatten(2).transpose(1, 2)), EVERYTHING),
    "products, kept apart": (
        lambda maps: torch.bmm(maps[0], torch.ones(2, 8, 8).double()),
        Field((PIXEL, WHOLE), (1, 2)),
    ),
    "several heads": (
        lambda maps: nn.MultiheadAttention(8, 2, dtype=torch.double)(*[maps[0]] * 3)[0],
        Field((PIXEL, WHOLE), (1, 2)),
    ),
    "attention": (
        lambda maps: functional.scaled_dot_product_attention(*[maps.flatten(2).transpose(1, 2)] * 3),
        EVERYTHING,
    ),
    "a vector's product": (lambda maps: maps @ torch.ones(8).double(), Field((PIXEL, WHOLE), None)),
    "one position": (
        lambda maps: functional.conv2d(maps, weight(9, 8)).flatten(1),
        Field((Span(0, 8, 1), Span(0, 7, 1)), None),
    ),
}


@pytest.mark.parametrize("name", OF_EVERYTHING)
def test_fields_of_what_depends_on_everything(name: str) -> None:
    function, expected = OF_EVERYTHING[name]
    assert followed(function)[0] == expected


def test_a_single_position_may_become_an_axis_of_its_own() -> None:
    whole = Field((Span(0, 8, 1), Span(0, 7, 1)), (1, 2))
    assert followed(lambda maps: functional.conv2d(maps, weight(9, 8))[0])[0] == whole
    spread = followed(lambda maps: functional.conv2d(maps, weight(9, 8)).expand(1, 2, 5, 5))[0]
    assert spread == Field((Span(0, 8, 0), Span(0, 7, 0)), (2, 3))
    pooled = followed(lambda maps: functional.adaptive_avg_pool2d(functional.conv2d(maps, weight(9, 8)), 1))[0]
    assert pooled == Field(whole.spans, (2, 3))


def test_the_size_of_a_span() -> None:
    assert Span(-1, 3, 2).size == 5
    assert WHOLE.size == math.inf
    assert PIXEL.size == 1


def test_tensors_that_come_from_no_picture_have_no_field() -> None:
    fields, images = Fields(), torch.rand(SHAPE)
    fields.start(images)
    assert fields.known[images] == Field((PIXEL, PIXEL), (2, 3))
    with fields:
        other = torch.ones(3).sum()
        both = images + other
        image, first = torch.max(images, 1)
    assert other not in fields.known
    assert fields.known[both] == fields.known[images]
    assert fields.known[image] == fields.known[first] == Field((PIXEL, PIXEL), (1, 2))
