"""`cnnviz filters` and `cnnviz classimage`: what filters and classes look for."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from cnnviz.cli import options
from cnnviz.cli.options import Chosen, Command, json_option, network_options, output_option, quiet_option
from cnnviz.cli.output import check_npz, check_sheet, save_npz, sheet_file
from cnnviz.cli.progress import run
from cnnviz.cli.terminal import echo, say_json
from cnnviz.synthesis.recipes import RECIPES, Preset, summary

if TYPE_CHECKING:
    from cnnviz.synthesis.jobs import Job
    from cnnviz.synthesis.results import Synthesis

FIRST = 16  # filters that are drawn unless others are asked for


@dataclass(frozen=True)
class Outputs:
    """Where a synthesis goes, as it was asked for."""

    output: Path | None
    film: Path | None
    save_arrays: Path | None
    as_json: bool
    quiet: bool

    def check(self) -> None:
        """Notice before any work that a result could not be written, for its ending or its place."""
        from cnnviz.files import check_writable

        check_sheet(self.output)
        if self.film is not None and self.film.suffix.lower() != ".gif":
            raise click.UsageError(f"--film writes .gif files, not {self.film.name!r}.")
        check_npz(self.save_arrays)
        if self.film is not None:
            check_writable(self.film)

    def run(self, job: "Job", file: Path) -> None:
        """Run a job and write what it made, to `file` unless another place was asked for."""
        run(job, lambda synthesis: self._write(synthesis, self.output or file), quiet=self.quiet)

    def _write(self, synthesis: "Synthesis", file: Path) -> None:
        written = [synthesis.save(path) for path in (file, self.film) if path is not None]
        if self.save_arrays is not None:
            arrays = {
                "images": synthesis.images,
                "scores": synthesis.scores,
                "starts": synthesis.starts,
                "fired": synthesis.fired,
            }
            curves = {f"curve/{label}": curve for label, curve in zip(synthesis.labels, synthesis.curves, strict=True)}
            save_npz(self.save_arrays, {name: array.numpy() for name, array in (arrays | curves).items()})
            written.append(self.save_arrays)
        if self.as_json:
            say_json({"file": str(file), "settings": synthesis.settings, "images": synthesis.rows()})
        elif not self.quiet:
            states = ", ".join(f"{synthesis.status.count(state)} {state}" for state in dict.fromkeys(synthesis.status))
            echo(f"{', '.join(map(str, written))}: {synthesis.title}; {states}")


_LISTED = "\n".join(f"  {name:8} {summary(recipe)}" for name, recipe in RECIPES.items())


def filters_or_all(text: str) -> tuple[int, ...] | Literal["all"]:
    """Numbers and ranges like 0-15,41, or "all"."""
    return "all" if text == "all" else options.channels(text)


def recipe_options(recipe: str) -> list[Callable[[Command], Command]]:
    """The options that say how an image is made; `taken` collects what they got."""
    return [
        click.option(
            "--recipe", type=click.Choice(list(RECIPES)), default=recipe, show_default=True, help="See below."
        ),
        click.option(
            "--preset",
            type=click.Choice(get_args(Preset)),
            default="default",
            show_default=True,
            help="How many steps.",
        ),
        click.option("--steps", type=click.IntRange(min=1), help="Another number of steps."),
        click.option(
            "--size",
            type=side_or_auto,
            default="auto",
            show_default=True,
            help="Side, or HEIGHTxWIDTH, in pixels; auto: the network's, or 1.3 receptive fields of a layer if less.",
        ),
        click.option("--seed", default=0, show_default=True, help="Another one gives other images."),
        click.option("--batch", type=click.IntRange(min=1), help="Images at a time."),
        click.option(
            "--precision",
            type=click.Choice(["auto", "float32", "bfloat16"]),
            default="auto",
            show_default=True,
            help="What the network computes in; auto: bfloat16 where the machine has it.",
        ),
    ]


def taken(arguments: dict[str, Any]) -> dict[str, Any]:
    """The settings among a command's arguments, taken out of them; the seed stays."""
    settings = {name: arguments.pop(name) for name in ("recipe", "preset", "steps", "size", "batch", "precision")}
    return settings | {"size": None if settings["size"] == "auto" else settings["size"]}


def synthesis_options(recipe: str) -> Callable[[Command], Command]:
    """Give a command the options that all syntheses share, handed to it as `settings` and `outputs`.

    Args:
        recipe: the one by default.
    """
    return partial(_with_options, recipe)


def _with_options(recipe: str, command: Command) -> Command:
    def with_settings(**arguments: Any) -> None:
        settings = taken(arguments) | {name: arguments.pop(name) for name in ("references", "spectrum")}
        outputs = Outputs(**{field.name: arguments.pop(field.name) for field in fields(Outputs)})
        outputs.check()
        command(settings=settings | {"film": outputs.film is not None}, outputs=outputs, **arguments)

    shared: list[Callable[[Command], Command]] = [
        *recipe_options(recipe),
        click.option(
            "--references",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="A folder of pictures to compare the scores with; noise by default.",
        ),
        click.option(
            "--spectrum",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="For the recipe maco: a folder of pictures whose mean spectrum is held.",
        ),
        click.option("--film", type=click.Path(dir_okay=False, path_type=Path), help="Also write a .gif of the climb."),
        output_option,
        click.option("--save-arrays", type=click.Path(path_type=Path), help="Also save the numbers, as an .npz file."),
        json_option,
        quiet_option,
    ]
    return options.all_of(shared)(wraps(command)(with_settings))


def side_or_auto(text: str) -> tuple[int, int] | str:
    """A size such as 128 or 96x128 (height x width), or "auto"."""
    return "auto" if text == "auto" else options.size(text)


@click.command(epilog=f"\b\nRecipes:\n{_LISTED}")
@click.option("--layer", required=True, help="A layer with feature maps, as `cnnviz layers` lists it.")
@click.option(
    "--filters",
    "numbers",
    type=filters_or_all,
    metavar="LIST",
    help=f"Which, such as 0-15,41, or all; the first {FIRST} by default.",
)
@synthesis_options("fourier")
@network_options
def filters(
    layer: str,
    numbers: tuple[int, ...] | Literal["all"] | None,
    settings: dict[str, Any],
    seed: int,
    outputs: Outputs,
    chosen: Chosen,
) -> None:
    """Draw what filters of a layer look for.

    For each filter an image is made, by gradient ascent, that maximises its mean activation. Below it stand its score
    and "ok", "weak" (noise, or the references, score as much) or "dead" (the filter fires nowhere in it). The images of
    one filter are the same at every call. Ctrl-C keeps what is finished.

    \b
    Example:
      cnnviz filters --layer block5_conv3 --filters 0-15,41 -o filters.png
    """
    from cnnviz.synthesis.maximization import filter_job

    network = chosen.load(quiet=outputs.quiet)
    some = None if numbers is None or numbers == "all" else list(numbers)
    job = filter_job(network, layer, some, seed=seed, first=FIRST if numbers is None else None, **settings)
    climbed = network.before_relu(layer)
    if climbed != layer and not (outputs.quiet or outputs.as_json):
        echo(
            f"maximising {climbed}, the values before the ReLU: there even a filter that does not fire can climb",
            err=True,
        )
    outputs.run(job, sheet_file(network.name, layer, "filters"))


@click.command(epilog=f"\b\nRecipes:\n{_LISTED}")
@click.argument("names", metavar="CLASS...", nargs=-1, required=True)
@click.option("--logit-alone", is_flag=True, help="Do not take half the runner-up's off.")
@synthesis_options("soft")
@network_options
def classimage(
    names: tuple[str, ...],
    logit_alone: bool,
    settings: dict[str, Any],
    seed: int,
    outputs: Outputs,
    chosen: Chosen,
) -> None:
    """Draw what the network takes for a class: images that maximise the logit of each CLASS, less half the runner-up's.

    A class is given by label, number or WordNet id; `cnnviz classes` lists them. Such an image is like no photograph,
    and the network is surer of it than of any: it is fooled (Nguyen et al. 2015).

    \b
    Example:
      cnnviz classimage "tabby" goldfish -o classes.png
    """
    from cnnviz.synthesis.maximization import class_job

    network = chosen.load(quiet=outputs.quiet)
    job = class_job(network, list(dict.fromkeys(names)), seed=seed, alone=logit_alone, **settings)
    outputs.run(job, sheet_file(network.name, "_".join(names)[:60], "classimage"))
