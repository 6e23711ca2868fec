"""Every command that writes a sheet writes it as a PDF or SVG too, with text as text."""

from pathlib import Path

import pytest
import torch

from cnnviz.attribution.comparison import Compared, Comparison
from cnnviz.errors import CnnvizError
from cnnviz.networks.network import Network
from cnnviz.pictures.records import read_record
from tests.support.commands import Run
from tests.support.paths import CAT

COMMANDS = {
    "featuremaps": ([CAT, "--layer", "block4_conv2", "--top", "64"], "Feature maps: block4_conv2 (64 of 192 channels)"),
    "filters": (["--layer", "block2_conv1", "--filters", "3,5", "--steps", "2"], "Feature visualization: block2_conv1"),
    "saliency": ([CAT, "--method", "grad-cam", "--size", "64", "--class", "tabby"], "Attribution: tabby (p = "),
    "kernels": (["--title", "First-layer kernels"], "First-layer kernels"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_sheets_are_written_as_vector_files(run: Run, name: str) -> None:
    arguments, title = COMMANDS[name]
    for file in ("a.svg", "a.pdf"):
        result = run(name, *arguments, "--model", "vgg16-mini", "-o", file, "--quiet")
        assert result.exit_code == 0, result.stderr
    assert f">{title}" in Path("a.svg").read_text("utf-8")
    content = Path("a.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content


def test_the_chart_of_a_comparison_is_one_too(mini: Network, tmp_path: Path) -> None:
    comparison = Comparison(mini, {"saliency": Compared(torch.tensor([0.2, 0.6]), {})}, 2, 0)
    assert "Grid pointing game" in comparison.save(tmp_path / "a.svg").read_text()


def test_a_file_that_only_begins_like_ours_is_read_in_no_time(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text("<?xml" + 200_000 * "<dc:description>")  # hours, if each were looked for to the end
    with pytest.raises(CnnvizError):
        read_record(path)
