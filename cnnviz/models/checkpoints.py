"""What ``torch.save`` wrote, opened without running or building anything of it but tensors and plain containers.

Checkpoints hold more than weights: arguments, paths, numbers of NumPy's. Of these only the kinds in `HARMLESS` are let
through, and not one is made: something inert takes its place, so it does not matter either whether this machine could
make it (a ``WindowsPath``, an array of another NumPy).

To let another kind through, add its full name: to `HARMLESS`, or, if it is filled as a dictionary or list is, there.
"""

import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.serialization import safe_globals

from cnnviz.isolation import Together, quiet


class Inert:
    """In the place of something harmless; keeps nothing of what it is given."""

    def __new__(cls, *_: object) -> "Inert":
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        pass


class _Dictionary:
    """In the place of another kind of dictionary, since a state dict may be inside."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


class _List:
    """In the place of another kind of list."""

    def __new__(cls, *_: object) -> Any:
        return []


DICTIONARIES = (
    "collections.defaultdict",
    "easydict.EasyDict",
    *(f"{package}.utilities.parsing.AttributeDict" for package in ("pytorch_lightning", "lightning.pytorch")),
)
LISTS = ("collections.deque",)
HARMLESS = (
    *("argparse.Namespace", "types.SimpleNamespace", "uuid.UUID", "decimal.Decimal", "fractions.Fraction"),
    *(f"datetime.{kind}" for kind in ("date", "datetime", "time", "timedelta", "timezone")),
    *(
        f"{module}.{kind}"
        for module in ("pathlib", "pathlib._local")
        for kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    ),
    *(
        f"builtins.{kind}"
        for kind in ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "range", "slice", "str", "tuple")
    ),
    *(
        f"{module}.{function}"
        for module in ("numpy.core", "numpy._core")
        for function in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
    ),
    *(f"numpy.{kind}" for kind in ("ndarray", "dtype", "bool", "bool_", "str_", "bytes_")),
    *(f"numpy.{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *(f"numpy.{kind}" for kind in ("float16", "float32", "float64", "complex64", "complex128")),
    "torch.torch_version.TorchVersion",
)
_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (stand_in, name)
    for stand_in, names in ((Inert, HARMLESS), (_Dictionary, DICTIONARIES), (_List, LISTS))
    for name in names
]
_harmless_let_through = Together(lambda: safe_globals(_STAND_INS))  # PyTorch has one list for all threads


def read_pth(path: Path) -> Any:
    """What a file holds that ``torch.save`` wrote.

    Raises:
        Exception: of any kind, for what is damaged, or holds what is not let through; `refused` tells.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise ValueError("torch.jit.save wrote this: a TorchScript archive, which holds code")
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("torch.save does not compress: this is made to fill the memory")
    with quiet(), _harmless_let_through(), path.open("rb") as file:  # by its name, PyTorch would take it for another
        return torch.load(file, map_location="cpu", weights_only=True)  # odd pickles are either read or refused


def refused(error: Exception) -> str | None:
    """The full name of the class or function that was not let through, if that is why a file could not be read."""
    name = re.search(r"GLOBAL ([\w.]+)", str(error))
    return name[1] if name else None
