"""`cnnviz report`: the story of one picture in one network, as a page."""

from pathlib import Path

import click

from cnnviz.cli.options import Chosen, names, network_options, quiet_option
from cnnviz.cli.output import check_apart, sheet_file
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import echo


@click.command()
@click.argument("picture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A .html file.")
@click.option(
    "--filters",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Channels to look at closely at each of three depths; most of the time goes into them.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Of the images made for them; those of a draft by default.")
@click.option(
    "--method", "methods", default="integrated-gradients,grad-cam", show_default=True, help="One or more, with commas."
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@network_options
@quiet_option
def report(
    picture: Path,
    output: Path | None,
    filters: int,
    steps: int | None,
    methods: str,
    seed: int,
    chosen: Chosen,
    quiet: bool,
) -> None:
    """Tell the story of PICTURE in one network, as a single page.

    What it is taken for, what becomes of it with depth, which pixels spoke for the class, which channels fired and what
    they look for; measured, and in pictures. The page needs no other file and asks for nothing from elsewhere.

    \b
    Example:
      cnnviz report cat.jpg --model vgg16-mini -o report.html
    """
    from cnnviz.files import check_writable
    from cnnviz.web.report import check_ending, make_report

    if output is not None:
        check_apart(check_ending(output), picture)
    check_writable(output or Path("report.html"))
    network = chosen.load(quiet=quiet)
    with waiting("looking ...", quiet=quiet) as say:
        found = make_report(
            network,
            picture,
            methods=names(methods),
            filters=filters,
            steps=steps,
            seed=seed,
            watch=say,
        )
    named = sheet_file(picture.stem, network.name, "report").with_suffix(".html")
    file, first = found.save(output or named), found.predictions[0]
    if not quiet:
        taken = f"{found.shown.names[0]} is taken for {first.label} ({first.probability:.1%}) by {network.name}"
        echo(f"{file}: {taken}")
