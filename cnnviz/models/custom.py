"""A user's own network: ``package.module:factory`` or ``file.py:factory``.

Naming a factory runs the user's code; nothing else in cnnviz does. The factory, called without arguments, returns an
``nn.Module``, or a `Network` that `wrap` made.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import cast

from torch import nn

from cnnviz.errors import ModelError, did_you_mean
from cnnviz.models.weights import fill, seeded
from cnnviz.network import Network, wrap


def build(
    name: str,
    weights: str | Path | None,
    *,
    input_size: int | tuple[int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    labels: Sequence[str] | None,
) -> Network:
    """Call the factory, put the weights in, wrap. Without `weights` the network stays as the factory made it.

    Raises:
        ModelError: if there is no such factory, it makes no network, or its input size is not given.
    """
    with seeded():
        made = _factory(name)()
    if isinstance(made, Network):
        if weights is not None:
            fill(made.module, weights, name)
        return made
    if not isinstance(made, nn.Module):
        kind = type(made).__name__
        raise ModelError(f"{name} returned an object of type {kind}; it should return an nn.Module or a Network.")
    if input_size is None:
        raise ModelError(f"say how large the pictures of {name} are, as with --input-size 224 (or input_size=224).")
    source = "as its factory made them" if weights is None else fill(made, weights, name)
    return wrap(
        made,
        name=re.sub(r".*[/\\]", "", name),
        input_size=input_size,
        mean=mean if mean is not None else (0.0,),
        std=std if std is not None else (1.0,),
        labels=labels,
        weights=source,
    )


def _factory(name: str) -> Callable[[], object]:
    where, _, attribute = name.rpartition(":")
    module = _from_file(Path(where)) if where.endswith(".py") else _from_package(where)
    factory = getattr(module, attribute, None)
    if factory is None or not callable(factory):
        hint = did_you_mean(attribute, [key for key in vars(module) if not key.startswith("_")])
        raise ModelError(f"{where} has no function or class named {attribute!r}{hint}")
    return cast("Callable[[], object]", factory)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"there is no file {path}; a network of your own is named as file.py:factory.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles look their module up there
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _from_package(where: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"cannot import {where!r} ({error}); a network of your own is named as package.module:factory."
        ) from error
