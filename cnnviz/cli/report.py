"""`cnnviz report`: one image in one network, as a page."""

from pathlib import Path

import click

from cnnviz.attribution.methods import DEFAULTS
from cnnviz.cli import options
from cnnviz.cli.commands import command
from cnnviz.cli.options import Chosen
from cnnviz.cli.output import Target, check_apart
from cnnviz.cli.progress import waiting
from cnnviz.cli.terminal import echo


@command()
@options.picture
@options.page
@click.option(
    "--filters",
    type=options.AT_LEAST_ONE,
    metavar="N",
    default=9,
    help="Most active channels shown at each of three depths; most of the time goes into them.",
)
@options.steps("Optimization steps of their feature visualizations; those of --preset draft by default.")
@options.methods(",".join(DEFAULTS), "One or more, separated by commas.")
@options.seed
@options.network
@options.quiet
def report(
    picture: Path,
    target: Target,
    filters: int,
    steps: int | None,
    methods: list[str],
    seed: int,
    chosen: Chosen,
    quiet: bool,
) -> None:
    """Report on IMAGE in one network, as a single page of HTML.

    Prediction, feature maps by depth, attribution, the most active channels and their feature visualizations. The page
    needs no other file and loads nothing from elsewhere.

    \b
    Example:
      cnnviz report cat.jpg --model vgg16-mini -o report.html
    """
    from cnnviz.files import check_writable
    from cnnviz.web.report import check_ending, make_report

    if target.folder is None:
        check_apart(check_ending(target.file()), picture)
    check_writable(target.file("report"))
    network = chosen.load(classes=True, quiet=quiet)
    with waiting("measuring ...", quiet=quiet) as say:
        findings = make_report(
            network,
            picture,
            methods=methods,
            filters=filters,
            steps=steps,
            seed=seed,
            watch=say,
        )
    named = target.file(picture.stem, network.name, "report", ending=".html")
    file, first = findings.save(target.free(named)), findings.predictions[0]
    if not quiet:
        echo(f"{file}: {findings.shown.names[0]}, prediction of {network.name}: {first.label} ({first.text})")
