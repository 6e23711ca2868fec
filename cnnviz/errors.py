"""What can go wrong: by a caller's hand, by the machine, in the code of others.

A caller's faults are these, and no others:

    CnnvizError
    ├── UnknownNameError   no such network, layer or class; says which names are close
    ├── ModelError         a network that cannot be built or wrapped
    ├── WeightsError       weights that cannot be had, read or fitted to their network
    ├── LayerError         a layer that never ran, or gives no feature maps
    ├── ShapeError         a tensor, size or channel number that does not fit
    ├── PictureError       a file that is no image, or one that cannot be used
    └── OutputError        a result that cannot be written where it was asked for

Every message says what was given, what was expected and what to do next, on one line: the command line prints it as it
is. For a parameter that takes a word, `choose` says so.

A machine's faults, memory that runs out and graphics cards that fail, keep the types that PyTorch gives them;
`fault_of_machine` tells them by their texts, and says what to do.

What code of others raises for its own reasons (PyTorch's, captum's, a user's network) is `translated` once, where
cnnviz calls it. A broken invariant of cnnviz itself is an `assert`, and none of all these.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any

# A machine's faults, by what their errors say on any device: their types differ from release to release of PyTorch's.
NO_MEMORY = ("out of memory", "DefaultCPUAllocator", "bad_alloc", "ALLOC_FAILED", "Cannot allocate", "failed to map")
LOST = ("CUDA error", "CUDA driver error", "CUDNN_STATUS", "CUBLAS_STATUS", "CUSOLVER_STATUS", "HIP error", "MPS error")

FORWARD_ERRORS = (Exception, SystemExit)  # what a forward pass, code of others, may raise: all but an interruption
USUAL = (RuntimeError, AssertionError, ValueError, IndexError, TypeError)  # for images of a size it cannot take


class CnnvizError(Exception):
    """Any of the errors below."""


class UnknownNameError(CnnvizError, LookupError):
    pass


class ModelError(CnnvizError):
    pass


class WeightsError(CnnvizError):
    pass


class LayerError(CnnvizError):
    pass


class ShapeError(CnnvizError, ValueError):
    pass


class PictureError(CnnvizError):
    pass


class OutputError(CnnvizError):
    pass


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.4) -> str:
    """The end of a sentence about an unknown name: "; did you mean 'conv1'?" or a full stop.

    Args:
        cutoff: how alike letters must be, in [0, 1]; 0.6 and more for words that only a slip of the hand leads to.
    """
    as_written = {word.lower(): word for word in known}
    close = [as_written[word] for word in get_close_matches(name.lower(), as_written, n=3, cutoff=cutoff)]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else "."


def choose(name: object, choices: Iterable[str], kind: str, *, cutoff: float = 0.4) -> str:
    """`name`, if it is one of the choices: for every parameter that takes a word.

    Args:
        kind: what is chosen, for the error: "recipe".
        cutoff: as for `did_you_mean`.

    Raises:
        UnknownNameError: if it is none of them; says which are close, and all of them.
    """
    known = list(choices)
    if isinstance(name, str) and name in known:
        return name
    hint = did_you_mean(str(name), known, cutoff=cutoff)
    raise UnknownNameError(f"no {kind} named {name!r}{hint} There are {', '.join(known)}.")


def check_keywords(given: Iterable[str], known: type, kind: str, others: Sequence[str] = ()) -> None:
    """Notice a keyword that a function with ``**kind: Unpack[known]`` does not have: Python lets all of them through.

    Args:
        known: the `TypedDict` that names those it has.
        kind: what they are, for the error: "setting".
        others: the function's own keywords, which the error lists too.

    Raises:
        UnknownNameError: as `choose`.
    """
    for name in given:
        choose(name, [*others, *known.__annotations__], kind, cutoff=0.7)


def check_whole(number: object, what: str, most: int, *, least: int = 1, unit: str = "") -> None:
    """Notice what is no whole number, or none that anybody can have meant; NumPy's are whole numbers too.

    Args:
        what, unit: for the error: "the size", " pixels".

    Raises:
        ShapeError: if it is not a whole number from `least` to `most`.
    """
    try:
        sensible, kind = least <= operator.index(number) <= most, ""  # type: ignore[arg-type]
    except TypeError:
        sensible, kind = False, "a whole number, "
    if not sensible:
        raise ShapeError(f"{what} must be {kind}{least} to {most}{unit}, not {number!r}.")


def whole_number(number: object, what: str) -> int:
    """A whole number, which may be NumPy's, as Python's own.

    Args:
        what: for the error: "a filter".

    Raises:
        ShapeError: if it is none.
    """
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        raise ShapeError(f"{what} must be a whole number, not {number!r}.") from None


def several(given: object, kinds: type | UnionType, wanted: str) -> list[Any]:
    """What a caller may give alone or several of, as a list.

    Args:
        kinds: the types of one.
        wanted: for the error: "methods are given by name".

    Raises:
        UnknownNameError: if it is neither one nor an iterable of them.
    """
    if isinstance(given, kinds):
        return [given]
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        return list(given)
    raise UnknownNameError(f"{wanted}, one or a list of them, not as {_of_type(given)}.")


def path_of(given: object, what: str, error: type[CnnvizError]) -> Path:
    """The path that a caller gave of a file or folder.

    Raises:
        CnnvizError: of the type that is given, if it is no path.
    """
    if not isinstance(given, str | Path):
        raise error(f"{what} is given by its path, not as {_of_type(given)}.")
    return Path(given)


def _of_type(given: object) -> str:
    return "None" if given is None else f"an object of type {type(given).__name__}"


def out_of_memory(error: BaseException) -> bool:
    """Whether this is a device, or the computer, that has no memory left."""
    return isinstance(error, MemoryError) or _line(error, NO_MEMORY) is not None


def device_lost(error: BaseException) -> bool:
    """Whether this is a graphics card that failed, after which nothing in this process can use it."""
    return isinstance(error, RuntimeError) and not out_of_memory(error) and _line(error, LOST) is not None


def fault_of_machine(error: BaseException) -> str | None:
    """What happened and what to do, in one line, if the machine is at fault."""
    if out_of_memory(error):
        said = _line(error, NO_MEMORY)
        reason = f" ({said.rstrip('.')})" if said else ""
        return f"memory ran out{reason}; take a smaller --size or --batch, fewer layers, or free some memory."
    if device_lost(error):
        return f"the graphics card failed ({_line(error, LOST)}); give the same command again, or with --device cpu."
    return None


@contextmanager
def translated(error: Callable[[str], CnnvizError]) -> Iterator[None]:
    """Raise an error of cnnviz's, made of the first line of what PyTorch or code of others raises.

    Where the machine failed, its own error stays.
    """
    try:
        yield
    except CnnvizError:
        raise
    except FORWARD_ERRORS as unforeseen:
        if fault_of_machine(unforeseen):
            raise
        said = str(unforeseen).strip().partition("\n")[0].rstrip(".")
        kind = "" if said and isinstance(unforeseen, USUAL) else type(unforeseen).__name__
        raise error(": ".join(filter(None, [kind, said]))) from unforeseen


def _line(error: BaseException, marks: tuple[str, ...]) -> str | None:
    """The line of an error's text with one of the marks."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if any(mark in line for mark in marks)), None)
