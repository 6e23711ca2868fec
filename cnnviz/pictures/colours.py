"""Numbers to colours: colour maps as tables, values as levels, tensors as pixels. The only file that has palettes."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.errors import UnknownNameError, did_you_mean

Values = NDArray[np.float32]
SIGNED, UNSIGNED = "RdBu_r", "inferno"
Pixels = NDArray[np.uint8]


def drawable(image: Tensor) -> Pixels:
    """(C, H, W) in [0, 1] as (H, W, 3), 0 to 255; grey if it has not three channels."""
    values = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return np.broadcast_to(values[..., : 3 if values.shape[2] >= 3 else 1], (*values.shape[:2], 3))


def _levels(values: Values, scale: float, *, signed: bool) -> NDArray[np.intp]:
    share = np.clip(np.nan_to_num(values) / (scale or 1), -1 if signed else 0, 1)
    levels: NDArray[np.intp] = np.rint((share + 1) * 127.5 if signed else share * 255).astype(np.intp)
    return levels


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
