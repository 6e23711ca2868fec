"""How a picture was made, as JSON inside the picture.

What is recorded makes the picture again: the command and its settings, the network and the sha256 of its weights, the
sha256 of the user's picture with its base name, and versions. Never a path, a user or a machine.
"""

import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image

from cnnviz.errors import PictureError
from cnnviz.network import Network
from cnnviz.sheets import METADATA

PACKAGES = ("cnnviz", "torch", "torchvision", "numpy", "pillow")


def record(
    command: str,
    network: Network,
    *,
    settings: Mapping[str, object],
    picture: str | None = None,
    sha256: str | None = None,
) -> dict[str, object]:
    """What to keep in a picture made by `command`.

    Args:
        settings: everything else the result depends on; must be plain enough for JSON.
        picture: base name of the user's picture, if there is one.
        sha256: of the picture's file, where there is one.
    """
    return {
        "command": command,
        "network": describe(network),
        "picture": None if picture is None else {"name": picture, "sha256": sha256},
        "settings": dict(settings),
        "device": network.device.type,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def describe(network: Network) -> dict[str, object]:
    """What identifies a network: its name, its weights, and what it does to images before they reach it."""
    return {
        "name": network.name,
        "weights": network.weights,
        "sha256": network.fingerprint,
        "input_size": list(network.input_size),
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
    }


@cache
def versions() -> dict[str, str]:
    """Of Python, of cnnviz and of what computes and draws."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


def read_record(path: str | Path) -> dict[str, object]:
    """The record inside a PNG that cnnviz made.

    Raises:
        PictureError: if the file is no picture, or carries no record.
    """
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(METADATA, "")
        found = json.loads(text)
    except (OSError, ValueError, SyntaxError) as error:
        raise PictureError(
            f"{Path(path).name} carries no record of how it was made; only PNGs by cnnviz do."
        ) from error
    return dict(found)
