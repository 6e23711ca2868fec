"""torchvision's classification networks, with their published weights, preprocessing and labels.

Weights lie in torch hub's cache (``$TORCH_HOME/hub/checkpoints``), are downloaded when first needed, and their hash is
checked when they arrive, all by torch hub itself.
"""

import io
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn

from cnnviz.errors import UnknownNameError, WeightsError, did_you_mean
from cnnviz.isolation import seeded
from cnnviz.models.weights import SEED, fill, fit, read_weights
from cnnviz.networks.network import Crop, Network, wrap

if TYPE_CHECKING:
    from torchvision.models._api import WeightsEnum

DEFAULT = "vgg16"
PATIENCE = 3.0  # seconds to wait for an answer before the weights' server counts as out of reach
OF_ONE_SIZE = ("vit_", "maxvit_")  # families that take images of one size; all others take any
WAYS_OUT = "connect to the internet, give a file with --weights, or take --model vgg16-mini (built in)"
STALL = 30.0  # seconds without a byte after which a download is given up
_downloading = threading.Lock()  # timeouts and stdout are the whole process's


def names() -> list[str]:
    """Every classification network of torchvision."""
    from torchvision import models

    return list(models.list_models(module=models))


def published(name: str) -> "WeightsEnum":
    """The weights torchvision recommends for a network; for "vgg16", ``VGG16_Weights.IMAGENET1K_V1``.

    Raises:
        UnknownNameError: if torchvision has no such network.
    """
    from torchvision.models import get_model_weights

    if name not in names():
        hint = did_you_mean(name, ["vgg16-mini", *names()])
        raise UnknownNameError(f"no network named {name!r}{hint} List them with `cnnviz models`.")
    return get_model_weights(name).DEFAULT  # type: ignore[attr-defined, no-any-return]


def build(name: str, weights: str | Path | None, *, progress: bool) -> Network:
    """A network of torchvision as a `Network`; ``weights=None`` means the published ones."""
    known = published(name)
    with seeded(SEED):
        module = skeleton(name)
    if weights is None:
        fit(module, _as_built(name, download(name, progress=progress)), name, cache_file(name).name)
        source = str(known)
    else:
        source = fill(module, weights, name, _as_built)
    return _as_published(name, module, source)


def skeleton(name: str) -> nn.Module:
    """The network before any weights; GoogLeNet without the heads that only its training used."""
    from torchvision.models import get_model

    options: dict[str, Any] = {
        "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": True},
        "inception_v3": {"transform_input": True, "init_weights": True},
    }.get(name, {})
    if name.startswith("vit_"):
        options = {"image_size": published(name).transforms().crop_size[0]}
    return get_model(name, weights=None, **options)


def outline(name: str) -> Network:
    """The network without numbers, for its layers and shapes: nothing is downloaded."""
    published(name)
    try:
        with torch.device("meta"):
            module = skeleton(name)
    except NotImplementedError:  # RegNets compute with numbers while they are built
        with seeded(SEED):
            module = skeleton(name)
    return _as_published(name, module, "none").to("meta")


def _as_published(name: str, module: nn.Module, source: str) -> Network:
    known = published(name)
    preset = known.transforms()
    side = preset.crop_size[0]
    return wrap(
        module,
        name=name,
        input_size=side,
        mean=preset.mean,
        std=preset.std,
        labels=known.meta["categories"],
        weights=source,
        crop=Crop(preset.resize_size[0], side, preset.interpolation.name),
        any_size=not name.startswith(OF_ONE_SIZE),
    )


def _as_built(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors under the names of the network as `skeleton` builds it."""
    if name == "googlenet":
        return {key: value for key, value in tensors.items() if not key.startswith(("aux1.", "aux2."))}
    if name.startswith("densenet"):  # saved when PyTorch still allowed dots in names: norm.1 is norm1
        return {re.sub(r"\b(norm|conv)\.([12])\.", r"\1\2.", key): value for key, value in tensors.items()}
    return tensors


def describe(name: str) -> dict[str, Any]:
    """What is known of a network without building it."""
    known, file = published(name), cache_file(name)
    here = is_there(file)
    return {
        "name": name,
        "parameters": known.meta["num_params"],
        "top1": known.meta["_metrics"]["ImageNet-1K"]["acc@1"],
        "classes": len(known.meta["categories"]),
        "here": "cached" if here else f"to download, {known.meta['_file_size']:.0f} MB",
        "file": str(file) if here else None,
        "megabytes": file.stat().st_size / 1e6 if here else known.meta["_file_size"],
    }


def cache_folder() -> Path:
    """Where torch hub keeps weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cache_file(name: str) -> Path:
    """Where torch hub keeps, or would keep, the published weights of a network."""
    return cache_folder() / str(published(name).url).rsplit("/", 1)[-1]


def download(name: str, *, progress: bool) -> dict[str, Tensor]:
    """The published weights, from the cache or, hash checked, from their server.

    Raises:
        WeightsError: if the server is out of reach, the download is not what it should be, or the cached file is bad.
    """
    file = cache_file(name)
    if not is_there(file):
        try:
            with _downloading, _stalls_noticed(), redirect_stdout(io.StringIO()):  # stdout is for results
                published(name).get_state_dict(progress=progress, check_hash=True, weights_only=True)
        except (OSError, HTTPException) as error:
            raise WeightsError(f"the weights of {name} cannot be downloaded ({_reason(error)}): {WAYS_OUT}.") from error
        except RuntimeError as error:
            raise WeightsError(f"the weights of {name} arrived damaged ({error}); try again, or {WAYS_OUT}.") from error
    return read_cached(file)


def read_cached(file: Path) -> dict[str, Tensor]:
    """The weights of a file in the cache.

    Raises:
        WeightsError: if it cannot be read.
    """
    try:
        return read_weights(file)
    except WeightsError as error:
        raise WeightsError(f"the cached weights {file} cannot be read; delete that file, or {WAYS_OUT}.") from error


def within_reach(name: str) -> bool:
    """Whether the weights of a network are in the cache, or their server answers within `PATIENCE` seconds."""
    if is_there(cache_file(name)):
        return True
    answered = threading.Event()

    def ask() -> None:
        with suppress(OSError, HTTPException), urlopen(Request(published(name).url, method="HEAD"), timeout=PATIENCE):
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name can hang longer than any timeout
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()


def is_there(file: Path) -> bool:
    """Whether a file is there; one in a folder that may not be looked into is not."""
    return os.path.isfile(file)


@contextmanager
def _stalls_noticed() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    place, reason = (getattr(inner, name, None) for name in ("filename", "strerror"))
    return f"{place}: {reason}" if place else str(reason or inner)
