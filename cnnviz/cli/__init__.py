"""The command line. Commands read their arguments, call the library and say what they did; only they print.

Nothing here imports torch before a command runs, so that help and completion come at once.
"""

import errno
from typing import Any

import click

from cnnviz.cli.app import app
from cnnviz.cli.dreams import dream, invert, kernels
from cnnviz.cli.evidence import evidence
from cnnviz.cli.featuremaps import featuremaps
from cnnviz.cli.filters import classimage, filters
from cnnviz.cli.gallery import gallery
from cnnviz.cli.networks import classes, layers, models, weights
from cnnviz.cli.predict import predict
from cnnviz.cli.records import inspect, rerun
from cnnviz.cli.report import report
from cnnviz.cli.saliency import saliency
from cnnviz.cli.terminal import echo, printable, spell_out_what_cannot_be_encoded
from cnnviz.errors import CnnvizError, fault_of_machine

INTERRUPTED = 130


class _Commands(click.Group):
    """Tells a caller's faults, and a machine's, in one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        spell_out_what_cannot_be_encoded()
        try:
            return super().invoke(ctx)
        except CnnvizError as error:
            raise click.ClickException(_one_line(str(error))) from error
        except click.ClickException as error:
            error.message = "\n".join(map(printable, error.message.split("\n")))  # type: ignore[misc]  # help has lines
            raise
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read has read enough; click ends quietly then
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(_one_line(f"{where}{error.strerror or error}.")) from error
        except UnicodeEncodeError as error:
            name = printable(str(error.object)[:80])
            raise click.ClickException(f"a name that is not UTF-8 cannot be written ({name}); rename it.") from error
        except KeyboardInterrupt:
            echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if fault := fault_of_machine(error):
                raise click.ClickException(_one_line(fault)) from error
            raise


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cnnviz", message="cnnviz %(version)s")
def cli() -> None:
    """See inside convolutional networks.

    Start with `cnnviz featuremaps IMAGE --layer block4_conv2`. The network is VGG16 unless --model names another;
    `cnnviz models` lists them, `cnnviz layers` lists what can be looked at.
    """


for command in (
    featuremaps,
    filters,
    classimage,
    dream,
    invert,
    kernels,
    saliency,
    evidence,
    report,
    gallery,
    inspect,
    rerun,
    app,
    predict,
    layers,
    models,
    classes,
    weights,
):
    cli.add_command(command)
