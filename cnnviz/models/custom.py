"""A user's own network: ``package.module:factory`` or ``file.py:factory``.

Naming a factory runs the user's code; nothing else in cnnviz does. The factory, called without arguments, returns an
``nn.Module``, or a `Network` that `wrap` made.
"""

import ast
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
from torch import nn

from cnnviz.errors import CnnvizError, ModelError, did_you_mean
from cnnviz.isolation import seeded
from cnnviz.models.weights import SEED, Origin, fill
from cnnviz.networks.inputs import LARGEST
from cnnviz.networks.network import RANDOM, Network, wrap
from cnnviz.networks.outputs import Outputs

AS_MADE = "as its factory made them"  # where weights came from that nobody gave
WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors")


def check_named(name: str) -> None:
    """Notice a file that is named without the function or class that makes the network; nothing in it is run.

    Raises:
        ModelError: says how to name it, and which functions and classes a file of code holds.
    """
    path = Path(name)
    if path.suffix in WEIGHTS:
        raise ModelError(
            f"{name} holds weights, not the network's code; give the code with --model file.py:factory and the file"
            f" with --weights {name}."
        )
    if path.suffix == ".py":
        listed = [f"{name}:{maker}" for maker in _makers(path)]
        hint = f"name a function or class of it: {', '.join(listed)}." if listed else "it holds no function or class."
        raise ModelError(f"{name} alone names no network; {hint}")


def _makers(path: Path) -> list[str]:
    """The functions and classes that a file of Python defines, read and not run."""
    if not path.is_file():
        raise ModelError(f"there is no file {path}; a network of your own is named as file.py:factory.")
    try:
        statements = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ModelError(f"{path} is not Python that can be read: {error}.") from error
    makers = (part.name for part in statements if isinstance(part, ast.FunctionDef | ast.ClassDef))
    return [name for name in makers if not name.startswith("_")]


def build(
    name: str,
    weights: str | Path | None,
    *,
    input_size: int | tuple[int, int] | None,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    labels: Sequence[str] | None,
    outputs: Outputs | None = None,
) -> Network:
    """Call the factory, put the weights in, wrap. Without `weights` the network stays as the factory made it.

    Raises:
        ModelError: if there is no such factory, it makes no network, or its input size is not given.
    """
    if weights == RANDOM:
        raise ModelError(f"{name} makes its own weights; leave out --weights, or give a file.")
    product = _product(name)
    if isinstance(product, Network):
        own = {"input size": input_size, "mean": mean, "std": std, "labels": labels, "outputs": outputs}
        given = [key for key, value in own.items() if value is not None]
        if given:
            raise ModelError(f"{name} returns a Network, which has its own {given[0]}; leave it out.")
        if weights is not None:
            product.weights, product.weights_sha256 = fill(product.module, weights, name)
        return product
    if not isinstance(product, nn.Module):
        kind = type(product).__name__
        raise ModelError(f"{name} returned an object of type {kind}; it should return an nn.Module or a Network.")
    if input_size is None:
        raise ModelError(f"give the input size of {name}, such as --input-size 28 or 224 (input_size=224 in Python).")
    if max([input_size] if isinstance(input_size, int) else input_size) > LARGEST:
        raise ModelError(f"the input size of {name} can be {LARGEST} pixels at most; more would fill the memory.")
    made = Origin(AS_MADE, None)
    origin = made if weights is None else fill(product, weights, name)
    network = wrap(
        product,
        name=re.sub(r".*[/\\]", "", name),
        input_size=input_size,
        mean=mean if mean is not None else 0.0,
        std=std if std is not None else 1.0,
        labels=labels,
        weights=origin.source,
        outputs=outputs,
    )
    network.weights_sha256 = origin.sha256
    return network


def _product(name: str) -> object:
    """What the factory returns."""
    where, _, attribute = name.rpartition(":")
    folder = Path(where).parent if where.endswith(".py") else Path()
    with seeded(SEED), _settings_kept(), _importing_from(folder.resolve()):
        module = _from_file(Path(where)) if where.endswith(".py") else _from_package(where)
        factory = getattr(module, attribute, None)
        if factory is None:
            makers = [key for key, value in vars(module).items() if not key.startswith("_") and callable(value)]
            raise ModelError(f"{where} has no function or class named {attribute!r}{did_you_mean(attribute, makers)}")
        if not callable(factory):
            kind = type(factory).__name__
            raise ModelError(f"{name} is an object of type {kind}, not a function or class that makes a network.")
        with _users_code(f"calling {attribute}()"):
            return cast("Callable[[], object]", factory)()


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let the user's code import what lies beside it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have put its own path there
            sys.path.remove(str(folder))


@contextmanager
def _users_code(doing: str) -> Iterator[None]:
    """Name the fault in a user's code, and its line, in one line; what it prints is no result and goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except CnnvizError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        at = "" if last.filename == __file__ else f" ({Path(last.filename).name}, line {last.lineno})"
        raise ModelError(f"{doing} raised {type(error).__name__}: {error}{at}.") from error


@contextmanager
def _settings_kept() -> Iterator[None]:
    """What a user's code sets for all of PyTorch is set back: cnnviz computes as it did."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"there is no file {path}; a network of your own is named as file.py:factory.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles look their module up there
    with _users_code(f"importing {path.name}"):
        spec.loader.exec_module(module)
    return module


def _from_package(where: str) -> ModuleType:
    if not re.fullmatch(r"\w+(\.\w+)*", where):
        raise ModelError(f"{where!r} is no module; a network of your own is named as package.module:factory.")
    with _users_code(f"importing {where}"):
        if importlib.util.find_spec(where) is None:
            raise ModelError(f"there is no module {where!r}; a network of your own is named as package.module:factory.")
        return importlib.import_module(where)
