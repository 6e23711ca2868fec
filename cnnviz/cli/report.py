"""`cnnviz report`: the story of one image in one network, as a page."""

from pathlib import Path

import click

from cnnviz.cli import options
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import check_apart, sheet_file
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import echo


@click.command()
@options.picture
@click.option("-o", "--output", type=options.NEW_FILE, help="A .html file.")
@click.option(
    "--filters",
    type=options.AT_LEAST_ONE,
    default=10,
    show_default=True,
    help="Channels to look at closely at each of three depths; most of the time goes into them.",
)
@options.steps("Of the images made for them; those of a draft by default.")
@options.methods("integrated-gradients,grad-cam", "One or more, with commas.")
@options.draws()
@options.network
@options.quiet
def report(
    picture: Path,
    output: Path | None,
    filters: int,
    steps: int | None,
    methods: list[str],
    seed: int,
    chosen: Chosen,
    quiet: bool,
) -> None:
    """Tell the story of IMAGE in one network, as a single page.

    What it is taken for, what becomes of it with depth, which pixels spoke for the class, which channels fired and what
    they look for; measured, and in images. The page needs no other file and asks for nothing from elsewhere.

    \b
    Example:
      cnnviz report cat.jpg --model vgg16-mini -o report.html
    """
    from cnnviz.files import check_writable
    from cnnviz.web.report import check_ending, make_report

    if output is not None:
        check_apart(check_ending(output), picture)
    check_writable(output or Path("report.html"))
    network = chosen.load(classes=True, quiet=quiet)
    with waiting("looking ...", quiet=quiet) as say:
        findings = make_report(
            network,
            picture,
            methods=methods,
            filters=filters,
            steps=steps,
            seed=seed,
            watch=say,
        )
    named = sheet_file(picture.stem, network.name, "report").with_suffix(".html")
    file, first = findings.save(output or named), findings.predictions[0]
    if not quiet:
        taken = f"{findings.shown.names[0]} is taken for {first.label} ({first.text}) by {network.name}"
        echo(f"{file}: {taken}")
