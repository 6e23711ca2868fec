"""A gallery's pages over HTTP, for this machine only.

Files of the folder can be read, and nothing else: no lists of files, no hidden files, nothing that a symbolic link
leads to outside the folder.
"""

import os
import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cnnviz.errors import OutputError


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files to this machine; says nothing."""

    timeout = 30  # seconds, for a browser that asks for nothing more

    def log_message(self, *_: object) -> None: ...

    def send_head(self) -> Any:
        """Refuse who comes by another name, a page elsewhere whose name was made to point here, and what is no page."""
        if (self.headers.get("Host") or "").partition(":")[0] not in ("127.0.0.1", "localhost"):
            return self.send_error(HTTPStatus.FORBIDDEN)
        file = self._asked()
        if file is None:
            return self.send_error(HTTPStatus.NOT_FOUND)
        self.path = "/" + quote(file.as_posix(), errors="surrogatepass")  # as it is read again
        return super().send_head()

    def _asked(self) -> Path | None:
        """The file that is asked for, from the folder on, if it may be had."""
        path = self.translate_path(self.path)
        path += "index.html" if path.endswith("/") else ""
        try:
            file = Path(os.path.realpath(path)).relative_to(self.directory)
        except ValueError:  # it is elsewhere, or no file can have this name
            return None
        hidden = any(part.startswith(".") for part in file.parts)
        return file if not hidden and os.path.isfile(path) else None


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers that hang up, or fall asleep, are nobody's business."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the pages in a folder, at 127.0.0.1; not yet running.

    Args:
        port: 0 for a free one.

    Raises:
        OutputError: if there are no pages, or the port is taken.
    """
    if not (folder / "index.html").is_file():
        raise OutputError(f"there are no pages in {folder}; `cnnviz gallery site {folder}` makes them.")
    try:
        return _Server(("127.0.0.1", port), partial(_Quiet, directory=os.path.realpath(folder)))
    except OSError as error:
        raise OutputError(f"cannot serve at port {port}: {error.strerror}; take another --port, or 0.") from error
