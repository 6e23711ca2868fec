"""`cnnviz app`: all visualizations of a network in the browser."""

import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click

import cnnviz
from cnnviz.cli import options
from cnnviz.cli.commands import command

HERE = "127.0.0.1"
SETTINGS = {
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "server.address": HERE,
    "server.enableCORS": "true",  # as Streamlit calls the protection against pages from elsewhere
    "server.enableXsrfProtection": "true",
    "server.fileWatcherType": "none",  # it would look into every module of PyTorch's
    "server.maxUploadSize": "20",
    "server.showEmailPrompt": "false",
}


@command()
@options.port(1, 8501, "Port to serve at.")
@options.browser
@click.pass_context
def app(context: click.Context, port: int, browser: bool) -> None:
    """Interactive app in the browser: feature maps, feature visualization and attribution of your images.

    Served to this machine only (127.0.0.1): images stay in its memory, and are gone when it ends. Ctrl-C ends it.

    \b
    Example:
      cnnviz app
    """
    if find_spec("streamlit") is None:
        raise click.ClickException("Streamlit is not installed; `pip install 'cnnviz[app]'` does that.")
    _check_free(port)
    settings = SETTINGS | {"server.port": str(port), "server.headless": str(not browser).lower()}
    page = Path(cnnviz.__file__).with_name("web") / "app.py"
    flags = [f"--{name}={value}" for name, value in settings.items()]
    # -P and cwd: modules and Streamlit's settings in the folder where somebody happens to be are none of ours
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(page), *flags]
    with subprocess.Popen(command, cwd=page.parent) as server:
        try:
            status = server.wait()
        finally:
            server.kill()
            server.wait()  # which Popen itself does for a quarter of a second only, if it is interrupted
    context.exit(status)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HERE, port))
        except OSError as error:
            raise click.ClickException(
                f"cannot serve at port {port}: {error.strerror}; take another --port."
            ) from error
