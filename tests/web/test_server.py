"""The server of a gallery's pages. What could be abused of it stands in `tests/adversity/test_security.py`."""

import http.client
import threading
from pathlib import Path

import pytest

from cnnviz.errors import OutputError
from cnnviz.web.gallery_site import write_site
from cnnviz.web.server import server
from tests.support.galleries import gallery, planned


def test_the_server_is_for_this_machine_and_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_site(gallery(tmp_path, planned({"block1_conv1": 2})))
    with server(tmp_path, 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        port = running.server_address[1]
        for host, status in (("127.0.0.1", 200), ("localhost", 200), ("evil.example", 403)):
            asked = http.client.HTTPConnection("127.0.0.1", port)
            asked.request("GET", "/index.html", headers={"Host": f"{host}:{port}"})
            assert asked.getresponse().status == status
            asked.close()
        with pytest.raises(OutputError, match=f"cannot serve at port {port}"):
            server(tmp_path, port)
        running.shutdown()
        thread.join()
    assert capsys.readouterr() == ("", "")
