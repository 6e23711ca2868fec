"""Options and arguments that several commands share, each written once with its help, and the network they describe.

    @options.picture
    @options.size()
    @options.network
    def command(picture: Path, size: int | None, chosen: Chosen) -> None: ...

To add an option that one command takes, write it there. To add one that several take, write it here; where only the
default or the help differs, as a function of these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from cnnviz.cli import values
from cnnviz.cli.terminal import echo
from cnnviz.synthesis.recipes import RECIPES, Preset

if TYPE_CHECKING:
    from cnnviz.networks.network import Network

Command = Callable[..., None]
Decorator = Callable[[Command], Command]

LONGEST = 10_000_000  # letters of a file with the names of classes
A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
A_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
AT_LEAST_ONE = click.IntRange(min=1)

picture = click.argument("picture", metavar="IMAGE", type=A_FILE)
pictures = click.argument("pictures", metavar="IMAGE...", nargs=-1, required=True, type=A_FILE)
word = click.argument("word", required=False, default="")

output = click.option("-o", "--output", type=NEW_FILE, help="A .png, .jpg or .webp file.")
arrays = click.option("--save-arrays", type=click.Path(path_type=Path), help="Also save the numbers, as an .npz file.")
json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Print nothing but warnings and errors.")
browser = click.option("--browser/--no-browser", default=True, help="Whether to open the page.")


def choice(name: str, choices: Sequence[str], default: str, text: str | None = None) -> Decorator:
    """One of several words."""
    return click.option(name, type=click.Choice(choices), default=default, show_default=True, help=text)


def fit(default: str) -> Decorator:
    """What of an image the network is shown."""
    text = "Show the network the whole image, or the centre that its published preprocessing leaves."
    return choice("--fit", ["whole", "crop"], default, text)


def size(text: str = "Short side, in pixels, of what the network is shown.") -> Decorator:
    """A side; height and width are in the proportion of the image."""
    return click.option("--size", type=AT_LEAST_ONE, help=text)


def steps(text: str, default: int | None = None) -> Decorator:
    """How many steps a climb has."""
    return click.option("--steps", type=AT_LEAST_ONE, default=default, show_default=default is not None, help=text)


def methods(default: str, text: str = "One or more, with commas; or 'all'.") -> Decorator:
    """Methods of attribution, by name."""
    return click.option(
        "--method", "methods", type=values.methods, metavar="TEXT", default=default, show_default=True, help=text
    )


def draws(text: str | None = None) -> Decorator:
    """The seed of whatever draws random numbers besides an ascent."""
    return click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help=text)


def seed(text: str) -> Decorator:
    """The seed of an ascent."""
    return click.option("--seed", default=0, show_default=True, help=text)


def port(first: int, default: int, text: str) -> Decorator:
    """The port of a page that is served."""
    return click.option("--port", type=click.IntRange(first, 65535), default=default, show_default=True, help=text)


def all_of(options: Sequence[Decorator]) -> Decorator:
    """Several options as one decorator, in the order in which help lists them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def gathered(name: str, gather: Callable[..., Any], options: Sequence[Decorator]) -> Decorator:
    """Give a command several options, handed to it as one argument.

    Args:
        name: of that argument.
        gather: makes it; its parameters are called as the options are.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_one(**arguments: Any) -> None:
            own = {option: arguments.pop(option) for option in signature(gather).parameters}
            command(**{name: gather(**own)}, **arguments)

        return all_of(options)(with_one)

    return decorate


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
    kind_of_outputs: Any

    def name(self, *, classes: bool) -> str:
        """The network's name: the one given, or the default; for classes the embedded one if that is out of reach."""
        from cnnviz.models import builtin, zoo

        if self.model is not None:
            return self.model
        if not classes or self.weights is not None or zoo.within_reach(zoo.DEFAULT):
            return zoo.DEFAULT
        echo(
            f"warning: no internet and no cached classifier of {zoo.DEFAULT}:"
            f" using the small built-in {builtin.NAME} instead;"
            f" when online, `cnnviz weights {zoo.DEFAULT}` gets it (528 MB).",
            err=True,
        )
        return builtin.NAME

    def load(self, *, classes: bool = False, quiet: bool = False) -> "Network":
        """The network with its weights, on its device.

        Args:
            classes: whether it will be asked for classes, and not for its layers alone.
            quiet: whether downloads draw no progress bar.
        """
        from cnnviz.models import load

        name = self.name(classes=classes)
        if self.weights == "random":
            echo(f"warning: {name} has RANDOM weights (seed 0): nothing it shows was learned.", err=True)
        return load(name, weights=self.weights, device=self.device_name(), progress=not quiet, **self._own())

    def outline(self, *, classes: bool = False) -> "Network":
        """The network without numbers: nothing is downloaded. `classes` as for `load`."""
        from cnnviz.models import outline

        return outline(self.name(classes=classes), weights=self.weights, **self._own())

    def _own(self) -> dict[str, Any]:
        labels = None if self.labels is None else _lines(self.labels)
        own = {"input_size": self.input_size, "mean": self.mean, "std": self.std}
        return own | {"labels": labels, "outputs": self.kind_of_outputs}

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


network = gathered(
    "chosen",
    Chosen,
    [
        click.option(
            "--model",
            help="A name from `cnnviz models`; or file.py:factory or package.module:factory of yours,"
            " which runs that code.",
        ),
        click.option("--weights", help="A .pth or .safetensors file, 'random', or a torchvision name: IMAGENET1K_V1."),
        choice("--device", ["auto", "cpu", "cuda", "mps"], "auto"),
        click.option("--input-size", type=values.size, help="Of your own network: a side, or HEIGHTxWIDTH, in pixels."),
        click.option("--mean", type=values.numbers, help="Of your own network: subtracted from pixels in [0, 1]."),
        click.option("--std", type=values.numbers, help="Of your own network: what they are then divided by."),
        click.option("--labels", type=A_FILE, help="Of your own network: a file with a class name per line."),
        click.option(
            "--outputs",
            "kind_of_outputs",
            type=click.Choice(["logits", "probabilities", "multilabel", "value"]),
            help="Of your own network: what it gives; noticed if not said. multilabel: logits of labels that do not"
            " exclude each other; value: of a regression.",
        ),
    ],
)


def recipe(recipe: str) -> Decorator:
    """The options that say how an image is made, handed to the command as `settings`, as an ascent takes them.

    Args:
        recipe: the one by default; "auto" leaves it to the layer.
    """
    size_text = "Side, or HEIGHTxWIDTH, in pixels; auto: the network's, or 1.3 receptive fields of a layer if less."
    precision_text = "What the network computes in; auto: bfloat16 where the machine has it."
    return gathered(
        "settings",
        _settings,
        [
            choice("--recipe", [*dict.fromkeys([recipe, *RECIPES])], recipe, "See below."),
            choice("--preset", get_args(Preset), "default", "How many steps."),
            steps("Another number of steps."),
            click.option("--size", type=values.side_or_auto, default="auto", show_default=True, help=size_text),
            seed("Another one gives other images."),
            click.option("--batch", type=AT_LEAST_ONE, help="Images at a time."),
            choice("--precision", ["auto", "float32", "bfloat16"], "auto", precision_text),
        ],
    )


def _settings(
    recipe: str,
    preset: str,
    steps: int | None,
    size: tuple[int, int] | str,
    seed: int,
    batch: int | None,
    precision: str,
) -> dict[str, Any]:
    given = {"preset": preset, "steps": steps, "seed": seed, "batch": batch, "precision": precision}
    named = {} if recipe == "auto" else {"recipe": recipe}
    return given | named | {"size": None if size == "auto" else size}
