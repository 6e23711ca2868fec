"""Options and arguments that several commands share, each written once with its help, and the network they describe.

    @options.size()
    @options.network
    def command(size: int | None, chosen: Chosen) -> None: ...

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

from cnnviz.cli import completion, values
from cnnviz.cli.output import Target
from cnnviz.cli.terminal import echo
from cnnviz.synthesis.recipes import RECIPES, Preset

if TYPE_CHECKING:
    from cnnviz.networks.network import Network

Command = Callable[..., None]
Decorator = Callable[[Command], Command]

LONGEST = 10_000_000  # letters of a file with the names of classes
A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
A_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
A_FOLDER.name = "folder"
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
AT_LEAST_ONE = click.IntRange(min=1)

picture = click.argument("picture", metavar="IMAGE", type=A_FILE)
pictures = click.argument("pictures", metavar="IMAGE...", nargs=-1, required=True, type=A_FILE)
word = click.argument("word", required=False, default="")

arrays = click.option(
    "--save-arrays", type=click.Path(path_type=Path), metavar="FILE", help="Also save the numbers, as an .npz file."
)
json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Print only warnings and errors.")
browser = click.option("--browser/--no-browser", default=True, help="Whether to open the page.")


def choice(name: str, choices: Sequence[str], default: str, text: str | None = None) -> Decorator:
    """One of several words."""
    return click.option(name, type=click.Choice(choices), default=default, help=text)


fit = choice(
    "--fit", ["crop", "whole"], "crop", "Center crop of the network's published preprocessing, or the whole image."
)


def size(text: str = "Short side of the input in pixels.") -> Decorator:
    """A side; height and width are in the proportion of the image."""
    return click.option("--size", type=AT_LEAST_ONE, metavar="N", help=text)


def steps(text: str, default: int | None = None) -> Decorator:
    """How many steps an optimization has."""
    return click.option("--steps", type=AT_LEAST_ONE, metavar="N", default=default, help=text)


def methods(default: str, text: str = "One or more, separated by commas, or 'all'.") -> Decorator:
    """Methods of attribution, by name."""
    return click.option(
        "--method",
        "methods",
        type=values.methods,
        metavar="METHOD",
        default=default,
        help=text,
        shell_complete=completion.methods,
    )


def layer(text: str) -> Decorator:
    """One layer, by name."""
    return click.option("--layer", metavar="LAYER", help=text, shell_complete=completion.layers)


def seed_of(text: str) -> Decorator:
    """The seed of whatever draws random numbers."""
    return click.option("--seed", type=values.seed, metavar="N", default="0", help=text)


seed = seed_of("Random seed.")


def port(first: int, default: int, text: str) -> Decorator:
    """The port of a page that is served."""
    return click.option("--port", type=click.IntRange(first, 65535), metavar="N", default=default, help=text)


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


def _output(text: str) -> Decorator:
    force = click.option("--force", is_flag=True, help="Replace existing files, instead of adding a number.")
    return gathered("target", Target, [click.option("-o", "--output", metavar="FILE", help=text), force])


output = _output("A .png, .jpg, .webp, .pdf or .svg file, or a folder.")
page = _output("An .html file, or a folder.")


@dataclass(frozen=True)
class Layers:
    """The layers that a command line asks for: each --layer, then those of --layers."""

    single: tuple[str, ...]
    listed: str | None

    def __bool__(self) -> bool:
        return bool(self.single) or self.listed is not None

    def of(self, network: "Network", default: "Callable[[Network], list[str]]") -> list[str]:
        """Their names as `cnnviz layers` spells them, each once; unknown ones are noticed before any work.

        Args:
            default: gives the layers of a network where none is asked for.
        """
        from cnnviz.networks.layers import all_convolutions

        if not self:
            return default(network)
        everything = all_convolutions(network) if self.listed == "all" else []
        named = ",".join([*self.single, "" if self.listed in (None, "all") else str(self.listed)]).split(",")
        names = [network.listed(name.strip()) for name in named if name.strip()]
        if not names + everything:
            raise click.UsageError("no layer is named; `cnnviz layers` lists them.")
        return list(dict.fromkeys(names + everything))


def layers(text: str) -> Decorator:
    """Several layers, handed to the command as `layers`."""
    return gathered(
        "layers",
        Layers,
        [
            click.option(
                "--layer", "single", multiple=True, metavar="LAYER", help=text, shell_complete=completion.layers
            ),
            click.option(
                "--layers",
                "listed",
                metavar="LAYER,...",
                help="Several layers, separated by commas, or 'all' convolutions.",
                shell_complete=completion.layers,
            ),
        ],
    )


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
        network = load(name, weights=self.weights, device=self.device_name(), progress=not quiet, **self._own())
        self._warn(network)
        return network

    def _warn(self, network: "Network") -> None:
        """Say what is probably forgotten of a user's own network."""
        from cnnviz.models.custom import AS_MADE

        faults = []
        if network.weights == AS_MADE:
            faults.append("no --weights, so it is untrained (random weights) unless its code loads some")
        plain = network.normalisation == ([0.0] * network.channels, [1.0] * network.channels)
        if ":" in str(self.model) and self.mean is None and self.std is None and plain:
            faults.append("no mean and std, so its images are not normalised")
        if faults:
            echo(f"warning: {network.name}: {'; '.join(faults)}.", err=True)

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
            metavar="MODEL",
            envvar="CNNVIZ_MODEL",
            help="A name that `cnnviz models` lists, or your own file.py:factory or package.module:factory"
            " (executes that file).  [default: vgg16, or $CNNVIZ_MODEL]",
            shell_complete=completion.models,
        ),
        click.option(
            "--weights",
            metavar="FILE",
            help="A .pth or .safetensors file, 'random', or a torchvision name such as IMAGENET1K_V1.",
        ),
        choice("--device", ["auto", "cpu", "cuda", "mps"], "auto"),
        click.option(
            "--input-size",
            type=values.size,
            metavar="SIZE",
            help="Side, or HEIGHTxWIDTH, of the input in pixels (custom networks).",
        ),
        click.option(
            "--mean", type=values.numbers, metavar="NUMBERS", help="Normalization mean in [0, 1] (custom networks)."
        ),
        click.option(
            "--std", type=values.numbers, metavar="NUMBERS", help="Normalization std in [0, 1] (custom networks)."
        ),
        click.option("--labels", type=A_FILE, help="A file with one class name per line (custom networks)."),
        click.option(
            "--outputs",
            "kind_of_outputs",
            type=click.Choice(["logits", "probabilities", "multilabel", "value"]),
            help="What the network returns (custom networks); detected by default. multilabel: logits of labels that"
            " do not exclude each other; value: a regression.",
        ),
    ],
)


def recipe(recipe: str) -> Decorator:
    """The options that say how an image is made, handed to the command as `settings`, as an ascent takes them.

    Args:
        recipe: the one by default; "auto" leaves it to the layer.
    """
    size_text = "Side, or HEIGHTxWIDTH, in pixels; auto: the input size, or 1.3 receptive fields if that is less."
    precision_text = "Floating-point type; auto: bfloat16 where the hardware supports it."
    return gathered(
        "settings",
        _settings,
        [
            choice("--recipe", [*dict.fromkeys([recipe, *RECIPES])], recipe, "How images are optimized; see below."),
            choice("--preset", get_args(Preset), "default", "Number of steps."),
            steps("Number of steps (overrides --preset)."),
            click.option("--size", type=values.side_or_auto, metavar="SIZE", default="auto", help=size_text),
            seed,
            click.option("--batch", type=AT_LEAST_ONE, metavar="N", help="Batch size."),
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
