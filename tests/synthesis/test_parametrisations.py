"""Parametrisations and transforms against numpy and against what they undo."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from cnnviz.synthesis.parametrisations import (
    Fourier,
    Phases,
    PixelImage,
    colour_matrix,
    frequencies,
    natural_magnitudes,
    noise,
    spectrum_of,
)
from cnnviz.synthesis.transforms import Outside, Transform, draws, is_turned, jitter, rotate, scale, warp, zoom


def test_every_image_draws_from_its_own_seed() -> None:
    alone, among = noise([7], (3, 4)), noise([1, 7, 2], (3, 4))
    assert torch.equal(alone[0], among[1])
    state = torch.get_rng_state()
    noise([3], (2,))
    draws([jitter(3), rotate(5)], [3], 4)
    assert torch.equal(torch.get_rng_state(), state)


def test_fourier_is_lucids_formula() -> None:
    """In numpy: the spectrum over the frequency, back by an orthonormal transform, mixed, through a sigmoid."""
    size, parts = (12, 9), noise([4], (3, 12, 5, 2))
    freq = np.sqrt(np.fft.fftfreq(12)[:, None] ** 2 + np.fft.rfftfreq(9)[None] ** 2)
    scaled = (parts[0, ..., 0].numpy() + 1j * parts[0, ..., 1].numpy()) / np.maximum(freq, 1 / 12)
    channels = np.fft.irfft2(scaled, s=size, norm="ortho") / 4
    mix = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    mix /= np.linalg.norm(mix, axis=0).max()
    expected = 1 / (1 + np.exp(-np.einsum("dc,chw->dhw", mix, channels)))
    np.testing.assert_allclose(Fourier(parts, size)()[0].detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (17, 12), (12, 17)])
def test_a_spectrum_can_start_from_a_picture(channels: int, size: tuple[int, int]) -> None:
    pictures = 0.1 + 0.8 * torch.rand(2, channels, *size)
    image = Fourier(torch.zeros(2, channels, size[0], size[1] // 2 + 1, 2), size).start_from(pictures)
    torch.testing.assert_close(image(), pictures, rtol=1e-4, atol=1e-4)
    magnitudes = spectrum_of(pictures[:1], colour_matrix(channels)).abs()[0]
    phases = Phases(torch.zeros(1, *magnitudes.shape), magnitudes, size).start_from(pictures[:1])
    torch.testing.assert_close(phases(), pictures[:1], rtol=1e-3, atol=1e-3)


def test_pixels_stay_in_their_bounds() -> None:
    image = PixelImage(torch.tensor([[[[-1.0, 0.2], [0.7, 3.0]]]]))
    assert torch.equal(image(), torch.tensor([[[[0.0, 0.2], [0.7, 1.0]]]]))
    held = PixelImage(0.5 + 0.3 * torch.randn(2, 3, 16, 16), contrast=0.1)
    torch.testing.assert_close((held() - 0.5).square().mean((1, 2, 3)).sqrt(), torch.full((2,), 0.1))


def test_natural_magnitudes_fall_with_frequency_or_are_the_mean_of_pictures() -> None:
    size = (32, 32)
    law = natural_magnitudes(3, size)
    assert law.shape == (3, 32, 17)
    torch.testing.assert_close(law[0, 0, 2] / law[0, 0, 8], torch.tensor(4.0))
    pictures = 0.1 + 0.8 * torch.rand(5, 3, *size)
    expected = torch.stack([spectrum_of(picture[None], colour_matrix(3))[0].abs() for picture in pictures]).mean(0)
    torch.testing.assert_close(natural_magnitudes(3, size, pictures), expected)
    contrast = Phases(math.pi * noise(range(20), law.shape), law, size)().logit()
    decorrelated = torch.einsum("cd,ndhw->nchw", colour_matrix(3).inverse(), contrast)
    torch.testing.assert_close(decorrelated.std((0, 2, 3)), torch.tensor([2.3, 1.8, 2.0]), rtol=0.05, atol=0)


def test_frequencies_are_in_cycles_per_pixel() -> None:
    steps = frequencies((8, 8))
    assert steps[0, 4] == 0.5
    assert steps[4, 4] == pytest.approx(math.hypot(0.5, 0.5))
    assert steps[0, 0] == 1 / 8


def identity(count: int) -> torch.Tensor:
    return torch.eye(2, 3).repeat(count, 1, 1)


@given(height=st.integers(4, 20), width=st.integers(4, 20))
@settings(max_examples=20)
def test_a_warp_by_the_identity_changes_nothing(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width)
    torch.testing.assert_close(warp(images, identity(2)), images, rtol=1e-4, atol=1e-5)


def test_warps_move_by_pixels_turn_and_enlarge() -> None:
    images = torch.rand(1, 3, 12, 20)
    shift = identity(1)
    shift[0, :, 2] = torch.tensor([3.0, 2.0])  # looks 3 px to the right and 2 px further down
    torch.testing.assert_close(warp(images, shift)[..., :10, :17], images[..., 2:, 3:], rtol=1e-4, atol=1e-5)
    assert warp(images, shift, outside="grey")[..., -2:, :].sub(0.5).abs().max() < 1e-5
    square = torch.rand(1, 3, 12, 12)
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    torch.testing.assert_close(warp(square, quarter), torch.rot90(square, 1, (2, 3)), rtol=1e-4, atol=1e-5)
    larger = functional.interpolate(images, (24, 40), mode="bilinear")
    torch.testing.assert_close(warp(images, identity(1), (24, 40)), larger, rtol=1e-4, atol=1e-5)


def test_a_turn_keeps_lengths_on_a_canvas_that_is_not_square() -> None:
    rows, columns = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(60.0) - 29.5, indexing="ij")
    disc = (rows.square() + columns.square() < 100).float()[None, None]
    matrices = draws([rotate(90)], [3], 1)
    assert matrices is not None
    assert (warp(disc, matrices[0]) - disc).abs().mean() < 0.01


@given(pixels=st.floats(0, 20), degrees=st.floats(0, 45), extent=st.floats(0, 0.3), seed=st.integers(0, 2**62))
@settings(max_examples=30)
def test_draws_stay_within_their_bounds(pixels: float, degrees: float, extent: float, seed: int) -> None:
    shifts = jitter(pixels)(torch.Generator().manual_seed(seed), 50)
    assert shifts[:, :, 2].abs().max() <= pixels
    turns = rotate(degrees)(torch.Generator().manual_seed(seed), 50)
    assert torch.det(turns[:, :, :2]).sub(1).abs().max() < 1e-5
    assert turns[:, 0, 0].min() >= math.cos(math.radians(degrees)) - 1e-6
    sizes = 1 / scale(1 - extent, 1 + extent)(torch.Generator().manual_seed(seed), 50)[:, 0, 0]
    assert 1 - extent - 1e-5 <= sizes.min() <= sizes.max() <= 1 + extent + 1e-5
    parts = zoom(0.9, 0.3, (20, 40))(torch.Generator().manual_seed(seed), 50)
    assert parts[0, 0, 0] == pytest.approx(0.9)
    assert parts[-1, 1, 1] == pytest.approx(0.3)
    assert (parts[:, :, 2].abs() <= torch.tensor([20.0, 10.0])).all()


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_draws_are_even_over_their_range_and_reach_both_ends() -> None:
    steps, size = 4000, (20, 40)
    shifts = jitter(3)(drawn(0), steps)
    assert torch.equal(shifts[:, :, :2], torch.eye(2).expand(steps, 2, 2))
    sizes = scale(0.8, 1.4)(drawn(0), steps)
    factors = 1 / sizes[:, 0, 0]
    assert torch.equal(sizes, sizes[:, :1, :1] * torch.eye(2, 3))
    turns = rotate(30)(drawn(0), steps)
    angles = torch.atan2(turns[:, 1, 0], turns[:, 0, 0])
    torch.testing.assert_close(turns[:, :, :2] @ turns[:, :, :2].mT, torch.eye(2).expand(steps, 2, 2))
    assert not turns[:, :, 2].any()
    parts = zoom(0.9, 0.3, size)(drawn(0), steps)
    shares = torch.linspace(0.9, 0.3, steps)
    assert torch.equal(parts[:, :, :2], shares[:, None, None] * torch.eye(2))
    room = 1 - shares / 2  # of half the canvas: a quarter of the part may lie beyond the edge
    for values, low, high in (
        (shifts[:, 0, 2], -3, 3),
        (shifts[:, 1, 2], -3, 3),
        (factors, 0.8, 1.4),
        (angles, -math.pi / 6, math.pi / 6),
        (parts[:, 0, 2] / room, -20, 20),
        (parts[:, 1, 2] / room, -10, 10),
    ):
        even = torch.linspace(low, high, steps)
        assert (values.sort().values - even).abs().max() < 0.03 * (high - low)
    for moves in (shifts, parts):
        assert abs(torch.corrcoef(moves[:, :, 2].T)[0, 1]) < 0.05, "the two directions are drawn apart"


def test_a_transform_draws_from_the_generator_it_is_given() -> None:
    for transform in (jitter(3), scale(0.8, 1.4), rotate(30), zoom(0.9, 0.3, (20, 40))):
        draw = drawn(3)
        first, second = transform(draw, 5), transform(draw, 5)
        assert first.shape == (5, 2, 3)
        assert torch.equal(first, transform(drawn(3), 5))
        assert not torch.equal(first, second)
    for still in (jitter(0), scale(1, 1), rotate(0)):
        assert torch.equal(still(drawn(3), 5), identity(5))


def test_what_lies_beyond_is_mirrored_or_grey() -> None:
    images = torch.rand(2, 3, 12, 20)
    shifts = identity(2)
    shifts[0, :, 2], shifts[1, :, 2] = torch.tensor([3.0, 2.0]), torch.tensor([-4.0, 0.0])
    mirrored, grey = warp(images, shifts), warp(images, shifts, outside="grey")
    torch.testing.assert_close(mirrored[0, :, :10, 17:], images[0, :, 2:, [19, 18, 17]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mirrored[0, :, 10:, :17], images[0, :, [11, 10], 3:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mirrored[1, :, :, :4], images[1, :, :, [3, 2, 1, 0]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grey[0, :, :10, :17], images[0, :, 2:, 3:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grey[1, :, :, 4:], images[1, :, :, :16], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grey[1, :, :, :4], torch.full((3, 12, 4), 0.5), rtol=1e-4, atol=1e-5)


TRANSFORMS: dict[str, list[Transform]] = {
    "shifts": [jitter(30), jitter(3)],
    "whole shifts": [jitter(5, whole=True)],
    "scales": [scale(0.7, 1.4), jitter(3)],
    "crops": [zoom(0.5, 0.05, (12, 20))],
    "turns": [rotate(30), scale(0.7, 1.4), jitter(30)],
}


def by_grid_sample(images: Tensor, matrices: Tensor, size: tuple[int, int], outside: Outside) -> Tensor:
    """PyTorch's own sampling, of which a graphics card does not give the same gradient twice."""
    height, width = images.shape[2:]
    in_x = torch.stack([matrices[:, 0, 0], matrices[:, 0, 1] * (height / width), matrices[:, 0, 2] * (2 / width)], 1)
    in_y = torch.stack([matrices[:, 1, 0] * (width / height), matrices[:, 1, 1], matrices[:, 1, 2] * (2 / height)], 1)
    grid = functional.affine_grid(torch.stack([in_x, in_y], 1), [*images.shape[:2], *size], align_corners=False)
    if outside == "grey":
        return functional.grid_sample(images - 0.5, grid, padding_mode="zeros", align_corners=False) + 0.5
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


@pytest.mark.parametrize("outside", ["reflection", "grey"])
@pytest.mark.parametrize("size", [(12, 20), (30, 22)])
@pytest.mark.parametrize("kind", TRANSFORMS)
def test_warps_and_their_gradients_are_those_of_grid_sample(kind: str, size: tuple[int, int], outside: Outside) -> None:
    matrices = draws(TRANSFORMS[kind], range(6), 1)
    assert matrices is not None
    assert is_turned(matrices) == (kind == "turns")
    images = torch.rand(6, 3, 12, 20, dtype=torch.float64, requires_grad=True)
    doubles = matrices[0].double()
    expected, warped = by_grid_sample(images, doubles, size, outside), warp(images, doubles, size, outside)
    torch.testing.assert_close(warped, expected, rtol=0, atol=1e-12)
    weights = torch.rand_like(expected)
    gradients = [torch.autograd.grad((output * weights).sum(), images)[0] for output in (warped, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def test_shifts_by_whole_pixels_are_exact() -> None:
    images = torch.rand(1, 3, 31, 20)
    shift = identity(1)
    shift[0, :, 2] = torch.tensor([-4.0, 7.0])
    mirrored = torch.cat([images, images.flip(2)], 2)[:, :, 7:38]
    mirrored = torch.cat([mirrored.flip(3), mirrored], 3)[..., 16:36]
    assert torch.equal(warp(images, shift), mirrored)


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_the_gradient_of_a_warp_adds_in_one_order(kind: str) -> None:
    """Of what PyTorch names as not deterministic on a graphics card, `grid_sample` above all, nothing is used."""
    matrices = draws(TRANSFORMS[kind], range(2), 1)
    assert matrices is not None
    images = torch.rand(2, 3, 12, 20, requires_grad=True)
    nodes, seen = [warp(images, matrices[0], (30, 22)).grad_fn], set[str]()
    while nodes:
        node = nodes.pop()
        if node is not None:
            seen.add(node.name())
            nodes += [parent for parent, _ in node.next_functions]
    assert seen
    assert not any(word in name for name in seen for word in ("GridSampler", "Upsample", "Scatter", "ReflectionPad"))


def test_a_quarter_turn_and_a_shift_on_a_canvas_that_is_not_square() -> None:
    images = torch.rand(1, 3, 12, 20)
    turned = warp(images, torch.tensor([[[0.0, -1.0, 2.0], [1.0, 0.0, 0.0]]]))
    expected = torch.rot90(images[..., 6:18], 1, (2, 3))  # 2 px to the right of the middle
    torch.testing.assert_close(turned[..., 4:16], expected, rtol=1e-4, atol=1e-5)


def test_draws_are_one_matrix_a_step_and_image() -> None:
    transforms = [jitter(2), scale(0.9, 1.1), rotate(20)]
    products = draws(transforms, [8, 9], 5)
    assert products is not None
    assert products.shape == (5, 2, 2, 3)
    generator, bottom = drawn(9), torch.tensor([[0.0, 0.0, 1.0]])
    drawn_apart = [transform(generator, 5) for transform in transforms]
    for step in range(5):
        shift, size, turn = (torch.cat([matrices[step], bottom]) for matrices in drawn_apart)
        torch.testing.assert_close(products[step, 1], (shift @ size @ turn)[:2])


def test_transforms_follow_one_another_in_their_order() -> None:
    double, right = (lambda generator, steps: 0.5 * torch.eye(2, 3).repeat(steps, 1, 1)), jitter(0)

    def moved(generator: torch.Generator, steps: int) -> torch.Tensor:
        shift = right(generator, steps).clone()
        shift[:, 0, 2] = 4.0
        return shift

    image = functional.interpolate(torch.rand(1, 3, 4, 4), (16, 16), mode="bicubic")  # smooth: sampled twice by hand
    first_moved = draws([moved, double], [0], 1)
    assert first_moved is not None
    by_hand = warp(warp(image, moved(torch.Generator(), 1)), double(torch.Generator(), 1))
    torch.testing.assert_close(
        warp(image, first_moved[0])[..., 2:-2, 2:-6], by_hand[..., 2:-2, 2:-6], rtol=0, atol=0.05
    )
    assert draws([], [0, 1], 5) is None
    together, alone = draws([moved, rotate(9)], [5, 6], 7), draws([moved, rotate(9)], [6], 7)
    assert together is not None
    assert alone is not None
    assert torch.equal(together[:, 1], alone[:, 0])
