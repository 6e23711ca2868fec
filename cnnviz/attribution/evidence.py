"""Numbers that say how far an attribution can be believed.

- `deletion_insertion`: the probability of the class while pixels are removed, or inserted, in the order of the map, in
  up to 64 steps (Petsiuk et al. 2018); `reference` gives the same for random orders and for one from the centre
  outwards, without which such a number means little.
- `completeness_gap`: by how much attributions that promise to add up to a difference of scores miss it.
- `infidelity` and `max_sensitivity`: how badly a map predicts what noise does, and how far noise moves it (Yeh et al.
  2019).
- `sanity`: rank correlation with the maps of the network randomized layer by layer from the top; a map that hardly
  changes then does not explain the network (Adebayo et al. 2018).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnviz.attribution.cases import Case
from cnnviz.attribution.explainer import Explainer, Scores, Target, rows_of
from cnnviz.attribution.methods import Method
from cnnviz.attribution.superpixels import superpixels
from cnnviz.isolation import seeded
from cnnviz.networks.module_copies import structural_copy
from cnnviz.networks.network import Network

SEED = 20181203  # of noise; weights drawn from the same seed, often 0, would be correlated with it
SAMPLES = 20
NOISE = 0.1  # standard deviation, in units of the normalised image
RADIUS = 0.02  # in the same units
NEIGHBOURS = 10
REGIONS = 16  # of an image, that are added up at a time


class _Sum(nn.Module):
    """(N, C, H, W) to (N, 1): all values of an image added up."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1).sum(1, keepdim=True)


def contributions(
    ready: Explainer, method: Method, image: Tensor, values: Tensor, baseline: Tensor, options: Mapping[str, Any]
) -> Tensor:
    """What each value of an image contributes to the score, so that contributions add up.

    Of most methods these are the attributions themselves. Occlusion, feature ablation, LIME and KernelSHAP repeat the
    effect of a whole region (a window, a superpixel) at each of its values; here the values of a region share its
    effect d. Value i gets d c_i^2 / |c|^2, where c is the difference between image and baseline in the region: of all
    slopes of the score that account for d, d c / |c|^2 are the smallest, which is what Yeh et al. (2019, proposition
    2.1) find best if all that is known is what removing the region does. Where windows overlap, d and |c|^2 are means
    over those that cover a value.

    Args:
        image, baseline: (1, C, H, W) in [0, 1].
        values: (1, C, H, W), as `attribute` gives them.
        options: all of the method's, by name; see `cnnviz.attribution.methods.settings_of`.

    Returns:
        As `values`.
    """
    if method.regions is None:
        return values
    squares = (ready.normalised(image) - ready.normalised(baseline)).cpu().double().square()
    amounts = squares.sum(1, keepdim=True)  # a region takes in all colour channels
    case = Case(
        model=_Sum(),
        inputs=amounts,
        baseline=torch.zeros_like(amounts),
        patches=lambda count: superpixels(image[0], count),
        layer=None,
        batch=REGIONS,
        options=options,
    )
    sums = method.regions(case)  # what removing a region takes from the sum of all is the region's own sum
    shares = torch.where(squares > 0, squares / sums, 0)
    return values * shares.to(values)


def infidelity(
    ready: Explainer,
    image: Tensor,
    target: Target,
    attribution: Tensor,
    baseline: Tensor | None = None,
    seed: int = SEED,
) -> float:
    """How badly attributions predict what noise does to the score, in logits squared; 0 is perfect.

    The mean over 20 draws of noise I, normal with a deviation of 0.1 of the normalised image's units, of
    (I . slopes - (score(image) - score(image - I)))^2.

    Args:
        image: (1, C, H, W) in [0, 1].
        attribution: (1, C, H, W), per colour channel of the normalised image; `contributions` of methods that give one
            number for a whole region.
        baseline: (1, C, H, W) in [0, 1], of attributions that are shares of the score rather than slopes: what they
            compare the image with. Their slopes are attribution / (image - baseline).

    References:
        Yeh et al. (2019), *On the (In)fidelity and Sensitivity of Explanations*.
    """
    from captum.metrics import infidelity as measured

    inputs = ready.normalised(image)
    contrast = torch.ones_like(inputs) if baseline is None else inputs - ready.normalised(baseline)
    slopes = torch.where(contrast == 0, 0, attribution / contrast)

    draws = torch.Generator().manual_seed(seed)

    def disturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = (NOISE * torch.randn(inputs.shape, generator=draws)).to(inputs)
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


def max_sensitivity(ready: Explainer, image: Tensor, explain: Callable[[Tensor], Tensor], seed: int = SEED) -> float:
    """By what share of its norm a map changes, at most, when the image moves a little.

    The maximum over 10 neighbours, each value of the normalised image moved by up to 0.02, of
    |map(neighbour) - map(image)| / |map(image)|, in Euclidean norms over all colour channels and pixels.

    Args:
        image: (1, C, H, W) in [0, 1].
        explain: gives the attributions of images (N, C, H, W) in [0, 1].

    References:
        Yeh et al. (2019), *On the (In)fidelity and Sensitivity of Explanations*.
    """
    from captum.metrics import sensitivity_max

    draws = torch.Generator().manual_seed(seed)

    def explained(inputs: Tensor | tuple[Tensor]) -> tuple[Tensor]:
        """A tuple, for captum would take a bare tensor of maps for several and divide by the norm of the smallest."""
        moved = inputs if isinstance(inputs, Tensor) else inputs[0]
        return (explain((moved * ready.twin.std + ready.twin.mean).clamp(0, 1)).contiguous(),)

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


STEPS, PARTS = 64, 4  # in which pixels are removed or inserted; parts of a curve whose ends are always seen
BENDS = 0.01  # of a curve's range times all pixels: an area beside a chord that is worth another step
RANDOM_ORDERS, RANDOM_STEPS, QUICK_RANDOM_STEPS = 10, 16, 4
FINE = 256  # steps, in which the area below a smooth curve is added up
STAGES = 5  # in which a network is randomized
DRAWS = 4  # of a randomized network, until one has a map that is not flat
FLAT = 1e-6  # of the largest size: differences in a map that are rounding
UNMOVED = 0.5  # mean rank correlation with the maps of the randomized networks, above which a method is flagged
LARGE_GAP = 0.05  # of the difference of scores: a completeness gap that is flagged

Standing = Literal["better", "no better", "worse"]  # than random orders


@dataclass(frozen=True)
class Curves:
    """Probability of a class while pixels are removed or inserted, (steps + 1,) each, and the areas beneath.

    Attributes:
        shares: of all pixels, that are removed or inserted, in [0, 1].
        deletion, insertion: probabilities, in [0, 1]; on a straight line where a step was left out.
    """

    shares: Tensor
    deletion: Tensor
    insertion: Tensor

    @property
    def deletion_auc(self) -> float:
        """In [0, 1]; small if the map is good."""
        return _area(self.shares, self.deletion)

    @property
    def insertion_auc(self) -> float:
        """In [0, 1]; large if the map is good."""
        return _area(self.shares, self.insertion)


@dataclass(frozen=True)
class Reference:
    """Areas for orders that know nothing of the network, (deletion, insertion) each.

    Attributes:
        random: mean over random orders.
        spread: standard deviation over them.
        centre: from the centre outwards; None if that was not measured.
        values: whether areas are of a network's values (or of sums over a region), rather than of probabilities.
    """

    random: tuple[float, float]
    spread: tuple[float, float]
    centre: tuple[float, float] | None
    values: bool = False

    def standings(self, curves: Curves) -> tuple[Standing, Standing]:
        """Whether deletion and insertion, each by itself, are better than in random orders, no better, or worse.

        A difference counts if it exceeds the standard deviation over random orders and shows in the digits printed: of
        an untrained network, whose probabilities hardly change, all orders are alike.
        """
        areas = curves.deletion_auc, curves.insertion_auc
        deletion, insertion = (
            self._sign(area, random, spread)
            for area, random, spread in zip(areas, self.random, self.spread, strict=True)
        )
        return _STANDINGS[-deletion], _STANDINGS[insertion]

    def text(self, area: float) -> str:
        """An area as it is printed."""
        return f"{area:.4g}" if self.values else f"{area:.1%}"

    def _sign(self, area: float, random: float, spread: float) -> int:
        """1 above random orders, -1 below them, 0 where there is no difference."""
        if abs(area - random) <= spread or self.text(area) == self.text(random):
            return 0
        return 1 if area > random else -1


_STANDINGS: Mapping[int, Standing] = {1: "better", 0: "no better", -1: "worse"}


def deletion_insertion(
    ready: Explainer,
    image: Tensor,
    baseline: Tensor,
    target: Target,
    heat: Tensor,
    start: Tensor | None = None,
    *,
    precise: bool = True,
) -> Curves:
    """Remove pixels, and insert them, in the order of a map, the most important first.

    In 64 steps, dense at both ends: after step k, (1 - cos(pi k / 64)) / 2 of the pixels are changed, 0.06 % after the
    first. A good order loses the class within the first percents, and a few pixels that are missing from an image may
    change much; equal steps would resolve neither. Areas are by trapezoids.

    Args:
        image, baseline: (1, C, H, W) in [0, 1]; removed pixels become as in `baseline`.
        heat: (H, W).
        start: (1, C, H, W) in [0, 1], the image into which pixels are inserted: `baseline` by default; in the paper a
            blurred image, whose missing pixels have no edges that a network might mistake for evidence.
        precise: whether the network sees every step. If not, it sees every sixteenth, then one halfway between two
            as long as a monotonous curve could leave the chord between them by 1 % of the whole area or more: some
            seven steps instead of 64, and areas within about a percent of the probability.

    References:
        Petsiuk et al. (2018), *RISE: Randomized Input Sampling for Explanation of Black-box Models*.
    """
    rank, empty = _ranks_of(heat), baseline if start is None else start
    counts = _counts((1 - torch.linspace(0, torch.pi, STEPS + 1, dtype=torch.float64).cos()) / 2, rank.numel())
    parts = STEPS if precise else PARTS
    whole, bare, begun = _at_ends(ready, target, image, baseline, start)
    deletion = _curve(ready, target, rank, counts, (image, baseline), (whole, bare), parts)
    insertion = _curve(ready, target, rank, counts, (empty, image), (begun, whole), parts)
    return Curves(counts / rank.numel(), deletion, insertion)


def reference(
    ready: Explainer,
    image: Tensor,
    baseline: Tensor,
    target: Target,
    seed: int = 0,
    start: Tensor | None = None,
    *,
    precise: bool = True,
    watch: Callable[[int], None] | None = None,
) -> Reference:
    """Areas of ten random orders, and of the order from the centre outwards; arguments as for `deletion_insertion`.

    Insertion in a random order shows the same kind of images as deletion in the reverse order, which is as random. So
    both have the same area, unless they end in different images, and it is measured by removing pixels. The probability
    falls fast at first and smoothly afterwards: 16 steps, after step k of which (k / 16)^3 of the pixels are removed,
    and the monotonous cubic curve through them give the same area as hundreds, within a fraction of its spread.

    Args:
        precise: whether the network sees 16 steps, and the order from the centre outwards; 4 steps otherwise, whose
            areas are right within about half of their spread.
        watch: called with the number of random orders that have been measured.
    """
    height, width = image.shape[2:]
    pixels, draws = height * width, torch.Generator().manual_seed(seed)
    steps = RANDOM_STEPS if precise else QUICK_RANDOM_STEPS
    counts = _counts(torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 3, pixels).unique()
    whole, bare, begun = _at_ends(ready, target, image, baseline, start)
    ends = [(baseline, bare)] if start is None else [(baseline, bare), (start, begun)]
    areas = []
    for number in range(RANDOM_ORDERS):
        rank = torch.randperm(pixels, generator=draws).view(height, width).to(image.device)
        areas.append(
            [
                _smooth_area(counts / pixels, _curve(ready, target, rank, counts, (image, end), (whole, value)))
                for end, value in ends
            ]
        )
        if watch:
            watch(number + 1)
    deletion, insertion = zip(*((own[0], own[-1]) for own in areas), strict=True)
    return Reference(
        random=(fmean(deletion), fmean(insertion)),
        spread=(stdev(deletion), stdev(insertion)),
        centre=_central(ready, image, baseline, target, start) if precise else None,
        values=ready.twin.outputs == "value",
    )


def _central(
    ready: Explainer, image: Tensor, baseline: Tensor, target: Target, start: Tensor | None
) -> tuple[float, float]:
    """Areas of the order from the centre outwards."""
    y, x = (torch.linspace(-1, 1, side, device=image.device) for side in image.shape[2:])
    curves = deletion_insertion(ready, image, baseline, target, -(y[:, None] ** 2 + x**2), start)
    return curves.deletion_auc, curves.insertion_auc


def _ranks_of(heat: Tensor) -> Tensor:
    """(H, W): the place of each pixel in the order of a map, 0 for the highest; of equal ones the first goes first."""
    order = heat.flatten().argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank.view(heat.shape)


def _counts(shares: Tensor, pixels: int) -> Tensor:
    return (shares * pixels).round().long()


def _at_ends(
    ready: Explainer, target: Target, image: Tensor, baseline: Tensor, start: Tensor | None
) -> tuple[float, float, float]:
    """Probabilities of the image, of the baseline, and of the image into which pixels are inserted."""
    ends = torch.cat([image, baseline] if start is None else [image, baseline, start])
    whole, *others = ready.probabilities(ends)[:, target.index].tolist()
    return whole, others[0], others[-1]


def _curve(
    ready: Explainer,
    target: Target,
    rank: Tensor,
    counts: Tensor,
    images: tuple[Tensor, Tensor],
    ends: tuple[float, float],
    parts: int | None = None,
) -> Tensor:
    """Probabilities while pixels of the first image become those of the second, in the order of `rank`, as `counts`.

    Seen at the ends of `parts`, all steps by default, then between them wherever a monotonous curve could leave the
    chord by much.
    """
    shares, last = (counts / rank.numel()).tolist(), len(counts) - 1
    curve = {0: ends[0], last: ends[1]}
    wanted = list(range(0, last, last // (parts or last)))[1:]
    while wanted:
        probabilities = _probabilities(ready, target, rank, counts[wanted], *images)
        curve = dict(sorted((curve | dict(zip(wanted, probabilities, strict=True))).items()))
        least = BENDS * (max(curve.values()) - min(curve.values()))
        wanted = [
            (low + high) // 2
            for low, high in pairwise(curve)
            if high - low > 1 and abs(curve[high] - curve[low]) * (shares[high] - shares[low]) / 2 > least
        ]
    return torch.from_numpy(np.interp(shares, [shares[step] for step in curve], list(curve.values()))).float()


def _probabilities(
    ready: Explainer, target: Target, rank: Tensor, counts: Tensor, before: Tensor, after: Tensor
) -> list[float]:
    """Of the image `before`, as many of whose pixels as `counts`, the first by `rank`, are those of `after`."""
    numbers, place = counts.unique(return_inverse=True)
    parts = numbers.to(rank.device).view(-1, 1, 1, 1).split(ready.batch(before))
    states = (torch.where(rank < part, after, before) for part in parts)
    return torch.cat([ready.probabilities(state)[:, target.index].cpu() for state in states])[place].tolist()


def _area(shares: Tensor, curve: Tensor) -> float:
    return torch.trapezoid(curve.double(), shares.double()).item()


def _smooth_area(shares: Tensor, curve: Tensor) -> float:
    """Beneath the monotonous cubic curve over the cube root of shares, along which random orders run evenly."""
    from scipy.interpolate import PchipInterpolator

    places = torch.linspace(0, 1, FINE + 1, dtype=torch.float64)
    smooth = PchipInterpolator(shares.double() ** (1 / 3), curve.double())(places)
    return _area(places**3, torch.from_numpy(smooth))


def completeness_gap(ready: Explainer, image: Tensor, baseline: Tensor, target: Target, attribution: Tensor) -> float:
    """|sum of attributions - difference of scores between image and baseline|, as a share of that difference.

    References:
        Sundararajan et al. (2017), *Axiomatic Attribution for Deep Networks*.
    """
    scores = target.score(ready.logits(torch.cat([image, baseline])).cpu().double())
    difference = (scores[0] - scores[1]).item()
    missed = abs(attribution.cpu().double().sum().item() - difference)
    return missed / abs(difference) if difference else float(missed > 0)


@torch.inference_mode(False)
def is_bottleneck(ready: Explainer, layer: str, image: Tensor) -> bool:
    """Whether all that the logits know of an image passes through a layer.

    Only then do a layer's conductances add up to the difference of scores (Dhamdhere et al. 2018): those of one of
    several branches miss what passes through the others.

    Args:
        image: (1, C, H, W) in [0, 1].
    """
    twin = ready.twin.twin()
    twin.layers[twin.qualified(layer)].register_forward_hook(lambda _module, _inputs, output: output.detach())
    with torch.enable_grad():
        logits = rows_of(twin.module, ready.normalised(image).clone().requires_grad_())
    return not logits.requires_grad


def randomized(network: Network, seed: int = 0, stages: int = STAGES) -> Iterator[tuple[str, Network]]:
    """The network with its layers randomized, more and more of them from the top.

    The top is the layer whose weights are used last, whatever the order in which layers are defined; layers that are
    never used do not count. A layer gets the fresh initialization that its class defines (``reset_parameters``, with
    which batch normalization forgets its statistics too). Weights for which there is none are drawn from a normal
    distribution with the mean and the deviation they had.

    Yields:
        The name of the lowest layer that is random, and the network; the last one is random throughout.

    References:
        Adebayo et al. (2018), *Sanity Checks for Saliency Maps*: the cascading randomization.
    """
    torn = structural_copy(network, torch.clone)
    layers = _from_the_top(network)
    ends = sorted({round(len(layers) * (stage + 1) / stages) for stage in range(stages)} - {0})
    draws, done = torch.Generator().manual_seed(seed), 0
    for end in ends:
        for name in layers[done:end]:
            _redraw(torn.module.get_submodule(name), int(torch.randint(2**62, (), generator=draws)))
        done = end
        name = layers[end - 1]
        yield network.name_of(name).plain if name else network.name, torn


class _Uses(TorchDispatchMode):
    """Notes whose weights PyTorch's operations use, in the order of their last use.

    Attributes:
        owners: names of modules, by the identity of their own weights.
        order: those names.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.order: dict[str, None] = {}
        self.owners = {
            id(parameter): name for name, part in module.named_modules() for parameter in part.parameters(recurse=False)
        }

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if id(value) in self.owners:
                name = self.owners[id(value)]
                self.order.pop(name, None)
                self.order[name] = None
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def _from_the_top(network: Network) -> list[str]:
    """Names of the modules with weights of their own, in the reverse order of their last use."""
    twin = network.twin()
    images = torch.full((1, twin.channels, *twin.input_size), 0.5, device=twin.device)
    with _Uses(twin.module) as uses:
        twin(images)
    return list(uses.order)[::-1]


@torch.no_grad()
def _redraw(module: nn.Module, seed: int) -> None:
    """Initialize a module's own weights anew; what that leaves as it was keeps its mean and deviation only."""
    own = list(module.parameters(recurse=False))
    before = [parameter.clone() for parameter in own]
    reset = getattr(module, "reset_parameters", None)
    with seeded(seed, own[0].device):
        if callable(reset) and not list(module.children()):  # it might reset the layers inside too
            reset()
        for parameter, old in zip(own, before, strict=True):
            if parameter.equal(old):
                spread = old.std(correction=0) if old.numel() > 1 else old.abs().mean()
                parameter.copy_(old.mean() + spread * torch.randn(old.shape).to(old))


@torch.inference_mode(False)  # or what the random networks are made of could not be differentiated
def sanity(
    network: Network,
    maps: Sequence[Tensor],
    again: Sequence[Callable[[Network], Tensor]],
    seed: int = 0,
    watch: Callable[[str, float], None] | None = None,
) -> dict[str, list[float | None]]:
    """Rank correlation of maps with those of ever more randomized networks.

    A random network may not react to an image at all, where a ReLU behind its last layer is closed, and its map is flat
    then. Such a network is drawn again, up to three times; if all four maps are flat there is no number.

    Args:
        maps: N of the network itself, (H, W) each.
        again: N functions that make the same map of another network.
        watch: called with what is being done, and the share of it that is done.

    Returns:
        By the lowest layer that is random, the last one being the lowest of all, N correlations; None for flat maps.

    References:
        Adebayo et al. (2018), *Sanity Checks for Saliency Maps*.
    """
    correlations: dict[str, list[float | None]] = {}
    for stage, (layer, torn) in enumerate(randomized(network, seed)):
        correlations[layer] = []
        for row, (own, make) in enumerate(zip(maps, again, strict=True)):
            if watch:
                watch(f"maps of a network that is random from {layer} up", (stage + row / len(maps)) / STAGES)
            correlations[layer].append(_correlation(own, make, _draws(network, torn, seed, stage)))
    return correlations


def _correlation(own: Tensor, make: Callable[[Network], Tensor], networks: Iterable[Network]) -> float | None:
    """With the first map that is not flat; None if there is none, or one's own is flat."""
    if _is_flat(own.abs()):
        return None
    correlations = (rank_correlation(own, make(network)) for network in networks)
    return next((correlation for correlation in correlations if correlation is not None), None)


def _draws(network: Network, first: Network, seed: int, stage: int) -> Iterator[Network]:
    """Networks that are randomized as far as the first one."""
    yield first
    for number in range(1, DRAWS):
        yield next(torn for _, torn in islice(randomized(network, seed + number), stage, None))


def unmoved(correlations: Iterable[float | None]) -> bool:
    """Whether a map hardly changes with the network, by its correlations at all stages: it does not explain it then.

    It does if the mean of the correlations exceeds 0.5. Stages count alike: the output means nothing as soon as the
    topmost layers are random. Those without a number do not count, and without any number there is no such verdict.
    """
    mean = mean_of(correlations)
    return mean is not None and mean > UNMOVED


def mean_of(correlations: Iterable[float | None]) -> float | None:
    """The mean of those that there are; None if there is none."""
    numbers = [correlation for correlation in correlations if correlation is not None]
    return fmean(numbers) if numbers else None


def rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Spearman's rank correlation of the sizes of two maps' values; None if one of them is flat."""
    if _is_flat(first.abs()) or _is_flat(second.abs()):
        return None
    ranks = [_ranks(values.abs().flatten().double()) for values in (first, second)]
    a, b = (rank - rank.mean() for rank in ranks)
    return (a @ b / (a.norm() * b.norm())).item()


def _is_flat(sizes: Tensor) -> bool:
    """Whether a map's sizes differ by no more than rounding."""
    return bool(sizes.max() - sizes.min() <= FLAT * sizes.max())


def _ranks(values: Tensor) -> Tensor:
    """Ranks from the smallest up; equal values share the mean of theirs."""
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = count.cumsum(0).double() - (count - 1) / 2
    return ranks[place]
