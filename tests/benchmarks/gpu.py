"""How right, how repeatable and how fast cnnviz is on a graphics card.

    python tests/benchmarks/gpu.py

VGG16 with random weights at its own size, the default recipe, nothing downloaded; some four minutes on a card. With
``--device cpu`` and ``--small`` the same code runs at small sizes where there is no card. Times are medians of warm
steps, in one process; a card is waited for before the clock is read.
"""

import copy
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.attribution.methods import METHODS, fixed_options
from cnnviz.errors import CnnvizError
from cnnviz.galleries.building import building
from cnnviz.galleries.engines import InProcess
from cnnviz.galleries.plan import Request, estimate, make_plan
from cnnviz.galleries.rates import measured_speeds
from cnnviz.galleries.store import Store
from cnnviz.networks.devices import fast_dtype
from cnnviz.networks.network import Network
from cnnviz.synthesis.costs import step_cost
from cnnviz.synthesis.maximization import filter_job

ROWS = (("block5_conv3", 128), ("block3_conv1", 128), ("block5_conv3", 224), ("block1_conv2", 64))
SMALL_ROWS = (("block3_conv1", 32), ("block1_conv2", 32))
BATCHES, SMALL_BATCHES = (1, 16, 64, 256), (1, 4)
WARM, TIMED, DEFAULT_STEPS = 5, 20, 256
PHOTOGRAPH = Path(__file__).parents[2] / "gallery" / "photos" / "cat.jpg"


@dataclass(frozen=True)
class Bench:
    """What is measured, and on what."""

    device: torch.device
    small: bool

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def network(self) -> Network:
        torch.manual_seed(0)
        module = torchvision.models.vgg16(weights=None).eval()
        return cnnviz.wrap(
            module, name="vgg16", input_size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ).to(self.device)

    def seconds(self, work: Callable[[], object], rounds: int = TIMED) -> float:
        """The median of some calls, after as many as it takes to be warm."""
        times = []
        for number in range(WARM + rounds):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            if number >= WARM:
                times.append(time.perf_counter() - started)
        return median(times)


@contextmanager
def heading(text: str) -> Iterator[None]:
    """A title, and below it the time that its section took, or the error that ended it."""
    click.echo(f"\n## {text}\n")
    started = time.perf_counter()
    try:
        yield
    except (RuntimeError, MemoryError, CnnvizError) as error:
        click.echo(f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    click.echo(f"({time.perf_counter() - started:.1f} s)")


def machine(bench: Bench) -> None:
    side = 512 if bench.small else 8192
    first, second = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * side**3 / bench.seconds(lambda: first @ second) / 1e12
    name = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else platform.processor() or "CPU"
    click.echo(f"{name}, PyTorch {torch.__version__}, cnnviz {cnnviz.__version__}, {fast_dtype(bench.device)}")
    click.echo(f"bfloat16 matrix product: {rate:.3g} TFLOP/s")


def one_step(network: Network, layer: str, size: int, batch: int, precision: str) -> Callable[[], object]:
    """Steps of the default recipe on `batch` filters, one at each call."""
    job = filter_job(
        network, layer, list(range(batch)), size=size, batch=batch, steps=10**4, recipe="natural", precision=precision
    )
    steps = job.run()
    return lambda: next(steps)


def convolutions(bench: Bench, network: Network, layer: str, size: int, batch: int, dtype: torch.dtype) -> float:
    """Seconds of the convolutions that a step needs, each forward and back to its input, and nothing in between."""
    last, side, total = network.layers[network.qualified(f"{layer}:pre")], size, 0.0
    for part in network.module.features:
        if isinstance(part, nn.MaxPool2d):
            side //= 2
        if isinstance(part, nn.Conv2d):
            maps = torch.randn(batch, part.in_channels, side, side, device=bench.device, dtype=dtype)
            maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
            weight = part.weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
            given = torch.randn_like(functional.conv2d(maps, weight, padding=1))

            def forth_and_back(maps: Tensor = maps, weight: Tensor = weight, given: Tensor = given) -> None:
                torch.autograd.grad(functional.conv2d(maps, weight, padding=1), maps, given)

            total += bench.seconds(forth_and_back)
        if part is last:
            return total
    raise AssertionError(f"{layer} is no convolution of vgg16")


def steps(bench: Bench) -> None:
    """Milliseconds a step, filters a second, TFLOP/s, and the share of what the convolutions alone reach."""
    network, fast = bench.network(), fast_dtype(bench.device)
    click.echo(
        f"{'layer, size':22} {'batch':>5} {'ms a step':>10} {'filters/s':>10} {'TFLOP/s':>8} {'of convolutions':>16}"
    )
    for layer, size in SMALL_ROWS if bench.small else ROWS:
        for batch in SMALL_BATCHES if bench.small else BATCHES:
            seconds = bench.seconds(one_step(network, layer, size, batch, "auto"))
            alone = convolutions(bench, network, layer, size, batch, fast)
            objective = filter_job(network, layer, [0], size=size).objective
            rate = batch * step_cost(network, objective, (size, size)) / seconds / 1e12
            filters = batch / seconds / DEFAULT_STEPS
            place, share = f"{layer}, {size} px", alone / seconds
            click.echo(f"{place:22} {batch:5} {1e3 * seconds:10.2f} {filters:10.1f} {rate:8.3g} {share:16.0%}")
    layer, size, batch = ("block3_conv1", 32, 4) if bench.small else ("block5_conv3", 128, 64)
    seconds = bench.seconds(one_step(network, layer, size, batch, "float32"))
    click.echo(f"float32, {layer}, {size} px, batch {batch}: {1e3 * seconds:.2f} ms a step")


def softened(module: nn.Module) -> nn.Module:
    """A copy with softplus for every ReLU and averages for maxima: without kinks, nothing can flip by rounding."""
    smooth = copy.deepcopy(module)
    for part in list(smooth.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(part, name, nn.Softplus())
            elif isinstance(child, nn.MaxPool2d):
                setattr(part, name, nn.AvgPool2d(child.kernel_size, child.stride))
    return smooth


def deviations(bench: Bench) -> None:
    """How far a device's numbers are from the processor's: the largest difference in units of the largest value."""
    mini = cnnviz.load("vgg16-mini")
    smooth = cnnviz.wrap(softened(mini.module), name="softplus", input_size=128)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    pairs = [(network, network.to(bench.device)) for network in (mini, smooth)]
    click.echo(f"{'':24} {'vgg16-mini':>12} {'softplus':>12}")
    measured = {
        "feature maps, block5_conv3": lambda net: cnnviz.activations(net, image, ["features.30"])["features.30"]
    }
    measured |= {name: (lambda net, name=name: attribution_by(net, image, name)) for name in METHODS}
    for name, numbers in measured.items():
        cells = []
        for here, there in pairs:
            try:
                own, other = (numbers(network).detach().float().cpu() for network in (here, there))
                cells.append(f"{((own - other).abs().max() / own.abs().max()).item():12.1e}")
            except CnnvizError as error:
                cells.append(f"{type(error).__name__:>12}")
        click.echo(f"{name:24.24} {' '.join(cells)}")


def repeatability(bench: Bench) -> None:
    """Whether the same call gives the same bits twice."""
    mini = cnnviz.load("vgg16-mini", device=str(bench.device))
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    calls = {
        f"filters, {recipe}": lambda recipe=recipe: (
            cnnviz.filter_images(mini, "block3_conv3", range(4), recipe=recipe, steps=8, size=64).images
        )
        for recipe in ("natural", "early", "pixel", "maco", "erhan")
    }
    calls["feature maps"] = lambda: cnnviz.feature_maps(mini, PHOTOGRAPH, "block5_conv3").maps
    calls |= {name: (lambda name=name: attribution_by(mini, image, name)) for name in METHODS}
    different = []
    for name, call in calls.items():
        try:
            if not torch.equal(call(), call()):
                different.append(name)
        except CnnvizError as error:
            click.echo(f"{name}: {type(error).__name__}")
    click.echo(
        f"{len(calls) - len(different)} of {len(calls)} the same twice; different: {', '.join(different) or 'none'}"
    )


def attribution_by(network: Network, image: Tensor, method: str) -> Tensor:
    """Of one class, with as many steps on every device."""
    return cnnviz.attribute(network, image, [3], method=method, **fixed_options(method))


def attribution(bench: Bench) -> None:
    """Seconds of a method on the device and on the processor."""
    own = cnnviz.load("vgg16-mini")
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    for name in ("integrated-gradients", "occlusion", "feature-ablation", "lime", "kernel-shap"):
        times = []
        for network in (own, own.to(bench.device)):
            attribution_by(network, image, name)
            bench.wait()
            started = time.perf_counter()
            attribution_by(network, image, name)
            bench.wait()
            times.append(time.perf_counter() - started)
        click.echo(f"{name:24} processor {times[0]:6.2f} s, {bench.device.type} {times[1]:6.2f} s")


def gallery(bench: Bench, limit: float) -> None:
    """All of VGG16's filters, or as many as are drawn in so many seconds, files written; and what the plan said."""
    network = bench.network()
    request = (
        Request(("block1_conv1", "block2_conv1"), tuple(range(8)), {"steps": 8, "size": 32})
        if bench.small
        else Request()
    )
    layers = make_plan(network, request).layers
    speeds = measured_speeds(network, layers)
    seconds = sum(speed.seconds(layer) for speed, layer in zip(speeds, layers, strict=True))
    click.echo(f"plan: {estimate(layers).filters} filters, {seconds:.0f} s")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for progress in building(InProcess(network), Store(Path(folder)), request):
            if time.perf_counter() - started > limit:
                click.echo(f"stopped after {limit:.0f} s, {progress.share:.0%} of all steps")
                break
        seconds, drawn = time.perf_counter() - started, len(list(Path(folder).rglob("*.png")))
    click.echo(f"{drawn} filters drawn and written in {seconds:.1f} s: {drawn / seconds:.1f} a second")


def lucent(bench: Bench) -> None:
    """lucent's defaults, where it is installed."""
    try:
        from lucent.optvis import render
    except ImportError:
        click.echo("lucent is not installed (pip install torch-lucent)")
        return
    module = torchvision.models.vgg16(weights=None).eval().to(bench.device)
    count = 16 if bench.small else 128
    started = time.perf_counter()
    render.render_vis(module, "features_28:3", thresholds=(count,), progress=False, show_image=False)
    bench.wait()
    click.echo(
        f"lucent, block5_conv3: {1e3 * (time.perf_counter() - started) / count:.1f} ms a step, one filter at a time"
    )


@click.command()
@click.option("--device", default="cuda", help="What to measure.")
@click.option("--small", is_flag=True, help="Small sizes, where there is no card.")
@click.option("--seconds", default=90.0, help="How long the gallery may take.")
def main(device: str, small: bool, seconds: float) -> None:
    bench = Bench(torch.device(device), small)
    sections = {
        "Machine": lambda: machine(bench),
        "Deviation from the processor": lambda: deviations(bench),
        "The same twice": lambda: repeatability(bench),
        "Steps of the ascent": lambda: steps(bench),
        "Attribution": lambda: attribution(bench),
        "The whole gallery": lambda: gallery(bench, seconds),
        "lucent": lambda: lucent(bench),
    }
    for title, run in sections.items():
        with heading(title):
            run()


if __name__ == "__main__":
    main()
