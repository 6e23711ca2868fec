"""The gradient ascent loop.

`ascend` is a generator: whoever runs it breaks off, films and draws progress bars. It is the one place where a score
becomes a loss, and it never waits for the device.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from cnnviz.errors import CnnvizError, LayerError, ShapeError, translated
from cnnviz.isolation import exactly
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network, check_network
from cnnviz.synthesis.filter_objectives import objective_of
from cnnviz.synthesis.objectives import Objective, Score
from cnnviz.synthesis.optimisers import Adam, Optimiser
from cnnviz.synthesis.parametrisations import Parametrisation, PixelImage, Size, noise
from cnnviz.synthesis.transforms import Outside, is_turned, warp
from cnnviz.synthesis.views import Viewer


@dataclass(frozen=True)
class Step:
    """Where the ascent is.

    Attributes:
        number: counted from 0.
        scores: (N,), on the image's device: of the images as the network saw them, before this step moved them.
        image: moved by this step.
    """

    number: int
    scores: Tensor
    image: Parametrisation


@dataclass(frozen=True)
class Augmentation:
    """How the network looks at the images during optimization.

    Attributes:
        matrices: (steps, N * views, 2, 3), what `cnnviz.synthesis.transforms.draws` gives; None to look at them as they
            are.
        size: (height, width) to which images are enlarged on the way; their own by default.
        outside: what the network sees beyond an image's edge.
        views: how often each image is looked at in a step; its score is the mean.
        noise: deviation of the noise that is added, in units of the [0, 1] range, and
        seeds: of that noise, one per image.
    """

    matrices: Tensor | None = None
    size: Size | None = None
    outside: Outside = "reflection"
    views: int = 1
    noise: float = 0.0
    seeds: Sequence[int] = ()

    def at(self, step: int, images: Tensor) -> Tensor:
        """What of images (N, C, H, W) the network sees at a step: (N * views, C, height, width)."""
        seen = self._moved(step, images.repeat_interleave(self.views, 0) if self.views > 1 else images)
        if not self.noise:
            return seen
        grain = noise([seed + step for seed in self.seeds], (self.views, *seen.shape[1:])).flatten(0, 1)
        return seen + self.noise * grain.to(seen)

    def _moved(self, step: int, images: Tensor) -> Tensor:
        if self.matrices is not None:
            return warp(images, self.matrices[step], self.size, self.outside, turned=self.turned)
        if self.size in (None, tuple(images.shape[2:])):
            return images
        still = torch.eye(2, 3, dtype=images.dtype, device=images.device)
        return warp(images, still.expand(len(images), 2, 3), self.size, turned=False)

    @cached_property
    def turned(self) -> bool:
        """Whether any of the matrices turns; asked once, for each question waits for a graphics card."""
        return self.matrices is not None and is_turned(self.matrices)

    def on(self, device: torch.device) -> "Augmentation":
        """The same with its matrices on a device."""
        matrices = None if self.matrices is None else self.matrices.to(device)
        return replace(self, matrices=matrices)


@exactly
@torch.inference_mode(False)  # gradients are what it is about, whatever mode the caller is in
def ascend(
    network: Network,
    objective: Objective | str | Score,
    image: Parametrisation | Tensor,
    *,
    steps: int = 256,
    rate: float = 0.05,
    falling: bool = False,
    optimiser: Callable[[Iterable[nn.Parameter]], Optimiser] = Adam,
    augmentation: Augmentation | None = None,
    rows: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    redirected_steps: int = 0,
) -> Iterator[Step]:
    """Maximise an objective by the gradient with respect to an image's parameters: a bare loop, one step at a time.

    Args:
        network: a `Network`, which stays as it is, without hooks; make one of a plain ``nn.Module`` by `cnnviz.wrap`.
        objective: as for `cnnviz.maximize`, also in words or as a plain function. In words it is for every image.
        image: images (N, C, H, W) in [0, 1], whose pixels move; the tensor itself stays as it is. Or one of
            `cnnviz.synthesis.parametrisations`, such as ``PixelImage`` or ``Fourier``, whose parameters move; it must
            be on the network's device.
        steps, rate: how many and how large, in the optimiser's own measure.
        falling: whether steps become smaller all the way, to nothing.
        optimiser: makes the optimiser of the parameters.
        augmentation: how the network looks at the images; as they are by default.
        rows: (N,), which of the objective's images these are; all of them in order by default.
        dtype: what the network computes in; bfloat16 for more speed at three digits. Images stay float32.
        redirected_steps: for how many steps at first ReLUs without any gradient let one through that opens them.

    Yields:
        After each step, where the ascent is: ``step.scores``, and ``step.image()``, the images (N, C, H, W).

    Raises:
        UnknownNameError, LayerError, ShapeError: if layers, channels or the image's size do not fit the network.

    Examples:
        >>> import cnnviz, torch
        >>> from cnnviz.synthesis.parametrisations import Fourier
        >>> network = cnnviz.load("vgg16-mini")
        >>> for step in cnnviz.ascend(network, "block3_conv1:5", torch.rand(1, 3, 64, 64), steps=8):
        ...     images, scores = step.image().detach(), step.scores
        >>> images.shape, scores.shape
        (torch.Size([1, 3, 64, 64]), torch.Size([1]))

        Of a spectrum, H x (W // 2 + 1) complex numbers for each channel, and with a function:

        >>> spectrum = Fourier(0.01 * torch.randn(1, 3, 64, 33, 2), size=(64, 64))
        >>> for step in cnnviz.ascend(network, lambda view: view["block3_conv1"][:, 5].mean((1, 2)), spectrum, steps=8):
        ...     images = step.image().detach()
    """
    check_network(network)
    image = _parametrised(network, image)
    objective = objective_of(network, objective, (image().shape[2], image().shape[3]))
    rows = torch.arange(objective.count or len(image())) if rows is None else rows
    if len(rows) != len(image()):
        raise ShapeError(f"the objective is for {len(rows)} images; these are {len(image())}.")
    augmentation = (augmentation or Augmentation()).on(network.device)
    seen = rows.repeat_interleave(augmentation.views)
    stepper = optimiser(image.parameters())
    viewer: Viewer | None = None
    for number in range(steps):
        augmented = augmentation.at(number, image())
        if viewer is None or number == redirected_steps:
            redirected = number < redirected_steps
            viewer = Viewer(network, objective.layers, augmented.detach(), dtype=dtype, redirected=redirected)
        scores = objective.score(viewer(augmented, seen)).view(len(rows), -1).mean(1)
        with translated(partial(_no_gradient, network)):
            (-scores.sum()).backward()  # type: ignore[no-untyped-call]
        stepper.step(rate * (1 - number / steps) if falling else rate)
        image.project()
        yield Step(number, scores.detach(), image)


def _parametrised(network: Network, image: object) -> Parametrisation:
    """Images that may be given as a tensor (N, C, H, W) in [0, 1].

    Raises:
        ShapeError: if they are neither, or do not fit the network.
    """
    if isinstance(image, Parametrisation):
        return image
    if not isinstance(image, Tensor):
        raise ShapeError(
            "an ascent takes images as a tensor (N, C, H, W) in [0, 1] or as a Parametrisation, not as an object of"
            f" type {type(image).__name__}."
        )
    return PixelImage(show(network, image).images)


def _no_gradient(network: Network, reason: str) -> CnnvizError:
    return LayerError(f"{network.name} gives no gradient ({reason}), so nothing can be maximised; look at its maps.")
