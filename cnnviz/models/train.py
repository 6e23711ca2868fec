"""Train the embedded network: ``python -m cnnviz.models.train --data tiny-imagenet-200 --out runs/mini``.

A graphics card, where there is one, takes minutes. Stops may come at any time: the same command continues after the
last finished epoch, and draws what an uninterrupted run would have drawn. The folder ``--out`` holds
``checkpoint.pt``, ``log.jsonl`` (a line per epoch) and, at the end, ``vgg16-mini.safetensors``: the averaged weights,
batch norm and a temperature folded in, in half precision. ``--export`` makes that file of weights that are trained.

The recipe: one cycle of SGD with Nesterov momentum, label smoothing, random resized crops, flips and colour. Images
grow from stage to stage (`STAGES`), so that the early epochs are cheap and larger photographs still mean something to
the network at the end. The weights that are kept are an exponential moving average. Images and their changes stay on
the device, which the loop over the batches never waits for.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cnnviz.files import whole_file
from cnnviz.models.builtin import MEAN, NAME, SIDE, STD, VGGMini, folded, vgg16_mini, write_weights
from cnnviz.models.evaluate import fitted_temperature, share_right
from cnnviz.models.tiny_imagenet import class_names, read_split
from cnnviz.models.weights import fill
from cnnviz.networks.devices import fast_dtype


class Stage(NamedTuple):
    """Epochs with images of the same sides."""

    epochs: int
    until: float  # the share of the training's work that is done at the end
    sides: tuple[int, ...]  # in pixels; one of them is drawn for every batch


STAGES = (
    Stage(20, 0.20, (48, 64)),
    Stage(22, 0.45, (64, 80)),
    Stage(23, 0.70, (80, 96)),
    Stage(17, 0.93, (96, 112, 128)),
    Stage(5, 1.00, (96, 112, 128, 144, 160)),
)
SMALLEST_CROPS = ((0.0, 0.3), (0.6, 0.4), (0.85, 0.55))  # from a share of the work on, as a share of an image's area
PEAK, WARM_UP = 0.3, 0.04  # of the learning rate; the share of the work in which it rises
BATCH = 256
WEIGHT_DECAY = 2.5e-4
LABEL_SMOOTHING = 0.1
AVERAGING = 0.999
COLOUR = 0.3  # brightness, contrast and saturation change by up to this factor
console = Console(stderr=True)


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/mini"), show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--export",
    "trained",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Train nothing; export these weights, a checkpoint or any file of the network with batch norm.",
)
def main(data: Path, out: Path, seed: int, trained: Path | None) -> None:
    """Train vgg16-mini on the Tiny ImageNet folder DATA, or go on where a stopped run left off, and export it."""
    out.mkdir(parents=True, exist_ok=True)
    if trained is None:
        network = _trained(data, Run(out, seed))
    else:
        network = vgg16_mini(batch_norm=True)
        fill(network, trained, NAME)
    export(network, *read_split(data, "val", _say_read), class_names(data), out / "vgg16-mini.safetensors")


def export(trained: VGGMini, pictures: Tensor, classes: Tensor, labels: Mapping[str, str], path: Path) -> None:
    """Write the network as it is shipped: batch norm and temperature folded in, in half precision.

    The temperature is fitted on the validation images (one number for all of them, which moves no class to the top).
    """
    exact = logits_of(trained, pictures, SIDE)
    network = folded(trained.eval())
    temperature = fitted_temperature(exact, classes)
    network.divide_logits(temperature)
    shipped = logits_of(network.half().float(), pictures, SIDE)
    before, after = (100 * share_right(logits, classes) for logits in (exact, shipped))
    write_weights(path, network, labels, after)
    console.print(f"wrote {path}: {after:.2f} % right at {SIDE} px ({before:.2f} % as trained)")
    console.print(f"temperature {temperature:.2f}")


def share_done(epochs: float) -> float:
    """Share of the training's work that is done after so many epochs: those with larger images count for more."""
    ends = accumulate((stage.epochs for stage in STAGES), initial=0)
    return float(np.interp(epochs, list(ends), [0, *(stage.until for stage in STAGES)]))


def sides_at(share: float) -> tuple[int, ...]:
    """The sides of images, in pixels, once a share of the work, in [0, 1), is done."""
    return next(stage.sides for stage in STAGES if share < stage.until)


def smallest_crop_at(share: float) -> float:
    """The smallest crop, as a share of the image's area, once a share of the work is done."""
    return max(crop for start, crop in SMALLEST_CROPS if start <= share)


def rate_at(share: float) -> float:
    """The learning rate once a share of the work is done: up in a line, then down half a cosine."""
    if share < WARM_UP:
        return PEAK * (0.04 + 0.96 * share / WARM_UP)
    return PEAK * 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))


class Run:
    """What a checkpoint holds: the network, its average, the optimiser and the number of finished epochs."""

    def __init__(self, out: Path, seed: int) -> None:
        torch.manual_seed(seed)
        self.out, self.seed, self.epoch = out, seed, 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.fast = fast_dtype(self.device) == torch.bfloat16
        self.network = vgg16_mini(batch_norm=True).to(self.device).to(memory_format=torch.channels_last)
        self.average = deepcopy(self.network)
        self.optimiser = torch.optim.SGD(_groups(self.network), momentum=0.9, nesterov=True)
        self.blend = get_ema_multi_avg_fn(AVERAGING)  # type: ignore[no-untyped-call]
        self.log: dict[str, Any] = {}
        if (out / "checkpoint.pt").exists():
            self._load(torch.load(out / "checkpoint.pt", map_location=self.device, weights_only=True))

    def train_epoch(self, pictures: Tensor, classes: Tensor) -> None:
        """One pass over the images (N, 3, H, W), uint8, and their classes (N,), both on the run's device."""
        draws = torch.Generator(self.device).manual_seed(self.seed * 1000 + self.epoch)
        sides, steps = sides_at(share_done(self.epoch)), len(classes) // BATCH
        order = torch.randperm(len(classes), generator=draws, device=self.device)
        drawn = torch.randint(len(sides), (steps,), generator=draws, device=self.device).tolist()
        started, loss = time.monotonic(), torch.zeros((), device=self.device)
        self.network.train()
        for step in _progress(steps, f"epoch {self.epoch + 1}, {sides[0]} to {sides[-1]} px"):
            rows, share = order[step * BATCH : (step + 1) * BATCH], share_done(self.epoch + step / steps)
            for group in self.optimiser.param_groups:
                group["lr"] = rate_at(share)
            images = augmented(pictures[rows], sides[drawn[step]], smallest_crop_at(share), draws)
            loss += self._step(images, classes[rows])
        self.epoch += 1
        share = share_done(self.epoch)
        self.log = {"epoch": self.epoch, "share": round(share, 4), "sides": sides, "rate": round(rate_at(share), 4)}
        self.log |= {"loss": round(loss.item() / steps, 4), "seconds": round(time.monotonic() - started, 1)}

    def _step(self, images: Tensor, classes: Tensor) -> Tensor:
        """Learn from one batch; its mean loss, which is still on the device."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.fast):
            logits = self.network(images)
        loss = functional.cross_entropy(logits.float(), classes, label_smoothing=LABEL_SMOOTHING)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.blend(_numbers(self.average), _numbers(self.network), 0)
        return loss.detach()

    def finish_epoch(self) -> None:
        """Save and log what is done."""
        state = {"epoch": self.epoch, "seed": self.seed, "optimiser": self.optimiser.state_dict()}
        state |= {"network": self.network.state_dict(), "model": self.average.state_dict()}
        with whole_file(self.out / "checkpoint.pt") as file:
            torch.save(state, file)
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(self.log) + "\n")
        console.print(self.log)

    def _load(self, state: dict[str, Any]) -> None:
        if state["seed"] != self.seed:
            raise click.UsageError(f"{self.out} holds a run with --seed {state['seed']}.")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["model"])  # of two state dicts that fit, the one of this name is taken
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch = state["epoch"]
        console.print(f"continuing after epoch {self.epoch}")


def augmented(pictures: Tensor, side: int, smallest_crop: float, draws: torch.Generator) -> Tensor:
    """Random resized crops, flipped and recoloured: (N, 3, H, W) uint8 to (N, 3, side, side), normalised.

    Args:
        draws: a generator on the device of the images.
    """
    count = len(pictures)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, device=pictures.device).uniform_(low, high, generator=draws)

    area, stretch = uniform(smallest_crop, 1), uniform(-0.28, 0.28).exp()
    width, height = (area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1)
    flip = uniform(0, 1).round() * 2 - 1
    matrices = torch.zeros(count, 2, 3, device=pictures.device)
    matrices[:, 0, 0], matrices[:, 0, 2] = width * flip, uniform(-1, 1) * (1 - width)
    matrices[:, 1, 1], matrices[:, 1, 2] = height, uniform(-1, 1) * (1 - height)
    grid = functional.affine_grid(matrices, [count, 3, side, side], align_corners=False)
    images = functional.grid_sample(pictures.float() / 255, grid, padding_mode="border", align_corners=False)

    brightness, contrast, saturation = (uniform(1 - COLOUR, 1 + COLOUR).view(-1, 1, 1, 1) for _ in range(3))
    images = torch.lerp(images.mean(1, keepdim=True), images, saturation)
    images = torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast) * brightness
    return normalised(images)


def normalised(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] by the network's mean and standard deviation; by numbers: tensors would travel."""
    channels = zip(images.unbind(1), MEAN, STD, strict=True)
    return torch.stack([(values - mean) / std for values, mean, std in channels], 1)


@torch.inference_mode()
def logits_of(network: nn.Module, pictures: Tensor, side: int) -> Tensor:
    """Logits (N, C), on the CPU, of images (N, 3, H, W), uint8, enlarged to `side`."""
    network.eval()
    device = next(network.parameters()).device
    batches = (batch.to(device).float() / 255 for batch in torch.split(pictures, BATCH))
    resized = (functional.interpolate(batch, (side, side), mode="bilinear") for batch in batches)
    return torch.cat([network(normalised(images)).cpu() for images in resized])


def _trained(data: Path, run: Run) -> VGGMini:
    """The network that is kept in the end, on the CPU; only epochs that are not finished are trained."""
    epochs = sum(stage.epochs for stage in STAGES)
    if run.epoch < epochs:
        pictures, classes = (tensor.to(run.device) for tensor in read_split(data, "train", _say_read))
        while run.epoch < epochs:
            run.train_epoch(pictures, classes)
            run.finish_epoch()
    return run.average.cpu()


def _groups(network: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for kernels only: on biases and batch norm it would pull filters towards silence."""
    kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    return [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]


def _numbers(network: nn.Module) -> list[Tensor]:
    """The weights and what batch norm has measured, without its counters."""
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]


def _say_read(done: int) -> None:
    if done % 10_000 == 0:
        console.print(f"read {done} images")


def _progress(steps: int, title: str) -> Iterator[int]:
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(range(steps), description=title)


if __name__ == "__main__":
    main()
