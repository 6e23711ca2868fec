"""The command line. Commands read their arguments, call the library and say what they did; only they print.

Nothing here imports torch before a command runs, so that help and completion come at once.
"""

import errno
from typing import Any

import click

from cnnviz.cli.app import app
from cnnviz.cli.commands import Group
from cnnviz.cli.defaults import defaults_of
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


class _Commands(Group):
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


HEADINGS = {
    "Look": (featuremaps, filters, classimage, dream, invert, kernels),
    "Explain": (predict, saliency, evidence),
    "Browse": (report, gallery, app, inspect, rerun),
    "Networks": (models, layers, classes, weights),
}
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
EPILOG = """
Defaults: the environment variable CNNVIZ_MODEL names the network; a file cnnviz.toml in the working directory holds
defaults of options, such as model = "vgg16-mini" or device = "cpu".
"""


@click.group(
    cls=_Commands,
    headings={title: [str(command.name) for command in commands] for title, commands in HEADINGS.items()},
    context_settings=SETTINGS,
    epilog=EPILOG,
)
@click.version_option(package_name="cnnviz", message="cnnviz %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Look inside convolutional networks.

    Start with `cnnviz featuremaps IMAGE`. The network is VGG16 unless --model names another; `cnnviz models` lists
    networks, `cnnviz layers` the layers of one.
    """
    context.default_map = defaults_of(cli)


for commands in HEADINGS.values():
    for command in commands:
        cli.add_command(command)
