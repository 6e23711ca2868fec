"""What an image is optimised for: scores to be maximised, one per image.

An `Objective` turns what a step shows into scores of shape (N,). Scores add, subtract and scale, so
``channel("features.28", 3) - 0.1 * channel("features.28", 7) - 0.01 * total_variation()`` is an objective too. Images
in a batch never share a score. Penalties are positive, and are subtracted.

An index may be one number, for every image, or a sequence with one for each image of the job: the n-th image maximises
the n-th filter.

Of a layer's channels: `channel`, `mean_activation` (what `cnnviz.filter_images` maximises), `neuron`, `direction`. Of
all that it gives: `layer`, `match`, `likeness`. Of a class: `logit`. Of the image itself: `total_variation`, `l2`,
`blur`.

    from cnnviz.objectives import channel, total_variation
    cnnviz.maximize(network, channel("block3_conv1:pre", 3) - 0.5 * total_variation())

A plain function from a `View` to scores (N,) is an objective as well; ``view["block3_conv1"]`` is what a layer gives,
(N, C', H', W'), ``view[LOGITS]`` the network's output, (N, classes), and ``view.images`` are the images:

    cnnviz.maximize(network, lambda view: view["block3_conv1"][:, 3].mean((1, 2)))

To add one, write a function that returns ``Objective(layers, score)``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cnnviz.errors import LayerError, ShapeError, UnknownNameError, whole_number
from cnnviz.networks.outputs import Outputs, logits_of, probabilities_of
from cnnviz.networks.receptive_fields import Region
from cnnviz.synthesis.views import ACTIVATED, LOGITS, View, indices_on, pick

__all__ = [
    "LOGITS",
    "Objective",
    "View",
    "blur",
    "channel",
    "direction",
    "l2",
    "layer",
    "likeness",
    "logit",
    "match",
    "mean_activation",
    "neuron",
    "total_variation",
]

Score = Callable[[View], Tensor]
Index = int | Sequence[int]


@dataclass(frozen=True)
class Objective:
    """A score per image, to be maximised.

    Attributes:
        layers: what the score asks the view for; `cnnviz.synthesis.views.LOGITS` stands for the network's output.
        score: from a view to (N,), float32, differentiable with respect to ``view.images``.
        count: how many images it tells apart, or None if any number will do.
        text: what it is, for people.
        unit: from a view to what a filter or neuron gives, (N, ...), or a class's probability, if one is to be raised.
    """

    layers: frozenset[str]
    score: Score
    count: int | None = None
    text: str = "an objective"
    unit: Score | None = None

    def __add__(self, other: "Objective") -> "Objective":
        if None not in (self.count, other.count) and self.count != other.count:
            raise ShapeError(f"objectives for {self.count} and for {other.count} images cannot be added.")
        return Objective(
            self.layers | other.layers,
            lambda view: self.score(view) + other.score(view),
            self.count if self.count is not None else other.count,
            f"{self.text} + {other.text}",
            self.unit or other.unit if None in (self.unit, other.unit) else None,
        )

    def __radd__(self, other: int) -> "Objective":
        assert other == 0  # where sum() begins
        return self

    def __mul__(self, factor: float) -> "Objective":
        text = f"{factor:g} * ({self.text})"

        def score(view: View) -> Tensor:
            return factor * self.score(view)

        return Objective(self.layers, score, self.count, text, self.unit if factor > 0 else None)

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        return -1.0 * self

    def __sub__(self, other: "Objective") -> "Objective":
        return self + -other


def channel(layer: str, index: Index) -> Objective:
    """Mean activation of one channel over its positions.

    Args:
        layer: a name from ``network.layers``, with outputs (N, C, H, W) or (N, C). A layer ``X:pre`` has gradients
            even where the ReLU behind it is shut.
        index: channel in [0, C), or one per image.

    Raises:
        ShapeError: when scored, if a channel is outside [0, C).

    References:
        Erhan et al. (2009), *Visualizing Higher-Layer Features of a Deep Network*.
    """
    numbers = _Indices(index)
    return Objective(
        frozenset({layer}),
        lambda view: view.mean(layer, numbers.of(view)),
        numbers.count,
        f"{layer} {numbers}",
        lambda view: pick(view.map(layer), numbers.of(view), layer),
    )


def mean_activation(layer: str, index: Index, region: Region | None = None, *, before: bool = False) -> Objective:
    """Mean of one channel behind the activation that follows the layer, over its positions: what a filter responds to.

    Before a ReLU an edge filter's light and dark sides cancel; behind it they do not. Where nothing comes through the
    activation, the gradient is that of the highest value before it, which wakes the filter.

    Args:
        layer: PyTorch's name of a layer with outputs (N, C, H, W). Where no activation follows, it is its own mean.
        index: channel in [0, C), or one per image.
        region: rows and columns of the map to average over; all of them by default.
        before: whether to take the mean before the activation instead.

    Raises:
        ShapeError: when scored, if a channel is outside [0, C).

    References:
        Erhan et al. (2009), *Visualizing Higher-Layer Features of a Deep Network*.
    """
    numbers = _Indices(index)
    rows, columns = region or (slice(None), slice(None))

    def within(view: View) -> list[Tensor]:
        return [maps[:, rows, columns] for maps in view.activation(layer, numbers.of(view))]

    def score(view: View) -> Tensor:
        entering, activated = (maps.flatten(1) for maps in within(view))
        if before:
            return entering.mean(1)
        asleep, highest = (activated <= 0).all(1), entering.amax(1)
        return activated.mean(1) + asleep * (highest - highest.detach())

    text = f"{layer} {numbers} {'before' if before else 'after'} its activation"
    return Objective(frozenset({layer + ACTIVATED}), score, numbers.count, text, lambda view: within(view)[1])


def likeness(layer: str, group: int, objective: Objective) -> Objective:
    """A penalty on images of one filter that are alike: mean cosine of their Gram matrices behind a layer's activation.

    The images of a filter stand next to each other. Each is compared with those of its group that are in its batch,
    itself apart, and loses that share of its score.

    Args:
        layer: as for `mean_activation`.
        group: how many images a filter has.
        objective: what they maximise.

    References:
        Olah et al. (2017), *Feature Visualization*, on diversity.
    """

    def score(view: View) -> Tensor:
        maps = view.activations(layer).flatten(2)
        gram = functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
        groups, rows = view.rows // group, view.rows
        others = ((groups[:, None] == groups) & (rows[:, None] != rows)).to(gram)
        similarity = (gram @ gram.T * others).sum(1) / others.sum(1).clamp(min=1)
        return objective.score(view).detach() * similarity

    return Objective(objective.layers | {layer + ACTIVATED}, score, objective.count, f"likeness in {layer}")


def neuron(layer: str, index: Index, position: tuple[int, int] | None = None) -> Objective:
    """Activation of one channel at one position.

    Args:
        layer, index: as for `channel`; the layer must have positions.
        position: (row, column) in the map, negative from the end; its centre by default.

    Raises:
        ShapeError: when scored, if there is no such channel or position.
        LayerError: when scored, if the layer has no positions.
    """
    numbers = _Indices(index)

    def score(view: View) -> Tensor:
        maps = pick(_spatial(view, layer), numbers.of(view), layer)
        height, width = maps.shape[1:]
        row, column = position or (height // 2, width // 2)
        if not (-height <= row < height and -width <= column < width):
            raise ShapeError(f"{layer} has maps of {height} x {width} here; there is no position {row}, {column}.")
        return maps[:, row, column]

    where = "at the centre" if position is None else f"at {position[0]}, {position[1]}"
    return Objective(frozenset({layer}), score, numbers.count, f"{layer} {numbers} {where}", score)


def logit(index: Index, *, versus: Index | str | None = None, outputs: Outputs = "logits") -> Objective:
    """The network's output for a class, before the softmax; of a network that gives probabilities, their logarithm.

    Args:
        index: number of a class, or one per image; ``cnnviz.class_index(network, "tabby")`` is that of a name.
        versus: subtract the logit of another class, or with ``"runner-up"`` the largest of all others.
        outputs: what the network's outputs are.

    Raises:
        UnknownNameError: if a class is given by its name.
        ShapeError: when scored, if there is no such class.

    References:
        Simonyan et al. (2014), *Deep Inside Convolutional Networks*.
    """
    numbers = _Indices(index)
    rival = None if versus is None or isinstance(versus, str) else _Indices(versus)
    if isinstance(versus, str) and versus != "runner-up":
        raise ShapeError(f"versus is the number of a class or 'runner-up', not {versus!r}.")

    def score(view: View) -> Tensor:
        logits, own = logits_of(view.map(LOGITS), outputs), numbers.of(view)
        scores = pick(logits, own, LOGITS)
        if rival is not None:
            return scores - pick(logits, rival.of(view), LOGITS)
        if versus is None:
            return scores
        if logits.shape[1] < 2:
            raise ShapeError(
                "a network with a single output has no runner-up; maximise that output alone (--plain-logit)."
            )
        others = logits.scatter(1, indices_on(tuple(own.tolist()), logits.device)[:, None], -torch.inf)
        return scores - others.amax(1)

    def probability(view: View) -> Tensor:
        return pick(probabilities_of(view.map(LOGITS), outputs), numbers.of(view), LOGITS)

    counts = {numbers.count, None if rival is None else rival.count} - {None}
    if len(counts) > 1:
        raise ShapeError(f"{len(numbers.numbers)} classes and their rivals must be as many.")
    against = "" if versus is None else f" less {'the runner-up' if rival is None else rival}"
    return Objective(frozenset({LOGITS}), score, next(iter(counts), None), f"logit {numbers}{against}", probability)


def layer(name: str) -> Objective:
    """Everything a layer gives, squared and averaged: DeepDream (Mordvintsev et al. 2015).

    Args:
        name: of a layer with outputs (N, ...).
    """
    return Objective(
        frozenset({name}), lambda view: view.map(name).square().flatten(1).mean(1), None, f"mean square of {name}"
    )


def direction(layer: str, vector: Tensor) -> Objective:
    """How far the mean activations of a layer go along a direction.

    Args:
        layer: name of a layer with outputs (N, C, ...).
        vector: (C,), one for all images, or (N, C).

    Raises:
        ShapeError: when scored, if the layer has another number of channels.
    """
    per_image = vector.ndim == 2

    def score(view: View) -> Tensor:
        means = view.map(layer).flatten(2).mean(2) if view.map(layer).ndim > 2 else view.map(layer)
        along = (vector[view.rows] if per_image else vector).to(means)
        if along.shape[-1] != means.shape[1]:
            raise ShapeError(f"{layer} has {means.shape[1]} channels, the direction has {along.shape[-1]}.")
        return (means * along).sum(1)

    return Objective(frozenset({layer}), score, len(vector) if per_image else None, f"a direction in {layer}")


def match(layer: str, maps: Tensor) -> Objective:
    """How like given maps a layer's are: 1 where they are equal, less the share of their energy that is missed.

    Args:
        layer: name of a layer.
        maps: (1, C, H, W), what it gave for an image of the same size; or one row per image.

    Raises:
        ShapeError: when scored, if the layer gives another shape.

    References:
        Mahendran and Vedaldi (2015), *Understanding Deep Image Representations by Inverting Them*.
    """
    count = len(maps) if len(maps) > 1 else None

    def score(view: View) -> Tensor:
        own = view.map(layer)
        wanted = (maps[view.rows] if count else maps).to(own)
        if wanted.shape[1:] != own.shape[1:]:
            shapes = (" x ".join(map(str, values.shape[1:])) for values in (own, wanted))
            raise ShapeError("{} gives {} for this image, not {} as for the image.".format(layer, *shapes))
        energy = wanted.square().flatten(1).sum(1)
        missed = (own - wanted).square().flatten(1).sum(1)
        return 1 - missed / torch.where(energy > 0, energy, 1)

    return Objective(frozenset({layer}), score, count, f"like given maps of {layer}")


def total_variation() -> Objective:
    """A penalty: mean absolute difference between neighbouring pixels, along both axes."""

    def score(view: View) -> Tensor:
        down, across = view.images.diff(dim=2).abs(), view.images.diff(dim=3).abs()
        return down.flatten(1).mean(1) + across.flatten(1).mean(1)

    return Objective(frozenset(), score, None, "total variation")


def l2() -> Objective:
    """A penalty: mean squared deviation from grey."""
    return Objective(frozenset(), lambda view: (view.images - 0.5).square().flatten(1).mean(1), None, "l2")


def blur() -> Objective:
    """A penalty on fine detail: mean squared difference from the image blurred over 3 x 3 pixels."""

    def score(view: View) -> Tensor:
        smooth = functional.avg_pool2d(functional.pad(view.images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return (view.images - smooth.detach()).square().flatten(1).mean(1)

    return Objective(frozenset(), score, None, "blur")


class _Indices:
    """One index for every image, or one for each."""

    def __init__(self, index: Index) -> None:
        given = list(index) if isinstance(index, Iterable) and not isinstance(index, str) else [index]
        names = [name for name in given if isinstance(name, str)]
        if names:
            raise UnknownNameError(
                f"an objective knows channels and classes by their numbers, not as {names[0]!r}; of a class,"
                f" cnnviz.class_index(network, {names[0]!r}) gives the number."
            )
        self.numbers = [whole_number(number, "a channel or class") for number in given]
        self.count = len(given) if isinstance(index, Iterable) else None
        if not self.numbers:
            raise ShapeError("no index is given; name at least one channel or class.")
        self._indices = torch.tensor(self.numbers)

    def of(self, view: View) -> Tensor:
        return self._indices.expand(len(view.rows)) if self.count is None else self._indices[view.rows]

    def __str__(self) -> str:
        return ", ".join(map(str, self.numbers))


def _spatial(view: View, layer: str) -> Tensor:
    maps = view.map(layer)
    if maps.ndim != 4:
        raise LayerError(f"layer {layer!r} has no positions: it gives {maps.ndim - 1} axes, not C x H x W.")
    return maps
