"""Attribution: how much each pixel contributes to a class's score, by captum's methods.

    attribute(network, images, 281, method="grad-cam")

Everything runs in float32 on a copy of the network, in the layout that is fastest, whose weights ask for no gradients;
the network itself stays as it came. captum sees normalised images, as it would if one called it on the module oneself.
`cnnviz.attribution.methods` lists the methods; `cnnviz.attribution.suitability` knows which of them suit a network.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, SupportsInt, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnviz.attribution.baselines import baseline_for, check_baseline
from cnnviz.attribution.cams import mean_over_layers
from cnnviz.attribution.cases import Case
from cnnviz.attribution.explainer import Explainer, Scores, Target, explainer
from cnnviz.attribution.methods import DEFAULT, METHODS, Method, by_own_names, method_named, settings_of
from cnnviz.attribution.regions import Region, over_region, region_sum
from cnnviz.attribution.suitability import Structure, check, layer_for
from cnnviz.attribution.superpixels import superpixels
from cnnviz.errors import (
    CnnvizError,
    LayerError,
    ModelError,
    ShapeError,
    UnknownNameError,
    check_whole,
    several,
    translated,
)
from cnnviz.isolation import exact, quiet, seeded
from cnnviz.networks.arrangements import Arranged
from cnnviz.networks.inputs import check_finite, check_range
from cnnviz.networks.layer_names import split_use
from cnnviz.networks.network import Network, as_network
from cnnviz.networks.predictions import class_index

MOST_AT_A_TIME = 1024  # images; of more, the memory would be full at once


@torch.inference_mode(False)
def attribute(
    network: nn.Module,
    images: Tensor,
    targets: int | str | Target | Sequence[int | str | Target],
    *,
    method: str = DEFAULT,
    layer: str | nn.Module | Sequence[str | nn.Module] | None = None,
    region: Region | None = None,
    baseline: str | Path | Tensor = "mean",
    seed: int = 0,
    batch: int | None = None,
    upsample: bool = False,
    passed: Callable[[int], None] | None = None,
    **options: float | None,
) -> Tensor:
    """How much each pixel, or each position of a layer, contributes to a class's score.

    Methods with signs (positive increases the score, negative decreases it) are input-x-gradient, integrated-gradients,
    gradient-x-activation, conductance, deeplift, gradient-shap, occlusion, feature-ablation, lime, kernel-shap and lrp.
    Class activation maps, smoothgrad-squared and vargrad are zero or above. The others give gradients with their signs
    (``captum.attr.Saliency`` gives absolute values by default), of which only the size counts, as in `heat`. LRP
    applies the epsilon rule in every layer (captum's, epsilon 1e-9).

    Args:
        network: a `Network`; or any ``nn.Module``, to which the images are then given as they are.
        images: (N, C, H, W), in [0, 1] for a `Network`.
        targets: a class by number or name (see `cnnviz.class_index`), or N of them; or `Target`, for a class against
            another.
        method: one of `cnnviz.attribution.methods.METHODS`, in any case, with or without hyphens.
        layer: for methods of a layer, by its name or as its module, from ``network.layers``; the last one with feature
            maps by default. Of one that is used several times it is the first use; ``relu@2`` asks for the second.
            Class activation maps take a list of several: the mean of their maps, each over its maximum, of the finest
            one's size.
        region: of segmentation networks, whose outputs are maps (N, C, H', W'), alone or as "out" of a dictionary: the
            part of the images whose class is explained. A box (left, top, right, bottom) in pixels, the last two not
            included; or a boolean mask (h, w) in the images' proportions, laid over them. The score is the sum of the
            class's map over the pixels of the output whose centres lie in the region.
        baseline: "mean", "black", "white", "blur", an image's path or a tensor in [0, 1]; see
            `cnnviz.attribution.baselines`.
        seed: of methods that draw random numbers; every image gets the same draws, whatever its neighbours.
        batch: images the network sees at a time; by default what its device has room for.
        upsample: whether maps of a layer are resized to the images' H x W, bilinearly as `heat` does it.
        passed: called with the number of images, each time the network sees some.
        options: the method's own; captum's ``n_steps`` and ``n_samples`` are understood.

            - ``steps``: points on the path from the baseline to the image. integrated-gradients: 50, then 100,
              200 and 400 until the sum meets the difference of scores to 1 % (`cnnviz.explain` takes 16 unless
              ``precise``); conductance: 50.
            - ``samples``: smoothgrad, smoothgrad-squared and vargrad: 50 noisy images; gradient-shap: 20; lime and
              kernel-shap: 200 images without some of the superpixels.
            - ``noise``: standard deviation of the noise, as a fraction of the normalised image's range (maximum -
              minimum). smoothgrad, smoothgrad-squared and vargrad: 0.15; gradient-shap: 0.1.
            - ``window``, ``stride``: occlusion: side of the square that is replaced by the baseline, in pixels of the
              input (a seventh of its short side), and the step between two such squares, in pixels (half the window).
            - ``patches``: superpixels, about so many. feature-ablation, lime and kernel-shap: 50.

    Returns:
        float32, on the network's device: (N, C, H, W), per colour channel of the normalised images; of methods of a
        layer (N, 1, H', W'), or (N, 1, H, W) if they are to be upsampled.
        `cnnviz.attribution.heatmaps.heat` makes maps of it.

    Raises:
        UnknownNameError: if there is no such method, option, layer or baseline.
        ModelError: if captum would be wrong about this network with that method; says which methods are right.
        ShapeError: if the network has no such class or takes no such images; or the region is none of them.
        LayerError: if the layer gives no feature maps; a layer is given, and the method takes none; or several are
            given, and the method is no class activation map.
    """
    name, layers, options = method_named(method), layers_of(layer), by_own_names(options)
    check_layers(name, layers)
    check_layer_taken([name], layer)
    check_baseline(baseline)
    if batch is not None:
        check_whole(batch, "the batch", MOST_AT_A_TIME, unit=" images")
    if not isinstance(images, Tensor):
        raise ShapeError(
            f"images are a tensor (N, C, H, W), not a {type(images).__name__}; cnnviz.explain takes files."
        )
    if images.ndim != 4 or not len(images):
        given = " x ".join(map(str, images.shape))
        raise ShapeError(f"images are N x C x H x W, with N at least 1, not {given}.")
    if not isinstance(network, Network):
        check_finite(images)
        network = as_network(network, images)
    elif images.shape[1] != network.channels != 1:
        raise ShapeError(f"{network.name} takes images of {network.channels} channels, not {images.shape[1]}.")
    else:
        check_range(images)
    images = images.clone() if images.is_inference() else images
    names: list[Any] = [named_layers(network, one) for one in layers]
    if region is not None:
        size, whole = images.shape[2:], (0, 0, images.shape[3], images.shape[2])
        network = over_region(network, region_sum(region, size, whole), images).network
    if len(layers) > 1:
        kept: dict[str, Any] = {"baseline": baseline, "seed": seed, "batch": batch, "passed": passed, **options}
        one_by_one = [attribute(network, images, targets, method=name, layer=one, **kept) for one in names]
        return _sized(mean_over_layers(one_by_one), images, upsample=upsample)
    ready, chosen = explainer(network), METHODS[name]
    settings = settings_of(name, options)
    check(ready.twin, ready.structure, name)
    wanted = _targets(network, targets, len(images), ready.structure.classes)
    looked_at, twin = layer_for(network, ready.structure, chosen, names[0]), ready.twin.twin()  # captum hooks into it
    stands, _ = baseline_for(network, images, baseline)
    inputs, empty = ready.normalised(images), ready.normalised(stands)
    attributions = []
    for row, target in enumerate(wanted):
        image = images[row : row + 1]
        case = Case(
            model=Scores(twin.module, target, passed),
            inputs=inputs[row : row + 1],
            baseline=empty[row : row + 1],
            patches=partial(_patches, image),
            layer=None if looked_at is None else _hooked(twin, looked_at, ready.structure),
            batch=1,
            options=settings,
        )
        with _captum(ready, chosen, image), quiet(), torch.enable_grad():
            attributions.append(ready.memory.run(partial(_run, chosen, case, seed), batch or ready.batch(images)))
    values = torch.cat(attributions).float()
    if not values.isfinite().all():
        raise ModelError(f"{chosen.title} gives values for {network.name} that are not finite; take another method.")
    return _sized(values, images, upsample=upsample)


def _sized(values: Tensor, images: Tensor, *, upsample: bool) -> Tensor:
    size = images.shape[2:]
    return functional.interpolate(values, size, mode="bilinear", align_corners=False) if upsample else values


def _hooked(twin: Network, name: str, structure: Structure) -> nn.Module:
    """The module of `twin`, whose modules are ours, that gives a layer's maps channels first, and once in a pass."""
    path, (_, use) = twin.qualified(name), split_use(name)
    layer, arrangement = twin.module.get_submodule(path), structure.maps[path]
    if arrangement.usual and structure.uses[path] == 1:
        return layer
    if use > structure.uses[path]:
        raise LayerError(f"{twin.name} uses {path!r} {structure.uses[path]} times; there is no {name!r}.")
    arranged = Arranged(layer, arrangement, use).eval()
    for part in list(twin.module.modules()):
        for key, child in part._modules.items():
            if child is layer and part is not arranged:
                part._modules[key] = arranged
    twin.module.register_forward_pre_hook(arranged.begin)
    return arranged.point


def _run(method: Method, case: Case, seed: int, batch: int) -> Tensor:
    with exact(), seeded(seed, case.inputs.device) if method.draws else nullcontext():
        return method.run(replace(case, batch=batch)).detach()


def layers_of(layer: object) -> list[Any]:
    """The layers to look at, at least one; None stands for the default.

    Raises:
        LayerError: if there is none in a list.
    """
    listed = list(layer) if isinstance(layer, list | tuple) else [layer]
    if not listed:
        raise LayerError("this list of layers is empty; name at least one, or leave it out.")
    return listed


def named_layers(network: Network, layer: str | nn.Module | Sequence[str | nn.Module] | None) -> str | list[str] | None:
    """The names of layers, some of which may be given as modules; None stands for the default.

    Raises:
        UnknownNameError: if one is neither a name nor a module of the network.
    """
    if isinstance(layer, list | tuple):
        return [network.layer_name(one) for one in layer]
    return None if layer is None else network.layer_name(cast("str | nn.Module", layer))


def check_layer_taken(names: Sequence[str], layer: object) -> None:
    """Notice a layer that is given to methods none of which looks at one.

    Raises:
        LayerError: says which methods do.
    """
    if layer is None or any(METHODS[name].layer for name in names):
        return
    titles = ", ".join(METHODS[name].title for name in names)
    others = ", ".join(name for name, method in METHODS.items() if method.layer)
    raise LayerError(f"a layer is given, but {titles} {'take' if names[1:] else 'takes'} none; {others} do.")


def check_layers(name: str, layers: Sequence[str | None]) -> None:
    """Notice several layers where only one can be looked at.

    Raises:
        LayerError: says which methods take several.
    """
    if len(layers) > 1 and not METHODS[name].cam:
        others = ", ".join(other for other, method in METHODS.items() if method.cam)
        raise LayerError(f"{METHODS[name].title} gives no maps of several layers to take the mean of; {others} do.")


def check_methods(ready: Explainer, methods: Sequence[str], layer: str | Sequence[str] | None) -> None:
    """Notice before any work what could not be done.

    Raises:
        ModelError: if captum would be wrong about the network with one of these methods.
        UnknownNameError, LayerError: if there is no such layer, it has no feature maps, or is one too many.
    """
    layers = layers_of(layer)
    for name in methods:
        check(ready.twin, ready.structure, name)
        check_layers(name, layers)
        for one in layers:
            layer_for(ready.twin, ready.structure, METHODS[name], one)


@contextmanager
def _captum(ready: Explainer, method: Method, image: Tensor) -> Iterator[None]:
    """Say in one line whether the image or the method is at fault when captum raises something unforeseen.

    Raises:
        ShapeError: if the network does not take the image.
        ModelError: if it does.
    """

    def fault(reason: str) -> CnnvizError:
        ready.logits(image)
        return ModelError(f"{method.title} fails on {ready.twin.name} ({reason}); take another method.")

    with translated(fault):
        yield


def _targets(
    network: Network, targets: int | str | Target | Sequence[int | str | Target], count: int, classes: int
) -> list[Target]:
    """A target per image."""
    single = isinstance(targets, Target | int | str | np.integer) or (isinstance(targets, Tensor) and not targets.ndim)
    given = [targets] * count if single else several(targets, Target, "classes are given by name or number")
    wanted = [_target(network, target) for target in given]
    if len(wanted) != count:
        raise ShapeError(f"{len(wanted)} classes are given for {count} images; give one, or one for each.")
    check_targets(network, wanted, classes)
    return wanted


def _target(network: Network, target: Any) -> Target:
    if isinstance(target, Target):
        return target
    if not isinstance(target, str | SupportsInt):
        raise UnknownNameError(f"a class is given by its name or number, not as a {type(target).__name__}.")
    return Target(class_index(network, target) if isinstance(target, str) else int(target))


def check_targets(network: Network, targets: Sequence[Target], classes: int) -> None:
    """Notice a class that the network does not have.

    Raises:
        ShapeError: says which there are.
    """
    for index in {number for target in targets for number in (target.index, target.versus) if number is not None}:
        if not 0 <= index < classes:
            raise ShapeError(f"{network.name} has no class {index}; its {classes} classes are 0 to {classes - 1}.")


def _patches(image: Tensor, count: int) -> Tensor:
    return superpixels(image[0], count).to(image.device)
