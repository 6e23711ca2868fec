"""What a shell offers when a name is begun: networks, layers, methods. No code of a user's is run for it."""

from collections.abc import Iterable

import click

from cnnviz.attribution.methods import METHODS
from cnnviz.errors import CnnvizError


def methods(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    return _continued(begun, METHODS)


def models(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    from cnnviz.models import builtin, zoo

    return _continued(begun, [builtin.NAME, *zoo.names()])


def layers(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """The layers of the network that is named, or of the default; of a user's own network none."""
    from cnnviz.models import outline, zoo

    name = ctx.params.get("model") or zoo.DEFAULT
    try:
        return [] if ":" in name else _continued(begun, outline(name).layers)
    except CnnvizError:
        return []


def _continued(begun: str, names: Iterable[str]) -> list[str]:
    """Names that begin like what stands after the last comma, after what stands before it."""
    before, comma, last = begun.rpartition(",")
    return [before + comma + name for name in names if name.startswith(last)]
