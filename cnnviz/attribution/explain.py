"""Why a class came out of an image, with evidence: `explain`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnviz.attribution.attribute import (
    attribute,
    check_layer_taken,
    check_methods,
    check_targets,
    layers_of,
    named_layers,
)
from cnnviz.attribution.baselines import baseline_for, check_baseline, recorded_baseline
from cnnviz.attribution.evidence import (
    RANDOM_ORDERS,
    Reference,
    completeness_gap,
    contributions,
    deletion_insertion,
    infidelity,
    is_bottleneck,
    max_sensitivity,
    reference,
    sanity,
)
from cnnviz.attribution.explainer import Explainer, Target, explainer
from cnnviz.attribution.explanations import Attribution, Evidence, Explanation
from cnnviz.attribution.heatmaps import heat
from cnnviz.attribution.methods import (
    CHECKS,
    DEFAULTS,
    METHODS,
    Method,
    by_own_names,
    fixed_options,
    methods_named,
    quick_options,
    settings_of,
    share_out,
)
from cnnviz.attribution.regions import Region, outlined, over_region, recorded, region_sum
from cnnviz.attribution.suitability import Structure, able, layer_for
from cnnviz.errors import ShapeError, choose, several
from cnnviz.networks.inputs import Fit, Source, check_range, of_images, show
from cnnviz.networks.network import Network, check_network
from cnnviz.networks.outputs import probabilities_of
from cnnviz.networks.predictions import check_labels, class_index


@of_images  # type: ignore[arg-type] # as far as types say, an option could be called "network"
def explain(
    network: Network,
    picture: Source,
    classes: str | int | Sequence[str | int] | None = None,
    *,
    methods: str | Sequence[str] | None = None,
    top: int = 1,
    versus: str | int | None = None,
    layer: str | nn.Module | Sequence[str | nn.Module] | None = None,
    region: Region | None = None,
    baseline: str | Path | Tensor = "mean",
    fit: Fit = "crop",
    size: int | None = None,
    seed: int = 0,
    checks: str | Sequence[str] = ("curves",),
    precise: bool = False,
    watch: Callable[[str, float], None] | None = None,
    **options: float | None,
) -> Explanation:
    """Why classes came out of an image.

    Args:
        picture: a file, a PIL image, an array (H, W) or (H, W, C) of uint8, uint16 or real numbers in [0, 1], or a
            tensor (C, H, W) in [0, 1]. Of a list or tuple of these, a list of explanations is given.
        classes: one or more, by label, number or WordNet id; the `top` most probable ones by default.
        methods: one or more of `cnnviz.attribution.methods.METHODS`, in any case, with or without hyphens; or "all"
            that are right about this network; by default those of `DEFAULTS` that are.
        versus: a class to hold the others against: what increases their scores rather than its own.
        layer: for methods of a layer, by its name or as its module, from ``network.layers``; the last one with feature
            maps by default. An error if no method takes one. Class activation maps take a list of several: the mean of
            their maps, each over its maximum.
        region: of segmentation networks: the part of the image whose class is explained, as for `attribute`, in the
            image's own pixels. The classes are those with the largest output in most of its pixels by default.
        baseline: "mean", "black", "white", "blur", an image's path or a tensor (C, H, W) in [0, 1] of the input's size,
            of which the record keeps the sha256 only.
        fit, size: see `cnnviz.networks.inputs`.
        seed: of methods that draw random numbers.
        checks: one or more of `cnnviz.attribution.methods.CHECKS` to gather as evidence besides completeness: "curves"
            (deletion and insertion, whose removed pixels are the baseline's), "rise" (the same, but insertion begins
            from the blurred image, as Petsiuk et al. 2018 have it), "sanity" (fails where the mean correlation with the
            maps of randomized networks exceeds 0.5), "infidelity" (of methods that attribute to pixels, not to a
            layer's positions), "sensitivity".
        precise: whether to take the time that exact numbers need, some ten times as much: as many steps of integrated
            gradients as make it complete to 1 % (16 otherwise), all 64 steps of deletion and insertion (otherwise those
            where the curve bends, about 8), and of the order from the centre outwards (otherwise left out).
        watch: called with what is being done, and the share of the attributions that are done.
        options: of methods, such as ``steps=100``; each goes to the methods that have it. captum's ``n_steps`` and
            ``n_samples`` are understood.

    Raises:
        UnknownNameError, ShapeError, ModelError, LayerError, PictureError: as `attribute`, `class_index` and `show`.
    """
    check_network(network)
    checks = several(checks, str, "checks are given by name")
    for check in checks:
        choose(check, CHECKS, "check")
    named = None if methods is None else methods_named(methods)
    options, looked_at = by_own_names(options), named_layers(network, layer)
    check_baseline(baseline)
    if isinstance(baseline, Tensor):
        check_range(baseline)
    shown, whole, summed = show(network, picture, fit=fit, size=size), network, None
    if len(shown.images) != 1:
        raise ShapeError(f"one image is explained at a time; this is a batch of {len(shown.images)}.")
    if region is not None:
        summing = region_sum(region, shown.pictures[0].shape[:2], shown.seen)
        summed = over_region(network, summing, shown.images)
        network, shown = summed.network, replace(shown, pictures=(outlined(shown, summing),))
        top = min(top, int(summed.largest.count_nonzero()))
    ready = explainer(network)
    image, logits = shown.images, ready.logits(shown.images)
    if methods is None:
        named = _defaults(ready.structure)
    names = able(ready.structure) if named is None else named
    ranked = logits if summed is None else summed.largest[None]
    targets = _chosen_targets(network, ranked, classes, top, versus)
    check_labels(network, ready.structure.classes)
    check_layer_taken(names, looked_at)
    check_methods(ready, names, looked_at)
    own: dict[str, dict[str, Any]] = share_out(options, names)
    if not precise:
        own = {name: quick_options(name) | given for name, given in own.items()}
    baseline_image, called = baseline_for(network, image, baseline)
    tell = watch or (lambda *_: None)
    pairs = [(target, name) for target in targets for name in names]
    references: dict[Target, Reference] = {}
    start = None
    if "rise" in checks:
        start, _ = baseline_for(network, image, "blur")
    if {"curves", "rise"} & set(checks):
        counted = _orders_counter(tell)
        references = {
            target: reference(ready, image, baseline_image, target, seed, start, precise=precise, watch=counted)
            for target in targets
        }
    probabilities = None if network.outputs == "value" else probabilities_of(logits, network.outputs)[0].tolist()

    def probability_of(index: int) -> float | None:
        return None if probabilities is None else probabilities[index]

    given = _Given(ready, image, baseline_image, start, checks, precise)
    attributions, map_makers = [], []
    for number, (target, name) in enumerate(pairs):
        method: Callable[..., Tensor] = partial(
            attribute,
            targets=target,
            method=name,
            layer=looked_at if METHODS[name].layer else None,
            baseline=baseline_image,
            seed=seed,
            **own[name],
        )
        passed = _counter(tell, f"{METHODS[name].title} for {network.label(target.index)}", number / len(pairs))
        values = method(network, image, passed=passed)
        shared = contributions(ready, METHODS[name], image, values, baseline_image, settings_of(name, own[name]))
        attribution = Attribution(
            method=name,
            target=target,
            probability=probability_of(target.index),
            score=target.score(logits).item(),
            versus_probability=None if target.versus is None else probability_of(target.versus),
            values=values[0].cpu(),
            contributions=shared[0].cpu(),
            heat=heat(values, name, image.shape[2:])[0].cpu(),
            layers=_looked_at(ready, METHODS[name], looked_at),
            evidence=Evidence(reference=references.get(target)),
        )
        tell(f"evidence for {METHODS[name].title}", (number + 1) / len(pairs))
        attributions.append(_with_evidence(attribution, given, partial(method, network)))
        fixed = partial(method, **(fixed_options(name) | own[name]))
        map_makers.append(partial(_map, fixed, name, image))
    if "sanity" in checks:
        correlations = sanity(network, [attribution.heat for attribution in attributions], map_makers, seed, tell)
        for row, attribution in enumerate(attributions):
            by_layer = {lowest: values[row] for lowest, values in correlations.items()}
            attributions[row] = _with(attribution, sanity=by_layer)
    settings = {
        "asked": [methods] if isinstance(methods, str) else list(methods or names),
        "methods": names,
        "classes": [target.index for target in targets],
        "versus": targets[0].versus,
        "layer": looked_at,
        "region": None if region is None else recorded(region),
        "baseline": recorded_baseline(baseline),
        "seed": seed,
        "checks": checks,
        "precise": precise,
        "options": options,
    }
    text = "" if summed is None else summed.text
    return Explanation(whole, shown, tuple(attributions), called, settings, text)


def _defaults(structure: Structure) -> list[str]:
    """The default methods that are right about a network of this structure."""
    suitable = able(structure)
    return [name for name in DEFAULTS if name in suitable and (structure.features or not METHODS[name].layer)]


def _looked_at(ready: Explainer, method: Method, layer: str | list[str] | None) -> tuple[str, ...]:
    return tuple(filter(None, (layer_for(ready.twin, ready.structure, method, one) for one in layers_of(layer))))


def _map(method: Callable[..., Tensor], name: str, image: Tensor, network: Network) -> Tensor:
    """(H, W), of one image."""
    return heat(method(network, image), name, image.shape[2:])[0].cpu()


def _counter(tell: Callable[[str, float], None], text: str, share: float) -> Callable[[int], None]:
    """Tells how many images the network has seen, when it is told that it sees more."""
    total = 0

    def passed(images: int) -> None:
        nonlocal total
        total += images
        tell(f"{text}, {total} images seen", share)

    return passed


def _orders_counter(tell: Callable[[str, float], None]) -> Callable[[int], None]:
    return lambda number: tell(f"deletion in random orders, {number} of {RANDOM_ORDERS}", 0)


def _with(attribution: Attribution, **evidence: Any) -> Attribution:
    """The same with more evidence."""
    return replace(attribution, evidence=replace(attribution.evidence, **evidence))


@dataclass(frozen=True)
class _Given:
    """What evidence is measured with, for all attributions.

    Attributes:
        image, baseline: (1, C, H, W) in [0, 1].
        start: the image into which pixels are inserted, if not `baseline`.
        checks, precise: as `explain` takes them.
    """

    ready: Explainer
    image: Tensor
    baseline: Tensor
    start: Tensor | None
    checks: Sequence[str]
    precise: bool


def _with_evidence(attribution: Attribution, given: _Given, method: Callable[[Tensor], Tensor]) -> Attribution:
    """The same with what can be measured of it alone."""
    kind, target, ready, image = METHODS[attribution.method], attribution.target, given.ready, given.image
    values = attribution.contributions[None].to(image.device)
    evidence: dict[str, Any] = {}
    if {"curves", "rise"} & set(given.checks):
        order = attribution.heat.to(image.device)
        evidence["curves"] = deletion_insertion(
            ready, image, given.baseline, target, order, given.start, precise=given.precise
        )
        evidence["blurred"] = given.start is not None
    if kind.complete and (attribution.layer is None or is_bottleneck(ready, attribution.layer, image)):
        evidence["gap"] = completeness_gap(ready, image, given.baseline, target, values)
    if "infidelity" in given.checks and "infidelity" in kind.checks:
        evidence["infidelity"] = infidelity(ready, image, target, values, _compared_with(attribution, given))
    elif "infidelity" in given.checks:
        evidence["inapplicable"] = {"infidelity": "not defined for a layer's maps"}
    if "sensitivity" in given.checks:
        evidence["sensitivity"] = max_sensitivity(ready, image, method)
    return _with(attribution, **evidence)


def _compared_with(attribution: Attribution, given: _Given) -> Tensor | None:
    """The image whose contributions are zero; None for attributions that are slopes.

    Methods that multiply by the input compare with the network's mean colour, which is zero once normalised, whatever
    baseline the others have.
    """
    kind = METHODS[attribution.method]
    if kind.baseline:
        return given.baseline
    return given.ready.twin.mean.expand_as(given.image) if kind.signed else None


def _chosen_targets(
    network: Network,
    logits: Tensor,
    classes: str | int | Sequence[str | int] | None,
    top: int,
    versus: str | int | None,
) -> list[Target]:
    named = [] if classes is None else several(classes, str | int | np.integer, "classes are given by name or number")
    if named:
        indices = [class_index(network, name) for name in named]
    else:
        indices = torch.topk(logits[0], min(max(top, 1), logits.shape[1])).indices.tolist()
    other = None if versus is None else class_index(network, versus)
    indices = [index for index in dict.fromkeys(indices) if index != other]
    if not indices:
        raise ShapeError(f"a class cannot be held against itself; both are {network.label(other or 0)}.")
    targets = [Target(index, other) for index in indices]
    check_targets(network, targets, logits.shape[1])
    return targets
