"""Weights into a network: random ones, a file's, or a download through torch hub's cache.

Nothing here ever runs code from a file (see `cnnviz.models.checkpoints`). What a file is, its first bytes say, whatever
its name.
"""

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from cnnviz.errors import WeightsError, out_of_memory
from cnnviz.models.checkpoints import read_pth, refused
from cnnviz.models.state_dicts import Match, Prepare, matches, state_dicts
from cnnviz.networks.network import RANDOM

SEED = 0  # of weights that are drawn: the same every time


class Origin(NamedTuple):
    """Where weights came from, for people, and the sha256 of their file, in hexadecimal; None if there is no file."""

    source: str
    sha256: str | None


def fill(module: nn.Module, weights: str | Path, name: str, prepare: Prepare = dict) -> Origin:
    """Put weights into a network that was just built; returns where they came from.

    Args:
        weights: "random", which keeps what `module` was built with, `SEED` having been set, or a file.
        prepare: changes the tensors of a state dict before they are put in.

    Raises:
        WeightsError: if the file cannot be read or does not fit; names missing and extra keys.
    """
    if weights == RANDOM:
        return Origin(f"random, seed {SEED}", None)
    path = Path(weights)
    fit(module, read_weights(path), name, path.name, prepare=prepare)
    return Origin(path.name, file_sha256(path))


def file_sha256(path: Path) -> str:
    """Of a file, in hexadecimal, as ``sha256sum`` gives it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path) -> Any:
    """What a ``.safetensors`` or ``.pth`` file holds: a state dict, or mappings and lists with state dicts inside.

    Raises:
        WeightsError: if there is no such file, or it is something else; says what, if that can be told.
    """
    start = _start_of(path)
    try:
        content = _read_safetensors(path) if start[8:9] == b"{" else read_pth(path)
    except Exception as error:  # damaged files make the parsers raise almost anything
        raise WeightsError(f"{path.name} cannot be read as weights: {_why_not(start, error)}.") from error
    if next(state_dicts(content), None) is None:
        raise WeightsError(f"{path.name} holds no state dict; save `model.state_dict()` and give that file.")
    return content


def _start_of(path: Path) -> bytes:
    """The first bytes of a file; of what is no file, such as a pipe, not one is read."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file.read(64)
    except OSError as error:
        raise WeightsError(f"cannot read the weights {path}: {error.strerror}; give another file.") from error
    raise WeightsError(f"there are no weights at {path}; give a .pth or .safetensors file, or 'random'.")


def _why_not(start: bytes, error: Exception) -> str:
    """What is wrong with a file that starts with these bytes and could not be read."""
    if not start:
        return "it is empty; get it again"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "it is a web page, as a proxy or a page to log in gives instead of a file; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it only says where Git LFS keeps the weights; run `git lfs pull`"
    if out_of_memory(error):
        return "there is not enough memory for what it says it holds"
    if "TorchScript" in str(error):
        return (
            "it is a TorchScript archive, which holds code too; save `torch.jit.load(file).state_dict()` with"
            " `torch.save`, and give that file"
        )
    if kind := refused(error):
        return (
            f"it holds {kind}, which cnnviz does not open, or is damaged. Save `model.state_dict()` and give that file"
        )
    return "it is damaged, not a .pth or .safetensors file, or holds more than tensors (save `model.state_dict()`)"


def fit(
    module: nn.Module,
    content: object,
    name: str,
    source: str,
    *,
    prepare: Prepare = dict,
    whole: bool = False,
) -> None:
    """Put the state dict in `content` that fits the module into it, by name, as ``load_state_dict`` does.

    Prefixes that all names have, and those that training leaves in names, are understood; which of several state dicts
    is taken, `cnnviz.models.state_dicts` says. What the file does not hold has no numbers afterwards, and says so when
    it is to run (see `cnnviz.networks.missing_weights`).

    Args:
        content: as `read_weights` gives it.
        prepare: changes the tensors of a state dict first.
        whole: whether all weights must be there.

    Raises:
        WeightsError: unless names, shapes and kinds of numbers agree (whole numbers are no weights; more or fewer
            digits are understood); names what is missing, what is extra, and what has another shape or kind. Or if
            several state dicts fit and it cannot be told which is meant; says where they are.
    """
    state = module.state_dict()
    own = {key: tensor for key, tensor in state.items() if isinstance(tensor, Tensor)}
    match, *others = matches(own, content, prepare)
    if others:
        places = _some([".".join(each.place) for each in (match, *others)])
        raise WeightsError(
            f"{source} holds several state dicts that fit {name}: {places};"
            " save the one that you mean to a file of its own."
        )
    if not match.fits or (whole and match.missing):
        raise WeightsError(f"{source} does not fit {name}: {_misfit(match, name)}.")
    if any(tensor.is_meta for tensor in own.values()):  # of a network that was built without numbers
        converted = {key: tensor.to(own[key].dtype) for key, tensor in match.tensors.items()}
        module.load_state_dict(converted, strict=False, assign=True)
    else:
        tensors = OrderedDict(match.tensors)
        tensors._metadata = getattr(state, "_metadata", None)  # type: ignore[attr-defined]  # names and shapes are this version's
        module.load_state_dict(tensors, strict=False)
    for key in match.missing:
        _take_out(module, key)


def _misfit(match: Match, name: str) -> str:
    """What keeps a state dict from fitting a network, and what to do."""
    faults = {"missing": match.missing, **match.faults}
    listed = "; ".join(f"{kind}: {_some(keys)}" for kind, keys in faults.items() if keys)
    if match.classes is None:
        return f"{listed}; give weights of this network, or name their network"
    count, own = match.classes
    classes = "1 class" if count == 1 else f"{count} classes"
    return f"{listed}; its last layer has {classes}, not {own}: {_other_head(name, count)}"


def _other_head(name: str, classes: int) -> str:
    """How to have a network with another number of classes."""
    if ":" in name:
        return f"have {name} make a network with as many"
    call = f"torchvision.models.{name}(num_classes={classes})"
    if name == "vgg16-mini":
        call = f"cnnviz.models.builtin.vgg16_mini(classes={classes})"
    return (
        f"write a factory, def net(): return {call}, and give --model file.py:net, with --input-size, --mean and --std"
    )


def _take_out(module: nn.Module, key: str) -> None:
    """Leave a weight or buffer without numbers."""
    path, _, name = key.rpartition(".")
    part = module.get_submodule(path)
    weight, buffer = part._parameters.get(name), part._buffers.get(name)
    if weight is not None:
        part._parameters[name] = nn.Parameter(weight.detach().to("meta"), requires_grad=weight.requires_grad)
    elif buffer is not None:
        part._buffers[name] = buffer.to("meta")


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    return load_file(path)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
