"""`cnnviz gallery`: feature visualizations of all filters of a network."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import click

from cnnviz.cli import completion, options
from cnnviz.cli.commands import Group
from cnnviz.cli.options import Chosen
from cnnviz.cli.progress import bar, waiting
from cnnviz.cli.terminal import counted, echo, print_table, say_json
from cnnviz.cli.values import Finite, filters_or_all
from cnnviz.errors import fault_of_machine

if TYPE_CHECKING:
    from cnnviz.galleries.engines import Engine
    from cnnviz.galleries.plan import Request
    from cnnviz.galleries.store import Store

STATES = ("ok", "weak", "dead")


@click.group(cls=Group)
def gallery() -> None:
    """Feature visualization of every filter of a network, in a folder that can be resumed, verified and browsed.

    \b
    Example:
      cnnviz gallery build vgg
      cnnviz gallery examples vgg --images photographs
      cnnviz gallery site vgg
      cnnviz gallery serve vgg
    """


def _request(layers: str, filters: tuple[int, ...] | Literal["all"], settings: dict[str, Any]) -> "Request":
    from cnnviz.galleries.plan import Request

    named = () if layers == "all" else tuple(name.strip() for name in layers.split(","))
    return Request(named, None if filters == "all" else filters, settings)


@dataclass(frozen=True)
class ChosenEngine:
    """Where the work is to be done, as it was asked for."""

    engine: str
    address: str | None
    gpus: float | None

    def start(self, chosen: Chosen, *, quiet: bool) -> "Engine":
        """The engine, with the network."""
        from cnnviz.galleries.engines import InProcess

        if self.engine == "ray":
            from cnnviz.galleries.ray_engine import OnRay

            return OnRay(chosen.load(quiet=quiet).cpu(), self.address, self.gpus)
        if self.address is not None or self.gpus is not None:
            raise click.UsageError("--address and --gpus-per-worker are for --engine ray.")
        return InProcess(chosen.load(quiet=quiet))


new_folder_argument = click.argument("out", type=click.Path(file_okay=False, path_type=Path))
folder_argument = click.argument("out", type=options.A_FOLDER)
request_options = options.gathered(
    "request",
    _request,
    [
        click.option(
            "--layers",
            metavar="LAYER,...",
            default="all",
            help="Layers, separated by commas, or 'all' convolutions.",
            shell_complete=completion.layers,
        ),
        click.option(
            "--filters",
            type=filters_or_all,
            default="all",
            metavar="LIST",
            help="Filters of each layer, such as 0-63.",
        ),
        options.recipe("auto"),
    ],
)
engine_options = options.gathered(
    "chosen_engine",
    ChosenEngine,
    [
        options.choice(
            "--engine",
            ["process", "ray"],
            "process",
            "This process, or a Ray cluster (pip install 'cnnviz[ray]').",
        ),
        click.option(
            "--address", metavar="ADDRESS", help="The Ray cluster: auto or ray://HOST:PORT; by default a local one."
        ),
        click.option(
            "--gpus-per-worker",
            "gpus",
            type=Finite(min=0),
            metavar="N",
            help="GPUs of each Ray worker; by default 1 if the cluster has any, else 0.",
        ),
    ],
)


@gallery.command()
@new_folder_argument
@request_options
@engine_options
@options.network
@options.quiet
def build(
    out: Path,
    request: "Request",
    chosen_engine: ChosenEngine,
    chosen: Chosen,
    quiet: bool,
) -> None:
    """Build the gallery in the folder OUT, or resume an interrupted build.

    Only filters that are missing, or were drawn with other settings or weights, are drawn. Layers and filters are added
    to those that the gallery holds.

    \b
    Example:
      cnnviz gallery build vgg --layers block4_conv1,block5_conv3 --filters 0-63 --preset draft
    """
    from cnnviz.galleries.building import building
    from cnnviz.galleries.store import Store

    store = Store(out)
    engine = chosen_engine.start(chosen, quiet=quiet)
    progress = None
    try:
        with bar("planning", "filters", quiet=quiet) as draw:
            for progress in building(engine, store, request):
                draw(progress)
    except (KeyboardInterrupt, RuntimeError, MemoryError) as error:
        if progress is not None and (isinstance(error, KeyboardInterrupt) or fault_of_machine(error)):
            echo(f"{progress.finished} of {progress.count} filters are kept; the same command goes on", err=True)
        raise
    if not quiet:
        rows = _rows(store)
        counts = {state: sum(row[state] for row in rows) for state in STATES}
        listed = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        held = counted(store.planned().count, "filter")
        echo(f"{out}: {held}, {listed}; `cnnviz gallery site {out}` makes pages of them")


@gallery.command()
@request_options
@options.network
@options.json
def plan(request: "Request", chosen: Chosen, as_json: bool) -> None:
    """Estimate the cost of a build, without drawing anything or downloading weights.

    Counted are the floating-point operations of all steps. Measured are this machine's speed, by some steps and some
    judging of up to sixteen of the layers with zeros for weights, and the time to start. Repeated attempts at filters
    that fail are not counted.

    \b
    Example:
      cnnviz gallery plan --model vgg16 --layers all
    """
    started = perf_counter()
    import torch

    from cnnviz.galleries.plan import estimate, plan_layers
    from cnnviz.galleries.rates import measured_speeds, with_zeros

    network = with_zeros(chosen.outline(), torch.device(chosen.device_name()))
    layers = plan_layers(network, request)
    start = perf_counter() - started
    whole, parts = estimate(layers), [estimate([layer]) for layer in layers]
    speeds = measured_speeds(network, layers)
    times = [speed.seconds(layer) for speed, layer in zip(speeds, layers, strict=True)]
    seconds = start + sum(times)
    if as_json:
        rows = [
            {"layer": layer.layer} | vars(part) | {"flops_per_second": speed.steps, "seconds": time}
            for layer, part, speed, time in zip(layers, parts, speeds, times, strict=True)
        ]
        say_json({"layers": rows} | vars(whole) | {"start_seconds": start, "seconds": seconds})
        return
    cells = [
        [
            layer.layer,
            str(part.filters),
            " x ".join(map(str, layer.settings["size"])),
            str(layer.settings["steps"]),
            f"{part.flops / 1e12:,.1f}",
            _time(time),
        ]
        for layer, part, time in zip(layers, parts, times, strict=True)
    ]
    print_table(["layer", "filters", "size", "steps", "TFLOP", "time"], cells, right=5)
    echo(
        f"{counted(whole.filters, 'filter')}, {whole.flops / 1e12:,.1f} TFLOP,"
        f" at most {whole.pixels / 1e6:,.1f} MB of images;"
        f" about {_time(seconds)} on this machine, unless filters fail and are drawn again"
    )


@gallery.command()
@folder_argument
@click.option(
    "--images",
    "folder",
    required=True,
    type=options.A_FOLDER,
    help="A folder of images, and of folders of images.",
)
@click.option("--top", type=click.IntRange(1, 100), metavar="N", default=9, help="Number of images per filter.")
@engine_options
@options.network
@options.quiet
def examples(
    out: Path,
    folder: Path,
    top: int,
    chosen_engine: ChosenEngine,
    chosen: Chosen,
    quiet: bool,
) -> None:
    """Find the top activating images of each filter of the gallery in OUT, and their receptive fields.

    One pass over the images of a folder, each center-cropped by the network's published preprocessing; if interrupted,
    it resumes. Images that cannot be read are counted, listed in examples.json, and skipped.

    \b
    Example:
      cnnviz gallery examples vgg --images photographs
    """
    from cnnviz.galleries.natural_examples import find_examples
    from cnnviz.galleries.store import Store

    store = Store(out)
    store.planned()
    engine = chosen_engine.start(chosen, quiet=quiet)
    progress = None
    with waiting("reading", quiet=quiet) as say:
        for progress in find_examples(engine, store, folder, top):
            say(f"{progress.done} of {progress.total} images", progress.share)
    if not quiet:
        unusable = progress.done - progress.finished if progress else 0
        skipped = f", {unusable} could not be used" if unusable else ""
        read = f"{counted(progress.finished, 'image')}{skipped}" if progress else "nothing new"
        echo(f"{out}: examples from {folder.name}: {read}; `cnnviz gallery site {out}` shows them")


@gallery.command()
@folder_argument
@options.json
def status(out: Path, as_json: bool) -> None:
    """Show the progress of the gallery in OUT, layer by layer.

    \b
    Example:
      cnnviz gallery status vgg
    """
    from cnnviz.galleries.store import Store

    rows = _rows(Store(out))
    if as_json:
        say_json({"layers": rows})
        return
    names = ["layer", "filters", "drawn", *STATES]
    print_table(names, [[str(row[name]) for name in names] for row in rows], right=5)
    drawn, planned = (sum(row[name] for row in rows) for name in ("drawn", "filters"))
    echo(f"{drawn} of {planned} filters are drawn ({drawn / max(1, planned):.0%})")


@gallery.command()
@folder_argument
@options.json
@click.pass_context
def verify(context: click.Context, out: Path, as_json: bool) -> None:
    """Check all files of the gallery in OUT; list what is missing, damaged, stale or left over (exit status 1).

    \b
    Example:
      cnnviz gallery verify vgg
    """
    from cnnviz.galleries.verification import check

    planned, faults = check(out)
    if as_json:
        say_json({"faults": [vars(fault) for fault in faults]})
    else:
        for fault in faults:
            echo(f"{fault.kind}: {fault.file} ({fault.why})")
        what = counted(len(faults), "fault") if faults else "nothing is wrong"
        again = f"; `cnnviz gallery build {out}` and `examples` make it good" if faults else ""
        held = f"{counted(planned.count, 'filter')} in {counted(len(planned.layers), 'layer')}"
        echo(f"{out}: {held}, {what}{again}", err=bool(faults))
    if faults:
        context.exit(1)


@gallery.command()
@folder_argument
@options.quiet
def site(out: Path, quiet: bool) -> None:
    """Make static pages of the gallery in OUT: open OUT/index.html, or put the folder on any web server.

    \b
    Example:
      cnnviz gallery site vgg
    """
    from cnnviz.galleries.store import Store
    from cnnviz.web.gallery_site import write_site

    start = write_site(Store(out))
    if not quiet:
        echo(f"{start}: open it in a browser, or take `cnnviz gallery serve {out}`")


@gallery.command()
@folder_argument
@options.port(0, 8000, "Port to serve at; 0 for a free one.")
@options.browser
def serve(out: Path, port: int, browser: bool) -> None:
    """Show the pages of the gallery in OUT in a browser, from this machine only (127.0.0.1). Ctrl-C ends it.

    \b
    Example:
      cnnviz gallery serve vgg
    """
    from cnnviz.web.server import server

    with server(out, port) as running:
        address = f"http://127.0.0.1:{running.server_address[1]}/"
        echo(f"{out} at {address} (Ctrl-C ends it)")
        if browser:
            click.launch(address)
        running.serve_forever()


def _rows(store: "Store") -> list[dict[str, Any]]:
    """Of each layer, how many filters there are to be, are drawn, and came out how."""
    plan = store.planned()
    done, rows = store.done(plan), []
    for layer in plan.layers:
        records = store.records(layer.layer)
        states = [records[number]["status"] for number in done[layer.layer]]
        counts = {state: states.count(state) for state in STATES}
        rows.append({"layer": layer.layer, "filters": len(layer.filters), "drawn": len(states)} | counts)
    return rows


def _time(seconds: float) -> str:
    """A length of time for people, to two digits."""
    if seconds < 1:
        return "< 1 second"
    for length, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {name}"
    return f"{seconds:.2g} seconds"
