"""How fast filters are drawn, against lucent, flashtorch, two loops people write, and the machine's limit.

Run it with ``make bench``, or, after ``pip install '.[bench]'``, ``python tests/benchmarks/synthesis.py``. All is
measured on one thread, in turn, in one run; what is printed are ratios of medians.
"""

import time
import warnings
from collections.abc import Callable
from statistics import median

import click
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.networks.activations import response
from cnnviz.networks.devices import fast_dtype
from cnnviz.networks.network import Network
from cnnviz.synthesis.ascent import Augmentation, ascend
from cnnviz.synthesis.filter_objectives import filter_objective
from cnnviz.synthesis.jobs import Job, seed_of
from cnnviz.synthesis.judgement import as_shown
from cnnviz.synthesis.maximization import filter_job
from cnnviz.synthesis.recipes import natural
from cnnviz.synthesis.transforms import draws
from cnnviz.synthesis.views import Viewer

FILTER = 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYERS = ("block3_conv1", "block5_conv3")
Times = dict[str, list[float]]


def wrapped(module: nn.Module, size: int) -> Network:
    return cnnviz.wrap(module, name="vgg16", input_size=size, mean=MEAN, std=STD)


def ours(network: Network, layer: str, size: int, steps: int, dtype: torch.dtype, batch: int = 1) -> None:
    """The default recipe, transforms included; time per image is what counts."""
    recipe, sides = natural(), (size, size)
    seeds = [seed_of(number) for number in range(batch)]
    own = network.filters_of(layer)
    objective, _ = filter_objective(own, list(range(batch)), response(network, own.module, sides), sides)
    augmentation = Augmentation(draws(recipe.transforms(sides), seeds, steps))
    image = recipe.image(seeds, 3, sides, None)
    for _ in ascend(
        network,
        objective,
        image,
        steps=steps,
        rate=recipe.rate,
        falling=recipe.falling,
        optimiser=recipe.optimiser,
        augmentation=augmentation,
        dtype=dtype,
    ):
        pass


def lucent(module: nn.Module, position: int, size: int, steps: int, seen: int | None) -> Tensor:
    """lucent's defaults at a size; `seen` is the size the network gets, lucent's choice by default."""
    from lucent.optvis import objectives, param, render

    image = render.render_vis(
        module,
        objectives.channel(f"features_{position}", FILTER),
        lambda: param.image(size),
        thresholds=(steps,),
        progress=False,
        show_image=False,
        fixed_image_size=seen,
    )[-1]
    for part in module.modules():
        part._forward_hooks.clear()  # lucent leaves them, and slows down with every call
    return torch.from_numpy(image).permute(0, 3, 1, 2)


def flashtorch(module: nn.Module, position: int, size: int, steps: int) -> None:
    from flashtorch.activmax import GradientAscent

    ascent = GradientAscent(module.features, img_size=size)
    ascent.optimize(module.features[position], FILTER, num_iter=steps)
    for part in module.modules():
        part._forward_hooks.clear()
        part._backward_hooks.clear()


def hooked_loop(module: nn.Module, position: int, size: int, steps: int) -> None:
    """The whole network with a hook, as tutorials do."""
    image = torch.rand(1, 3, size, size, requires_grad=True)
    optimiser, kept = torch.optim.Adam([image], lr=0.05), []
    handle = module.features[position].register_forward_hook(lambda _, __, output: kept.append(output.clone()))
    for _ in range(steps):
        optimiser.zero_grad()
        kept.clear()
        module(image)
        (-kept[0][0, FILTER].mean()).backward()
        optimiser.step()
    handle.remove()


def truncated_loop(module: nn.Module, position: int, size: int, steps: int) -> None:
    """Layer by layer up to the one that counts, as in pytorch-cnn-visualizations."""
    image = torch.rand(1, 3, size, size, requires_grad=True)
    optimiser = torch.optim.Adam([image], lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        maps = image
        for layer in module.features[: position + 1]:
            maps = layer(maps)
        (-maps[0, FILTER].mean()).backward()
        optimiser.step()


def interleaved(contenders: dict[str, Callable[[int], object]], steps: int, rounds: int) -> dict[str, float]:
    """Seconds for `steps` steps of each, in turn, medians; what comes once, before the first step, is taken off."""
    times: Times = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            marks = [time.perf_counter()]
            for count in (1, steps + 1):
                run(count)
                marks.append(time.perf_counter())
            if number:  # the first round warms up
                times[name].append((marks[2] - marks[1]) - (marks[1] - marks[0]))
    return {name: median(each) for name, each in times.items()}


def compare(size: int, layer: str, steps: int, rounds: int) -> None:
    torch.manual_seed(0)
    module = torchvision.models.vgg16(weights=None).eval()
    network = wrapped(module, size)
    position = int(network.qualified(f"{layer}:pre").split(".")[1])
    contenders: dict[str, Callable[[int], object]] = {
        "cnnviz float32": lambda count: ours(network, layer, size, count, torch.float32),
        "cnnviz float32, 4 at a time": lambda count: ours(network, layer, size, count, torch.float32, 4),
        "lucent": lambda count: lucent(module, position, size, count, size),
        "flashtorch": lambda count: flashtorch(module, position, size, count),
        "whole network with a hook": lambda count: hooked_loop(module, position, size, count),
        "truncated loop": lambda count: truncated_loop(module, position, size, count),
        "limit": lambda count: convolutions(network, layer, size, count),
    }
    if fast_dtype(torch.device("cpu")) == torch.bfloat16:
        contenders["cnnviz bfloat16"] = lambda count: ours(network, layer, size, count, torch.bfloat16)
        contenders["cnnviz bfloat16, 4 at a time"] = lambda count: ours(network, layer, size, count, torch.bfloat16, 4)
    times = interleaved(contenders, steps, rounds)
    times |= {name: seconds / 4 for name, seconds in times.items() if "at a time" in name}
    click.echo(f"\n{layer}, {size} px, {steps} steps, median of {rounds}:")
    mine = times["cnnviz float32"]
    for name, seconds in times.items():
        if name.startswith("cnnviz") and name != "cnnviz float32":
            click.echo(f"  {name}: {mine / seconds:.2f} x cnnviz float32, {times['lucent'] / seconds:.2f} x lucent")
        elif name not in ("limit", "cnnviz float32"):
            click.echo(f"  cnnviz float32 is {seconds / mine:.2f} x as fast as {name}")
    rate = operations(network, layer, size) * steps / 1e9
    click.echo(
        f"  {rate / mine:.0f} GFLOP/s of the {rate / times['limit']:.0f} that the convolutions alone reach:"
        f" {times['limit'] / mine:.0%} of the machine's rate"
    )


def shapes(network: Network, layer: str, size: int) -> list[tuple[nn.Conv2d, int]]:
    """The convolutions that have to run, all before the last, with the side of their maps."""
    found, side = [], size
    last = network.layers[network.qualified(f"{layer}:pre")]
    for part in network.module.features:
        if part is last:
            break
        if isinstance(part, nn.MaxPool2d):
            side //= 2
        if isinstance(part, nn.Conv2d):
            found.append((part, side))
    return found


def operations(network: Network, layer: str, size: int) -> float:
    """Floating-point operations of a step's convolutions, forward and input gradient: additions and products."""
    return sum(2 * 2 * part.weight.numel() * side * side for part, side in shapes(network, layer, size))


def convolutions(network: Network, layer: str, size: int, steps: int) -> None:
    """The same convolutions and their input gradients with nothing in between."""
    for part, side in shapes(network, layer, size):
        given = (
            torch.rand(1, part.in_channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
        )
        weight = part.weight.contiguous(memory_format=torch.channels_last)
        ones: Tensor | None = None
        for _ in range(steps):
            maps = functional.conv2d(given, weight, part.bias, padding=1)
            ones = torch.ones_like(maps) if ones is None else ones
            torch.autograd.grad(maps, given, ones)


def score(network: Network, layer: str, images: Tensor) -> float:
    """What an image is worth by cnnviz's objective at its own size: the mean after the ReLU."""
    job = filter_job(network, layer, FILTER, size=(images.shape[2], images.shape[3]))
    with torch.no_grad():
        view = Viewer(network, job.objective.layers, images, elided=False)(as_shown(images))
        return job.objective.score(view).item()


def race(module: nn.Module, layer: str) -> None:
    """Time to the score that lucent's defaults reach, after the ReLU, with the recipe that cnnviz chooses.

    Of numbers of steps, each climbed to its end, the smallest counts that reaches it. Looking for the best pattern,
    with which first layers begin, is counted; judging the finished image against references is not: lucent has none.
    """
    network = cnnviz.load("vgg16")
    position = int(network.qualified(f"{layer}:pre").split(".")[1])
    started = time.perf_counter()
    image = lucent(module, position + 1, 128, 512, None)
    theirs = time.perf_counter() - started
    enlarged = functional.interpolate(image, (224, 224), mode="bilinear", align_corners=True)
    wanted = max(score(network, layer, each) for each in (image, enlarged))
    for steps in (4, 8, 16, 32, 64, 128, 256):
        spent, image = finished(filter_job(network, layer, FILTER, steps=steps, tries=1))
        reached = score(network, layer, image)
        if reached >= wanted:
            break
    size = image.shape[2]
    result = f"{theirs / spent:.1f} x as fast" if reached >= wanted else f"not reached ({reached:.3g})"
    click.echo(f"  {layer}, {size} px: lucent's score {wanted:.3g}, {reached:.3g} after {steps} steps: {result}")


def finished(job: Job) -> tuple[float, Tensor]:
    """Seconds up to a job's last step, and the image."""
    started = time.perf_counter()
    for progress in job.run():
        if progress.step is not None and progress.step.number == job.steps - 1:
            break
    assert progress.step is not None
    return time.perf_counter() - started, progress.step.image().detach()


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--steps", default=6, show_default=True)
@click.option("--size", "sizes", type=int, multiple=True, default=(128, 224), show_default=True)
@click.option("--race/--no-race", "raced", default=True, help="Also the time to lucent's score, on VGG16.")
def main(rounds: int, steps: int, sizes: tuple[int, ...], raced: bool) -> None:
    """Print how fast cnnviz is, as ratios."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for size in sizes:
        for layer in LAYERS:
            compare(size, layer, steps, rounds)
    if raced:
        click.echo("\nVGG16, time to the score that lucent's defaults (128 px shown at 224, 512 steps) reach:")
        module = torchvision.models.vgg16(weights=None).eval()
        module.features.load_state_dict(cnnviz.load("vgg16").module.features.state_dict())
        for layer in ("block1_conv2", "block2_conv2", "block3_conv3", "block5_conv3"):
            race(module, layer)


if __name__ == "__main__":
    main()
