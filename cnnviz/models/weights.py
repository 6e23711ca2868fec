"""Weights into a network: random ones, a file's, or a download through torch hub's cache.

Nothing here ever runs code from a file: ``.pth`` files are read with ``weights_only=True``. What a file is, its first
bytes say, whatever its name.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnviz.errors import WeightsError, out_of_memory
from cnnviz.isolation import quiet
from cnnviz.networks.network import RANDOM

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

    Raises:
        WeightsError: if there is no such file, or it is something else; says what, if that can be told.
    """
    start = _start_of(path)
    try:
        content = _read_safetensors(path) if start[8:9] == b"{" else _read_pth(path)
    except Exception as error:  # damaged files make the parsers raise almost anything
        raise WeightsError(f"{path.name} cannot be read as weights: {_why_not(start, error)}.") from error
    for key in ("state_dict", "model"):
        content = content[key] if isinstance(content, Mapping) and isinstance(content.get(key), Mapping) else content
    if not isinstance(content, dict) or not content or not all(map(_is_entry, content.items())):
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
    return "it is damaged, no .pth or .safetensors file, or holds more than tensors (save `model.state_dict()`)"


def _is_entry(entry: tuple[object, object]) -> bool:
    """Whether this is the name of a tensor that has numbers, one for each place."""
    name, tensor = entry
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        return False
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def fit(module: nn.Module, tensors: dict[str, Tensor], name: str, source: str, *, whole: bool = False) -> None:
    """Put tensors into the module, by name, as ``load_state_dict`` does.

    The ``module.`` prefixes that data parallel training leaves are understood. What the file does not hold has no
    numbers afterwards, and says so when it is to run (see `cnnviz.networks.missing_weights`).

    Args:
        whole: whether all weights must be there.

    Raises:
        WeightsError: unless names, shapes and kinds of numbers agree (whole numbers are no weights; more or fewer
            digits are understood); names what is missing, what is extra, and what has another shape or kind.
    """
    own = module.state_dict()
    if not set(own) & set(tensors) and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    both = [key for key in own if key in tensors]
    other = [key for key in both if own[key].shape != tensors[key].shape]
    faults = {
        "extra": [key for key in tensors if key not in own],
        "of another shape": other,
        "no real numbers": [key for key in both if key not in other and not _converts(tensors[key], own[key])],
    }
    missing = sorted(_missing(own, both))
    if any(faults.values()) or not both or (whole and missing):
        listed = "; ".join(f"{kind}: {_some(keys)}" for kind, keys in {"missing": missing, **faults}.items() if keys)
        raise WeightsError(
            f"{source} does not fit {name}: {listed}; give weights of this network, or name their network."
        )
    if any(tensor.is_meta for tensor in own.values()):  # of a network that was built without numbers
        converted = {key: tensors[key].to(own[key].dtype) for key in both}
        module.load_state_dict(converted, strict=False, assign=True)
    else:
        module.load_state_dict(tensors, strict=False)
    for key in missing:
        _take_out(module, key)


def _missing(own: Mapping[str, Tensor], both: Sequence[str]) -> Iterator[str]:
    """What gets no numbers: neither by its own name, nor as another name of what does, nor as a count for training."""
    filled = {own[key].data_ptr() for key in both if not own[key].is_meta}
    for key, tensor in own.items():
        shared = not tensor.is_meta and tensor.numel() > 0 and tensor.data_ptr() in filled
        if key not in both and not shared and not key.endswith("num_batches_tracked"):
            yield key


def _take_out(module: nn.Module, key: str) -> None:
    """Leave a weight or buffer without numbers."""
    path, _, name = key.rpartition(".")
    part = module.get_submodule(path)
    weight, buffer = part._parameters.get(name), part._buffers.get(name)
    if weight is not None:
        part._parameters[name] = nn.Parameter(weight.detach().to("meta"), requires_grad=weight.requires_grad)
    elif buffer is not None:
        part._buffers[name] = buffer.to("meta")


def _converts(given: Tensor, own: Tensor) -> bool:
    """Whether numbers keep their meaning in the place of these: scaled ones, as int8 weights are, do not."""
    return not given.is_complex() and (given.is_floating_point() or not own.is_floating_point())


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    return load_file(path)


def _read_pth(path: Path) -> object:
    """What a file holds that ``torch.save`` wrote; nothing in it is run."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("torch.save does not compress: this is made to fill the memory")
    with quiet(), path.open("rb") as file:  # by its name, PyTorch would take a file for something else
        return torch.load(file, map_location="cpu", weights_only=True)  # odd pickles are either read or refused


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
