"""What filters are drawn by: the objectives for names of layers, for terms of a text and for plain functions."""

import math

import torch
from torch import Tensor, nn

from cnnviz.errors import ShapeError, UnknownNameError
from cnnviz.networks.activations import Response, activations, response
from cnnviz.networks.layer_names import LayerName
from cnnviz.networks.network import Network
from cnnviz.networks.receptive_fields import Region, unpadded
from cnnviz.synthesis.objective_text import Term, parse_objective
from cnnviz.synthesis.objectives import Index, Objective, Score, mean_activation
from cnnviz.synthesis.parametrisations import Size
from cnnviz.synthesis.recipes import DEFAULT, EARLY
from cnnviz.synthesis.views import LOGITS, View


def filter_objective(layer: LayerName, filters: Index, response: Response, size: Size) -> tuple[Objective, str]:
    """The objective of filters of a layer, and what it is, for people.

    The mean behind the activation over the positions that padding does not reach, if these are at least half of all;
    before it, over all positions, where the name asks for that.

    Args:
        layer: as `Network.filters_of` gives it.
        response: of the layer, for images of `size`.
    """
    if layer.before_activation:
        return mean_activation(layer.module, filters, before=True), f"mean of {layer.name}"
    region = _region(response, size)
    return mean_activation(layer.module, filters, region), f"mean of {layer.name}{_where(response, region)}"


def objective_of(network: Network, given: Objective | str | Score, size: Size) -> Objective:
    """An objective, which may be given in words or as a plain function too.

    Args:
        given: an `Objective`; words, see `cnnviz.synthesis.objective_text`; or a function from a `View` to scores (N,).
        size: (height, width) of the images.

    Raises:
        UnknownNameError, LayerError, ShapeError: if it is none of these, or does not fit the network.
    """
    if isinstance(given, Objective):
        return given
    if isinstance(given, str):
        objective = sum(term_objective(network, term, size) for term in parse_objective(given))
        assert isinstance(objective, Objective)
        return objective
    if isinstance(given, nn.Module) or not callable(given):
        kind = "module" if isinstance(given, nn.Module) else type(given).__name__
        raise UnknownNameError(f"an objective is given in words, such as 'block4_conv3:12', not as a {kind}.")
    return from_function(network, given, size)


def term_objective(network: Network, term: Term, size: Size) -> Objective:
    """The objective of one term of a text, with its factor.

    Raises:
        UnknownNameError, LayerError, ShapeError: if layer, filter or position do not exist.
    """
    layer = network.filters_of(term.layer)
    known = response(network, layer.module, size)
    _, count, rows, columns = known.shape
    if term.filter >= count:
        raise ShapeError(f"{term.layer} has no filter {term.filter}; its {count} filters are 0 to {count - 1}.")
    place = term.place(rows, columns)
    if place is None:
        objective, _ = filter_objective(layer, term.filter, known, size)
    else:
        objective = mean_activation(layer.module, term.filter, place, before=layer.before_activation)
    return objective if term.factor == 1 else term.factor * objective


def from_function(network: Network, function: Score, size: Size) -> Objective:
    """The objective that a plain function is: which layers it asks for is found by calling it once.

    Args:
        function: from a `View` to scores (N,).

    Raises:
        ShapeError: if it gives anything but a score per image.
    """
    view = _Asked(network, torch.full((2, network.channels, *size), 0.5, device=network.device))
    with torch.no_grad():
        scores = function(view)
    if not isinstance(scores, Tensor) or scores.shape != (2,):
        raise ShapeError("an objective gives a tensor with one score per image, (N,), and sums over nothing else.")
    return Objective(frozenset(view.asked), function, None, getattr(function, "__name__", "a function"))


class _Asked(View):
    """A view that notes what it is asked for."""

    def __init__(self, network: Network, images: Tensor) -> None:
        super().__init__(images, torch.arange(len(images)), {})
        self.network = network
        self.asked: set[str] = set()

    def map(self, layer: str) -> Tensor:
        self.asked.add(layer)
        if layer == LOGITS:
            logits: Tensor = self.network(self.images)
            return logits
        return activations(self.network, self.images, [layer])[layer].float()


def recipe_for(response: Response) -> str:
    """By default: the first layers look for what the others' recipe cannot draw."""
    spans = () if response.field is None else response.field.spans
    return "early" if spans and max(span.size for span in spans) <= EARLY else DEFAULT


def _region(response: Response, size: Size) -> Region | None:
    """The positions that padding does not reach, if they are at least half of all."""
    rows, columns = response.shape[2:]
    region = unpadded(response.field, size, (rows, columns))
    if region is None:
        return None
    inside = math.prod(part.stop - part.start for part in region)
    return region if rows * columns > inside >= rows * columns / 2 else None


def _where(response: Response, region: Region | None) -> str:
    """Which values the mean is of, for people."""
    activation = f" after {response.activation}" if response.activation else ""
    if region is None:
        return activation
    rows, columns = (part.stop - part.start for part in region)
    return f"{activation} over the {rows} x {columns} positions without padding"
