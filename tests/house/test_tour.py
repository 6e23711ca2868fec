"""The notebook runs as it is committed: offline, from nothing, without outputs that could be stale."""

import json
import re
import shutil
import warnings
from pathlib import Path

import pytest

from tests.support.paths import CAT, ROOT

TOUR = ROOT / "gallery" / "tour.ipynb"
IMAGES, IMAGES_OF_ANSWERS = 14, 1


def test_no_output_is_committed() -> None:
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_every_exercise_has_an_answer() -> None:
    text = "\n".join("".join(cell["source"]) for cell in json.loads(TOUR.read_text(encoding="utf-8"))["cells"])
    exercises = re.split(r"^\*\*(?=\d+\. )", text.split("## 8. Exercises")[1].split("## References")[0], flags=re.M)[1:]
    assert [int(exercise.split(".")[0]) for exercise in exercises] == list(range(1, len(exercises) + 1))
    assert len(exercises) >= 8
    for exercise in exercises:  # GitHub and Jupyter read Markdown inside <details> only after an empty line
        assert re.search(r"\n\n<details><summary>Answer</summary>\n\n(?s:.+?)\n\n</details>", exercise), exercise


def test_the_tour_runs_and_shows_an_image_wherever_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the code of the answers, which is run last."""
    (tmp_path / "photos").mkdir()
    shutil.copy(CAT, tmp_path / "photos")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the machinery of notebooks
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read(TOUR, as_version=4)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        answers = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
        assert answers
        notebook.cells += [nbformat.v4.new_code_cell(answer) for answer in answers]
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    images = [output for output in shown if "image/png" in output.get("data", {})]
    assert len(images) == IMAGES + IMAGES_OF_ANSWERS
    assert not [output for output in shown if output.output_type == "error" or output.get("name") == "stderr"]
    text = "".join(output.get("text", "") for output in shown)
    assert "block5_conv3   512 x  14 x  14  2,359,808 parameters   receptive field 196 px\n" in text
    assert "convolutions 14,714,688 + classifier 123,642,856 = 138,357,544 parameters\n" in text
    assert "block3_conv3: the derivative is not zero in 40 of 64 rows\n" in text
    assert re.search(r"Egyptian cat +(\d+\.\d%), by hand +\1\n", text)
    assert re.search(r"guided-backprop .*: fails\n", text)
    assert re.search(r"tabby: the network gives it (9\d\.\d|100\.0)", text)
    assert re.search(r"adversarial: espresso \((9\d\.\d|100\.0)%\)", text)
