"""``python -m cnnviz`` is ``cnnviz``."""

from cnnviz.cli import cli

cli(prog_name="cnnviz")
