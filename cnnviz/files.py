"""Files written whole or not at all, and JSON of others read with suspicion.

`whole_file` writes what somebody keeps: whatever interrupts it, there is the old file or the new one. `parsed` and the
questions below it are asked of all JSON that may have come from somebody else (records in images, folders of
galleries): it may be damaged, or made to do harm.
"""

import errno
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cnnviz.errors import OutputError

PARTIAL = ".partial"  # the ending of a file that is being written
DEEPEST = 32  # levels of lists and objects in JSON; cnnviz writes six


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write bytes to, moved to `path` when all went well; otherwise `path` stays as it was.

    Folders that are missing on the way to `path` are made. Nobody else can read the file before it is finished. Where
    `path` is a symbolic link, the link itself is replaced, and what it leads to stays as it is.

    Raises:
        OutputError: if the file cannot be written there.
    """
    partial = path.parent / f".{path.name}.{secrets.token_hex(4)}{PARTIAL}"  # known before there is anything to remove
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "xb", opener=_private) as file:
            yield file
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def check_writable(path: Path) -> None:
    """Notice before any work that a file cannot be written to a folder that is there.

    Raises:
        OutputError: if it cannot.
    """
    if path.parent.is_dir():
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise _refused(path, error) from error


def parsed(text: str | bytes) -> Any:
    """What JSON says, if Python can go through it, show it and write it again.

    Raises:
        ValueError: whatever is wrong with it.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
    if level:
        raise ValueError("it is nested too deeply")
    json.dumps(value, ensure_ascii=False).encode()  # halves of characters could not be
    return value


def is_whole(value: object, least: int = 0, below: int = 2**63) -> bool:
    """Whether this is an integer in [least, below)."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < below


def is_real(value: object) -> bool:
    """Whether this is a number that can be computed with: neither NaN nor larger than any that a network gives."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def is_list(value: object, kind: Any, length: int | None = None) -> bool:
    """Whether this is a list of so many (any number, if not said) of what `kind` tells."""
    return isinstance(value, list) and length in (None, len(value)) and all(map(kind, value))


def is_text(value: object) -> bool:
    return isinstance(value, str)


def _refused(path: Path, error: OSError) -> OutputError:
    blocked = isinstance(error, FileExistsError | NotADirectoryError)
    reason = "there is a file where a folder should be" if blocked else error.strerror or str(error)
    advice = "make room, or choose another place" if error.errno == errno.ENOSPC else "choose another place"
    return OutputError(f"cannot write {path}: {reason}; {advice}.")


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it: what other threads make meanwhile is to be private
    os.umask(mask)
    return mask


def _inside(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
