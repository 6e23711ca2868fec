"""Parametrisations and transforms against numpy and against what they undo."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from cnnviz.images import Fourier, Phases, Pixels, colour_matrix, frequencies, natural_magnitudes, noise, spectrum_of
from cnnviz.transforms import draws, jitter, rotate, scale, warp, zoom


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
    image = Pixels(torch.tensor([[[[-1.0, 0.2], [0.7, 3.0]]]]))
    assert torch.equal(image(), torch.tensor([[[[0.0, 0.2], [0.7, 1.0]]]]))
    held = Pixels(0.5 + 0.3 * torch.randn(2, 3, 16, 16), contrast=0.1)
    torch.testing.assert_close((held() - 0.5).square().mean((1, 2, 3)).sqrt(), torch.full((2,), 0.1))


def test_natural_magnitudes_fall_with_frequency_or_are_the_mean_of_pictures() -> None:
    size = (32, 32)
    law = natural_magnitudes(3, size)
    assert law.shape == (3, 32, 17)
    torch.testing.assert_close(law[0, 0, 2] / law[0, 0, 8], torch.tensor(4.0))
    pictures = 0.1 + 0.8 * torch.rand(5, 3, *size)
    expected = torch.stack([spectrum_of(one[None], colour_matrix(3))[0].abs() for one in pictures]).mean(0)
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
@settings(max_examples=20, deadline=None)
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
@settings(max_examples=30, deadline=None)
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
