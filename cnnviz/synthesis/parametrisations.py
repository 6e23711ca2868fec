"""How an image is parametrised during optimization: as pixels, as a spectrum, as the phases of a spectrum.

Each is a module whose call gives images (N, C, H, W) in [0, 1] and whose parameters have one row per image, so that an
optimiser treats images independently. Starts are drawn on the CPU, from one seed per image. `cnnviz.ascend` takes them:

    PixelImage(torch.rand(1, 3, 224, 224))
    Fourier(0.01 * torch.randn(1, 3, 224, 113, 2), size=(224, 224))

To add one, write an `nn.Module` with `forward` and `project`, which puts the parameters back into their bounds after
each step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Size = tuple[int, int]
# How ImageNet's colours vary together (lucid, Olah et al. 2017): colours = _COLOURS @ decorrelated channels.
_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03))
DARKEST, BRIGHTEST = 0.01, 0.99  # of an image to start from: what a sigmoid reaches without effort
NATURAL_CONTRASTS = (2.3, 1.8, 2.0)  # deviation of the decorrelated channels in 500 photographs, mean


class Parametrisation(nn.Module):
    """Images (N, C, H, W) in [0, 1] behind parameters with a row for each."""

    def forward(self) -> Tensor:
        raise NotImplementedError

    def project(self) -> None:
        """Put the parameters back into their bounds, if there are any; called after each step."""


class PixelImage(Parametrisation):
    """The values themselves.

    Args:
        values: (N, C, H, W) in [0, 1], to start from.
        contrast: root mean square of the deviation from grey to hold, in units of the [0, 1] range; if None, every
            value only stays in [0, 1].
    """

    def __init__(self, values: Tensor, contrast: float | None = None) -> None:
        super().__init__()
        self.values, self.contrast = nn.Parameter(values.clone()), contrast
        self.project()

    def forward(self) -> Tensor:
        return self.values.clone()  # a parameter that is handed on could be written into

    @torch.no_grad()
    def project(self) -> None:
        if self.contrast is not None:
            deviation = self.values - 0.5
            held = deviation * self.contrast / deviation.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
            self.values.copy_(held + 0.5)
        self.values.clamp_(0, 1)


class Fourier(Parametrisation):
    """A spectrum in which every frequency starts with the share it has in natural images (Olah et al. 2017).

    Real and imaginary parts of an rfft2, scaled by 1 / frequency, in colour channels that are decorrelated, behind a
    sigmoid: Adam's equal steps then move coarse structure as readily as fine.

    Args:
        parts: (N, C, H, W // 2 + 1, 2).
        size: (H, W) in pixels.
        decay: the power of the frequency by which it is scaled down.
        decorrelated: whether colours are mixed the way they vary in natural images; for 3 channels only.
    """

    def __init__(self, parts: Tensor, size: Size, decay: float = 1.0, decorrelated: bool = True) -> None:
        super().__init__()
        self.parts, self.size = nn.Parameter(parts.clone()), size
        self.register_buffer("scale", _scale(size, decay), persistent=False)
        self.register_buffer("colours", colour_matrix(parts.shape[1], decorrelated), persistent=False)

    scale: Tensor
    colours: Tensor

    def forward(self) -> Tensor:
        return painted(torch.view_as_complex(self.parts) * self.scale, self.size, self.colours)

    @torch.no_grad()
    def start_from(self, pictures: Tensor) -> "Fourier":
        """Make the images equal images (N, C, H, W) in [0, 1]."""
        spectrum = spectrum_of(pictures.to(self.scale), self.colours) / self.scale
        self.parts.copy_(torch.view_as_real(spectrum))
        return self


class Phases(Parametrisation):
    """A spectrum whose magnitudes are held while its phases are optimized (Fel et al. 2023, MACO).

    Args:
        phases: (N, C, H, W // 2 + 1), in radians.
        magnitudes: (C, H, W // 2 + 1), the mean spectrum of natural images; see `natural_magnitudes`.
        size: (H, W) in pixels.
    """

    def __init__(self, phases: Tensor, magnitudes: Tensor, size: Size) -> None:
        super().__init__()
        self.phases, self.size = nn.Parameter(phases.clone()), size
        self.register_buffer("magnitudes", magnitudes, persistent=False)
        self.register_buffer("colours", colour_matrix(phases.shape[1]), persistent=False)

    magnitudes: Tensor
    colours: Tensor

    def forward(self) -> Tensor:
        return painted(torch.polar(self.magnitudes.expand_as(self.phases), self.phases), self.size, self.colours)

    @torch.no_grad()
    def start_from(self, pictures: Tensor) -> "Phases":
        """Give the images the phases of images (N, C, H, W) in [0, 1]."""
        self.phases.copy_(spectrum_of(pictures.to(self.magnitudes), self.colours).angle())
        return self


def noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal numbers (N, *shape), each row from its own seed."""
    rows = (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds)
    return torch.stack(list(rows))


def frequencies(size: Size) -> Tensor:
    """(H, W // 2 + 1): of an rfft2, in cycles per pixel; the constant part counts as the lowest there is."""
    rows, columns = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])
    steps: Tensor = (rows.square() + columns.square()).sqrt().clamp(min=1 / max(size))
    return steps


def colour_matrix(channels: int, decorrelated: bool = True) -> Tensor:
    """(C, C): from decorrelated channels to colours; the identity where there are not three."""
    if channels != 3 or not decorrelated:
        return torch.eye(channels)
    matrix = torch.tensor(_COLOURS)
    largest: Tensor = matrix.norm(dim=0).max()
    return matrix / largest


def painted(spectrum: Tensor, size: Size, colours: Tensor) -> Tensor:
    """Images in [0, 1] of spectra (N, C, H, W // 2 + 1), complex."""
    channels: Tensor = torch.fft.irfft2(spectrum, s=size, norm="ortho")
    return torch.einsum("dc,nchw->ndhw", colours, channels).sigmoid()


def spectrum_of(pictures: Tensor, colours: Tensor) -> Tensor:
    """The spectra that `painted` makes these images of; black and white give way a little, as a sigmoid must."""
    channels = pictures.clamp(DARKEST, BRIGHTEST).logit()
    spectra: Tensor = torch.fft.rfft2(torch.einsum("cd,ndhw->nchw", colours.inverse(), channels), norm="ortho")
    return spectra


def natural_magnitudes(channels: int, size: Size, pictures: Tensor | None = None) -> Tensor:
    """(C, H, W // 2 + 1): the mean magnitudes of images (N, C, H, W) in [0, 1]; without any, 1 / frequency."""
    if pictures is not None:
        return spectrum_of(pictures, colour_matrix(channels)).abs().mean(0)
    magnitudes = frequencies(size) ** -1
    magnitudes[0, 0] = 0
    contrasts = NATURAL_CONTRASTS if channels == 3 else channels * NATURAL_CONTRASTS[:1]
    return magnitudes / _deviation(magnitudes, size) * torch.tensor(contrasts)[:, None, None]


def _scale(size: Size, decay: float) -> Tensor:
    """1 / frequency ** decay, as large in all as lucid's, whose decay is 1 and whose inverse is divided by 4."""
    lucid, own = (frequencies(size) ** -power for power in (1.0, decay))
    scale: Tensor = own * (_deviation(lucid, size) / _deviation(own, size)) / 4
    return scale


def _deviation(magnitudes: Tensor, size: Size) -> Tensor:
    """Root mean square of the values that spectra with these magnitudes and random phases have."""
    values: Tensor = torch.fft.irfft2(magnitudes.to(torch.complex64), s=size, norm="ortho")
    return values.square().mean().sqrt()
