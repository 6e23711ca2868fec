"""`cnnviz filters` and `cnnviz classimage`: what filters and classes look for."""

import re
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cnnviz.cli import options
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import check_npz, check_sheet, save_npz, sheet_file
from cnnviz.cli.progress import run
from cnnviz.cli.terminal import echo, say_json
from cnnviz.cli.values import filters_or_all
from cnnviz.synthesis.objective_text import EXAMPLE
from cnnviz.synthesis.recipes import RECIPES, summary

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


def synthesis_options(recipe: str) -> options.Decorator:
    """Give a command the options that all syntheses share, handed to it as `settings` and `outputs`.

    Args:
        recipe: the one by default.
    """

    def decorate(command: options.Command) -> options.Command:
        @wraps(command)
        def checked(
            settings: dict[str, Any], references: Path | None, spectrum: Path | None, outputs: Outputs, **arguments: Any
        ) -> None:
            outputs.check()
            own = {"references": references, "spectrum": spectrum, "film": outputs.film is not None}
            command(settings=settings | own, outputs=outputs, **arguments)

        return options.all_of([options.recipe(recipe), *_folder_options, _output_options])(checked)

    return decorate


_folder_options = [
    click.option(
        "--references",
        type=options.A_FOLDER,
        help="A folder of images to compare with, besides the photographs that come with cnnviz.",
    ),
    click.option(
        "--spectrum",
        type=options.A_FOLDER,
        help="For the recipe maco: a folder of images whose mean spectrum is held; cnnviz's photographs by default.",
    ),
]
_output_options = options.gathered(
    "outputs",
    Outputs,
    [
        click.option("--film", type=options.NEW_FILE, help="Also write a .gif of the climb."),
        options.output,
        options.arrays,
        options.json,
        options.quiet,
    ],
)


@click.command(epilog=f"\b\nRecipes:\n{_LISTED}")
@click.option("--layer", help="A layer with feature maps, as `cnnviz layers` lists it.")
@click.option(
    "--filters",
    "numbers",
    type=filters_or_all,
    metavar="LIST",
    help=f"Which, such as 0-15,41, or all; the first {FIRST} by default.",
)
@click.option(
    "--diverse",
    type=options.AT_LEAST_ONE,
    default=1,
    show_default=True,
    metavar="N",
    help="N images of each filter that differ from each other.",
)
@click.option(
    "--objective",
    "text",
    metavar="TEXT",
    help=f'Instead of filters of a layer, a sum of filters and neurons: "{EXAMPLE}".',
)
@synthesis_options("auto")
@options.network
def filters(
    layer: str | None,
    numbers: tuple[int, ...] | Literal["all"] | None,
    diverse: int,
    text: str | None,
    settings: dict[str, Any],
    outputs: Outputs,
    chosen: Chosen,
) -> None:
    """Feature visualization: draw what filters of a layer look for.

    For each filter an image is optimized, by gradient ascent, that maximises its mean activation. Below it stand this
    score and "ok", "weak" (a simple pattern, noise, a photograph or one of the references scores more) or "dead" (the
    filter is activated nowhere in it). The images of one filter are the same at every call. Ctrl-C keeps what is
    finished.

    \b
    Example:
      cnnviz filters --layer block5_conv3 --filters 0-15,41 -o filters.png
    """
    from cnnviz.synthesis.maximization import filter_job, objective_job

    if (layer is None) == (text is None):
        raise click.UsageError("Give either --layer, for its filters, or --objective.")
    network = chosen.load(quiet=outputs.quiet)
    if text is not None:
        outputs.run(objective_job(network, text, **settings), sheet_file(network.name, _in_a_name(text), "filters"))
        return
    assert layer is not None
    some = None if numbers is None or numbers == "all" else list(numbers)
    job = filter_job(network, layer, some, first=FIRST if numbers is None else None, diverse=diverse, **settings)
    outputs.run(job, sheet_file(network.name, layer, "filters"))


def _in_a_name(text: str) -> str:
    """An objective as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", text).strip("_")[:60]


@click.command(epilog=f"\b\nRecipes:\n{_LISTED}")
@click.argument("names", metavar="CLASS...", nargs=-1, required=True)
@click.option("--logit-alone", is_flag=True, help="Do not take half the runner-up's off.")
@synthesis_options("soft")
@options.network
def classimage(
    names: tuple[str, ...],
    logit_alone: bool,
    settings: dict[str, Any],
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

    network = chosen.load(classes=True, quiet=outputs.quiet)
    job = class_job(network, list(dict.fromkeys(names)), alone=logit_alone, **settings)
    outputs.run(job, sheet_file(network.name, "_".join(names)[:60], "classimage"))
