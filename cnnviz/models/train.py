"""Train the embedded network: ``python -m cnnviz.models.train --data tiny-imagenet-200 --out runs/mini``.

Stops may come at any time: the same command continues after the last finished epoch, and draws what an uninterrupted
run would have drawn. The folder ``--out`` holds ``checkpoint.pt``, ``log.jsonl`` (a line per epoch) and, at the end,
``vgg16-mini.safetensors``: the averaged weights, batch norm folded away, in half precision.

The recipe: SGD with Nesterov momentum, cycles of the rate, label smoothing, random resized crops, flips and colour.
Pictures grow from epoch to epoch (`CYCLES`), so that the early epochs are cheap and larger photographs still mean
something to the network at the end. The weights that are kept are an exponential moving average. Every cycle goes on
from what the one before would deliver, with ``--start`` from a file that was delivered.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import click
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cnnviz.files import whole_file
from cnnviz.models.builtin import MEAN, NAME, SIDE, STD, VGGMini, folded, freeze, unfolded, vgg16_mini, write_weights
from cnnviz.models.evaluate import fitted_temperature, share_right
from cnnviz.models.tiny_imagenet import class_names, read_split
from cnnviz.models.weights import fill
from cnnviz.networks.devices import fast_dtype


class Cycle(NamedTuple):
    """Epochs over which the learning rate rises to its peak and falls to zero."""

    peak: float
    warm_up: float  # the share of the cycle in which the rate rises
    smallest_crop: float  # of a picture, as a share of its area
    frozen: int  # blocks at the beginning that stay as they are
    sides: tuple[tuple[int, int], ...]  # per epoch, the smallest and the largest side of the pictures, in pixels

    def rate(self, done: float) -> float:
        """The learning rate after `done` epochs of the cycle: up in a line, then down half a cosine."""
        share = done / len(self.sides)
        if share < self.warm_up:
            return self.peak * (0.04 + 0.96 * share / self.warm_up)
        return self.peak * 0.5 * (1 + math.cos(math.pi * (share - self.warm_up) / (1 - self.warm_up)))


CYCLES = (
    Cycle(0.2, 0.15, 0.35, 0, 6 * ((48, 64),) + 5 * ((64, 80),) + 4 * ((80, 96),) + 2 * ((96, 128),)),
    Cycle(0.03, 0.03, 0.5, 2, 4 * ((64, 64),) + 2 * ((64, 80),) + ((80, 96),) + ((80, 128),)),
    Cycle(0.02, 0.03, 0.5, 2, ((64, 80),) + 2 * ((80, 96),) + 2 * ((96, 128),)),
    Cycle(0.015, 0.03, 0.6, 2, ((80, 96),) + 2 * ((96, 128),)),
)
EPOCHS = [(cycle, done) for cycle in CYCLES for done in range(len(cycle.sides))]
SIDE_STEP = 16
MEASURED = 512  # pictures on which batch normalisation is put back
BATCH = 128
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.1
AVERAGING = 0.999
COLOUR = 0.3  # brightness, contrast and saturation change by up to this factor
VALIDATION_SAMPLE = 2000
console = Console(stderr=True)


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/mini"), show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--start",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run the last cycle only, from these weights.",
)
def main(data: Path, out: Path, seed: int, start: Path | None) -> None:
    """Train vgg16-mini on the Tiny ImageNet folder DATA, or go on where a stopped run left off."""
    out.mkdir(parents=True, exist_ok=True)
    run = Run(out, seed)
    if start is not None:
        run.skip_to_last_cycle(start)
    validation = read_split(data, "val", _say_read)
    if run.epoch < len(EPOCHS):
        pictures, classes = read_split(data, "train", _say_read)
        sample = _sample(validation, seed)
        for cycle, done in EPOCHS[run.epoch :]:
            if run.epoch and not done:
                run.begin_cycle(pictures)
            run.train_epoch(pictures, classes, cycle, done)
            run.finish_epoch(sample)
    export(run.averaged(), *validation, class_names(data), out / "vgg16-mini.safetensors")


def export(trained: VGGMini, pictures: Tensor, classes: Tensor, labels: Mapping[str, str], path: Path) -> None:
    """Write the network as it is shipped: batch norm and temperature folded in, in half precision.

    The temperature is fitted on the validation pictures (one number for all of them, which moves no class to the top).
    """
    exact = logits_of(trained, pictures, SIDE)
    network = folded(trained.eval()).cpu()
    temperature = fitted_temperature(exact, classes)
    network.divide_logits(temperature)
    shipped = logits_of(network.half().float(), pictures, SIDE)
    before, after = (100 * share_right(logits, classes) for logits in (exact, shipped))
    write_weights(path, network, labels, after)
    console.print(f"wrote {path}: {after:.2f} % right at {SIDE} px ({before:.2f} % as trained)")
    console.print(f"temperature {temperature:.2f}")


class Run:
    """What a checkpoint holds: the network, its average, the optimiser and the number of finished epochs."""

    def __init__(self, out: Path, seed: int) -> None:
        torch.manual_seed(seed)
        self.out, self.seed, self.epoch = out, seed, 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.fast = fast_dtype(self.device) == torch.bfloat16
        self.delivered: VGGMini | None = None
        self.begin(vgg16_mini(batch_norm=True))
        self.log: dict[str, Any] = {}
        if (out / "checkpoint.pt").exists():
            self._load(torch.load(out / "checkpoint.pt", map_location=self.device, weights_only=True))

    def begin(self, network: VGGMini) -> None:
        """Train this network from here on, with a new average and optimiser."""
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        average = get_ema_multi_avg_fn(AVERAGING)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.optimiser = torch.optim.SGD(_groups(self.network), momentum=0.9, nesterov=True)

    def skip_to_last_cycle(self, start: Path) -> None:
        """Take these weights, as they are shipped, for what the cycles before would deliver, unless it has begun."""
        if self.epoch == 0:
            plain = vgg16_mini()
            fill(plain, start, NAME)
            self.delivered = plain.eval()
            self.epoch = len(EPOCHS) - len(EPOCHS[-1][0].sides)

    def begin_cycle(self, pictures: Tensor) -> None:
        """Go on from what the cycle before delivered."""
        draws = torch.Generator().manual_seed(self.seed)
        rows = torch.randperm(len(pictures), generator=draws)[:MEASURED]
        plain = self.delivered or folded(self.averaged().cpu().eval())
        self.begin(unfolded(plain, augmented(pictures[rows], SIDE, 1, draws)))

    def train_epoch(self, pictures: Tensor, classes: Tensor, cycle: Cycle, done: int) -> None:
        """One pass over the pictures after `done` epochs of the cycle, every batch enlarged to a side drawn for it."""
        low, high = cycle.sides[done]
        draws = torch.Generator().manual_seed(self.seed * 1000 + self.epoch)
        order = torch.randperm(len(classes), generator=draws)
        steps = len(classes) // BATCH
        started, losses = time.monotonic(), 0.0
        self.network.train()
        freeze(self.network, cycle.frozen)
        for step in _progress(steps, f"epoch {self.epoch + 1}, {low} to {high} px"):
            rows = order[step * BATCH : (step + 1) * BATCH]
            side = low + SIDE_STEP * int(torch.randint((high - low) // SIDE_STEP + 1, (), generator=draws))
            for group in self.optimiser.param_groups:
                group["lr"] = cycle.rate(done + step / steps)
            losses += self._step(augmented(pictures[rows], side, cycle.smallest_crop, draws), classes[rows])
        self.log = {"epoch": self.epoch + 1, "sides": [low, high], "loss": round(losses / steps, 4)}
        self.log["seconds"] = round(time.monotonic() - started)
        self.epoch += 1

    def _step(self, images: Tensor, classes: Tensor) -> float:
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.fast):
            logits = self.network(images)
        loss = functional.cross_entropy(logits.float(), classes.to(self.device), label_smoothing=LABEL_SMOOTHING)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.average.update_parameters(self.network)
        return loss.item()

    def finish_epoch(self, sample: tuple[Tensor, Tensor]) -> None:
        """Measure the averaged network on a sample of the validation pictures, save, and log."""
        self.log["top1"] = round(share_right(logits_of(self.averaged(), sample[0], SIDE), sample[1]), 4)
        state = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimiser")}
        with whole_file(self.out / "checkpoint.pt") as file:
            torch.save(state | {"epoch": self.epoch, "seed": self.seed}, file)
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(self.log) + "\n")
        console.print(self.log)

    def averaged(self) -> VGGMini:
        """The network that is kept in the end."""
        return cast("VGGMini", self.average.module)

    def _load(self, state: dict[str, Any]) -> None:
        if state["seed"] != self.seed:
            raise click.UsageError(f"{self.out} holds a run with --seed {state['seed']}.")
        for name in ("network", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.epoch = state["epoch"]
        console.print(f"continuing after epoch {self.epoch}")


def augmented(pictures: Tensor, side: int, smallest_crop: float, draws: torch.Generator) -> Tensor:
    """Random resized crops, flipped and recoloured: (N, 3, H, W) uint8 to (N, 3, side, side), normalised."""
    count = len(pictures)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count).uniform_(low, high, generator=draws)

    area, stretch = uniform(smallest_crop, 1), uniform(-0.28, 0.28).exp()
    width, height = (area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1)
    flip = uniform(0, 1).round() * 2 - 1
    matrices = torch.zeros(count, 2, 3)
    matrices[:, 0, 0], matrices[:, 0, 2] = width * flip, uniform(-1, 1) * (1 - width)
    matrices[:, 1, 1], matrices[:, 1, 2] = height, uniform(-1, 1) * (1 - height)
    grid = functional.affine_grid(matrices, [count, 3, side, side], align_corners=False)
    images = functional.grid_sample(pictures.float() / 255, grid, padding_mode="reflection", align_corners=False)

    brightness, contrast, saturation = (uniform(1 - COLOUR, 1 + COLOUR).view(-1, 1, 1, 1) for _ in range(3))
    images = torch.lerp(images.mean(1, keepdim=True), images, saturation)
    images = torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast) * brightness
    return normalised(images)


def normalised(images: Tensor) -> Tensor:
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@torch.inference_mode()
def logits_of(network: nn.Module, pictures: Tensor, side: int) -> Tensor:
    """Logits (N, C), on the CPU, of pictures (N, 3, H, W), uint8, enlarged to `side`."""
    network.eval()
    device = next(network.parameters()).device
    batches = (functional.interpolate(batch.float() / 255, (side, side), mode="bilinear") for batch in _split(pictures))
    return torch.cat([network(normalised(images).to(device)).cpu() for images in batches])


def _groups(network: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for kernels only: on biases and batch norm it would pull filters towards silence."""
    kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    return [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]


def _sample(validation: tuple[Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor]:
    pictures, classes = validation
    rows = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))[:VALIDATION_SAMPLE]
    return pictures[rows], classes[rows]


def _split(pictures: Tensor) -> Iterator[Tensor]:
    yield from (pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH))


def _say_read(done: int) -> None:
    if done % 10_000 == 0:
        console.print(f"read {done} pictures")


def _progress(steps: int, title: str) -> Iterator[int]:
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(range(steps), description=title)


if __name__ == "__main__":
    main()
