"""A gallery's pages over HTTP, for this machine only."""

import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cnnviz.errors import OutputError


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files to this machine; says nothing."""

    def log_message(self, *_: object) -> None: ...

    def send_head(self) -> Any:
        """Refuse who comes by another name: a page elsewhere whose name was made to point here."""
        if (self.headers.get("Host") or "").partition(":")[0] not in ("127.0.0.1", "localhost"):
            return self.send_error(HTTPStatus.FORBIDDEN)
        return super().send_head()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers that hang up are nobody's business."""
        if not isinstance(sys.exception(), ConnectionError):
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
        return _Server(("127.0.0.1", port), partial(_Quiet, directory=str(folder)))
    except OSError as error:
        raise OutputError(f"cannot serve at port {port}: {error.strerror}; take another --port, or 0.") from error
