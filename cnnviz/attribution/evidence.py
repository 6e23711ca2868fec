"""Numbers that say how far an attribution can be believed.

- `deletion_insertion`: what becomes of the class's probability when pixels are taken away, or put back, in the order of
  the map (Petsiuk et al. 2018); next to it the same for a random order and for one from the middle outwards, without
  which such a number means little.
- `completeness_gap`: by how much attributions that promise to add up to a difference of scores miss it.
- `randomized`: the network with its weights redrawn, layer by layer from the top; a map that hardly changes then
  does not explain the network (Adebayo et al. 2018). `rank_correlation` compares the maps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn

from cnnviz.attribution.explainer import Explainer, Scores, Target
from cnnviz.networks.network import Network, structural_copy

SAMPLES = 20
NOISE = 0.1  # standard deviation, in units of the normalised image
RADIUS = 0.02  # in the same units
NEIGHBOURS = 10


def infidelity(
    ready: Explainer, image: Tensor, target: Target, attribution: Tensor, baseline: Tensor | None = None, seed: int = 0
) -> float:
    """How badly attributions predict what noise does to the score (Yeh et al. 2019), in logits squared; 0 is perfect.

    Args:
        image: (1, C, H, W) in [0, 1].
        attribution: (1, C, H, W), per colour channel of the normalised image.
        baseline: (1, C, H, W) in [0, 1], of attributions that are shares of the score rather than slopes: what they
            compare the image with.
    """
    from captum.metrics import infidelity as measured

    inputs = ready.normalised(image)
    contrast = torch.ones_like(inputs) if baseline is None else inputs - ready.normalised(baseline)
    slopes = torch.where(contrast == 0, 0, attribution / contrast)

    draws = torch.Generator(image.device).manual_seed(seed)

    def disturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = NOISE * torch.empty_like(inputs).normal_(generator=draws)
        return noise, inputs - noise

    with torch.no_grad():
        value = measured(
            Scores(ready.twin.module, target),
            disturbed,
            inputs,
            slopes,
            target=0,
            n_perturb_samples=SAMPLES,
            max_examples_per_batch=min(SAMPLES, ready.batch(image)),
        )
    return value.item()


def max_sensitivity(ready: Explainer, image: Tensor, explain: Callable[[Tensor], Tensor], seed: int = 0) -> float:
    """By what share of its size a map changes, at most, when the image moves a little (Yeh et al. 2019).

    Args:
        image: (1, C, H, W) in [0, 1].
        explain: gives the attributions of images (N, C, H, W) in [0, 1].
    """
    from captum.metrics import sensitivity_max

    draws = torch.Generator().manual_seed(seed)

    def explained(inputs: tuple[Tensor]) -> Tensor:
        return explain((inputs[0] * ready.twin.std + ready.twin.mean).clamp(0, 1))

    def disturbed(inputs: Tensor, radius: float) -> Tensor:
        """As captum does it, but from a generator of its own: other threads need not wait until all is explained."""
        return inputs + torch.empty(inputs.shape).uniform_(-radius, radius, generator=draws).to(inputs)

    value = sensitivity_max(
        explained,
        ready.normalised(image),
        disturbed,
        perturb_radius=RADIUS,
        n_perturb_samples=NEIGHBOURS,
        max_examples_per_batch=1,
    )
    return value.item()


FRACTIONS = 16  # steps in which pixels are taken away
RANDOM_ORDERS = 3
STAGES = 5  # in which a network is randomized
UNMOVED = 0.5  # mean rank correlation with the maps of the randomized networks, above which a method is flagged


@dataclass(frozen=True)
class Curves:
    """Probability of a class while pixels are taken away or put back: (steps + 1,) each, and the areas beneath."""

    deletion: Tensor
    insertion: Tensor

    @property
    def deletion_auc(self) -> float:
        """In [0, 1]; small if the map is good."""
        return _area(self.deletion)

    @property
    def insertion_auc(self) -> float:
        """In [0, 1]; large if the map is good."""
        return _area(self.insertion)


@dataclass(frozen=True)
class Reference:
    """Areas for orders that know nothing of the network: at random, and from the middle outwards."""

    random: tuple[float, float]  # deletion, insertion
    centre: tuple[float, float]


def deletion_insertion(ready: Explainer, image: Tensor, baseline: Tensor, target: Target, heat: Tensor) -> Curves:
    """Take pixels away, and put them back, in the order of a map, the hottest first.

    Args:
        image, baseline: (1, C, H, W) in [0, 1]; what is taken away becomes as in `baseline`.
        heat: (H, W).
    """
    order = heat.flatten().argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    fractions = torch.linspace(0, 1, FRACTIONS + 1, device=rank.device)
    gone = (rank.view(heat.shape) < (fractions * len(order)).round().view(-1, 1, 1))[:, None]
    states = torch.cat([torch.where(gone, baseline, image), torch.where(gone, image, baseline)])
    deletion, insertion = ready.probabilities(states)[:, target.index].cpu().chunk(2)
    return Curves(deletion, insertion)


def reference(ready: Explainer, image: Tensor, baseline: Tensor, target: Target, seed: int = 0) -> Reference:
    """What orders that know nothing reach; arguments as for `deletion_insertion`."""
    height, width = image.shape[2:]
    draws = torch.Generator().manual_seed(seed)
    blind = [torch.rand(height, width, generator=draws) for _ in range(RANDOM_ORDERS)]
    y, x = (torch.linspace(-1, 1, side) for side in (height, width))
    central = -(y[:, None] ** 2 + x**2)
    curves = [deletion_insertion(ready, image, baseline, target, heat.to(image.device)) for heat in (*blind, central)]
    deletion, insertion = ([getattr(curve, name) for curve in curves] for name in ("deletion_auc", "insertion_auc"))
    means = sum(deletion[:-1]) / RANDOM_ORDERS, sum(insertion[:-1]) / RANDOM_ORDERS
    return Reference(random=means, centre=(deletion[-1], insertion[-1]))


def completeness_gap(ready: Explainer, image: Tensor, baseline: Tensor, target: Target, attribution: Tensor) -> float:
    """|sum of attributions - difference of scores between image and baseline|, as a share of that difference."""
    scores = target.score(ready.logits(torch.cat([image, baseline])).cpu().double())
    difference = (scores[0] - scores[1]).item()
    missed = abs(attribution.cpu().double().sum().item() - difference)
    return missed / abs(difference) if difference else float(missed > 0)


def randomized(network: Network, seed: int = 0, stages: int = STAGES) -> Iterator[tuple[str, Network]]:
    """The network with its layers randomized, more and more of them from the top.

    Every weight and bias is drawn anew from a normal distribution with the mean and the deviation it had, so that the
    scale of what flows stays about the same.

    Yields:
        The name of the lowest layer that is random, and the network; the last one is random throughout.
    """
    torn = structural_copy(network, torch.clone)
    layers = [
        (name, module) for name, module in torn.module.named_modules() if dict(module.named_parameters(recurse=False))
    ]
    ends = sorted({round(len(layers) * (stage + 1) / stages) for stage in range(stages)} - {0})
    draws, done = torch.Generator().manual_seed(seed), 0
    for end in ends:
        for _, module in layers[::-1][done:end]:
            _redraw(module, draws)
        done = end
        name = layers[::-1][end - 1][0]
        yield network.name_of(name).plain if name else network.name, torn


def _redraw(module: nn.Module, draws: torch.Generator) -> None:
    for parameter in module.parameters(recurse=False):
        values = torch.randn(parameter.shape, generator=draws).to(parameter)
        spread = parameter.std(correction=0) if parameter.numel() > 1 else parameter.abs().mean()
        parameter.copy_(parameter.mean() + values * spread)


def sanity(
    network: Network,
    maps: Sequence[Tensor],
    again: Sequence[Callable[[Network], Tensor]],
    seed: int = 0,
    watch: Callable[[str, float], None] | None = None,
) -> dict[str, list[float]]:
    """Rank correlation of maps with those of ever more randomized networks.

    Args:
        maps: N of the network itself, (H, W) each.
        again: N functions that make the same map of another network.
        watch: called with what is being done, and the share of it that is done.

    Returns:
        By the lowest layer that is random, the last one being the lowest of all, N correlations.
    """
    correlations: dict[str, list[float]] = {}
    for stage, (layer, torn) in enumerate(randomized(network, seed)):
        correlations[layer] = []
        for row, (own, make) in enumerate(zip(maps, again, strict=True)):
            if watch:
                watch(f"maps of a network that is random from {layer} up", (stage + row / len(maps)) / STAGES)
            correlations[layer].append(rank_correlation(own, make(torn)))
    return correlations


def unmoved(correlations: Iterable[float]) -> bool:
    """Whether a map hardly changes with the network, by its correlations at all stages: it does not explain it then.

    Stages count alike: the output means nothing as soon as the topmost layers are random.
    """
    return fmean(correlations) > UNMOVED


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of the sizes of two maps' values; 0 if one of them is flat."""
    ranks = [_ranks(values.abs().flatten().double()) for values in (first, second)]
    a, b = (rank - rank.mean() for rank in ranks)
    norm = (a.norm() * b.norm()).item()
    return (a @ b).item() / norm if norm else 0.0


def _ranks(values: Tensor) -> Tensor:
    """Ranks from the smallest up; equal values share the mean of theirs."""
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = count.cumsum(0).double() - (count - 1) / 2
    return ranks[place]


def _area(curve: Tensor) -> float:
    return (torch.trapezoid(curve.double()) / (len(curve) - 1)).item()
