"""Class activation maps beside Grad-CAM: what a layer's maps are worth, weighed in other ways; of several layers too.

`A` are the maps (1, C, H, W) of a layer, `g` the gradient of the score with respect to them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from cnnviz.attribution.cases import Case


def grad_cam_plus_plus(case: "Case") -> "Tensor":
    """relu(sum over channels of w A), w = sum over positions of g^2 / (2 g^2 + sum(A) g^3) relu(g)."""
    maps, gradients = _maps_and_gradients(case)
    squares = gradients.square()
    shares = 2 * squares + maps.sum((2, 3), keepdim=True) * gradients * squares
    alphas = (squares / shares.masked_fill(shares == 0, 1)).masked_fill(squares == 0, 0)
    weights = (alphas * gradients.relu()).sum((2, 3), keepdim=True)
    return (weights * maps).sum(1, keepdim=True).relu()


def layer_cam(case: "Case") -> "Tensor":
    """relu(sum over channels of relu(g) A): every position has a weight of its own."""
    maps, gradients = _maps_and_gradients(case)
    return (gradients.relu() * maps).sum(1, keepdim=True).relu()


def eigen_cam(case: "Case") -> "Tensor":
    """How far the channels of each position go along their first principal component; no class is asked for.

    Of the two directions it is the one in which the mean of the maps lies.
    """
    import torch

    maps = _maps(case)
    values = maps[0].flatten(1).T
    centred = values - values.mean(0)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    projected = centred @ direction * (values.mean(0) @ direction).sign()
    component: Tensor = projected.view(1, 1, *maps.shape[2:]).relu()
    return component


def score_cam(case: "Case") -> "Tensor":
    """relu(sum over channels of w A), w = softmax over channels of the score of what each map leaves of the image.

    What it does not leave is the baseline, whose own score is taken off; no gradients are asked for.
    """
    import torch
    from torch.nn import functional

    maps = _maps(case)
    size = case.inputs.shape[2:]
    masks = functional.interpolate(maps, size, mode="bilinear", align_corners=False)[0, :, None]
    low, high = masks.amin((1, 2, 3), keepdim=True), masks.amax((1, 2, 3), keepdim=True)
    masks = (masks - low) / (high - low).clamp(min=torch.finfo(masks.dtype).tiny)
    with torch.no_grad():
        seen = (case.baseline + mask * (case.inputs - case.baseline) for mask in torch.split(masks, case.batch))
        gains = torch.cat([case.model(images)[:, 0] for images in seen]) - case.model(case.baseline)[:, 0]
    weighed: Tensor = (gains.softmax(0).view(1, -1, 1, 1) * maps).sum(1, keepdim=True).relu()
    return weighed


def mean_over_layers(maps: "Sequence[Tensor]") -> "Tensor":
    """(N, 1, H, W): the mean of several layers' maps (N, 1, H', W'), without negative values, each over its maximum.

    They are enlarged linearly to as many rows and columns as the finest of them have. A map of zeros stays one. So
    pytorch-grad-cam (Gildenblat et al. 2021) does it, but that it also takes each map's minimum off.
    """
    import torch
    from torch.nn import functional

    size = max(values.shape[2] for values in maps), max(values.shape[3] for values in maps)
    scaled = (
        values.relu() / values.amax((2, 3), keepdim=True).clamp(min=torch.finfo(values.dtype).tiny) for values in maps
    )
    finest = [functional.interpolate(values, size, mode="bilinear", align_corners=False) for values in scaled]
    return torch.stack(finest).mean(0)


def _maps(case: "Case") -> "Tensor":
    return _maps_and_score(case)[0].detach()


def _maps_and_gradients(case: "Case") -> "tuple[Tensor, Tensor]":
    import torch

    maps, score = _maps_and_score(case)
    (gradients,) = torch.autograd.grad(score, maps)
    return maps.detach(), gradients


def _maps_and_score(case: "Case") -> "tuple[Tensor, Tensor]":
    """A layer's maps, and the score that comes of them."""
    kept: list[Tensor] = []

    def keep(_module: object, _given: object, output: "Tensor") -> "Tensor":
        kept.append(output)
        return output.clone()  # what follows may write into it

    assert case.layer is not None
    handle = case.layer.register_forward_hook(keep)
    try:
        score = case.model(case.inputs.clone().requires_grad_())
    finally:
        handle.remove()
    return kept[0], score.sum()
