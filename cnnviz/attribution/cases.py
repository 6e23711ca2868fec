"""What a method of attribution is given to work on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """One image to explain, and all that a method may want to know.

    Attributes:
        model: a `Scores`: normalised images (N, C, H, W) to scores (N, 1), float32; its leaf modules are the network's.
        inputs: (1, C, H, W), normalised.
        baseline: (1, C, H, W), normalised: the reference input.
        patches: gives (H, W), int64: for each pixel the number of its patch; so many patches as asked for.
        layer: the module that methods of a layer look at.
        batch: images the network sees at a time.
        options: the method's, by name.
    """

    model: Any
    inputs: "Tensor"
    baseline: "Tensor"
    patches: "Callable[[int], Tensor]"
    layer: "nn.Module | None"
    batch: int
    options: Mapping[str, Any]
