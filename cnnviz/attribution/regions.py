"""Scores of a region: what a segmentation network says of some of the pixels it gives, as one number for each class.

    summed = over_region(network, region_sum((10, 20, 60, 80), size, seen), images)
    cnnviz.attribute(summed.network, images, 3)

A segmentation network gives maps (N, C, H, W), alone or as "out" of a dictionary, as torchvision's do. A class's score
is the sum of its map over the pixels of the output whose centres lie in the region. The sum is a hook at the end of a
copy of the network, whose layers keep their names; to all that explains it, it is a network of values (N, C).
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor, nn
from torch.nn import functional

from cnnviz.errors import ModelError, PictureError, ShapeError, translated
from cnnviz.networks.inputs import Seen, Shown
from cnnviz.networks.network import Network, forward_pass
from cnnviz.pictures.colours import Pixels
from cnnviz.pictures.reading import content_of, picture_from_bytes

Box = Sequence[int]  # (left, top, right, bottom), in pixels; right and bottom are the first that lie outside
Mask = NDArray[np.bool_]
Region = Box | Mask | Tensor
OUTLINES = 300  # of them side by side are as long as the image
TRANSPARENT = ("PNG", "WEBP", "GIF", "TIFF")  # formats of which parts may be
NO_MAPS = (
    "a region is of networks that give maps of the classes, N x C x H x W, as for segmentation, and this one gives"
    " none; leave out --target-mask and --target-box (region= in Python)."
)
BRIGHT = 127  # the grey of a file above which a pixel of a mask belongs to the region


@dataclass(frozen=True, eq=False)
class RegionSum:
    """A forward hook that makes (N, C) of maps (N, C, H, W): their sums over a region.

    Attributes:
        mask: (h, w), laid over the whole image.
        seen: (left, top, right, bottom) of what the network sees of it, as shares of the image's width and height.
    """

    mask: Mask
    seen: Seen

    def __call__(self, _module: nn.Module, _inputs: object, output: object) -> Tensor:
        maps = maps_in(output)
        inside = torch.from_numpy(self.pixels(*maps.shape[2:]).reshape(1, -1)).to(maps)
        return functional.linear(maps.flatten(2), inside).squeeze(2)

    def __deepcopy__(self, _memo: object) -> "RegionSum":
        return self  # it is never written into

    def pixels(self, height: int, width: int) -> Mask:
        """Which pixels of an output of that size have their centres in the region: (height, width)."""
        left, top, right, bottom = self.seen
        rows, columns = (
            np.floor(((np.arange(count) + 0.5) / count * (end - start) + start) * length).astype(int)
            for count, start, end, length in (
                (height, top, bottom, self.mask.shape[0]),
                (width, left, right, self.mask.shape[1]),
            )
        )
        return self.mask[np.ix_(rows, columns)]


@dataclass(frozen=True)
class Summed:
    """A network whose scores are sums over a region.

    Attributes:
        network: gives (N, C).
        largest: (C,), int64: in how many of the region's pixels each class has the largest output.
        size: (height, width) of the maps that are summed.
    """

    network: Network
    largest: Tensor
    size: tuple[int, int]

    @property
    def text(self) -> str:
        """How large the region is, and what the network mostly sees there, for people."""
        height, width = self.size
        count, best = (int(number) for number in self.largest.max(0))
        most = f", {count} of them classified as {self.network.label(best)}" if len(self.largest) > 1 else ""
        return f"{int(self.largest.sum())} of the output's {width} x {height} px{most}"


def over_region(network: Network, summing: RegionSum, images: Tensor) -> Summed:
    """A segmentation network as one that scores a region; the network itself stays as it is.

    Args:
        images: (N, C, H, W) in [0, 1], as they will be explained; the first one is looked at.

    Raises:
        ModelError: if the network gives no maps.
        ShapeError: if no pixel of them has its centre in the region.
    """
    with torch.no_grad(), forward_pass(network, images):
        maps = maps_in(network(images[:1]))[0]
    height, width = maps.shape[1:]
    inside = maps[:, torch.from_numpy(summing.pixels(height, width)).to(maps.device)]
    if not inside.shape[1]:
        raise ShapeError(
            f"the region has the centre of none of the {width} x {height} px that {network.name} gives for what it sees"
            " of the image; take a larger region, or one that it sees."
        )
    scored = network.twin()
    scored.module.register_forward_hook(summing)
    scored._outputs, scored._twin = "value", False  # a network in its own right: weights it lacks are told of
    return Summed(scored, torch.bincount(inside.argmax(0).cpu(), minlength=len(inside)), (height, width))


def gives_maps(output: object) -> bool:
    """Whether this is what a segmentation network gives."""
    maps = output.get("out") if isinstance(output, Mapping) else output
    return isinstance(maps, Tensor) and maps.ndim == 4 and maps.is_floating_point() and maps.shape[2:].numel() > 1


@torch.no_grad()
def segments(network: Network) -> bool:
    """Whether a network gives maps of the classes for an image of its own size."""
    image = torch.zeros(1, network.channels, *network.input_size, device=network.device)
    with forward_pass(network, image):
        return gives_maps(network(image))


def maps_in(output: Any) -> Tensor:
    """The maps (N, C, H, W) of a segmentation network's output.

    Raises:
        ModelError: if there are none.
    """
    if not gives_maps(output):
        raise ModelError(NO_MAPS)
    maps: Tensor = output["out"] if isinstance(output, Mapping) else output
    return maps


def region_sum(region: Region, size: Sequence[int], seen: Seen) -> RegionSum:
    """The sum over a region of an image.

    Args:
        region: a box (left, top, right, bottom) in the image's pixels, the last two not included; or a boolean mask
            (h, w) of any size, which is laid over the whole image.
        size: (height, width) of the image.
        seen: (left, top, right, bottom) in its pixels, that the network sees.

    Raises:
        ShapeError: if it is neither, is empty, or does not fit the image.
    """
    height, width = size
    left, top, right, bottom = seen
    mask = _box(region, height, width) if isinstance(region, list | tuple) else _mask(region, height, width)
    return RegionSum(mask, (left / width, top / height, right / width, bottom / height))


def _box(box: Box, height: int, width: int) -> Mask:
    whole = len(box) == 4 and all(isinstance(edge, int | np.integer) for edge in box)
    if not (whole and 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
        given = ",".join(map(str, box))
        raise ShapeError(
            f"a box is X0,Y0,X1,Y1 in whole pixels, with X0 < X1 and Y0 < Y1, inside the image's {width} x {height}"
            f" px; {given} is none."
        )
    mask = np.zeros((height, width), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def _mask(given: object, height: int, width: int) -> Mask:
    mask: NDArray[Any] = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
    if mask.dtype != bool or mask.ndim != 2:
        kind = f"{type(given).__name__} of {mask.dtype}, {' x '.join(map(str, mask.shape)) or 'one value'}"
        raise ShapeError(f"a region is a boolean mask, H x W, or a box of four whole numbers, not this {kind}.")
    if not mask.any():
        raise ShapeError("the mask of the region is empty: none of its pixels is true (in a file: white, or opaque).")
    rows, columns = mask.shape
    if abs(rows * width - columns * height) > max(height, width):  # by more than one of the mask's pixels
        raise ShapeError(
            f"the mask, {columns} x {rows} px, has not the proportions of the image, {width} x {height} px, over all"
            " of which it is laid."
        )
    return mask


def recorded(region: Region) -> list[int] | str:
    """What a record keeps of a region: a box itself; of a mask the sha256 of its size and its pixels."""
    if isinstance(region, list | tuple):
        return [int(edge) for edge in region]
    mask = np.asarray(region.cpu() if isinstance(region, Tensor) else region)
    return hashlib.sha256(f"{mask.shape}".encode() + np.packbits(mask).tobytes()).hexdigest()


def read_mask(path: str | Path) -> Mask:
    """A mask (H, W) from an image's file: what is opaque, if parts are transparent; else what is brighter than half.

    Raises:
        PictureError: as `cnnviz.pictures.reading.read_picture`.
    """
    content = content_of(Path(path))
    grey = picture_from_bytes(content, Path(path).name).image.convert("L")
    with translated(lambda reason: PictureError(f"{path} is damaged and cannot be read ({reason}).")):
        opacity = _opacity(content)
    mask: Mask = np.asarray(grey if opacity is None else opacity) > BRIGHT
    return mask


def _opacity(content: bytes) -> Image.Image | None:
    """How opaque an image is, upright; None where all of it is, as in formats that know nothing else."""
    try:
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content), formats=TRANSPARENT))
    except UnidentifiedImageError:
        return None
    if not upright.has_transparency_data:
        return None
    opacity = upright.convert("RGBA").getchannel("A")
    return None if opacity.getextrema() == (255, 255) else opacity


def outlined(shown: Shown, summing: RegionSum) -> Pixels:
    """The image with the region's outline, white inside of a black one."""
    pixels = shown.pictures[0].copy()
    height, width = pixels.shape[:2]
    inside = torch.from_numpy(RegionSum(summing.mask, (0, 0, 1, 1)).pixels(height, width))
    reach = 2 * max(1, round(max(height, width) / OUTLINES)) + 1
    grown, left_out = (
        functional.max_pool2d(part[None].float(), reach, 1, reach // 2)[0].bool() for part in (inside, ~inside)
    )
    pixels[(grown & ~inside).numpy()] = 0
    pixels[(left_out & inside).numpy()] = 255
    return pixels
