"""Numbers of cnnviz, computed once more by other means: by how much they deviate, as a Markdown table.

    OMP_NUM_THREADS=1 python tests/long_runs/deviations.py [WORD ...]

With words, only the rows whose name holds one of them. The other means are plain PyTorch, NumPy, SciPy and Pillow in
float64; vgg16-mini is built anew from its file. Random draws come from the same seeds; superpixels, maps whose order is
followed and randomized networks are taken as cnnviz makes them.

The size of a number that is an array is its largest absolute value. Deviations of more than 1e-4 of that are rounding
no more: the row has a reason, or the script ends with status 1. One reason is found by itself: of values that nearly
tie, at a max pool or at a ReLU's zero, rounding decides which counts, and single pixels differ. Then the number is
computed once more by hand, in the float32 that cnnviz computes in, and must agree.
"""

import os
import platform
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations
from math import ceil, factorial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import captum
import click
import numpy as np
import PIL
import scipy
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy import integrate, interpolate, ndimage, stats
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

import cnnviz
from cnnviz.attribution.evidence import SEED, randomized
from cnnviz.attribution.pointing_game import Example, pointing_game
from cnnviz.attribution.superpixels import superpixels
from cnnviz.galleries.excitation import Shard, excite

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "gallery" / "photos"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDING = 1e-4  # of a number's size
BATCH = 16
EVIDENT = ["input-x-gradient", "grad-cam"]
QUICK = 16  # steps of integrated gradients
Pair = tuple[Any, Any]  # what cnnviz says, and the same by other means
Numbers = Callable[["Case"], Iterator[Pair]]


# Networks and photographs


@dataclass(frozen=True)
class Case:
    """A network of cnnviz's, the same in float64 for normalised images, and a photograph."""

    network: cnnviz.Network
    plain: nn.Module
    layer: str
    layers: tuple[str, ...]
    photo: Path
    dtype: torch.dtype = torch.float64

    @cached_property
    def image(self) -> Tensor:
        """(1, 3, H, W) in [0, 1], float32, its short side at the network's size."""
        return fitted(self.photo, self.network.input_size[0])

    @cached_property
    def inputs(self) -> Tensor:
        return self.normalised(self.image)

    def normalised(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values, dtype=self.dtype).view(3, 1, 1) for values in (MEAN, STD))
        layout = torch.contiguous_format if self.dtype == torch.float64 else torch.channels_last
        return ((images.to(self.dtype) - mean) / std).contiguous(memory_format=layout)

    def in_float32(self) -> "Case":
        """The same in the numbers and the layout that cnnviz computes in: of what nearly ties, the same comes first."""
        plain = deepcopy(self.plain).float().to(memory_format=torch.channels_last)
        return replace(self, plain=plain, dtype=torch.float32)

    @cached_property
    def index(self) -> int:
        with torch.no_grad():
            return int(self.plain(self.inputs).argmax())

    def attributed(self, method: str, **options: Any) -> Tensor:
        return cnnviz.attribute(self.network, self.image, self.index, method=method, **options).double()


def vgg16_mini() -> nn.Sequential:
    features: list[nn.Module] = []
    before = 3
    for convolutions, width in ((2, 16), (2, 32), (3, 64), (3, 192), (3, 192)):
        for _ in range(convolutions):
            features += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        features.append(nn.MaxPool2d(2))
    parts = OrderedDict(features=nn.Sequential(*features), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    module = nn.Sequential(parts)
    module.add_module("linear", nn.Linear(before, 200))
    weights = load_file(ROOT / "cnnviz" / "models" / "vgg16-mini.safetensors")
    module.load_state_dict({name.removeprefix("classifier."): tensor for name, tensor in weights.items()})
    return module.double().eval()


def residual() -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = resnet18(num_classes=10)
    return module.eval()


@cache
def networks() -> dict[str, tuple[cnnviz.Network, nn.Module, str, tuple[str, ...]]]:
    other = residual()
    wrapped = cnnviz.wrap(other, name="resnet18", input_size=64, mean=MEAN, std=STD, outputs="logits")
    plain = deepcopy(other).double()
    for part in plain.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    return {
        "vgg16-mini": (
            cnnviz.load("vgg16-mini"),
            vgg16_mini(),
            "features.29",
            ("features.0", "features.14", "features.30"),
        ),
        "resnet18": (wrapped, plain, "layer4", ("conv1", "layer2.0.conv1", "layer4")),
    }


def cases(name: str) -> list[Case]:
    return [Case(*networks()[name], PHOTOS / photo) for photo in ("cat.jpg", "coffee.jpg")]


def fitted(photo: Path, side: int, *, crop: bool = False) -> Tensor:
    """The whole photograph, its short side at `side`; or the square in its middle."""
    image = Image.open(photo).convert("RGB")
    factor = side / min(image.size)
    rounded = int if crop else round  # torchvision cuts the long side off, cnnviz rounds it
    width, height = (max(side, rounded(length * factor)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    if crop:
        left, top = round((width - side) / 2), round((height - side) / 2)
        image = image.crop((left, top, left + side, top + side))
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)[None].contiguous()


# Plain means


def scores_of(module: nn.Module, inputs: Tensor, index: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([module(part)[:, index] for part in inputs.split(BATCH)])


def probability_of(case: Case, images: Tensor, index: int) -> Tensor:
    with torch.no_grad():
        logits = torch.cat([case.plain(case.normalised(part)) for part in images.split(BATCH)])
    powers = (logits - logits.amax(1, keepdim=True)).exp()
    return powers[:, index] / powers.sum(1)


def gradient_of(module: nn.Module, inputs: Tensor, index: int) -> Tensor:
    parts = []
    for part in inputs.split(BATCH):
        given = part.clone().requires_grad_()
        parts.append(torch.autograd.grad(module(given)[:, index].sum(), given)[0])
    return torch.cat(parts)


def maps_of(module: nn.Module, layer: str, inputs: Tensor, index: int = 0) -> tuple[Tensor, Tensor]:
    """A layer's maps, and the gradients of a score with respect to them."""
    kept: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda *given: kept.append(given[2]))
    score = module(inputs.clone().requires_grad_())[:, index].sum()
    handle.remove()
    return kept[0].detach(), torch.autograd.grad(score, kept[0])[0]


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Linearly, by two matrices."""
    rows, columns = (stretching(short, long) for short, long in zip(maps.shape[2:], size, strict=True))
    return torch.einsum("yh,nchw,xw->ncyx", rows, maps.double(), columns)


def stretching(short: int, long: int) -> Tensor:
    places = np.clip((np.arange(long) + 0.5) * short / long - 0.5, 0, short - 1)
    return torch.from_numpy(np.maximum(0, 1 - np.abs(places[:, None] - np.arange(short))))


def gauss(steps: int) -> tuple[Tensor, Tensor]:
    """Places and weights of Gauss and Legendre's rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((nodes + 1) / 2).view(-1, 1, 1, 1), torch.from_numpy(weights / 2).view(-1, 1, 1, 1)


def integrated(case: Case, steps: int) -> Tensor:
    places, weights = (values.to(case.dtype) for values in gauss(steps))
    total = torch.zeros_like(case.inputs)
    for place, weight in zip(places.split(BATCH), weights.split(BATCH), strict=True):
        total += (weight * gradient_of(case.plain, place * case.inputs, case.index)).sum(0)
    return total * case.inputs


class Rectified(torch.autograd.Function):
    """A ReLU whose gradient passes only where it is positive; in `guided`, only where its input is too."""

    guided = True

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return values.clamp(min=0)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        open_ = context.saved_tensors[0] > 0 if Rectified.guided else 1
        return gradients[0].clamp(min=0) * open_


class RectifiedLayer(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        output: Tensor = Rectified.apply(values)
        return output


def rectified_gradient(case: Case, *, guided: bool) -> Tensor:
    Rectified.guided = guided
    module = deepcopy(case.plain)
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.ReLU):
            module.set_submodule(name, RectifiedLayer())
    return gradient_of(module, case.inputs, case.index)


def ones_network(module: nn.Module) -> nn.Module:
    """The same windows over one channel: means everywhere, nothing that closes."""
    module = deepcopy(module)
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.Conv2d):
            windows: tuple[Any, ...] = part.kernel_size, part.stride, part.padding
            mean = nn.Conv2d(1, 1, *windows, bias=False)
            nn.init.constant_(mean.weight, 1 / mean.weight.numel())
            module.set_submodule(name, mean.double())
        elif isinstance(part, nn.MaxPool2d):
            module.set_submodule(name, nn.AvgPool2d(part.kernel_size, part.stride, part.padding))
        elif isinstance(part, nn.ReLU | nn.BatchNorm2d | nn.Linear):
            module.set_submodule(name, nn.Identity())
    return module


def output_of(module: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda *given: kept.append(given[2]))
    module(inputs)
    handle.remove()
    return kept[0]


def changed(case: Case, rank: Any, counts: Any, before: Tensor, after: Tensor) -> np.ndarray[Any, Any]:
    """Probabilities while pixels of an image become those of another, as many as `counts`, in the order of `rank`."""
    places = torch.from_numpy(np.asarray(rank)).view(1, 1, *before.shape[2:])
    states = torch.cat([torch.where(places < int(count), after, before) for count in counts])
    return probability_of(case, states, case.index).numpy()


def ranks_of(order: Any) -> np.ndarray[Any, Any]:
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


def areas(case: Case, heat: np.ndarray[Any, Any], start: Tensor) -> tuple[float, float]:
    """Deletion and insertion in 64 steps, removed pixels at the mean colour, inserted ones into `start`."""
    rank = ranks_of(np.argsort(-heat.ravel(), kind="stable"))
    counts = np.rint((1 - np.cos(np.pi * np.arange(65) / 64)) / 2 * heat.size)
    bare = mean_colour(case.image)
    deletion = changed(case, rank, counts, case.image, bare)
    insertion = changed(case, rank, counts, start, case.image)
    return tuple(float(np.trapezoid(curve, counts / heat.size)) for curve in (deletion, insertion))  # type: ignore[return-value]


def mean_colour(image: Tensor) -> Tensor:
    return torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(image)


@cache
def explained(name: str, photo: Path, *, precise: bool = True) -> cnnviz.Explanation:
    network = networks()[name][0]
    checks = ("curves", "infidelity", "sensitivity", "sanity") if precise else ("curves",)
    return cnnviz.explain(network, photo, methods=EVIDENT, precise=precise, checks=checks, layer=networks()[name][2])


def explanation_of(case: Case, *, precise: bool = True) -> dict[str, Any]:
    made = explained(case.network.name, case.photo, precise=precise)
    return {attribution.method: attribution for attribution in made.attributions}


# Numbers


def preprocessing(case: Case) -> Iterator[Pair]:
    from cnnviz.networks.inputs import show

    side = case.network.input_size[0]
    yield show(case.network, case.photo).images, case.image
    yield show(case.network, case.photo, fit="crop").images, fitted(case.photo, side, crop=True)


def probabilities(case: Case) -> Iterator[Pair]:
    predictions = cnnviz.predict(case.network, case.photo, top=1000)
    image = fitted(case.photo, case.network.input_size[0], crop=True)
    for prediction in predictions[:10]:
        yield prediction.probability, probability_of(case, image, prediction.index)


def logits(case: Case) -> Iterator[Pair]:
    predictions = sorted(cnnviz.predict(case.network, case.photo, top=1000, fit="whole"), key=lambda own: own.index)
    with torch.no_grad():
        yield [prediction.score for prediction in predictions], case.plain(case.inputs)[0]


def feature_maps(case: Case) -> Iterator[Pair]:
    for layer in case.layers:
        yield cnnviz.feature_maps(case.network, case.photo, layer).maps, maps_of(case.plain, layer, case.inputs)[0]


def gradient(case: Case) -> Iterator[Pair]:
    yield case.attributed("saliency"), gradient_of(case.plain, case.inputs, case.index)


def input_x_gradient(case: Case) -> Iterator[Pair]:
    yield case.attributed("input-x-gradient"), case.inputs * gradient_of(case.plain, case.inputs, case.index)


def integrated_gradients(case: Case) -> Iterator[Pair]:
    yield case.attributed("integrated-gradients", steps=20), integrated(case, 20)


def integrated_gradients_limit(case: Case) -> Iterator[Pair]:
    yield case.attributed("integrated-gradients", steps=50).sum(1), integrated(case, 120).sum(1)


def noisy_gradients(case: Case) -> Iterator[Pair]:
    noise = noise_of(case, 0.15)
    gradients = gradient_of(case.plain, case.inputs + noise, case.index)
    options: dict[str, Any] = {"samples": 8, "batch": 1, "seed": 3}
    yield case.attributed("smoothgrad", **options)[0], gradients.mean(0)
    yield case.attributed("smoothgrad-squared", **options)[0], gradients.square().mean(0)
    yield case.attributed("vargrad", **options)[0], gradients.var(0, correction=0)


def noise_of(case: Case, share: float) -> Tensor:
    """As 8 samples are drawn, one after the other; the deviation is a share of the image's range."""
    span = (case.inputs.max() - case.inputs.min()).item()
    torch.manual_seed(3)
    return torch.cat([torch.randn(case.inputs.shape) for _ in range(8)]).to(case.dtype) * (share * span)


def gradient_shap(case: Case) -> Iterator[Pair]:
    noise = noise_of(case, 0.1)
    shares = torch.from_numpy(np.random.RandomState(3).uniform(size=8)).to(case.dtype).view(-1, 1, 1, 1)
    moved = case.inputs + noise
    expected = (moved * gradient_of(case.plain, shares * moved, case.index)).mean(0)
    yield case.attributed("gradient-shap", samples=8, batch=1, seed=3)[0], expected


def guided_backprop(case: Case) -> Iterator[Pair]:
    yield case.attributed("guided-backprop"), rectified_gradient(case, guided=True)


def deconvolution(case: Case) -> Iterator[Pair]:
    yield case.attributed("deconvolution"), rectified_gradient(case, guided=False)


def grad_cam_of(case: Case) -> Tensor:
    maps, gradients = maps_of(case.plain, case.layer, case.inputs, case.index)
    return (gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).clamp(min=0)


def grad_cam(case: Case) -> Iterator[Pair]:
    yield case.attributed("grad-cam", layer=case.layer), grad_cam_of(case)


def grad_cam_plus_plus(case: Case) -> Iterator[Pair]:
    maps, g = (values.double().numpy()[0] for values in maps_of(case.plain, case.layer, case.inputs, case.index))
    denominators = 2 * g**2 + maps.sum((1, 2), keepdims=True) * g**3
    alphas = np.divide(g**2, denominators, out=np.zeros_like(g), where=denominators != 0)
    weights = (alphas * np.maximum(g, 0)).sum((1, 2))
    yield case.attributed("grad-cam++", layer=case.layer)[0, 0], np.maximum(np.tensordot(weights, maps, 1), 0)


def layer_cam(case: Case) -> Iterator[Pair]:
    maps, g = (values.double().numpy()[0] for values in maps_of(case.plain, case.layer, case.inputs, case.index))
    yield case.attributed("layer-cam", layer=case.layer)[0, 0], np.maximum((np.maximum(g, 0) * maps).sum(0), 0)


def score_cam(case: Case) -> Iterator[Pair]:
    maps = maps_of(case.plain, case.layers[1], case.inputs)[0]
    height, width = case.inputs.shape[2:]
    masks = enlarged(maps, (height, width))[0, :, None]
    low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    masks = torch.where(high > low, (masks - low) / (high - low), 0)
    gains = torch.cat([scores_of(case.plain, mask * case.inputs, case.index) for mask in masks.split(BATCH)])
    powers = (gains - gains.max()).exp()
    expected = torch.einsum("c,nchw->nhw", powers / powers.sum(), maps).clamp(min=0)
    yield case.attributed("score-cam", layer=case.layers[1])[0], expected


def eigen_cam(case: Case) -> Iterator[Pair]:
    values = maps_of(case.plain, case.layer, case.inputs)[0].numpy()[0]
    flat = values.reshape(len(values), -1)
    direction = np.linalg.eigh(np.cov(flat, bias=True))[1][:, -1]
    direction *= np.sign(direction @ flat.mean(1))
    projected = direction @ (flat - flat.mean(1, keepdims=True))
    expected = np.maximum(projected, 0).reshape(values.shape[1:])
    yield case.attributed("eigen-cam", layer=case.layer)[0, 0], expected


def guided_grad_cam(case: Case) -> Iterator[Pair]:
    height, width = case.inputs.shape[2:]
    expected = enlarged(grad_cam_of(case), (height, width)) * rectified_gradient(case, guided=True)
    yield case.attributed("guided-grad-cam", layer=case.layer), expected


def gradient_x_activation(case: Case) -> Iterator[Pair]:
    maps, gradients = maps_of(case.plain, case.layer, case.inputs, case.index)
    yield case.attributed("gradient-x-activation", layer=case.layer), (maps * gradients).sum(1, keepdim=True)


def conductance_of(case: Case, places: Tensor) -> Tensor:
    points = places.to(case.dtype).split(BATCH)
    parts = [maps_of(case.plain, case.layer, point * case.inputs, case.index) for point in points]
    maps, gradients = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return (gradients[:-1] * (maps[1:] - maps[:-1])).sum((0, 1))


def conductance(case: Case) -> Iterator[Pair]:
    yield case.attributed("conductance", layer=case.layer, steps=20)[0, 0], conductance_of(case, gauss(21)[0])


def conductance_limit(case: Case) -> Iterator[Pair]:
    places = torch.linspace(0, 1, 200, dtype=torch.float64).view(-1, 1, 1, 1)
    yield case.attributed("conductance", layer=case.layer)[0, 0], conductance_of(case, places)


def deeplift(case: Case) -> Iterator[Pair]:
    features: Any = case.plain.get_submodule("features")
    linear: Any = case.plain.get_submodule("linear")
    states = [torch.cat([case.inputs, torch.zeros_like(case.inputs)])]
    with torch.no_grad():
        for part in features:
            states.append(part(states[-1]))
        positions = states[-1].shape[2] * states[-1].shape[3]
        slopes = (linear.weight[case.index] / positions).view(1, -1, 1, 1).expand_as(states[-1][:1])
        for part, (own, reference) in zip(reversed(features), (pair.split(1) for pair in states[-2::-1]), strict=True):
            difference = own - reference
            if isinstance(part, nn.Conv2d):
                slopes = functional.conv_transpose2d(slopes, part.weight, padding=1)
            elif isinstance(part, nn.ReLU):
                slopes = slopes * torch.where(
                    difference == 0, 0, (own.clamp(min=0) - reference.clamp(min=0)) / difference
                )
            else:
                slopes = torch.where(difference == 0, 0, pooled_contributions(own, reference, slopes) / difference)
    yield case.attributed("deeplift"), slopes * case.inputs


def pooled_contributions(own: Tensor, reference: Tensor, slopes: Tensor) -> Tensor:
    """By windows of 2 x 2: from the reference's maximum to the higher of both at the image's place, and back."""
    windows = [
        values.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).transpose(3, 4).flatten(4) for values in (own, reference)
    ]
    (most, place), (least, other) = (values.max(4) for values in windows)
    higher = torch.maximum(most, least)
    shares = torch.zeros_like(windows[0])
    shares.scatter_add_(4, place[..., None], (slopes * (higher - least))[..., None])
    shares.scatter_add_(4, other[..., None], (slopes * (most - higher))[..., None])
    return shares.unflatten(4, (2, 2)).transpose(3, 4).flatten(4, 5).flatten(2, 3)


def deeplift_sum(case: Case) -> Iterator[Pair]:
    own, bare = scores_of(case.plain, torch.cat([case.inputs, torch.zeros_like(case.inputs)]), case.index)
    yield case.attributed("deeplift").sum(), own - bare


def lrp(case: Case) -> Iterator[Pair]:
    yield case.attributed("lrp"), case.inputs * gradient_of(case.plain, case.inputs, case.index)


def occlusion(case: Case) -> Iterator[Pair]:
    window, stride = 24, 16
    height, width = case.inputs.shape[2:]
    total, cover = torch.zeros(height, width, dtype=torch.float64), torch.zeros(height, width)
    whole = scores_of(case.plain, case.inputs, case.index)
    for top in range(0, ceil((height - window) / stride) * stride + 1, stride):
        for left in range(0, ceil((width - window) / stride) * stride + 1, stride):
            part = slice(top, top + window), slice(left, left + window)
            hidden = case.inputs.clone()
            hidden[..., part[0], part[1]] = 0
            total[part] += (whole - scores_of(case.plain, hidden, case.index)).item()
            cover[part] += 1
    yield case.attributed("occlusion", window=window, stride=stride)[0], (total / cover).expand(3, -1, -1)


def patches(case: Case) -> Iterator[Pair]:
    """The share of pixels with another label."""
    image = case.image[0].double()
    height, width = image.shape[1:]
    columns = round((50 * width / height) ** 0.5)
    rows = round(50 / columns)
    side = (height * width / (rows * columns)) ** 0.5
    y, x = np.mgrid[:height, :width] / side
    points = np.stack([y, x, *(2 * image.numpy())]).reshape(5, -1).T
    starts = [
        int((row + 0.5) / rows * height) * width + int((column + 0.5) / columns * width)
        for row in range(rows)
        for column in range(columns)
    ]
    centres = points[starts]
    for turn in range(9):
        labels = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
        if turn < 8:
            centres = np.stack([points[labels == number].mean(0) for number in range(len(centres))])
    found = superpixels(case.image[0], 50).numpy().ravel()
    yield 1 - (found != labels).mean(), 1


def feature_ablation(case: Case) -> Iterator[Pair]:
    labels = superpixels(case.image[0], 50)
    whole = scores_of(case.plain, case.inputs, case.index)
    expected = torch.zeros_like(case.inputs)
    for number in labels.unique():
        hidden = torch.where(labels == number, 0, case.inputs)
        expected[..., labels == number] = whole - scores_of(case.plain, hidden, case.index)
    yield case.attributed("feature-ablation"), expected


def kernel_shap(case: Case) -> Iterator[Pair]:
    labels = superpixels(case.image[0], 6)
    count = int(labels.max()) + 1
    players = range(count)
    sets = [frozenset(some) for size in range(count + 1) for some in combinations(players, size)]
    kept = torch.stack([torch.isin(labels, torch.tensor(sorted(some), dtype=torch.long)) for some in sets])
    values = dict(zip(sets, scores_of(case.plain, kept[:, None] * case.inputs, case.index).tolist(), strict=True))
    shapley = [
        sum(
            factorial(len(some))
            * factorial(count - len(some) - 1)
            / factorial(count)
            * (values[some | {own}] - values[some])
            for some in sets
            if own not in some
        )
        for own in players
    ]
    found = case.attributed("kernel-shap", patches=6, samples=500)[0, 0]
    yield [found[labels == own][0].item() for own in players], shapley


def heat_maps(case: Case) -> Iterator[Pair]:
    attributions = explanation_of(case)
    height, width = case.inputs.shape[2:]
    g = gradient_of(case.plain, case.inputs, case.index)
    yield attributions["input-x-gradient"].heat, (case.inputs * g).sum((0, 1))
    yield attributions["grad-cam"].heat, enlarged(grad_cam_of(case), (height, width))[0, 0]


def deletion_insertion(case: Case) -> Iterator[Pair]:
    for attribution in explanation_of(case).values():
        curves = attribution.evidence.curves
        yield (
            (curves.deletion_auc, curves.insertion_auc),
            areas(case, attribution.heat.numpy(), mean_colour(case.image)),
        )


def rise(case: Case) -> Iterator[Pair]:
    made = cnnviz.explain(case.network, case.photo, methods="input-x-gradient", precise=True, checks=["rise"])
    sigma = 0.1 * min(case.image.shape[2:])
    options: dict[str, Any] = {"mode": "mirror", "radius": round(3 * sigma), "axes": (2, 3)}
    blurred = torch.from_numpy(ndimage.gaussian_filter(case.image.double().numpy(), sigma, **options))
    own = made.attributions[0]
    assert own.evidence.curves is not None
    expected = areas(case, own.heat.numpy(), blurred)
    yield (own.evidence.curves.deletion_auc, own.evidence.curves.insertion_auc), expected


def quick_areas(case: Case) -> Iterator[Pair]:
    quick = explanation_of(case, precise=False)
    for name, attribution in explanation_of(case).items():
        own, other = quick[name].evidence.curves, attribution.evidence.curves
        yield 1 + own.deletion_auc - other.deletion_auc, 1
        yield 1 + own.insertion_auc - other.insertion_auc, 1


def random_curves(case: Case, steps: int) -> Iterator[tuple[Any, Any]]:
    height, width = case.image.shape[2:]
    draws = torch.Generator().manual_seed(0)
    counts = np.unique(np.rint((np.arange(steps + 1) / steps) ** 3 * height * width))
    for _ in range(10):
        rank = torch.randperm(height * width, generator=draws).numpy()
        yield counts / (height * width), changed(case, rank, counts, case.image, mean_colour(case.image))


def random_orders(case: Case) -> Iterator[Pair]:
    under = []
    for shares, curve in random_curves(case, 16):
        smooth = interpolate.PchipInterpolator(np.cbrt(shares), curve)
        under.append(integrate.quad(lambda u, smooth=smooth: smooth(u) * 3 * u**2, 0, 1, limit=200)[0])
    found = explanation_of(case)["grad-cam"].evidence.reference
    yield (found.random[0], found.random[1]), [np.mean(under)] * 2
    yield (found.spread[0], found.spread[1]), [np.std(under, ddof=1)] * 2


def random_orders_limit(case: Case) -> Iterator[Pair]:
    under = [np.trapezoid(curve, shares) for shares, curve in random_curves(case, 32)]
    yield explanation_of(case)["grad-cam"].evidence.reference.random[0], np.mean(under)


def centre_first(case: Case) -> Iterator[Pair]:
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in case.image.shape[2:])
    expected = areas(case, -(y[:, None] ** 2 + x**2), mean_colour(case.image))
    yield explanation_of(case)["grad-cam"].evidence.reference.centre, expected


def completeness(case: Case) -> Iterator[Pair]:
    own, bare = scores_of(case.plain, torch.cat([case.inputs, torch.zeros_like(case.inputs)]), case.index)
    gap = abs(integrated(case, QUICK).sum() - (own - bare)) / abs(own - bare)
    made = cnnviz.explain(case.network, case.photo, methods="integrated-gradients", steps=QUICK, checks=[])
    yield 1 + made.attributions[0].evidence.gap, 1 + gap  # it is a share of the difference already


def infidelity(case: Case) -> Iterator[Pair]:
    draws = torch.Generator().manual_seed(SEED)
    noise = 0.1 * torch.cat([torch.empty(case.inputs.shape).normal_(generator=draws) for _ in range(20)]).double()
    slopes = gradient_of(case.plain, case.inputs, case.index)
    own = scores_of(case.plain, case.inputs, case.index)
    lost = own - scores_of(case.plain, case.inputs - noise, case.index)
    expected = ((noise * slopes).flatten(1).sum(1) - lost).square().mean()
    yield explanation_of(case)["input-x-gradient"].evidence.infidelity, expected


def max_sensitivity(case: Case) -> Iterator[Pair]:
    draws = torch.Generator().manual_seed(SEED)
    moves = [torch.empty(case.inputs.shape).uniform_(-0.02, 0.02, generator=draws).to(case.dtype) for _ in range(10)]
    mean, std = (torch.tensor(values, dtype=case.dtype).view(3, 1, 1) for values in (MEAN, STD))
    near = case.normalised(((case.inputs + torch.cat(moves)) * std + mean).clamp(0, 1))
    own, others = (given * gradient_of(case.plain, given, case.index) for given in (case.inputs, near))
    expected = ((others - own).flatten(1).norm(dim=1) / own.norm()).max()
    yield explanation_of(case)["input-x-gradient"].evidence.sensitivity, expected


def rank_correlation(case: Case) -> Iterator[Pair]:
    own = (case.inputs * gradient_of(case.plain, case.inputs, case.index)).sum((0, 1)).abs()
    found = explanation_of(case)["input-x-gradient"].evidence.sanity
    for layer, torn in randomized(case.network, 0):
        shuffled = replace(case, plain=deepcopy(torn.module).double())
        module = (shuffled if case.dtype == torch.float64 else shuffled.in_float32()).plain
        other = (case.inputs * gradient_of(module, case.inputs, case.index)).sum((0, 1)).abs()
        if other.max() - other.min() > 1e-6 * other.max():  # else cnnviz draws again
            yield found[layer], stats.spearmanr(own.flatten(), other.flatten()).statistic


def filter_score(case: Case) -> Iterator[Pair]:
    layer, side = "features.8", 64
    made = cnnviz.filter_images(case.network, "block2_conv2", [0, 5], size=side, preset="draft")
    means = output_of(ones_network(case.plain), layer, torch.ones(1, 1, side, side, dtype=torch.float64))[0, 0]
    inside = (means / means.max() - 1).abs() < 1e-9
    assert inside.double().mean() >= 0.5
    for number, own in zip([0, 5], made.synthesized, strict=True):
        shown = (own.image.double().clamp(0, 1) * 255).round() / 255
        maps = maps_of(case.plain, layer, case.normalised(shown[None]))[0][0, number]
        yield own.judgement.score, maps[inside].mean()


def excitation(case: Case) -> Iterator[Pair]:
    files = sorted(PHOTOS.glob("*.jpg"))
    shard = Shard(0, tuple((path.name, path.read_bytes()) for path in files))
    tally = excite(case.network, ["block3_conv3"], 3, shard).tallies["block3_conv3"]
    images = torch.cat([fitted(path, case.network.input_size[0], crop=True) for path in files])
    maps = maps_of(case.plain, "features.15", case.normalised(images))[0].flatten(2).numpy()
    best = maps.max(2).T
    ordered = np.sort(best, 1)[:, :-4:-1]
    yield np.maximum(tally.values.numpy(), 0), ordered
    fired = tally.values.numpy() > 0
    assert (tally.pictures.numpy() == np.argsort(-best, 1, kind="stable")[:, :3])[fired].all()
    tops = 2.0 ** tally.powers.numpy()
    assert (best.max(1) < tops).all()
    counts = [np.histogram(row, bins=64, range=(0, top))[0] for row, top in zip(best, tops, strict=True)]
    yield tally.counts.numpy(), np.stack(counts)


def receptive_fields(case: Case) -> Iterator[Pair]:
    module, side = ones_network(case.plain), 640
    names = [name for name, part in case.plain.named_modules() if isinstance(part, nn.Conv2d | nn.MaxPool2d)]
    rows = {row.name: row for row in cnnviz.layer_table(case.network)}
    for name in names:
        given = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
        output = output_of(module, name, given)
        middle = output.shape[2] // 2
        spans = []
        for place in (middle, middle + 1):
            (gradient_,) = torch.autograd.grad(output[0, 0, place, place], given, retain_graph=True)
            reached = gradient_[0, 0].sum(1).nonzero()
            spans.append((int(reached.min()), int(reached.max()) + 1))
        step = spans[1][0] - spans[0][0]
        row = rows[name]
        assert row.receptive_field
        assert row.step
        assert row.start
        yield (
            (row.receptive_field[0], row.step[0], row.start[0]),
            (spans[0][1] - spans[0][0], step, spans[0][0] - step * middle),
        )


def parameters(case: Case) -> Iterator[Pair]:
    for row in cnnviz.layer_table(case.network):
        name = row.name.replace("classifier.", "")
        part = case.plain.get_submodule("pool" if name == "avgpool" and hasattr(case.plain, "pool") else name)
        expected = 0
        if isinstance(part, nn.Conv2d):
            depth = part.in_channels * part.kernel_size[0] * part.kernel_size[1]
            expected = part.out_channels * (depth + (part.bias is not None))
        elif isinstance(part, nn.BatchNorm2d):
            expected = 2 * part.num_features
        elif isinstance(part, nn.Linear):
            expected = part.out_features * (part.in_features + 1)
        yield row.parameters, expected


def pointing(case: Case) -> Iterator[Pair]:
    side = case.network.input_size[0]
    paths = [PHOTOS / f"{name}.jpg" for name in ("cat", "coffee", "camera", "brick")]
    images = [fitted(path, side, crop=True) for path in paths]
    classes = [int(case.plain(case.normalised(image)).argmax()) for image in images]
    grid = tuple(Example(path, image, index, 1) for path, image, index in zip(paths, images, classes, strict=True))
    found = pointing_game(case.network, [grid, grid], ["saliency", "input-x-gradient"])
    whole = torch.cat([torch.cat(images[:2], 3), torch.cat(images[2:], 3)], 2)
    for asked in (0, 1):
        gradient_ = gradient_of(case.plain, case.normalised(whole), classes[asked])[0]
        sizes = gradient_.abs().amax(0), (gradient_ * case.normalised(whole)[0]).sum(0).clamp(min=0)
        for method, positive in zip(found, sizes, strict=True):
            own = positive[:side, asked * side : (asked + 1) * side]
            yield found[method][asked], own.sum() / positive.sum()


@dataclass(frozen=True)
class Row:
    """A number, how else it is computed, for which networks; why it may deviate; photographs shown to vgg16-mini."""

    number: str
    means: str
    numbers: Numbers
    networks: tuple[str, ...] = ("vgg16-mini", "resnet18")
    reason: str = ""
    photos: int = 2


MINI = ("vgg16-mini",)
ROWS = [
    Row("images as networks see them, whole and cropped", "Pillow's resize and crop, by hand", preprocessing),
    Row("probabilities, the 10 highest", "softmax by hand of the float64 network", probabilities),
    Row("logits", "the float64 network", logits),
    Row("feature maps of 3 layers", "a forward hook on the float64 network", feature_maps),
    Row("gradient", "autograd in float64", gradient),
    Row("input x gradient", "autograd in float64", input_x_gradient),
    Row("integrated gradients, 20 steps", "a loop over 20 nodes of Gauss and Legendre", integrated_gradients),
    Row(
        "integrated gradients, per pixel",
        "120 nodes",
        integrated_gradients_limit,
        reason="50 steps against 120: the path bends at every ReLU",
        photos=1,
    ),
    Row("SmoothGrad, squared, VarGrad, 8 samples", "a loop over the same draws", noisy_gradients),
    Row("GradientSHAP, 8 samples", "a loop over the same draws", gradient_shap),
    Row("guided backpropagation", "a ReLU with a gradient of its own", guided_backprop, MINI),
    Row("deconvolution", "a ReLU with a gradient of its own", deconvolution, MINI),
    Row("Grad-CAM", "closed form", grad_cam),
    Row("Grad-CAM++", "closed form, NumPy", grad_cam_plus_plus),
    Row("Layer-CAM", "closed form, NumPy", layer_cam),
    Row("Score-CAM", "closed form, enlarged by matrices", score_cam, photos=1),
    Row("Eigen-CAM", "eigenvector of the covariance, NumPy", eigen_cam),
    Row("guided Grad-CAM", "product of both, enlarged by matrices", guided_grad_cam, MINI),
    Row("gradient x activation", "closed form", gradient_x_activation),
    Row("conductance, 20 steps", "a loop over the same steps", conductance),
    Row(
        "conductance, 50 steps",
        "199 equal steps",
        conductance_limit,
        ("resnet18",),
        reason="50 steps against 199: the path bends at every ReLU",
    ),
    Row("DeepLift", "the rescale rule layer by layer, by hand", deeplift, MINI),
    Row("DeepLift, sum", "difference of scores", deeplift_sum, MINI),
    Row("LRP, epsilon rule", "input x gradient, which it is on ReLU networks", lrp, MINI),
    Row("occlusion", "a loop over windows", occlusion, photos=1),
    Row("superpixels, share of equal labels", "k-means by hand, NumPy", patches, MINI),
    Row("ablation of superpixels", "a loop over them", feature_ablation, photos=1),
    Row(
        "KernelSHAP, 6 superpixels, 500 samples",
        "Shapley values over all sets",
        kernel_shap,
        ("resnet18",),
        photos=1,
        reason="sets are sampled",
    ),
    Row("maps: colours joined, layers enlarged", "sums; enlarged by matrices", heat_maps, photos=1),
    Row(
        "deletion and insertion AUC of 2 methods, precise",
        "64 steps by hand, NumPy's trapezoids",
        deletion_insertion,
        photos=1,
    ),
    Row("the same from the blurred image", "SciPy's Gaussian filter, 64 steps by hand", rise, MINI, photos=1),
    Row(
        "quick AUCs, deviation in probability",
        "the precise ones",
        quick_areas,
        reason="about 8 steps against 64",
        photos=1,
    ),
    Row("random orders: mean and spread", "the same orders, SciPy's quadrature", random_orders, photos=1),
    Row(
        "random orders: mean",
        "the same orders, trapezoids of 32 steps",
        random_orders_limit,
        MINI,
        reason="16 steps and a smooth curve against 32 straight ones",
        photos=1,
    ),
    Row("centre first", "64 steps by hand", centre_first, photos=1),
    Row("completeness gap, 16 steps, of the difference", "16 nodes in float64", completeness),
    Row("infidelity", "by hand, the same draws", infidelity, photos=1),
    Row("max-sensitivity", "by hand, the same draws", max_sensitivity, photos=1),
    Row(
        "rank correlation with randomized networks", "scipy.stats.spearmanr of float64 maps", rank_correlation, photos=1
    ),
    Row("a filter's score on its image", "mean of a hook's map where no padding reaches", filter_score, MINI),
    Row("natural examples: highest activations, histogram", "a hook's maps, numpy.histogram", excitation, MINI),
    Row("receptive field, step, start of each layer", "gradients of a network of means", receptive_fields),
    Row("parameters of each layer", "K (F F D + 1)", parameters),
    Row("pointing game, shares", "autograd in float64", pointing, MINI),
]


def deviation(pairs: Iterator[Pair]) -> tuple[float, float, float]:
    """The largest one, absolute and as a share of the number's size; and how many of the values deviate by more."""
    largest, beyond, count = [0.0, 0.0], 0, 0
    for pair in pairs:
        found, expected = (np.asarray(own.detach() if isinstance(own, Tensor) else own, dtype=float) for own in pair)
        assert found.size == expected.size, (found.shape, expected.shape)
        differences = np.abs(found.ravel() - expected.ravel())
        size = float(np.abs(expected).max()) or 1.0
        largest = [max(largest[0], float(differences.max())), max(largest[1], float(differences.max()) / size)]
        beyond, count = beyond + int((differences > ROUNDING * size).sum()), count + differences.size
    return largest[0], largest[1], beyond / count


def measured(row: Row, name: str) -> tuple[str, bool]:
    """A line of the table, and whether it has no explanation."""
    chosen = cases(name)[: row.photos if name in MINI else None]
    absolute, share, beyond = (max(own) for own in zip(*(deviation(row.numbers(case)) for case in chosen), strict=True))
    reason, explained = row.reason, share <= ROUNDING or bool(row.reason)
    if not explained:
        again = max(deviation(row.numbers(case.in_float32()))[1] for case in chosen)
        reason = f"near ties at ReLUs and pools, for {100 * beyond:.3g} % of the values; by hand in float32 {again:.0e}"
        explained = again <= ROUNDING
    means = f"{row.means} ({reason})" if reason else row.means
    mark = "" if explained else " **unexplained**"
    where = f"{name}, {chosen[0].photo.name}" if len(chosen) == 1 else name
    return f"| {row.number} | {where} | {means} | {absolute:.0e} | {share:.0e}{mark} |", not explained


def main(words: list[str]) -> int:
    torch.set_num_threads(1)
    versions = [("torch", torch), ("captum", captum), ("numpy", np), ("scipy", scipy), ("pillow", PIL)]
    numbers = ", ".join(f"{name} {module.__version__}" for name, module in versions)
    click.echo(f"Python {platform.python_version()}, {numbers}\n")
    click.echo("| number | network | computed independently by | largest deviation | as share of its size |")
    click.echo("|---|---|---|---|---|")
    unexplained = 0
    for row in ROWS:
        if words and not any(word in row.number for word in words):
            continue
        for name in row.networks:
            since = time.process_time()
            line, failed = measured(row, name)
            unexplained += failed
            click.echo(line)
            click.echo(f"{time.process_time() - since:.1f} s", err=True)
    click.echo(f"\n{time.process_time():.0f} s of processor time; {unexplained} unexplained")
    return min(unexplained, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
