"""Fields against the Jacobian: from which pixel to which one an output depends, at every position."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.nn import functional

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


def reached(function: Function, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Whether an output depends on a pixel: (*output, *image)."""
    torch.manual_seed(1)
    pictures = [torch.rand(shape, dtype=torch.double) for _ in range(6)]  # a maximum hides pixels from one picture
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


@pytest.mark.parametrize(("before", "after"), [(7, 3), (9, 4), (8, 5), (10, 6), (13, 7)])
def test_the_largest_window_of_a_pool_that_shares_out_a_map(before: int, after: int) -> None:
    def pool(maps: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(maps, (after, 1))

    field, _ = followed(pool, (1, 1, before, 2))
    windows = reached(pool, (1, 1, before, 2))[0, 0, :, 0, 0, 0, :, 0].sum(1)
    assert field == Field((Span(0, windows.max().item() - 1, before / after), WHOLE), (2, 3))
    assert followed(lambda maps: functional.adaptive_max_pool2d(maps, (after, 1)), (1, 1, before, 2))[0] == field


UNKNOWN: dict[str, Function] = {
    "rolled": lambda maps: maps.roll(1, 2),
    "flipped": lambda maps: maps.flip(3),
    "summed on and on": lambda maps: maps.cumsum(2),
    "sorted": lambda maps: maps.sort(3)[0],
    "gathered": lambda maps: maps.gather(2, torch.zeros(1, 2, 9, 8, dtype=torch.long)),
    "sampled": lambda maps: functional.grid_sample(maps, torch.zeros(1, 9, 8, 2).double(), align_corners=False),
    "patches": lambda maps: functional.unfold(maps, 3),
    "patches put together": lambda maps: functional.fold(maps.view(1, 18, 8), (4, 6), 3),
    "enlarged": lambda maps: functional.interpolate(maps, scale_factor=2),
    "shuffled": lambda maps: functional.pixel_shuffle(torch.cat([maps, maps], 1), 2),
    "shuffled back": lambda maps: functional.pixel_unshuffle(maps[:, :, :8], 2),
    "contracted": lambda maps: torch.einsum("nchw,hk->nckw", maps, torch.ones(9, 9).double()),
    "transposed convolution": lambda maps: functional.conv_transpose2d(maps, weight(3, 3), padding=1),
    "cut": lambda maps: maps[:, :, 1:],
    "cut, of one image": lambda maps: maps[0][:, 1:],
    "cut and used": lambda maps: functional.conv2d(maps[:, :, 1:], weight(3, 3)),
    "one axis padded": lambda maps: functional.pad(maps, (1, 1)),
    "padded elsewhere": lambda maps: functional.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1)),
    "window over swapped axes": lambda maps: functional.max_pool2d(maps.swapaxes(2, 3), 2),
    "shares of swapped axes": lambda maps: functional.adaptive_avg_pool2d(maps.swapaxes(2, 3), 2),
    "one of two axes summed": lambda maps: maps.sum(3),
    "channels summed at the end": lambda maps: maps.permute(0, 2, 3, 1).sum(3),
    "added to what is unknown": lambda maps: maps + maps.roll(1, 2),
    "written into something": lambda maps: _set(torch.zeros(SHAPE).double(), maps),
    "written over": lambda maps: _set(maps.clone(), maps.roll(1, 2)),
}


def _set(maps: Tensor, values: Tensor) -> Tensor:
    maps[:, :1] = values[:, :1]
    return maps


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_followed_is_unknown(name: str) -> None:
    assert followed(UNKNOWN[name])[0] is None


EVERYTHING = Field((WHOLE, WHOLE), None)
OF_EVERYTHING: dict[str, tuple[Function, Field]] = {
    "flat": (lambda maps: maps.flatten(1), EVERYTHING),
    "flat positions": (lambda maps: maps.flatten(2), EVERYTHING),
    "flat, and on": (lambda maps: functional.linear(maps.flatten(1), torch.ones(3, 144).double()).relu(), EVERYTHING),
    "mean": (lambda maps: maps.mean((2, 3)), EVERYTHING),
    "mean, from the end": (lambda maps: maps.mean(dim=(-1, -2)), EVERYTHING),
    "mean of all": (lambda maps: maps.mean(), EVERYTHING),
    "mean, then a sum": (lambda maps: maps.mean((2, 3)).sum(1), EVERYTHING),
    "mean, and another order": (lambda maps: maps.mean((2, 3)).transpose(0, 1), EVERYTHING),
    "a layer over columns": (lambda maps: functional.linear(maps, torch.ones(3, 8).double()), EVERYTHING),
    "products": (lambda maps: torch.bmm(maps.flatten(2), maps.flatten(2).transpose(1, 2)), EVERYTHING),
    "products, kept apart": (
        lambda maps: torch.bmm(maps[0], torch.ones(2, 8, 8).double()),
        replace(EVERYTHING, axes=(1, 2)),
    ),
    "several heads": (
        lambda maps: nn.MultiheadAttention(8, 2, dtype=torch.double)(*[maps[0]] * 3)[0],
        replace(EVERYTHING, axes=(1, 2)),
    ),
    "attention": (
        lambda maps: functional.scaled_dot_product_attention(*[maps.flatten(2).transpose(1, 2)] * 3),
        EVERYTHING,
    ),
    "a vector's product": (lambda maps: maps @ torch.ones(8).double(), EVERYTHING),
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
    assert spread == Field(whole.spans, (2, 3))
    assert followed(lambda maps: functional.adaptive_avg_pool2d(functional.conv2d(maps, weight(9, 8)), 1))[0] == spread


def test_what_a_window_makes_of_everything_is_everything() -> None:
    wide = Span(-math.inf, math.inf, 4)
    assert wide.windowed(3, 2, 1, 2) == Span(-math.inf, math.inf, 8)
    assert Span(-1, 3, 2).windowed(3, 2, 1, 2) == Span(-3, 9, 4)
    assert Span(-1, 3, 2).windowed(2, 1) == Span(-1, 5, 2)
    assert Span(-1, 3, 2).size == 5
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
