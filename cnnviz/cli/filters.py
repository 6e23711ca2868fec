"""`cnnviz filters` and `cnnviz classimage`: feature and class visualization."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cnnviz.cli import figure_options, options
from cnnviz.cli.commands import command
from cnnviz.cli.options import Chosen, Layers
from cnnviz.cli.output import Target, check_npz, save_npz
from cnnviz.cli.progress import run
from cnnviz.cli.terminal import echo, say_json
from cnnviz.cli.values import filters_or_all
from cnnviz.synthesis.objective_text import EXAMPLE
from cnnviz.synthesis.recipes import RECIPES, summary

if TYPE_CHECKING:
    from cnnviz.pictures.sheets import Layout
    from cnnviz.synthesis.jobs import Job
    from cnnviz.synthesis.results import Synthesis

FIRST = 16  # filters that are drawn unless others are asked for


@dataclass(frozen=True)
class Outputs:
    """Where a synthesis goes, as it was asked for."""

    target: Target
    film: Path | None
    save_arrays: Path | None
    as_json: bool
    quiet: bool
    layout: "Layout"

    def check(self) -> None:
        """Notice before any work that a result could not be written, for its ending or its place."""
        from cnnviz.files import check_writable

        self.target.check()
        if self.film is not None and self.film.suffix.lower() != ".gif":
            raise click.UsageError(f"--film writes .gif files, not {self.film.name!r}.")
        check_npz(self.save_arrays)
        if self.film is not None:
            check_writable(self.film)

    def run(self, job: "Job", *parts: str) -> None:
        """Run a job and write what it made, named after `parts` unless a file was asked for."""
        self.run_each([(job, parts)])

    def run_each(self, jobs: "Sequence[tuple[Job, Sequence[str]]]") -> None:
        """Run jobs in turn, each with the parts of its file's name.

        Raises:
            UsageError: before any work, if several do not fit where they are to go.
        """
        if len(jobs) > 1 and (self.film or self.save_arrays or self.target.folder is None):
            raise click.UsageError(f"{len(jobs)} sheets do not fit into one file; -o must name a folder.")
        results: list[dict[str, Any]] = []

        def deliver(parts: Sequence[str], synthesis: "Synthesis") -> None:
            results.append(self._write(synthesis, self.target.file(*parts)))

        try:
            for job, parts in jobs:
                run(job, partial(deliver, parts), quiet=self.quiet)
        finally:
            if self.as_json and results:
                say_json(results[0] if len(jobs) == 1 else {"sheets": results})

    def _write(self, synthesis: "Synthesis", file: Path) -> dict[str, Any]:
        file = self.target.save(synthesis.sheet(**self.layout), file)
        written = [file] if self.film is None else [file, synthesis.save(self.target.free(self.film))]
        if self.save_arrays is not None:
            arrays = {
                "images": synthesis.images,
                "scores": synthesis.scores,
                "starts": synthesis.starts,
                "fired": synthesis.fired,
            }
            curves = {f"curve/{label}": curve for label, curve in zip(synthesis.labels, synthesis.curves, strict=True)}
            written.append(self.target.free(self.save_arrays))
            save_npz(written[-1], {name: array.numpy() for name, array in (arrays | curves).items()})
        if not (self.as_json or self.quiet):
            states = ", ".join(f"{synthesis.status.count(state)} {state}" for state in dict.fromkeys(synthesis.status))
            echo(f"{', '.join(map(str, written))}: {synthesis.title}; {states}")
        return {"file": str(file), "settings": synthesis.settings, "images": synthesis.rows()}


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
        help="A folder of images to compare scores with, besides the built-in photographs.",
    ),
    click.option(
        "--spectrum",
        type=options.A_FOLDER,
        help="A folder of images for the mean spectrum of --recipe maco; the built-in photographs by default.",
    ),
]
_output_options = options.gathered(
    "outputs",
    Outputs,
    [
        click.option(
            "--film", type=options.NEW_FILE, help="Also write an animation of the optimization, as a .gif file."
        ),
        figure_options.layout,
        options.output,
        options.arrays,
        options.json,
        options.quiet,
    ],
)


@command(epilog=f"\b\nRecipes:\n{_LISTED}")
@options.layers("A layer with feature maps; may be repeated. Default: a convolution in the middle.")
@click.option(
    "--channels",
    "--filters",
    "numbers",
    type=filters_or_all,
    metavar="LIST",
    help=f"Which filters, such as 0-15,41, or 'all'; the first {FIRST} by default.",
)
@click.option(
    "--diverse",
    type=options.AT_LEAST_ONE,
    default=1,
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
    layers: Layers,
    numbers: tuple[int, ...] | Literal["all"] | None,
    diverse: int,
    text: str | None,
    settings: dict[str, Any],
    outputs: Outputs,
    chosen: Chosen,
) -> None:
    """Feature visualization: images that maximize the filters of a layer.

    For each filter an image is optimized, by gradient ascent, that maximizes its mean activation. Below it stand this
    score and "ok", "weak" (a simple pattern, noise, a photograph or one of the references scores more) or "dead" (the
    filter is activated nowhere in it). The images of one filter are the same at every call. Ctrl-C keeps what is
    finished.

    \b
    Example:
      cnnviz filters --layer block5_conv3 --filters 0-15,41 -o filters.png
    """
    from cnnviz.networks.layers import middle_convolution
    from cnnviz.synthesis.maximization import filter_job, objective_job

    if layers and text is not None:
        raise click.UsageError("Give either --layer, for its filters, or --objective.")
    network = chosen.load(quiet=outputs.quiet)
    if text is not None:
        outputs.run(objective_job(network, text, **settings), network.name, "filters", _in_a_name(text))
        return
    some = None if numbers is None or numbers == "all" else list(numbers)
    first = FIRST if numbers is None else None
    names = layers.of(network, lambda network: [middle_convolution(network)])
    jobs = [filter_job(network, layer, some, first=first, diverse=diverse, **settings) for layer in names]
    outputs.run_each([(job, (network.name, "filters", layer)) for job, layer in zip(jobs, names, strict=True)])


def _in_a_name(text: str) -> str:
    """An objective as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", text).strip("_")[:60]


@command(epilog=f"\b\nRecipes:\n{_LISTED}")
@click.argument("names", metavar="CLASS...", nargs=-1, required=True)
@click.option("--plain-logit", is_flag=True, help="Maximize the logit alone, not logit - 0.5 x runner-up logit.")
@click.option("--logit-alone", is_flag=True, hidden=True)
@synthesis_options("soft")
@options.network
def classimage(
    names: tuple[str, ...],
    plain_logit: bool,
    logit_alone: bool,
    settings: dict[str, Any],
    outputs: Outputs,
    chosen: Chosen,
) -> None:
    """Class visualization: images that maximize the logit of each CLASS, minus half the runner-up's.

    A class is given by label, number or WordNet id; `cnnviz classes` lists them. Such an image resembles no photograph,
    yet the network's confidence in it is higher than in any: it is a fooling image (Nguyen et al. 2015).

    \b
    Example:
      cnnviz classimage "tabby" goldfish -o classes.png
    """
    from cnnviz.synthesis.maximization import class_job

    network = chosen.load(classes=True, quiet=outputs.quiet)
    job = class_job(network, list(dict.fromkeys(names)), alone=plain_logit or logit_alone, **settings)
    outputs.run(job, network.name, "classimage", "_".join(names)[:60])
