"""What is done with a gallery's folder that is there: `cnnviz gallery status`, `verify`, `site` and `serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnviz.cli.networks import print_table
from cnnviz.cli.options import json_option, quiet_option
from cnnviz.cli.terminal import echo, say_json

if TYPE_CHECKING:
    from cnnviz.galleries.store import Store

STATES = ("ok", "weak", "dead")

here_argument = click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.command()
@here_argument
@json_option
def status(out: Path, as_json: bool) -> None:
    """Show how far the gallery in OUT is, layer by layer.

    \b
    Example:
      cnnviz gallery status vgg
    """
    from cnnviz.galleries.store import Store

    rows = rows_of(Store(out))
    if as_json:
        say_json(rows)
        return
    names = ["layer", "filters", "drawn", *STATES]
    print_table(names, [[str(row[name]) for name in names] for row in rows], right=5)
    drawn, planned = (sum(row[name] for row in rows) for name in ("drawn", "filters"))
    echo(f"{drawn} of {planned} filters are drawn ({drawn / max(1, planned):.0%})")


@click.command()
@here_argument
@json_option
@click.pass_context
def verify(context: click.Context, out: Path, as_json: bool) -> None:
    """Read everything in OUT again and name what is missing, damaged, stale or left over; exit 1 if anything is.

    \b
    Example:
      cnnviz gallery verify vgg
    """
    from cnnviz.galleries.checking import check

    planned, faults = check(out)
    if as_json:
        say_json([vars(fault) for fault in faults])
    else:
        for fault in faults:
            echo(f"{fault.kind}: {fault.file} ({fault.why})")
        what = f"{len(faults)} faults" if faults else "nothing is wrong"
        again = f"; `cnnviz gallery build {out}` and `examples` make it good" if faults else ""
        echo(f"{out}: {planned.count} filters in {len(planned.layers)} layers, {what}{again}", err=bool(faults))
    if faults:
        context.exit(1)


@click.command()
@here_argument
@quiet_option
def site(out: Path, quiet: bool) -> None:
    """Make static pages of the gallery in OUT: open OUT/index.html, or put the folder on any web server.

    \b
    Example:
      cnnviz gallery site vgg
    """
    from cnnviz.galleries.pages import write_site
    from cnnviz.galleries.store import Store

    start = write_site(Store(out))
    if not quiet:
        echo(f"{start}: open it in a browser, or take `cnnviz gallery serve {out}`")


@click.command()
@here_argument
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--browser/--no-browser", default=True, help="Whether to open the page.")
def serve(out: Path, port: int, browser: bool) -> None:
    """Show the pages of the gallery in OUT in a browser, from this machine only (127.0.0.1). Ctrl-C ends it.

    \b
    Example:
      cnnviz gallery serve vgg
    """
    from cnnviz.galleries.serving import server

    with server(out, port) as running:
        address = f"http://127.0.0.1:{running.server_address[1]}/"
        echo(f"{out} at {address} (Ctrl-C ends it)")
        if browser:
            click.launch(address)
        running.serve_forever()


def rows_of(store: "Store") -> list[dict[str, Any]]:
    """Of each layer, how many filters there are to be, are drawn, and came out how."""
    plan = store.planned()
    done, rows = store.done(plan), []
    for layer in plan.layers:
        records = store.records(layer.layer)
        found = [records[number]["status"] for number in done[layer.layer]]
        counts = {state: found.count(state) for state in STATES}
        rows.append({"layer": layer.layer, "filters": len(layer.filters), "drawn": len(found)} | counts)
    return rows
