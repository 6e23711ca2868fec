"""torchvision's classification networks, with their published weights, preprocessing and labels.

Weights lie in torch hub's cache (``$TORCH_HOME/hub/checkpoints``), are downloaded when first needed, and their hash is
checked when they arrive, all by torch hub itself. Preprocessing and labels are those of the weights, also where these
come from a file: a published one is known by its hash.
"""

import io
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn

from cnnviz.errors import UnknownNameError, WeightsError, did_you_mean
from cnnviz.isolation import seeded
from cnnviz.models.state_dicts import state_dicts
from cnnviz.models.weights import SEED, Origin, file_sha256, fill, fit, read_weights
from cnnviz.networks.network import RANDOM, Crop, Network, wrap

if TYPE_CHECKING:
    from torchvision.models._api import WeightsEnum

DEFAULT = "vgg16"
PATIENCE = 3.0  # seconds to wait for an answer before the weights' server counts as out of reach
OF_ONE_SIZE = ("vit_", "maxvit_")  # families that take images of one size; all others take any
WAYS_OUT = "connect to the internet, give a file with --weights, or take --model vgg16-mini (built in)"
ROUNDED = 0.001  # megabytes; torchvision gives sizes of files with three digits
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
    return _all_published(name).DEFAULT  # type: ignore[attr-defined, no-any-return]


def named(name: str, weights: str | Path | None) -> "WeightsEnum | None":
    """The published weights of a network that are meant by "IMAGENET1K_V1" or "ResNet50_Weights.IMAGENET1K_V1".

    Returns:
        The recommended ones for None; None for "random" and whatever names a file.

    Raises:
        UnknownNameError: if torchvision has no such network.
        WeightsError: if there is neither a file nor weights of that name; says which there are.
    """
    every = _all_published(name)
    if weights is None:
        return published(name)
    if not isinstance(weights, str) or weights == RANDOM:
        return None
    member = every.__members__.get(weights.removeprefix(f"{every.__name__}."))
    if member is None and re.fullmatch(r"(\w+_Weights\.)?\w+", weights) and not os.path.exists(weights):
        raise WeightsError(
            f"{name} has no weights named {weights!r}; there are {', '.join(entry.name for entry in every)};"
            " or give a .pth or .safetensors file, or 'random'."
        )
    return member


def _all_published(name: str) -> "type[WeightsEnum]":
    """All weights of a network that torchvision publishes."""
    from torchvision.models import get_model_weights

    if name not in names():
        hint = did_you_mean(name, ["vgg16-mini", *names()])
        raise UnknownNameError(f"no network named {name!r}{hint} List them with `cnnviz models`.")
    return get_model_weights(name)


def build(name: str, weights: str | Path | None, *, progress: bool) -> Network:
    """A network of torchvision as a `Network`.

    Args:
        weights: a name of published ones, None for those that are recommended, "random", or a file.
        progress: whether a download draws a progress bar on stderr.
    """
    chosen, prepare = named(name, weights), partial(_as_built, name)
    known = chosen or _held_by(name, weights) or published(name)
    with seeded(SEED):
        module = skeleton(name, known)
    if chosen is not None:
        tensors = download(name, chosen, progress=progress)
        fit(module, tensors, name, cache_file(name, chosen).name, prepare=prepare)
        origin = Origin(str(chosen), None)
    else:
        assert weights is not None
        origin = fill(module, weights, name, prepare)
    network = _as_published(name, module, origin.source, known)
    network.weights_sha256 = origin.sha256
    return network


def skeleton(name: str, known: "WeightsEnum | None" = None) -> nn.Module:
    """The network before any weights; GoogLeNet without the heads that only its training used.

    Args:
        known: the weights that it is for, if not those that are recommended: some are for images of another size.
    """
    from torchvision.models import get_model

    options: dict[str, Any] = {
        "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": True},
        "inception_v3": {"transform_input": True, "init_weights": True},
    }.get(name, {})
    if name.startswith("vit_"):
        options = {"image_size": (known or published(name)).transforms().crop_size[0]}
    return get_model(name, weights=None, **options)


def outline(name: str, weights: str | Path | None = None) -> Network:
    """The network without numbers, unless `weights` is a file: for its layers and shapes; nothing is downloaded."""
    known = published(name) if weights == RANDOM else named(name, weights)
    if known is None:
        return build(name, weights, progress=False)
    try:
        with torch.device("meta"):
            module = skeleton(name, known)
    except NotImplementedError:  # RegNets compute with numbers while they are built
        with seeded(SEED):
            module = skeleton(name, known)
    return _as_published(name, module, "none", known).to("meta")


def _held_by(name: str, weights: str | Path | None) -> "WeightsEnum | None":
    """The published weights that a file holds: torch hub's own file, or one whose sha256 starts as their name says."""
    path = Path(weights or "")
    if not is_there(path):
        return None
    every = {cache_file(name, known): known for known in _all_published(name)}
    for file, known in every.items():
        if file.resolve() == path.resolve():
            return known
    size = path.stat().st_size / 2**20
    possible = {
        file.stem.rpartition("-")[2]: known
        for file, known in every.items()
        if file.name == path.name or abs(size - known.meta["_file_size"]) < ROUNDED
    }
    digest = _sha256(path) if possible else ""
    return next((known for start, known in possible.items() if digest.startswith(start)), None)


def _sha256(path: Path) -> str:
    """Of a file, in hexadecimal; of one that may not be read, nothing."""
    try:
        return file_sha256(path)
    except OSError:
        return ""


def _as_published(name: str, module: nn.Module, source: str, known: "WeightsEnum") -> Network:
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
        channels=3,
        any_size=not name.startswith(OF_ONE_SIZE),
        outputs="logits",
    )


def _as_built(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors under the names of the network as `skeleton` builds it."""
    if name == "googlenet":
        return {key: value for key, value in tensors.items() if not re.search(r"\baux[12]\.", key)}
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


def cache_file(name: str, known: "WeightsEnum | None" = None) -> Path:
    """Where torch hub keeps, or would keep, published weights of a network: the recommended ones, if not said."""
    return cache_folder() / str((known or published(name)).url).rsplit("/", 1)[-1]


def download(name: str, known: "WeightsEnum | None" = None, *, progress: bool) -> dict[str, Tensor]:
    """Published weights, from the cache or, hash checked, from their server.

    Args:
        known: which of the network's, if not the recommended ones.

    Raises:
        WeightsError: if the server is out of reach, the download is not what it should be, or the cached file is bad.
    """
    known = known or published(name)
    file = cache_file(name, known)
    if not is_there(file):
        try:
            with _downloading, _stalls_noticed(), redirect_stdout(io.StringIO()):  # stdout is for results
                known.get_state_dict(progress=progress, check_hash=True, weights_only=True)
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
        return next(state_dicts(read_weights(file)))[1]
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
