"""What a network's outputs are: logits, probabilities, logits of labels that do not exclude each other, or values."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cnnviz.errors import choose
from cnnviz.networks.watching import Watching

Outputs = Literal["logits", "probabilities", "multilabel", "value"]
SUMS_TO_ONE = 1e-3  # how far rows of probabilities may miss it
# Functions of torch by name, less what tells their versions apart.
PROBABLE = {"softmax", "sigmoid", "expit", "hardsigmoid"}  # what they give are probabilities
PASSING = {"clone", "contiguous", "detach", "flatten", "float", "mean", "reshape", "squeeze", "to", "unsqueeze", "view"}


def check_outputs(outputs: str) -> None:
    """Notice a kind of outputs that there is not.

    Raises:
        UnknownNameError: says which there are.
    """
    choose(outputs, get_args(Outputs), "kind of outputs")


def probabilities_of(outputs: Tensor, kind: Outputs) -> Tensor:
    """What outputs (N, classes) say of each class: probabilities in [0, 1], or the values themselves if they are that.

    Of "multilabel" ones, and of a single logit, it is what the logistic function makes of them.
    """
    if kind in ("probabilities", "value"):
        return outputs
    return outputs.softmax(1) if kind == "logits" and outputs.shape[1] > 1 else outputs.sigmoid()


def logits_of(outputs: Tensor, kind: Outputs) -> Tensor:
    """Logits (N, classes) that outputs stand for; of probabilities, their logarithms."""
    return outputs.clamp(min=torch.finfo(outputs.dtype).tiny).log() if kind == "probabilities" else outputs


def noticed(rows: Tensor, ends: "Ends") -> Outputs:
    """The kind of a network's outputs (N, classes), by what they are and by the function that has given them."""
    in_range = bool((rows >= 0).all() and (rows <= 1).all())
    distributed = rows.shape[1] > 1 and bool(((rows.sum(1) - 1).abs() < SUMS_TO_ONE).all())
    if in_range and (distributed or ends.probable(rows)):
        return "probabilities"
    return "logits" if rows.shape[1] > 1 else "value"


class Ends(Watching):
    """While active, remembers which tensors a softmax or sigmoid has given, also in another shape."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, Tensor] = {}

    def probable(self, output: Tensor) -> bool:
        """Whether this is such a tensor."""
        return id(output) in self._kept

    def note(self, name: str, result: Any, given: Sequence[Any]) -> None:
        passed = name in PASSING and len(given) > 0 and id(given[0]) in self._kept
        if isinstance(result, Tensor) and (name in PROBABLE or passed):
            self._kept[id(result)] = result  # kept, or its id would be another's
