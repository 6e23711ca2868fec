"""How an image was made, as JSON inside the image.

What is recorded makes the image again: the command and its settings, the network and the fingerprint of its weights,
the sha256 of the user's files with their base names, and versions. Never a path, a user or a machine.
"""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

import numpy as np
import torch

from cnnviz.networks.network import RANDOM, Network
from cnnviz.pictures.records import versions

_sources = Lock()  # Python's parser, of which `inspect.getsource` makes use, is for one thread at a time

NAMED = "_Weights."  # in the names that torchvision has for weights


def record(
    command: str,
    network: Network,
    *,
    settings: Mapping[str, object],
    picture: str | None = None,
    sha256: str | None = None,
    results: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, object]:
    """What to keep in an image made by `command`.

    Args:
        results: numbers that come out the same, but for rounding, when the image is made again; kept at six digits.
        settings: everything else the result depends on; must be plain enough for JSON.
        picture: base name of the user's image, if there is one.
        sha256: of the image's file, where there is one.
    """
    return {
        "command": command,
        "network": describe(network),
        "picture": None if picture is None else {"name": picture, "sha256": sha256},
        "settings": dict(settings),
        "results": {name: [float(f"{value:.6g}") for value in values] for name, values in (results or {}).items()},
        "device": network.device.type,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def describe(network: Network) -> dict[str, object]:
    """What identifies a network: its name, its weights, what it does to images before they reach it, and its outputs.

    "fingerprint" is that of the numbers in it (`Network.fingerprint`), "weights_sha256" that of the file they are from,
    where one was given; "outputs" is what was told of them, or None.
    """
    mean, std = network.normalisation
    return {
        "name": network.name,
        "weights": network.weights,
        "weights_sha256": network.weights_sha256,
        "fingerprint": network.fingerprint,
        "structure": structure(network),
        "input_size": list(network.input_size),
        "mean": list(mean),
        "std": list(std),
        "outputs": network.outputs_told,
    }


def fingerprint_in(described: Mapping[str, Any]) -> object:
    """The fingerprint of a network that `describe` has told of; earlier records call it sha256."""
    return described.get("fingerprint", described.get("sha256"))


def model_words(described: Mapping[str, Any]) -> list[str]:
    """The options of a command line that name a network, as `describe` tells of it."""
    name, weights = str(described["name"]), given_weights(described)
    words = ["--model", name, *(["--weights", weights] if weights else [])]
    if ":" in name:
        words += ["--input-size", "x".join(map(str, described["input_size"]))]
        for option in ("mean", "std"):  # as short as float32, which the network normalises in, allows
            words.append(f"--{option}={','.join(str(np.float32(value)) for value in described[option])}")
        words += ["--outputs", str(described["outputs"])] if described.get("outputs") else []
    return words


def given_weights(described: Mapping[str, Any]) -> str | None:
    """What was given as weights: "random", a name of torchvision's, the base name of a file, or nothing."""
    weights = str(described.get("weights", ""))
    if weights.startswith(RANDOM):
        return RANDOM
    if NAMED in weights:
        return weights if weights != _default_weights(str(described["name"])) else None
    return weights if weights.endswith((".pth", ".pt", ".safetensors")) else None


def _default_weights(name: str) -> str | None:
    """The weights that torchvision takes for a network, unless others are named."""
    from torchvision.models import get_model_weights

    try:
        return str(get_model_weights(name).DEFAULT)  # type: ignore[attr-defined]
    except ValueError:  # a name that torchvision does not know
        return None


def _source(kind: type) -> str:
    """The code of a class; asked for again where another thread parses meanwhile, which confuses CPython 3.11."""
    while True:
        try:
            return inspect.getsource(kind)
        except SystemError as error:
            if "recursion depth mismatch" not in str(error):
                raise


def structure(network: Network) -> str:
    """sha256, in hexadecimal, of what a network does with its weights: of its modules, and the code of a user's own."""
    kinds = {type(part) for part in network.module.modules()}
    own = [kind for kind in kinds if kind.__module__.partition(".")[0] not in ("cnnviz", "torch", "torchvision")]
    sources = [repr(network.module)]
    for kind in sorted(own, key=lambda kind: kind.__qualname__):
        with _sources, suppress(OSError, TypeError):  # code that was typed in, and is kept nowhere
            sources.append(_source(kind))
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()
