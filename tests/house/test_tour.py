"""The notebook runs as it is committed: offline, from nothing, without outputs that could be stale."""

import json
import re
import shutil
import warnings
from pathlib import Path

import pytest

from tests.support.paths import CAT, ROOT

TOUR = ROOT / "gallery" / "tour.ipynb"


def test_no_output_is_committed() -> None:
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_the_tour_runs_and_shows_a_picture_wherever_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(CAT, tmp_path / "photos")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the machinery of notebooks
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read(TOUR, as_version=4)
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in shown if "image/png" in output.get("data", {})]
    assert len(pictures) == 9
    assert not [output for output in shown if output.output_type == "error" or output.get("name") == "stderr"]
    text = "".join(output.get("text", "") for output in shown)
    assert "block5_conv3   512 x  14 x  14  2,359,808 numbers   sees 196 px\n" in text
    assert re.search(r"tabby: the network gives it (9\d\.\d|100\.0)", text)
