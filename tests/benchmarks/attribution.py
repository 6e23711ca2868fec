"""How fast attributions are, against captum called directly and pytorch-grad-cam, and how much memory they take.

Run it with ``make bench``, or, after ``pip install '.[bench]'``, ``python tests/benchmarks/attribution.py``. VGG16 with
random weights at 224 px, one thread, each pair in turn in one run; what is printed are ratios of medians. Called
directly means as captum's own examples call it: on the module as torchvision makes it, all steps at once and
perturbations one by one, which are captum's defaults. Peak memory is measured in processes of their own.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import click
import torch
import torchvision
from torch import Tensor, nn

import cnnviz
from cnnviz.attribution.attribute import attribute
from cnnviz.attribution.explainer import Scores, Target
from cnnviz.attribution.methods import METHODS, Case, settings_of
from cnnviz.attribution.superpixels import superpixels
from cnnviz.networks.network import Network

TARGET, ROUNDS = 3, 3
MANY, FEW = 16, 8  # steps or samples: of the methods with targets, and of the others
AT_ONCE = 10**6
COMPARED = [name for name in METHODS if name not in ("grad-cam++", "layer-cam", "score-cam", "eigen-cam")]  # captum's
ONE_BY_ONE = ("occlusion", "feature-ablation", "lime", "kernel-shap")
COMPARED_MEMORY = ("integrated-gradients", "smoothgrad")
OPTIONS: Mapping[str, Mapping[str, float]] = {
    "integrated-gradients": {"steps": MANY},
    "smoothgrad": {"samples": MANY},
    "smoothgrad-squared": {"samples": FEW},
    "vargrad": {"samples": FEW},
    "conductance": {"steps": MANY},
    "gradient-shap": {"samples": FEW},
    "occlusion": {"window": 75, "stride": 75},
    "feature-ablation": {"patches": FEW},
    "lime": {"patches": FEW, "samples": FEW},
    "kernel-shap": {"patches": FEW, "samples": FEW},
}


def vgg16() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.vgg16().eval()


def wrapped(module: nn.Module) -> Network:
    return cnnviz.wrap(module, name="vgg16", input_size=224)


def image() -> Tensor:
    return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def ours(network: Network, method: str) -> Tensor:
    return attribute(network, image(), TARGET, method=method, baseline="black", **OPTIONS.get(method, {}))


def directly(module: nn.Module, method: str) -> Tensor:
    """The same by captum alone."""
    shown = image()
    case = Case(
        model=Scores(module, Target(TARGET)),
        inputs=shown,
        baseline=torch.zeros_like(shown),
        patches=partial(superpixels, shown[0]),
        layer=module.features[29],  # type: ignore[union-attr, index]
        batch=1 if method in ONE_BY_ONE else AT_ONCE,
        options=settings_of(method, OPTIONS.get(method, {})),
    )
    return METHODS[method].run(case)


def pytorch_grad_cam(module: nn.Module) -> None:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(module, [module.features[29]]) as cam:  # type: ignore[union-attr, index]
        cam(image(), [ClassifierOutputTarget(TARGET)])


def ratio(first: Callable[[], object], second: Callable[[], object]) -> float:
    """How many times as long the first takes, in turn, after one call of each."""
    first(), second()
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for row, call in enumerate((first, second)):
            start = time.perf_counter()
            call()
            times[row].append(time.perf_counter() - start)
    return median(times[0]) / median(times[1])


def peak(who: str, method: str) -> int:
    """Bytes that one attribution adds to what a fresh process, its network loaded, holds; Linux only."""
    torch.set_num_threads(1)
    module = vgg16()
    call = partial(ours, wrapped(module), method) if who == "ours" else partial(directly, module, method)
    with torch.no_grad():
        module(image())
    Path("/proc/self/clear_refs").write_text("5")  # forgets what was held at most
    before = held("VmRSS")
    call()
    return held("VmHWM") - before


def held(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(which)).split()[1])


@click.command()
@click.option("--method", "methods", multiple=True, type=click.Choice(COMPARED), help="All by default.")
def main(methods: tuple[str, ...]) -> None:
    """Print ratios of time for every method of captum, and of memory for two."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    module = vgg16()
    network = wrapped(module)
    print("| method | captum called directly / cnnviz |\n|---|---|")
    for method in methods or COMPARED:
        with torch.enable_grad():  # DeepLift changes the module that it is given
            found = ratio(partial(directly, vgg16(), method), partial(ours, network, method))
        print(f"| {METHODS[method].title} | {found:.2f} |", flush=True)
    found = ratio(partial(pytorch_grad_cam, module), partial(ours, network, "grad-cam"))
    print(f"\nGrad-CAM, pytorch-grad-cam / cnnviz: {found:.2f}")
    for method in COMPARED_MEMORY:
        with get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
            own, other = pool.starmap(peak, [("ours", method), ("captum", method)], chunksize=1)
        title = METHODS[method].title
        print(f"peak memory of {title}, captum / cnnviz: {other / own:.1f} ({other / 1e6:.0f} / {own / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()
