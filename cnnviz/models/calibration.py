"""Whether probabilities mean what they say, and the one number that mends most of it.

Guo et al. (2017), *On Calibration of Modern Neural Networks*.
"""

import torch
from torch import Tensor
from torch.nn import functional

BINS = 15


def fitted_temperature(logits: Tensor, classes: Tensor) -> float:
    """The number by which to divide logits (N, C) so that the classes (N,) that are true become most likely."""
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(logits.double() / log_temperature.exp(), classes)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return log_temperature.exp().item()


def expected_calibration_error(logits: Tensor, classes: Tensor) -> float:
    """How far, on average, the probability of the class on top lies from the share of cases in which it is right.

    Args:
        logits: (N, C).
        classes: (N,), the true ones.

    Returns:
        A number in [0, 1]: over 15 bins of equal width in probability, the mean distance weighted by their cases.
    """
    confidence, guess = logits.double().softmax(1).max(1)
    right = (guess == classes).double()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, right - confidence)
    return (gaps.abs().sum() / len(classes)).item()
