"""Files that appear whole or not at all."""

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cnnviz.errors import OutputError

PARTIAL = ".partial"  # the ending of a file that is being written


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
