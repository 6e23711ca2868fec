"""Baselines: the reference inputs that methods of attribution compare an image with."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from cnnviz.errors import PictureError, ShapeError, UnknownNameError
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network

BASELINES = ("mean", "black", "white", "blur")
TENSOR = "tensor sha256:"  # before the hash, in a record
BLUR = 0.1  # of the short side: the standard deviation


def check_baseline(baseline: str | Path | Tensor) -> None:
    """Notice what is no baseline before any work.

    Raises:
        UnknownNameError: if it is neither a name nor a file.
    """
    if isinstance(baseline, Tensor):
        return
    if not isinstance(baseline, str | Path):
        raise UnknownNameError(f"a baseline is {', '.join(BASELINES)}, an image's path or a tensor, not {baseline!r}.")
    if baseline not in BASELINES and not Path(baseline).is_file():
        raise UnknownNameError(f"no baseline named {str(baseline)!r}; take {', '.join(BASELINES)} or an image's path.")


def recorded_baseline(baseline: str | Path | Tensor) -> str:
    """What a record keeps of a baseline: its name, or the sha256 of a tensor's size and values."""
    if not isinstance(baseline, Tensor):
        return str(baseline) if baseline in BASELINES else Path(baseline).name
    size = " x ".join(map(str, baseline.shape))
    values = baseline.detach().float().cpu().contiguous().numpy().tobytes()
    return TENSOR + hashlib.sha256(size.encode() + values).hexdigest()


def baseline_for(network: Network, images: Tensor, baseline: str | Path | Tensor) -> tuple[Tensor, str]:
    """A baseline for images, and what it is called in images.

    Args:
        images: (N, C, H, W) in [0, 1].
        baseline: "mean", the colour that the network's normalisation takes for zero; "black", "white"; "blur", the
            images themselves out of focus; the path of an image; or a tensor in [0, 1] that fits the images.

    Returns:
        (N, C, H, W) in [0, 1], and its name.

    Raises:
        UnknownNameError: if it is neither a name nor a file.
        PictureError, ShapeError: if the image cannot be read, or a tensor does not fit.
    """
    check_baseline(baseline)
    if isinstance(baseline, Tensor):
        try:
            return baseline.to(images).expand_as(images), "a tensor of your own"
        except RuntimeError:
            given, wanted = (" x ".join(map(str, tensor.shape)) for tensor in (baseline, images))
            raise ShapeError(f"a baseline of shape {given} does not fit images of {wanted}.") from None
    if baseline == "mean":
        called = "dataset mean colour" if network.mean.any() else "black"  # the mean of a network whose mean is unknown
        return network.mean.to(images).expand_as(images), called
    if baseline in ("black", "white"):
        return torch.full_like(images, float(baseline == "white")), str(baseline)
    if baseline == "blur":
        return _blurred(images), "the image, blurred"
    return _pictured(network, images, Path(baseline)), Path(baseline).name


def _blurred(images: Tensor) -> Tensor:
    from torchvision.transforms.functional import gaussian_blur

    sigma = BLUR * min(images.shape[2:])
    reach = min(round(3 * sigma), min(images.shape[2:]) - 1)
    return gaussian_blur(images, [2 * reach + 1, 2 * reach + 1], [sigma, sigma]) if reach else images


def _pictured(network: Network, images: Tensor, path: Path) -> Tensor:
    """An image, squeezed to the images' size."""
    shown = show(network, path, fit="whole").images
    if shown.shape[1] != images.shape[1]:
        raise PictureError(f"{path.name} has another number of channels than the images.")
    resized = torch.nn.functional.interpolate(shown.float(), images.shape[2:], mode="bilinear", antialias=True)
    return resized.to(images).clamp(0, 1).expand_as(images)
