"""What a network is shown of an image.

By default the center crop of the network's published preprocessing: it is what the network was trained for and what its
accuracy was measured with, and what other tools show it, so that numbers can be compared. ``fit="whole"`` is the whole
image, its aspect ratio kept and its short side at the network's size; squeezed to that size where the network takes no
other. Both resize with the interpolation that the network was published with, bilinear where none is known.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cnnviz.errors import PictureError, ShapeError, check_whole, choose
from cnnviz.networks.network import Network
from cnnviz.pictures.colours import Pixels, drawable
from cnnviz.pictures.exact_values import planes
from cnnviz.pictures.reading import Picture, picture_of, picture_of_array, read_picture

Fit = Literal["whole", "crop"]
Source = str | Path | Picture | Image.Image | NDArray[Any] | Tensor
Sources = list[Any] | tuple[Any, ...]  # each a `Source`
Seen = tuple[float, float, float, float]
P = ParamSpec("P")
R = TypeVar("R")
LARGEST = 4096  # pixels; the maps of a larger image would not fit into memory
ENLARGED = 1.5  # times an image's own pixels; from there on sheets say that the network sees it enlarged
LONGEST = 8  # times the short side; a longer image is refused, or it would not fit into memory


@dataclass(frozen=True)
class Shown:
    """What a network is shown of one or more images.

    Attributes:
        images: (N, C, H, W) in [0, 1], on the network's device.
        names: of the images, N.
        pictures: as 8-bit pixels (H', W', 3) in their own size, N.
        sha256: of the image's file, where there is one.
        seen: (left, top, right, bottom) in the image's pixels: the part that is in `images`.
        how: "whole", "squeezed", "cropped" or "as it is".
        settings: what was asked for, fit and size.
    """

    images: Tensor
    names: tuple[str, ...]
    pictures: tuple[Pixels, ...]
    sha256: str | None
    seen: Seen
    how: str
    settings: Mapping[str, object]

    @property
    def words(self) -> str:
        """What the network was shown of an image: "full image, input 168 x 112 px (aspect ratio kept)"."""
        height, width = self.images.shape[2:]
        part = {"cropped": "center crop, ", "as it is": ""}.get(self.how, "full image, ")
        ratio = {"whole": " (aspect ratio kept)", "squeezed": " (aspect ratio changed)"}.get(self.how, "")
        left, top, right, bottom = self.seen
        own = f"{right - left:.0f} x {bottom - top:.0f} px"
        enlarged = f", enlarged from {own}" if height > ENLARGED * (bottom - top) else ""
        return f"{part}input {width} x {height} px{ratio}{enlarged}"


def show(
    network: Network,
    picture: Source,
    *,
    fit: Fit = "crop",
    size: int | None = None,
) -> Shown:
    """Make of an image what `network` is to see.

    Args:
        picture: a file, a `Picture`, a PIL image, an array (H, W) or (H, W, C) of uint8, uint16 or real numbers from 0
            to 1; or a tensor (C, H, W) or (N, C, H, W) in [0, 1], shown as it is. Values keep their precision.
        fit: "whole" or "crop", see above; does not concern tensors.
        size: short side, in pixels, of what the network sees; the network's own by default.

    Raises:
        UnknownNameError: if there is no such fit.
        PictureError: if the image cannot be read, or is too long and narrow to be seen whole.
        ShapeError: if a tensor has another shape or range, or the network takes no image of that size.
    """
    choose(fit, get_args(Fit), "fit")
    if isinstance(picture, Tensor):
        shown = as_it_is(network, picture)
        check_range(picture)
        return shown
    if isinstance(picture, np.ndarray):
        picture = picture_of_array(picture)
    if isinstance(picture, Image.Image):
        picture = picture_of(picture)
    if isinstance(picture, str | Path):
        picture = read_picture(picture)
    if not isinstance(picture, Picture):
        kind = type(picture).__name__
        raise PictureError(f"an image is a file, a PIL image, an array (H, W, C) or a tensor, not a {kind}.")
    check_side(min(network.input_size) if size is None else size)
    if size is not None and (size, size) != network.input_size and not network.takes_any_size:
        own = " x ".join(map(str, network.input_size))
        raise ShapeError(f"{network.name} takes images of {own} px (height x width) only; leave out the size.")
    image, exact = picture.image.convert("L" if network.channels == 1 else "RGB"), picture.values
    layers = [image] if exact is None else planes(exact, network.channels, picture.name)
    squeezed = fit == "whole" and not network.takes_any_size
    if max(image.size) > LONGEST * min(image.size) and not squeezed:
        given = f"{picture.name} is {image.width} x {image.height}"
        raise PictureError(f"{given}: more than {LONGEST} times as long as it is narrow; cut a part out of it.")
    parts = [_crop(network, layer, size) if fit == "crop" else _whole(network, layer, size) for layer in layers]
    fitted, seen = parts[0]
    kept = fitted.width * image.height == fitted.height * image.width
    how = "cropped" if fit == "crop" else "squeezed" if squeezed and not kept else "whole"
    return Shown(
        images=_tensor([part for part, _ in parts], network),
        names=(picture.name,),
        pictures=(picture.pixels(),),
        sha256=picture.sha256 or None,
        seen=seen,
        how=how,
        settings={"fit": fit, "size": size},
    )


class OfImages(Protocol[P, R]):
    """A function of an image that, given a list of images, gives the list of their results."""

    @overload
    def __call__(self, network: Network, picture: Source, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __call__(self, network: Network, picture: Sources, *args: P.args, **kwargs: P.kwargs) -> list[R]: ...


def of_images(function: Callable[Concatenate[Network, Source, P], R]) -> OfImages[P, R]:
    """Let a function of one image take a list or tuple of them, one after the other."""

    @wraps(function)
    def of_each(network: Network, picture: Source | Sources, *args: P.args, **kwargs: P.kwargs) -> R | list[R]:
        if isinstance(picture, list | tuple):
            return [function(network, one, *args, **kwargs) for one in picture]
        return function(network, picture, *args, **kwargs)

    return of_each  # type: ignore[return-value] # overloads


def as_it_is(network: Network, images: Tensor) -> Shown:
    """A tensor (C, H, W) or (N, C, H, W) of any finite values, as a plain module is shown it; errors as `show`."""
    batch = images[None] if images.ndim == 3 else images
    if batch.ndim != 4 or batch.shape[1] != network.channels or 0 in batch.shape:
        given, wanted = " x ".join(map(str, images.shape)), f"(N x) {network.channels} x H x W"
        raise ShapeError(f"{network.name} takes images of shape {wanted}; this tensor is {given}.")
    check_finite(batch)
    names = tuple(f"image {number}" for number in range(len(batch)))
    height, width = batch.shape[2:]
    colours = tuple(map(drawable, batch.detach().cpu().float().clamp(0, 1)))
    return Shown(batch.to(network.device), names, colours, None, (0, 0, width, height), "as it is", {})


def check_side(side: int) -> None:
    """Notice an image that memory could not hold.

    Raises:
        ShapeError: if the side is not 1 to `LARGEST` pixels.
    """
    check_whole(side, "the size", LARGEST, unit=" pixels")


def check_finite(images: Tensor) -> None:
    """Notice images that would make every number NaN, and bytes, which are no real numbers.

    Raises:
        ShapeError: if there is a NaN or an infinity among the values, or they are whole numbers.
    """
    if not images.is_floating_point():
        raise ShapeError(f"images are real numbers in [0, 1]; this tensor is {images.dtype}; divide by 255 first.")
    broken = int((~images.isfinite()).sum())
    if broken:
        raise ShapeError(f"{broken} of the {images.numel()} values of this tensor are NaN or infinite; replace them.")


def check_range(images: Tensor) -> None:
    """Notice images that a `Network` would take for something else.

    Raises:
        ShapeError: if values lie outside [0, 1].
    """
    check_finite(images)
    if images.numel() and (images.amin() < 0 or images.amax() > 1):
        low, high = images.amin().item(), images.amax().item()
        raise ShapeError(
            f"images lie in [0, 1]; this tensor goes from {low:.3g} to {high:.3g} (the network normalises by itself)."
        )


def _whole(network: Network, image: Image.Image, size: int | None) -> tuple[Image.Image, Seen]:
    height, width = network.input_size
    if network.takes_any_size:
        factor = (size or min(height, width)) / min(image.size)
        height, width = (max(1, round(side * factor)) for side in (image.height, image.width))
    return image.resize((width, height), _interpolation(network)), (0, 0, image.width, image.height)


def _interpolation(network: Network) -> Image.Resampling:
    return Image.Resampling[network.crop.interpolation if network.crop else "BILINEAR"]


def _crop(network: Network, image: Image.Image, size: int | None) -> tuple[Image.Image, Seen]:
    """Short side resized, the centre cut out, in torchvision's own rounding; importing it would take seconds."""
    target = (size, size) if size else network.input_size
    factor = max(target[0] / image.height, target[1] / image.width)
    resize = round(factor * min(image.size))
    if network.crop:
        resize = round(network.crop.resize * min(target) / network.crop.side)
    while min(np.subtract(_resized(image, resize), target)) < 0:  # rounding left a side short: it would be black
        resize += 1
    height, width = _resized(image, resize)
    resized = image.resize((width, height), _interpolation(network))
    scale = image.width / resized.width, image.height / resized.height
    top, left = (round((side - cut) / 2) for side, cut in zip(resized.size[::-1], target, strict=True))
    seen = (left * scale[0], top * scale[1], (left + target[1]) * scale[0], (top + target[0]) * scale[1])
    return resized.crop((left, top, left + target[1], top + target[0])), seen


def _resized(image: Image.Image, short: int) -> tuple[int, int]:
    """(height, width) that torchvision gives an image with this short side."""
    long = int(short * max(image.size) / min(image.size))
    return (long, short) if image.height > image.width else (short, long)


def _tensor(layers: list[Image.Image], network: Network) -> Tensor:
    """(1, C, H, W) in [0, 1], of an image of 8 bits, or of one of real numbers for each channel."""
    values: NDArray[np.float32] = np.dstack([np.asarray(layer, dtype=np.float32) for layer in layers])
    # Bicubic interpolation overshoots beside edges; among 8 bits Pillow clips that itself.
    values = np.clip(values, 0, 1) if layers[0].mode == "F" else values / np.float32(255)
    if network.channels != values.shape[2]:
        raise ShapeError(f"{network.name} takes {network.channels} channels; a file of 8-bit colours cannot give them.")
    return torch.from_numpy(values).permute(2, 0, 1)[None].contiguous().to(network.device)


def unseen_dimmed(shown: "Shown", image: int) -> Pixels:
    """The image, with whatever the network did not see of it nearly white."""
    pixels = shown.pictures[image]
    left, top, right, bottom = (round(edge) for edge in shown.seen)
    dimmed = (255 - (255 - pixels.astype(np.uint16)) // 4).astype(np.uint8)
    dimmed[max(top, 0) : bottom, max(left, 0) : right] = pixels[max(top, 0) : bottom, max(left, 0) : right]
    return dimmed
