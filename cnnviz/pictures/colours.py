"""Numbers to colours: colour maps as tables, values and tensors as pixels. The only file that has palettes."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnnviz.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

Values = NDArray[np.float32]
SIGNED, UNSIGNED, FEATURES = "RdBu_r", "inferno", "viridis"  # the last one is for maps, each in its own range
UNSEEN = 232  # grey
Pixels = NDArray[np.uint8]


def drawable(image: "Tensor") -> Pixels:
    """(C, H, W) in [0, 1] as (H, W, 3), 0 to 255; grey if it has not three channels."""
    values = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return np.broadcast_to(values[..., : 3 if values.shape[2] >= 3 else 1], (*values.shape[:2], 3))


def painted(values: Values, scale: float, *, signed: bool, cmap: str = UNSIGNED) -> Pixels:
    """Values around zero, or from zero on, in colours: (..., 3), 0 to 255.

    Args:
        values: NaN, for what was not seen, becomes grey.
        scale: the size of a value that the last colour stands for.
        signed: whether signs mean something: then colours diverge from white at zero; otherwise they are `cmap`'s.
        cmap: one of matplotlib's colour maps, for values without a sign.
    """
    share = np.clip(np.nan_to_num(values) / (scale or 1), -1 if signed else 0, 1)
    pixels = coloured((share + 1) / 2 if signed else share, colour_map(SIGNED if signed else cmap))
    pixels[np.isnan(values)] = UNSEEN
    return pixels


def painted_between(values: Values, low: Values, high: Values, cmap: str) -> Pixels:
    """Values from the first colour, for `low`, to the last, for `high`; where these are equal, the middle one."""
    flat = high <= low
    span = np.where(flat, 1, high - low).astype(np.float64)
    return coloured(np.where(flat, 0.5, (values - low) / span), colour_map(cmap))


def coloured(share: NDArray[np.floating], colours: Pixels) -> Pixels:
    """Shares in [0, 1] of a table of colours."""
    pixels: Pixels = colours[np.rint(share * (len(colours) - 1)).astype(np.intp)]
    return pixels


@lru_cache(maxsize=8)
def colour_map(name: str) -> Pixels:
    """One of matplotlib's colour maps as a table of 256 colours: (256, 3), 0 to 255.

    Raises:
        UnknownNameError: if matplotlib has none of that name; says which are close.
    """
    from matplotlib import colormaps

    if name not in colormaps:
        hint = did_you_mean(name, list(colormaps))
        raise UnknownNameError(f"no colour map named {name!r}{hint} Any name of matplotlib's will do, such as magma.")
    table: Pixels = colormaps[name].resampled(256)(np.arange(256), bytes=True)[:, :3]
    return table
