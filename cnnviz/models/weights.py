"""Weights into a network: random ones, a file's, or a download through torch hub's cache.

Nothing here ever runs code from a file: ``.pth`` files are read with ``weights_only=True``.
"""

from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnviz.errors import WeightsError
from cnnviz.shared import quiet

RANDOM = "random"
SEED = 0  # of weights that are drawn: the same every time

Prepare = Callable[[str, dict[str, Tensor]], dict[str, Tensor]]


def fill(module: nn.Module, weights: str | Path, name: str, prepare: Prepare = lambda _, tensors: tensors) -> str:
    """Put weights into a network that was just built; returns where they came from, for people.

    Args:
        weights: "random", which keeps what `module` was built with, `SEED` having been set, or a file.
        prepare: changes the tensors of a file, given the network's name, before they are put in.

    Raises:
        WeightsError: if the file cannot be read or does not fit; names missing and extra keys.
    """
    if weights == RANDOM:
        return f"random, seed {SEED}"
    path = Path(weights)
    fit(module, prepare(name, read_weights(path)), name, path.name)
    return path.name


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or a ``.pth`` state dict, by name.

    A checkpoint that keeps its state dict under ``state_dict`` or ``model`` is understood.
    """
    if not path.is_file():
        raise WeightsError(f"there are no weights at {path}; give a .pth or .safetensors file, or 'random'.")
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    except Exception as error:  # damaged files make the parsers raise almost anything
        raise WeightsError(
            f"{path.name} cannot be read as weights: it is damaged, no .pth or .safetensors file, or holds more than"
            " tensors (save `model.state_dict()`)."
        ) from error
    for key in ("state_dict", "model"):
        content = content[key] if isinstance(content, Mapping) and isinstance(content.get(key), Mapping) else content
    if not isinstance(content, dict) or not content or not all(isinstance(each, Tensor) for each in content.values()):
        raise WeightsError(f"{path.name} holds no state dict; save `model.state_dict()` and give that file.")
    return content


def fit(module: nn.Module, tensors: dict[str, Tensor], name: str, source: str) -> None:
    """Put tensors into the module, by name, as ``load_state_dict`` does.

    The ``module.`` prefixes that data parallel training leaves are understood.

    Raises:
        WeightsError: unless names and shapes agree; names what is missing, what is extra and what has another shape.
    """
    own = module.state_dict()
    if not set(own) & set(tensors) and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    other = [key for key in own if key in tensors and own[key].shape != tensors[key].shape]
    missing, extra = module.load_state_dict(_without(tensors, other), strict=False)
    faults = {"missing": sorted(set(missing) - set(other)), "extra": extra, "of another shape": other}
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_some(keys)}" for kind, keys in faults.items() if keys)
        raise WeightsError(
            f"{source} does not fit {name}: {listed}; give weights of this network, or name their network."
        )


def _without(tensors: dict[str, Tensor], keys: list[str]) -> dict[str, Tensor]:
    """The same state dict, of the same kind (PyTorch notes its version in an attribute), but for some keys."""
    kept = copy(tensors)
    for key in keys:
        del kept[key]
    return kept


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    return load_file(path)


def _read_pth(path: Path) -> object:
    """What a file holds that ``torch.save`` wrote; nothing in it is run."""
    with quiet():  # odd pickles are either read or refused
        return torch.load(path, map_location="cpu", weights_only=True)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
