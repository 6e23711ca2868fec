"""Options that several commands share, and the network they describe."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnviz.cli.terminal import echo

if TYPE_CHECKING:
    from cnnviz.networks.network import Network

Command = Callable[..., None]
LONGEST = 10_000_000  # letters of a file with the names of classes
picture_argument = click.argument(
    "pictures",
    metavar="PICTURE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)


def fit_option(default: str) -> Callable[[Command], Command]:
    """What of a picture the network is shown."""
    return click.option(
        "--fit",
        type=click.Choice(["whole", "crop"]),
        default=default,
        show_default=True,
        help="Show the network the whole picture, or the centre that its published preprocessing leaves.",
    )


output_option = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A .png, .jpg or .webp file."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print nothing but warnings and errors.")


class Finite(click.FloatRange):
    """A range of real numbers that NaN and infinity, which are neither below nor above, do not get into."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is no number in the range.", param, ctx)
        return number


def numbers(text: str) -> tuple[float, ...]:
    """Real numbers separated by commas: 0.485,0.456,0.406."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 0.13 or 0.485,0.456,0.406.") from None


def size(text: str) -> tuple[int, int]:
    """A side in pixels, 224, or height x width, 28x32."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if not match or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise click.BadParameter(f"{text!r} is no size such as 224 or 28x32 (height x width).")
    return int(match[1]), int(match[2] or match[1])


def channels(text: str) -> tuple[int, ...]:
    """Numbers and ranges separated by commas, 0-63,128: each number once, in the order given."""
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise click.BadParameter(f"{part!r} is no channel or range of channels; write them like 0-63,128.")
        found |= dict.fromkeys(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(found)


@dataclass(frozen=True)
class Chosen:
    """The network that a command line asks for, as it was asked for."""

    model: str | None
    weights: str | None
    device: str
    input_size: tuple[int, int] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    labels: Path | None

    def name(self) -> str:
        """The network's name: the one given, or the default, or the embedded one where that is out of reach."""
        from cnnviz.models import builtin, zoo

        if self.model is not None:
            return self.model
        if self.weights is not None or zoo.within_reach(zoo.DEFAULT):
            return zoo.DEFAULT
        echo(
            f"warning: no internet and no cached weights of {zoo.DEFAULT}:"
            f" using the small built-in {builtin.NAME} instead;"
            f" when online, `cnnviz weights {zoo.DEFAULT}` gets them (528 MB).",
            err=True,
        )
        return builtin.NAME

    def load(self, *, quiet: bool = False) -> "Network":
        """The network with its weights, on its device."""
        from cnnviz.models import load

        name = self.name()
        if self.weights == "random":
            echo(f"warning: {name} has RANDOM weights (seed 0): nothing it shows was learned.", err=True)
        return load(name, weights=self.weights, device=self.device_name(), progress=not quiet, **self._own())

    def outline(self) -> "Network":
        """The network for its layers alone: nothing is downloaded."""
        from cnnviz.models import outline

        return outline(self.name(), weights=self.weights, **self._own())

    def _own(self) -> dict[str, Any]:
        labels = None if self.labels is None else _lines(self.labels)
        return {"input_size": self.input_size, "mean": self.mean, "std": self.std, "labels": labels}

    def device_name(self) -> str:
        """The device asked for, or the best there is."""
        from cnnviz.networks.devices import devices

        if self.device == "auto":
            return devices()[0]
        if self.device not in devices():
            raise click.UsageError(f"PyTorch finds no {self.device} device here; take --device auto.")
        return self.device


def _lines(labels: Path) -> list[str]:
    """The lines of a file, which may be a pipe, or a device without an end."""
    try:
        with labels.open(encoding="utf-8-sig") as file:
            text = file.read(LONGEST + 1)
    except UnicodeDecodeError:
        raise click.UsageError(f"{labels} is not a text file in UTF-8 with a class name per line.") from None
    if len(text) > LONGEST:
        raise click.UsageError(f"{labels} is longer than {LONGEST:,} letters: not a file with a class name per line.")
    return text.splitlines()


def network_options(command: Command) -> Command:
    """Give a command the options that describe a network, handed to it as `chosen`."""

    @wraps(command)
    def with_network(**arguments: Any) -> None:
        chosen = Chosen(**{field.name: arguments.pop(field.name) for field in fields(Chosen)})
        command(chosen=chosen, **arguments)

    options = [
        click.option(
            "--model",
            help="A name from `cnnviz models`; or file.py:factory or package.module:factory of yours,"
            " which runs that code.",
        ),
        click.option("--weights", help="A .pth or .safetensors file, or 'random'."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True),
        click.option("--input-size", type=size, help="Of your own network: a side, or HEIGHTxWIDTH, in pixels."),
        click.option("--mean", type=numbers, help="Of your own network: subtracted from pixels in [0, 1]."),
        click.option("--std", type=numbers, help="Of your own network: what they are then divided by."),
        click.option(
            "--labels",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Of your own network: a file with a class name per line.",
        ),
    ]
    return all_of(options)(with_network)


def all_of(options: Sequence[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order in which help lists them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def names(text: str) -> list[str]:
    """Names separated by commas; at least one."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise click.BadParameter(f"{text!r} names nothing.")
    return found
