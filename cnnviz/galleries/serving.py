"""A gallery's pages over HTTP, for this machine only."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cnnviz.errors import OutputError


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files; says nothing."""

    def log_message(self, *_: object) -> None: ...


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
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(folder)))
    except OSError as error:
        raise OutputError(f"cannot serve at port {port}: {error.strerror}; take another --port, or 0.") from error
