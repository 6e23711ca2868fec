"""captum's own measures of an attribution: infidelity and sensitivity."""

from collections.abc import Callable

import torch
from torch import Tensor

from cnnviz.explainers import Explainer, Scores, Target
from cnnviz.shared import seeded

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

    def disturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = NOISE * torch.randn_like(inputs)
        return noise, inputs - noise

    with seeded(seed, image.device), torch.no_grad():
        found = measured(
            Scores(ready.twin.module, target),
            disturbed,
            inputs,
            slopes,
            target=0,
            n_perturb_samples=SAMPLES,
            max_examples_per_batch=min(SAMPLES, ready.batch(image)),
        )
    return found.item()


def max_sensitivity(ready: Explainer, image: Tensor, explain: Callable[[Tensor], Tensor], seed: int = 0) -> float:
    """By what share of its size a map changes, at most, when the image moves a little (Yeh et al. 2019).

    Args:
        image: (1, C, H, W) in [0, 1].
        explain: gives the attributions of images (N, C, H, W) in [0, 1].
    """
    from captum.metrics import sensitivity_max

    def explained(inputs: tuple[Tensor]) -> Tensor:
        return explain((inputs[0] * ready.twin.std + ready.twin.mean).clamp(0, 1))

    with seeded(seed, image.device):
        found = sensitivity_max(
            explained,
            ready.normalised(image),
            perturb_radius=RADIUS,
            n_perturb_samples=NEIGHBOURS,
            max_examples_per_batch=1,
        )
    return found.item()
