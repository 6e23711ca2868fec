"""Options of how sheets are laid out and maps are drawn, for commands whose images go into slides and papers."""

from typing import TYPE_CHECKING, Any

import click

from cnnviz.cli.options import AT_LEAST_ONE, gathered
from cnnviz.cli.values import Finite

if TYPE_CHECKING:
    from cnnviz.pictures.sheets import Layout


def _layout(columns: int | None, tile: int | None, title: str | None, captions: bool, dpi: int | None) -> "Layout":
    return {"columns": columns, "tile": tile, "title": title, "captions": captions, "dpi": dpi}


def _look(alpha: float | None, cmap: str | None) -> dict[str, Any]:
    """What was asked for, and nothing else."""
    return {name: value for name, value in (("alpha", alpha), ("cmap", cmap)) if value is not None}


layout = gathered(
    "layout",
    _layout,
    [
        click.option(
            "--columns", type=AT_LEAST_ONE, metavar="N", help="Tiles side by side. Default: a landscape sheet."
        ),
        click.option("--tile", type=click.IntRange(1, 4096), metavar="PX", help="Width of a tile in pixels."),
        click.option("--title", metavar="TEXT", help="Title of the sheet."),
        click.option("--captions/--no-captions", default=True, help="Header and captions, or the bare images."),
        click.option("--dpi", type=click.IntRange(10, 1200), metavar="N", help="Resolution; 100 is the usual one."),
    ],
)
look = gathered(
    "look",
    _look,
    [
        click.option("--alpha", type=Finite(0, 1), metavar="A", help="Opacity of overlays. Default: 0.8."),
        click.option(
            "--cmap", metavar="NAME", help="A colour map of matplotlib's for unsigned maps. Default: inferno."
        ),
    ],
)
