"""What fills in the templates of pages: Jinja with everything escaped, and the words that all pages share."""

from pathlib import Path
from typing import TYPE_CHECKING

from cnnviz.web import charts

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
STATES = {
    "ok": "No simple pattern, noise or photograph scores higher.",
    "weak": "A simple pattern, noise or a photograph scores higher: the optimization has not converged.",
    "dead": "The filter is not activated anywhere in its image.",
    "missing": "Planned, not drawn yet.",
}
TIMES = "\N{MULTIPLICATION SIGN}"


def environment() -> "Environment":
    """What fills in the templates; everything that others named is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(HERE / "templates")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters |= {"short": charts.short}
    pages.globals |= {"canvas": (charts.WIDTH, charts.HEIGHT), "axes": charts.AXES}
    return pages
