"""Why a class came out of a picture, with evidence: `explain`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cnnviz.attribution.attribute import attribute, check_methods, check_targets, heat
from cnnviz.attribution.baselines import BASELINES, baseline_for, check_baseline
from cnnviz.attribution.evidence import (
    completeness_gap,
    deletion_insertion,
    infidelity,
    max_sensitivity,
    reference,
    sanity,
)
from cnnviz.attribution.explainer import Explainer, Target, explainer
from cnnviz.attribution.explanations import Attribution, Evidence, Explanation
from cnnviz.attribution.methods import CHECKS, DEFAULT, METHODS, methods_named, share_out
from cnnviz.attribution.suitability import able, layer_for
from cnnviz.errors import ShapeError, choose
from cnnviz.networks.inputs import Fit, Source, show
from cnnviz.networks.network import Network
from cnnviz.networks.predictions import check_labels, class_index, probabilities_of


def explain(
    network: Network,
    picture: Source,
    classes: Sequence[str | int] | None = None,
    *,
    methods: str | Sequence[str] = DEFAULT,
    top: int = 1,
    versus: str | int | None = None,
    layer: str | None = None,
    baseline: str | Path = "mean",
    fit: Fit = "whole",
    size: int | None = None,
    seed: int = 0,
    checks: Sequence[str] = ("curves",),
    watch: Callable[[str, float], None] | None = None,
    **options: float | None,
) -> Explanation:
    """Why classes came out of a picture.

    Args:
        picture: a file, a PIL image, an array (H, W, 3), uint8, or a tensor (C, H, W) in [0, 1].
        classes: by label, number or WordNet id; the `top` most probable ones by default.
        methods: one or more of `cnnviz.attribution.methods.METHODS`, or "all" that are right about this network.
        versus: a class to hold the others against: what speaks for them rather than for it.
        layer: for methods of a layer; the last one with feature maps by default.
        baseline: "mean", "black", "white", "blur" or a picture's path.
        fit, size: see `cnnviz.networks.inputs`.
        seed: of methods that draw random numbers.
        checks: which of `cnnviz.attribution.methods.CHECKS` to gather as evidence besides completeness.
        watch: called with what is being done, and the share of the attributions that are done.
        options: of methods, such as ``steps=100``; each goes to the methods that have it.

    Raises:
        UnknownNameError, ShapeError, ModelError, LayerError, PictureError: as `attribute`, `class_index` and `show`.
    """
    for check in checks:
        choose(check, CHECKS, "check")
    named = methods_named(methods)
    check_baseline(baseline)
    shown, ready = show(network, picture, fit=fit, size=size), explainer(network)
    if len(shown.images) != 1:
        raise ShapeError(f"one picture is explained at a time; this is a batch of {len(shown.images)}.")
    image, logits = shown.images, ready.logits(shown.images)
    names = able(ready.structure) if named is None else named
    targets = _chosen_targets(network, logits, classes, top, versus)
    check_labels(network, ready.structure.classes)
    check_methods(ready, names, layer)
    own = share_out(options, names)
    empty, called = baseline_for(network, image, baseline)
    tell = watch or (lambda *_: None)
    asked = [(target, name) for target in targets for name in names]
    references = {}
    if "curves" in checks:
        tell("deletion and insertion in orders that know nothing of the network", 0)
        references = {target: reference(ready, image, empty, target, seed) for target in targets}
    found, again = [], []
    for number, (target, name) in enumerate(asked):
        method = _method(target, name, layer, empty, seed, own[name])
        passed = _counter(tell, f"{METHODS[name].title} for {network.label(target.index)}", number / len(asked))
        values = method(network, image, passed)
        one = _attribution(ready, logits, target, name, values, image, layer)
        gathered = _evidence(ready, image, empty, one, partial(method, network), checks)
        found.append(replace(one, evidence=replace(gathered, reference=references.get(target))))
        again.append(partial(_map, method, name, image))
    if "sanity" in checks:
        correlations = sanity(network, [one.heat for one in found], again, seed, tell)
        found = [_with_sanity(one, correlations, row) for row, one in enumerate(found)]
    settings = {
        "asked": [methods] if isinstance(methods, str) else list(methods),
        "methods": names,
        "classes": [target.index for target in targets],
        "versus": targets[0].versus,
        "layer": layer,
        "baseline": str(baseline) if baseline in BASELINES else Path(baseline).name,
        "seed": seed,
        "checks": list(checks),
        "options": options,
    }
    return Explanation(network, shown, tuple(found), called, settings)


def _with_sanity(one: Attribution, correlations: Mapping[str, Sequence[float]], row: int) -> Attribution:
    own = {layer: each[row] for layer, each in correlations.items()}
    return replace(one, evidence=replace(one.evidence, sanity=own))


def _map(method: Callable[..., Tensor], name: str, image: Tensor, network: Network) -> Tensor:
    """(H, W), of one image."""
    return heat(method(network, image), name, (image.shape[2], image.shape[3]))[0].cpu()


def _counter(tell: Callable[[str, float], None], text: str, share: float) -> Callable[[int], None]:
    """Tells how many images the network has seen, when it is told that it sees more."""
    seen = 0

    def passed(images: int) -> None:
        nonlocal seen
        seen += images
        tell(f"{text}, {seen} images seen", share)

    return passed


def _method(
    target: Target, name: str, layer: str | None, baseline: Tensor, seed: int, options: Mapping[str, float | None]
) -> Callable[..., Tensor]:
    """`attribute` for a network and images, all else given."""

    def method(network: Network, images: Tensor, passed: Callable[[int], None] | None = None) -> Tensor:
        return attribute(
            network,
            images,
            target,
            method=name,
            layer=layer,
            baseline=baseline,
            seed=seed,
            batch=None,
            passed=passed,
            **options,
        )

    return method


def _attribution(
    ready: Explainer, logits: Tensor, target: Target, name: str, values: Tensor, image: Tensor, layer: str | None
) -> Attribution:
    return Attribution(
        method=name,
        target=target,
        probability=probabilities_of(logits)[0, target.index].item(),
        score=target.score(logits).item(),
        values=values[0].cpu(),
        heat=heat(values, name, (image.shape[2], image.shape[3]))[0].cpu(),
        layer=layer_for(ready.twin, ready.structure, METHODS[name], layer),
        evidence=Evidence(),
    )


def _evidence(
    ready: Explainer,
    image: Tensor,
    empty: Tensor,
    one: Attribution,
    method: Callable[[Tensor], Tensor],
    checks: Sequence[str],
) -> Evidence:
    values, kind = one.values[None].to(image.device), METHODS[one.method]
    checks = [check for check in checks if check in kind.checks]
    curves = gap = unfaithful = sensitive = None
    if "curves" in checks:
        curves = deletion_insertion(ready, image, empty, one.target, one.heat.to(image.device))
    if kind.complete:
        gap = completeness_gap(ready, image, empty, one.target, values)
    if "infidelity" in checks:
        unfaithful = infidelity(ready, image, one.target, values, empty if kind.signed else None)
    if "sensitivity" in checks:
        sensitive = max_sensitivity(ready, image, method)
    return Evidence(curves, None, gap, None, unfaithful, sensitive)


def _chosen_targets(
    network: Network, logits: Tensor, classes: Sequence[str | int] | None, top: int, versus: str | int | None
) -> list[Target]:
    if classes and isinstance(classes, str):
        raise TypeError("classes is a list of names, not a single one")
    if classes:
        indices = [class_index(network, name) for name in classes]
    else:
        indices = torch.topk(logits[0], min(max(top, 1), logits.shape[1])).indices.tolist()
    other = None if versus is None else class_index(network, versus)
    indices = [index for index in dict.fromkeys(indices) if index != other]
    if not indices:
        raise ShapeError(f"a class cannot be held against itself; both are {network.label(other or 0)}.")
    targets = [Target(index, other) for index in indices]
    check_targets(network, targets, logits.shape[1])
    return targets
