"""Every family of timm's: what cnnviz says of its layers, against plain hooks.

    OMP_NUM_THREADS=1 python tests/long_runs/families.py [FAMILY ...] > families.txt

needs ``pip install -e '.[dev]'``. It prints a table in Markdown, with a line for each family as soon as it is known: of
each the model with the fewest parameters is taken, but for those made for timm's own tests, with random weights. Each
has a process of its own, which is ended when it takes too long or too much memory. What disagrees with a plain hook is
marked "wrong".
"""

import multiprocessing
import os
import resource
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import timm
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.attribution.explainer import explainer
from cnnviz.attribution.methods import METHODS
from cnnviz.attribution.suitability import layer_for
from cnnviz.errors import CnnvizError
from cnnviz.networks.layers import convolutions
from cnnviz.networks.network import Network

CLASS = 3
COUNTING = 0.1  # share of a layer's numbers that a score depends on: of a class token's tokens it is one in hundreds
BYTES = 12 * 2**30  # that the process of one family may have
COLUMNS = ["family", "model", "layer", "gives", "maps", "heatmap", "gradient", "later", "convolutions", "filters", "s"]


def smallest(family: str, most: float) -> str:
    """The model of a family with the fewest parameters, as PyTorch's meta device counts them.

    Raises:
        ValueError: if all have more than `most`.
    """
    counts = {}
    for name in timm.list_models(module=family, exclude_filters="test_*"):
        with torch.device("meta"):
            counts[name] = sum(weight.numel() for weight in timm.create_model(name).parameters())
    name = min(counts, key=lambda name: counts[name])
    if counts[name] > most:
        raise ValueError(f"the smallest, {name}, has {counts[name] / 1e6:.0f} million parameters")
    return name


def wrapped(name: str) -> Network:
    """A model of timm's, as cnnviz takes it; weights that begin as zeros, for which nothing counts, are drawn too."""
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=10).eval()
    for weight in module.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.02)
    settings = module.default_cfg
    _, *size = settings.get("input_size", (3, 224, 224))
    return cnnviz.wrap(module, name=name, input_size=tuple(size), mean=settings["mean"], std=settings["std"])


@dataclass(frozen=True)
class End:
    """What a hook sees where a module ends, and the share of its numbers that the score of `CLASS` depends on."""

    name: str
    output: Tensor
    depends: float

    def __str__(self) -> str:
        return " x ".join(map(str, self.output.shape[1:]))


def hooked(network: Network, image: Tensor) -> tuple[list[End], dict[str, int]]:
    """The ends of all modules in their order, and the channels of each convolution that runs, by plain hooks."""
    outputs: list[tuple[str, Tensor]] = []
    channels: dict[str, int] = {}

    def keep(name: str, part: nn.Module, output: object) -> Tensor | None:
        if isinstance(part, nn.Conv2d) and isinstance(output, Tensor):
            channels[name] = output.shape[1]
        if not isinstance(output, Tensor) or not output.requires_grad:
            return None
        outputs.append((name, output))
        return output.clone()  # what follows may write into it

    named = [(name, part) for name, part in network.module.named_modules() if name]
    handles = [
        part.register_forward_hook(lambda part, _, output, name=name: keep(name, part, output)) for name, part in named
    ]
    inputs = ((image - network.mean) / network.std).requires_grad_()
    score = network.module(inputs).flatten()[CLASS]
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(score, [output for _, output in outputs], allow_unused=True)
    depends = [0.0 if gradient is None else float((gradient != 0).float().mean()) for gradient in gradients]
    ends = [End(name, output.detach(), share) for (name, output), share in zip(outputs, depends, strict=True)]
    return ends, channels


def same_numbers(maps: Tensor, output: Tensor) -> bool:
    """Whether maps (1, C, H, W) are numbers of a layer's output in another arrangement, and nearly all of them."""
    own, given = maps.flatten().sort().values, output.flatten().sort().values
    missing = len(given) - len(own)
    if missing == 0:
        return torch.allclose(own, given, rtol=1e-3, atol=1e-5)
    return 0 < missing <= 8 * maps.shape[1] and bool(torch.isin(own, given).float().mean() > 0.99)


def checked(name: str) -> Iterator[str]:
    """The cells of one model, "wrong" where a hook says otherwise."""
    network = wrapped(name)
    image = torch.rand(1, 3, *network.input_size)
    layer = layer_for(network, explainer(network).structure, METHODS["grad-cam"], None)
    assert layer is not None
    yield f"`{layer}`"
    ends, channels = hooked(network, image)
    places = [place for place, end in enumerate(ends) if end.name == network.qualified(layer)]
    own = ends[places[0]]
    yield str(own)
    maps = cnnviz.feature_maps(network, image, layer).maps
    yield " x ".join(map(str, maps.shape[1:])) + ("" if same_numbers(maps, own.output) else " wrong")
    heat = cnnviz.attribute(network, image, CLASS, method="grad-cam")
    yield f"{heat.shape[2]} x {heat.shape[3]}" + ("" if heat.shape[2:] == maps.shape[2:] else " wrong")
    yield f"{own.depends:.0%}" + ("" if own.depends > COUNTING else " wrong")
    later = [end for end in ends[places[-1] + 1 :] if end.output.ndim > 2 and end.depends > COUNTING]
    yield ", ".join(f"`{end.name}` {end}" for end in later if max(end.output.shape) < end.output.numel()) or "none"
    paths = [network.filters_of(name).module for name in convolutions(network)]
    filters = {path: network.layers[path].out_channels for path in paths}
    yield f"{len(filters)}" + ("" if filters.keys() == channels.keys() else f" wrong: {len(channels)} run")
    yield f"{sum(filters.values())}" + ("" if filters == channels else f" wrong: {sum(channels.values())}")


def cells(family: str, model: str, most: float) -> Iterator[str]:
    """The model of a family, and its cells; a reason in their place where there are none."""
    try:
        name = model or smallest(family, most)
        yield name
        yield from checked(name)
    except CnnvizError as error:
        yield f"refused: {error}"
    except Exception as error:  # noqa: BLE001 - what timm cannot build here, or a fault of ours
        yield f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def send(sender: Connection, family: str, model: str, most: float) -> None:
    """All cells of a family, one after the other, with an empty one behind them."""
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    for cell in cells(family, model, most):
        sender.send(cell)
    sender.send(None)


def bounded(family: str, model: str, most: float, seconds: float) -> list[str]:
    """The cells of a family; a process of its own has so many seconds for them once it has chosen the model."""
    forking = multiprocessing.get_context("fork")
    receiver, sender = forking.Pipe(duplex=False)
    process = forking.Process(target=send, args=(sender, family, model, most))
    process.start()
    sender.close()
    known: list[str] = []
    try:
        known.append(receiver.recv())
        ends = time.monotonic() + seconds
        while receiver.poll(max(0.0, ends - time.monotonic())):
            cell = receiver.recv()
            if cell is None:
                return known
            known.append(cell)
        return [*known, f"skipped: takes more than {seconds:.0f} s"]
    except EOFError:
        return [*known, "its process ended early"]
    finally:
        process.kill()
        process.join()


@click.command()
@click.argument("families", nargs=-1)
@click.option("--seconds", default=90.0, show_default=True, help="How long a model may take.")
@click.option("--most", default=500e6, show_default=True, help="Parameters that a model may have.")
def main(families: tuple[str, ...], seconds: float, most: float) -> None:
    """Print the table, of all FAMILIES unless some are named; FAMILY=MODEL chooses the model as well."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    click.echo(f"| {' | '.join(COLUMNS)} |\n|{len(COLUMNS) * '---|'}")
    for chosen in families or timm.list_modules():
        started = time.perf_counter()
        family, _, model = chosen.partition("=")
        known = bounded(family, model, most, seconds)
        empty = [""] * (len(COLUMNS) - 2 - len(known))
        click.echo(f"| {' | '.join([family, *known, *empty])} | {time.perf_counter() - started:.0f} |")


if __name__ == "__main__":
    main()
