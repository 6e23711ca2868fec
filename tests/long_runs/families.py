"""Every family of timm's: its convolutions, and the layer Grad-CAM looks at, against plain hooks.

Run it with ``python tests/long_runs/families.py``, after ``pip install -e '.[dev]'``; it prints a table, with a line
for each family. Weights are random; of each family the model with the fewest parameters is taken.
"""

import time
import warnings
from collections.abc import Iterator

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

MOST = 60e6  # parameters; larger ones would take all day
CLASS = 3


def smallest(family: str) -> str | None:
    """The model of a family with the fewest parameters, as PyTorch's meta device counts them."""
    counted = {}
    for name in timm.list_models(module=family):
        try:
            with torch.device("meta"):
                counted[name] = sum(weight.numel() for weight in timm.create_model(name).parameters())
        except Exception:  # noqa: BLE001 - some compute with numbers while they are built
            counted[name] = int(MOST)
    small = {name: count for name, count in counted.items() if count <= MOST}
    return min(small, key=lambda name: small[name]) if small else None


def hooked(module: nn.Module, image: Tensor, layer: str) -> tuple[int, Tensor]:
    """How many convolutions run, and what a layer gives the first time."""
    ran: set[nn.Module] = set()
    kept: list[Tensor] = []
    parts = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    handles = [part.register_forward_hook(lambda part, *_: ran.add(part)) for part in parts]
    handles.append(module.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output.clone())))
    with torch.no_grad():
        module(image)
    for handle in handles:
        handle.remove()
    return len(ran), kept[0]


def same_numbers(maps: Tensor, output: Tensor) -> bool:
    """Whether maps (1, C, H, W) are numbers of a layer's output in another arrangement, and nearly all of them."""
    own, given = maps.flatten().sort().values, output.flatten().sort().values
    missing = len(given) - len(own)
    if missing == 0:
        return torch.allclose(own, given, rtol=1e-3, atol=1e-5)
    return 0 < missing <= 8 * maps.shape[1] and bool(torch.isin(own, given).float().mean() > 0.99)


def checked(name: str) -> Iterator[str]:
    """The cells of one model: its Grad-CAM layer, maps, and convolutions, "wrong" where a hook says otherwise."""
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=10).eval()
    settings = module.default_cfg
    _, side, _ = settings.get("input_size", (3, 224, 224))
    network = cnnviz.wrap(module, name=name, input_size=side, mean=settings["mean"], std=settings["std"])
    image = torch.rand(1, 3, side, side)
    ready = explainer(network)
    layer = layer_for(network, ready.structure, METHODS["grad-cam"], None)
    assert layer is not None
    maps = cnnviz.feature_maps(network, image, layer).maps
    ran, output = hooked(module, (image - network.mean) / network.std, layer)
    heat = cnnviz.attribute(network, image, CLASS, method="grad-cam")
    yield f"`{layer}`"
    yield " x ".join(map(str, output.shape[1:]))
    yield " x ".join(map(str, maps.shape[1:])) + ("" if same_numbers(maps, output) else " wrong")
    yield f"{heat.shape[2]} x {heat.shape[3]}" + ("" if heat.shape[2:] == maps.shape[2:] else " wrong")
    found = len(convolutions(network))
    yield f"{found}" + ("" if found == ran else f" wrong: {ran} run")


@click.command()
@click.argument("families", nargs=-1)
def main(families: tuple[str, ...]) -> None:
    """Print the table, of all FAMILIES unless some are named."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    click.echo("| family | model | Grad-CAM's layer | gives | maps | Grad-CAM | convolutions | s |\n|" + 8 * "---|")
    for family in families or timm.list_modules():
        started, name = time.perf_counter(), smallest(family)
        if name is None:
            click.echo(f"| {family} | none small enough | | | | | | |")
            continue
        try:
            cells = list(checked(name))
        except CnnvizError as error:
            cells = [f"refused: {error}", "", "", "", ""]
        except Exception as error:  # noqa: BLE001 - of what timm cannot build here, or a fault of ours
            cells = [f"{type(error).__name__}: {str(error).splitlines()[0][:120]}", "", "", "", ""]
        click.echo(f"| {family} | {name} | {' | '.join(cells)} | {time.perf_counter() - started:.0f} |")


if __name__ == "__main__":
    main()
