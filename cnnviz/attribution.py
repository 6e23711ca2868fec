"""Why the class came out: how much each pixel speaks for it, by captum's methods.

    attribute(network, images, 281, method="grad-cam")

Everything runs in float32 on a copy of the network, in the layout that is fastest, whose weights ask for no gradients;
the network itself stays as it came. captum sees normalised images, as it would if one called it on the module oneself.
`cnnviz.methods` lists the methods; `cnnviz.structure` knows which of them can explain a network.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnviz.baselines import baseline_for
from cnnviz.captumcalls import Case
from cnnviz.errors import ModelError, ShapeError, UnknownNameError, did_you_mean
from cnnviz.inputs import check_range
from cnnviz.methods import DEFAULT, METHODS, Method
from cnnviz.network import FORWARD_ERRORS, Network, forward_pass, structural_copy, wrap
from cnnviz.patches import superpixels
from cnnviz.structure import Structure, able, check, layer_for, structure

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
        return self.target.score(rows_of(self.module(inputs)))[:, None]


def rows_of(logits: Tensor) -> Tensor:
    """Logits (N, classes), float32, also of a network that gives one number per image without a row for it."""
    return (logits if logits.ndim == 2 else logits.reshape(len(logits), 1)).float()


class Explainer:
    """A network made ready to be explained; `explainer` keeps one for each network.

    Attributes:
        twin: a float32 copy of the network in the fastest layout.
        structure: what it is made of.
    """

    def __init__(self, network: Network) -> None:
        self.structure = structure(network)
        self.layout = torch.channels_last
        self.twin = structural_copy(network, partial(_converted, self.layout))
        if not _works(self.twin, self.layout):
            self.layout = torch.contiguous_format
            self.twin = structural_copy(network, partial(_converted, self.layout))

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
            parts = [
                rows_of(self.twin.module(part)) for part in torch.split(self.normalised(images), self.batch(images))
            ]
        logits = torch.cat(parts)
        if not logits.isfinite().all():
            raise ModelError(f"{self.twin.name} gives logits that are not finite; look for NaN among its weights.")
        return logits

    def probabilities(self, images: Tensor) -> Tensor:
        """(N, classes), in [0, 1]; of a network with a single output what the logistic function makes of it."""
        return probabilities_of(self.logits(images))

    def batch(self, images: Tensor) -> int:
        """How many such images at a time keep caches, or a graphics card, full but not overfull."""
        height, width = self.twin.input_size
        ratio = images.shape[2] * images.shape[3] / (height * width)
        each = 4 * max(1, self.structure.activations * ratio)
        return max(1, min(LARGEST_BATCH, int(MEMORY[self.twin.device.type] / each)))


def probabilities_of(logits: Tensor) -> Tensor:
    return logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()


_explainers: "WeakKeyDictionary[Network, tuple[tuple[int, ...], Explainer]]" = WeakKeyDictionary()


def explainer(network: Network) -> Explainer:
    """The `Explainer` of a network, made anew when its weights have been written into."""
    known = _explainers.get(network)
    if known is None or known[0] != network.versions or known[1].twin.device != network.device:
        known = network.versions, Explainer(network)
        _explainers[network] = known
    return known[1]


def attribute(
    network: nn.Module,
    images: Tensor,
    targets: int | Target | Sequence[int | Target],
    *,
    method: str = DEFAULT,
    layer: str | None = None,
    baseline: str | Path | Tensor = "mean",
    seed: int = 0,
    batch: int | None = None,
    passed: Callable[[int], None] | None = None,
    **options: float | None,
) -> Tensor:
    """How much each pixel, or each position of a layer, speaks for a class.

    Args:
        network: a `Network`; or any ``nn.Module``, to which the images are then given as they are.
        images: (N, C, H, W), in [0, 1] for a `Network`.
        targets: a class by number, or N of them; or `Target`, for a class against another.
        method: one of `cnnviz.methods.METHODS`.
        layer: for methods of a layer; the last one with feature maps by default.
        baseline: "mean", "black", "white", "blur", a picture's path or a tensor in [0, 1]; see `cnnviz.baselines`.
        seed: of methods that draw random numbers; every image gets the same draws, whatever its neighbours.
        batch: images the network sees at a time; by default what its device has room for.
        passed: called with the number of images, each time the network sees some.
        options: the method's own, such as ``steps=100``.

    Returns:
        float32, on the network's device: (N, C, H, W), per colour channel of the normalised images; of methods of a
        layer (N, 1, H', W'). `heat` makes maps of it.

    Raises:
        UnknownNameError: if there is no such method, option, layer or baseline.
        ModelError: if captum would be wrong about this network with that method; says which methods are right.
        ShapeError: if the network has no such class or takes no such images.
        LayerError: if the layer gives no feature maps.
    """
    if isinstance(network, Network):
        check_range(images)
    else:
        height, width = images.shape[-2:]
        network = wrap(network, name=type(network).__name__, input_size=(height, width))
    ready, name = explainer(network), method_named(method)
    chosen = METHODS[name]
    settings = _settings(name, chosen, options)
    check(network, ready.structure, name)
    wanted = _targets(network, targets, len(images), ready.structure.classes)
    module = _module(ready, layer_for(network, ready.structure, chosen, layer))
    stands, _ = baseline_for(network, images, baseline)
    inputs, empty = ready.normalised(images), ready.normalised(stands)
    found = []
    for row, target in enumerate(wanted):
        one = images[row : row + 1]
        case = Case(
            model=Scores(ready.twin.module, target, passed),
            inputs=inputs[row : row + 1],
            baseline=empty[row : row + 1],
            patches=partial(_patches, one),
            layer=module,
            batch=batch or ready.batch(images),
            predicted=partial(_is_predicted, ready, one, target),
            options=settings,
        )
        with forward_pass(network, images), _seeded(seed), _quiet():
            found.append(chosen.run(case).detach())
    attributions = torch.cat(found).float()
    if not attributions.isfinite().all():
        raise ModelError(f"{chosen.title} gives values for {network.name} that are not finite; take another method.")
    return attributions


def heat(attributions: Tensor, method: str, size: tuple[int, int]) -> Tensor:
    """Attributions as maps: (N, C, H', W') to (N, height, width).

    Colours add up where signs mean something; elsewhere the largest size counts (Simonyan et al. 2013). Maps of a
    layer are enlarged linearly.
    """
    signed = METHODS[method_named(method)].signed
    maps = attributions.sum(1, keepdim=True) if signed else attributions.abs().amax(1, keepdim=True)
    if maps.shape[2:] != size:
        maps = functional.interpolate(maps, size, mode="bilinear", align_corners=False)
    return maps[:, 0]


def method_named(name: str) -> str:
    """The key in `METHODS` for a name, with underscores or blanks for dashes.

    Raises:
        UnknownNameError: if there is none; says which are close.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if key not in METHODS:
        raise UnknownNameError(f"no method named {name!r}{did_you_mean(key, METHODS)} They are {', '.join(METHODS)}.")
    return key


def methods_named(methods: str | Sequence[str], made: Structure) -> list[str]:
    """Keys in `METHODS`, each once, for one name or several; for "all" those that captum is right about."""
    asked = [methods] if isinstance(methods, str) else list(methods)
    return able(made) if asked == ["all"] else list(dict.fromkeys(method_named(name) for name in asked))


def _settings(name: str, method: Method, options: Mapping[str, float | None]) -> Mapping[str, float | None]:
    for option, value in options.items():
        if option not in method.options:
            known = f"its options are {', '.join(method.options)}" if method.options else "it has no options"
            raise UnknownNameError(f"{name} has no option {option!r}; {known}.")
        if value is not None and not value > 0:
            raise ShapeError(f"{option} must be greater than zero, not {value}.")
    return {**method.options, **options}


def _targets(
    network: Network, targets: int | Target | Sequence[int | Target], count: int, classes: int
) -> list[Target]:
    """A target per image."""
    given = [targets] * count if isinstance(targets, int | Target) else list(targets)
    wanted = [target if isinstance(target, Target) else Target(int(target)) for target in given]
    if len(wanted) != count:
        raise ShapeError(f"{len(wanted)} classes are given for {count} images; give one, or one for each.")
    for index in {number for target in wanted for number in (target.index, target.versus) if number is not None}:
        if not 0 <= index < classes:
            raise ShapeError(f"{network.name} has no class {index}; its {classes} classes are 0 to {classes - 1}.")
    return wanted


def _module(ready: Explainer, layer: str | None) -> nn.Module | None:
    return None if layer is None else ready.twin.layers[ready.twin.qualified(layer)]


def _patches(image: Tensor, count: int) -> Tensor:
    return superpixels(image[0], count).to(image.device)


def _is_predicted(ready: Explainer, image: Tensor, target: Target) -> bool:
    return target.versus is None and int(ready.logits(image).argmax()) == target.index


def _converted(layout: torch.memory_format, tensor: Tensor) -> Tensor:
    real = tensor.float() if tensor.is_floating_point() else tensor
    return real.contiguous(memory_format=layout) if real.ndim == 4 else real


@torch.no_grad()
def _works(network: Network, layout: torch.memory_format) -> bool:
    """Whether a network bears this layout: one whose forward calls ``x.view(...)`` does not bear channels_last."""
    images = torch.full((1, network.channels, *network.input_size), 0.5, device=network.device)
    try:
        network(images.contiguous(memory_format=layout))
    except FORWARD_ERRORS:
        return False
    return True


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """captum draws from the generators that everybody uses; they are left as they were."""
    kept = np.random.get_state()  # noqa: NPY002 - captum's GradientSHAP takes no other
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(kept)  # noqa: NPY002


@contextmanager
def _quiet() -> Iterator[None]:
    """captum warns of what it is meant to do: setting hooks, asking for gradients."""
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        yield
