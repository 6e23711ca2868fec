"""Networks by name: the embedded one, torchvision's, and a user's own.

    load("vgg16")                       VGG16: convolutions built in, the classifier fetched when it is needed
    load("resnet50")                    a network of torchvision's, with its pretrained weights
    load("vgg16-mini")                  the small VGG16 that cnnviz carries with it
    load("vgg16", weights="random")     no training, seed 0
    load("resnet50", weights="IMAGENET1K_V1")    other pretrained weights of torchvision's, by name
    load("net.py:Net", weights="net.pth", input_size=28, mean=0.13, std=0.38)

To add a kind of network, write a function that returns a `Network` and name it in `load`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cnnviz.errors import ModelError, UnknownNameError, WeightsError, path_of
from cnnviz.models import builtin, custom, vgg16, zoo
from cnnviz.networks.devices import check_device
from cnnviz.networks.network import Network
from cnnviz.networks.outputs import Outputs


def load(
    name: str = "vgg16",
    *,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    input_size: int | tuple[int, int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    outputs: Outputs | None = None,
    progress: bool = True,
) -> Network:
    """A network ready to be looked into.

    Args:
        name: "vgg16" or "vgg16-mini", which are built in, another classification model of torchvision's, or a
            factory of a user's own as "package.module:factory" or "file.py:factory" (whose code is then run).
        weights: None for the network's own, pretrained where there are any; "random" for untrained ones (seed 0);
            a name of torchvision's for pretrained weights of the network, such as "IMAGENET1K_V1"; or a file, .pth
            (read with ``weights_only=True``) or .safetensors.
        device: where to put the network, such as "cuda" or "cuda:1", or "auto" for the fastest device there is; the
            CPU by default.
        input_size, mean, std, labels, outputs: as for `wrap`; for a user's own network.
        progress: whether a download draws a progress bar on stderr.

    Raises:
        UnknownNameError: if there is no network of that name.
        WeightsError: if weights cannot be downloaded, read, or do not fit.
        ModelError: if a user's factory cannot be found or makes no network, or settings of a user's own network are
            given for another; or PyTorch finds no such device here.
    """
    if not isinstance(name, str):
        raise UnknownNameError(f"a network is given by its name, such as 'vgg16', not as a {type(name).__name__}.")
    if weights is not None:
        path_of(weights, "a file of weights", WeightsError)
    place = None if device is None else check_device(device)
    own = {"input_size": input_size, "mean": mean, "std": std, "labels": labels, "outputs": outputs}
    network = _built(name, weights, progress=progress, **own)
    if network.device.type == "meta":
        raise ModelError(f"{name} is on the device 'meta', which keeps no numbers; give it weights in its factory.")
    return network if place is None else network.to(place)


def outline(name: str, *, weights: str | Path | None = None, **own: Any) -> Network:
    """A network for its layers, shapes and labels alone; arguments as for `load`.

    Nothing is downloaded, and a network of torchvision's holds no numbers at all, unless `weights` is a file.
    """
    if ":" in name or name == builtin.NAME:
        return _built(name, weights, **own)
    _refuse(name, own)
    return zoo.outline(name, weights)


def _built(name: str, weights: str | Path | None, *, progress: bool = True, **own: Any) -> Network:
    _refuse(name, own)
    if ":" in name:
        settings = dict.fromkeys(("input_size", "mean", "std", "labels", "outputs")) | own
        return custom.build(name, weights, **settings)
    if name == builtin.NAME:
        return builtin.build(weights)
    if name == vgg16.NAME and weights is None:
        return vgg16.build(progress=progress)
    return zoo.build(name, weights, progress=progress)


def _refuse(name: str, own: Mapping[str, object]) -> None:
    """Notice a file without a function or class, and settings of a network that has its own.

    Raises:
        ModelError: says what to do instead.
    """
    if ":" in name:
        return
    custom.check_named(name)
    given = [key for key, value in own.items() if value is not None]
    if given:
        raise ModelError(f"{name} brings its own {given[0].replace('_', ' ')}; it is for a network as file.py:factory.")
