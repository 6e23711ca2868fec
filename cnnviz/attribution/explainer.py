"""Networks made ready to be explained: a float32 copy in the fastest layout, and what is asked of it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from cnnviz.attribution.suitability import structure_of
from cnnviz.errors import ModelError, ShapeError
from cnnviz.networks.devices import MemoryLimit
from cnnviz.networks.fast_copies import fastest
from cnnviz.networks.forward import as_rows, run
from cnnviz.networks.network import Network, forward_pass
from cnnviz.networks.outputs import probabilities_of

MEMORY = {"cpu": 6e7, "cuda": 4e9, "mps": 1e9}  # bytes of activations that a batch may have, by device
LARGEST_BATCH = 64


@dataclass(frozen=True)
class Target:
    """A class to explain, by number; if `versus` is given, what speaks for it rather than for that one."""

    index: int
    versus: int | None = None

    def score(self, logits: Tensor) -> Tensor:
        """What is attributed: the logit, or the difference of two; (N,) of logits (N, classes)."""
        own = logits[:, self.index]
        return own if self.versus is None else own - logits[:, self.versus]


class Scores(nn.Module):
    """A network as captum sees it: normalised images (N, C, H, W) to the scores of one target (N, 1), float32."""

    def __init__(self, module: nn.Module, target: Target, passed: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.module, self.target, self.passed = module, target, passed

    def forward(self, inputs: Tensor) -> Tensor:
        if self.passed is not None:
            self.passed(len(inputs))
        return self.target.score(rows_of(self.module, inputs))[:, None]

    def by_class(self) -> list["Scores"]:
        """Those whose difference this is: of the class, and of the one it is held against, if any."""
        indices = [index for index in (self.target.index, self.target.versus) if index is not None]
        return [Scores(self.module, Target(index), self.passed) for index in indices]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Scores":
        return Scores(deepcopy(self.module, memo), self.target, self.passed)


def rows_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """Logits (N, classes), float32.

    Raises:
        ShapeError: if there are not as many rows as images, as from a ``view(-1, ...)`` that takes an image of another
            size for several.
    """
    logits: Tensor = as_rows(run(module, inputs), len(inputs))
    if len(logits) != len(inputs):
        height, width = inputs.shape[2:]
        raise ShapeError(f"the network gives {len(logits)} rows for {len(inputs)} images of {width} x {height} px.")
    return logits.float()


class Explainer:
    """A network made ready to be explained; `explainer` keeps one for each network.

    Attributes:
        twin: a float32 copy of the network in the fastest layout.
        structure: what it is made of.
        memory: of its device.
    """

    def __init__(self, network: Network) -> None:
        self.structure, self.memory = structure_of(network), MemoryLimit()
        self.twin, self.layout = fastest(network, torch.float32, _tried, "the output")

    def normalised(self, images: Tensor) -> Tensor:
        """What the module is given for images in [0, 1]: float32, detached."""
        given = (images.detach().to(self.twin.mean) - self.twin.mean) / self.twin.std
        return given.contiguous(memory_format=self.layout)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(N, classes) of images in [0, 1].

        Raises:
            ModelError: if they are not finite.
            ShapeError: if the network takes no images of that size.
        """
        with forward_pass(self.twin, images):
            logits = self.memory.run(partial(self._logits, self.normalised(images)), self.batch(images))
        if not logits.isfinite().all():
            raise ModelError(f"{self.twin.name} gives logits that are not finite; look for NaN among its weights.")
        return logits

    def _logits(self, inputs: Tensor, batch: int) -> Tensor:
        return torch.cat([rows_of(self.twin.module, part) for part in torch.split(inputs, batch)])

    def probabilities(self, images: Tensor) -> Tensor:
        """(N, classes), in [0, 1]; of a network that gives values, these."""
        return probabilities_of(self.logits(images), self.twin.outputs)

    def batch(self, images: Tensor) -> int:
        """How many such images at a time keep caches, or a graphics card, full but not overfull.

        One where neighbours matter.
        """
        if not self.twin.independent:
            return 1
        height, width = self.twin.input_size
        ratio = images.shape[2] * images.shape[3] / (height * width)
        image = 4 * max(1, self.structure.activations * ratio)
        return max(1, min(LARGEST_BATCH, int(MEMORY[self.twin.device.type] / image)))


_explainers: "WeakKeyDictionary[Network, tuple[tuple[int, ...], Explainer]]" = WeakKeyDictionary()


def explainer(network: Network) -> Explainer:
    """The `Explainer` of a network, made anew when its weights have been written into; not by way of ``.data``."""
    known = _explainers.get(network)
    if known is None or known[0] != network.versions or known[1].twin.device != network.device:
        with torch.inference_mode(False):  # what is made inside could not be differentiated later
            known = network.versions, Explainer(network)
        _explainers[network] = known
    return known[1]


@torch.no_grad()
def _tried(network: Network, layout: torch.memory_format) -> tuple[Network, torch.memory_format]:
    images = torch.full((1, network.channels, *network.input_size), 0.5, device=network.device)
    with forward_pass(network, images):
        network(images.contiguous(memory_format=layout))
    return network, layout
