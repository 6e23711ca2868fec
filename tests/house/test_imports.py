"""The plan of the house: which way imports go, and what importing costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import cnnviz
from tests.support.paths import CAT

PACKAGE = Path(cnnviz.__file__).parent
ROOT = PACKAGE.parent
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}

# Lowest first. A wing imports from those above it in this list, and from its own files; wings side by side stay apart.
STOREYS = [
    {"errors", "isolation"},
    {"files"},
    {"pictures"},
    {"networks"},
    {"features", "synthesis", "attribution", "models"},
    {"galleries", "objectives"},
    {"web"},
    {"cli"},
    {"__init__", "__main__"},
]
HEAVY = ("torch", "torchvision", "captum", "matplotlib", "numpy", "rich", "PIL", "ray", "jinja2", "streamlit")


def imported(module: str) -> Iterator[str]:
    """Modules of cnnviz that a file imports, wherever the statement stands and whenever it runs."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("cnnviz."))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            if node.module and node.module.partition(".")[0] == "cnnviz":
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from (name if name in FILES else node.module for name in inner)


def wing(module: str) -> str:
    return module.split(".")[1]


def storey(module: str) -> int:
    return next(number for number, wings in enumerate(STOREYS) if wing(module) in wings)


def test_the_house_has_its_wings_and_no_more() -> None:
    assert {wing(module) for module in FILES} == set().union(*STOREYS)


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_down(module: str) -> None:
    for other in imported(module):
        assert storey(other) < storey(module) or wing(other) == wing(module), f"{module} must not import {other}"


def test_no_imports_go_in_a_circle() -> None:
    graph = {module.removesuffix(".__init__"): set(imported(module)) for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", sorted(FILES))
def test_files_say_what_they_are(module: str) -> None:
    assert ast.get_docstring(ast.parse(FILES[module].read_text()))


def loaded_by(code: str) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after running some code."""
    report = f"{code}\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_importing_cnnviz_costs_nothing() -> None:
    assert loaded_by("import cnnviz; dir(cnnviz); cnnviz.__version__") == set()


@pytest.mark.parametrize("arguments", [["--help"], ["featuremaps", "--help"], ["--version"], ["featuremaps"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(f"from cnnviz.cli import cli\ntry: cli({arguments!r})\nexcept SystemExit: pass") == set()


def test_a_record_is_read_without_pytorch() -> None:
    command = ["inspect", str(ROOT / "gallery" / "cat_block2_conv1.png")]
    assert loaded_by(f"from cnnviz.cli import cli\ntry: cli({command!r})\nexcept SystemExit: pass") == {"numpy", "PIL"}


NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
"""


MAPS, FILTER = ["featuremaps", str(CAT)], ["filters", "--filters", "0", "--steps", "2"]
KNOWN, OWN = ["vgg16-mini", "--layer", "block2_conv1"], ["net.py:net", "--input-size", "32", "--layer", "1"]


@pytest.mark.parametrize(("command", "model"), [(MAPS, KNOWN), (FILTER, OWN)], ids=["maps", "filters"])
def test_nothing_on_the_way_to_a_picture_imports_a_compiler(
    tmp_path: Path, command: list[str], model: list[str]
) -> None:
    """On the meta device PyTorch does, and in its optimisers, and it costs as much as all the rest."""
    (tmp_path / "net.py").write_text(NET)
    command = [*command, "-o", "drawn.png", "--model", *model]
    code = f"import sys; from cnnviz.cli import cli; cli({command!r}, standalone_mode=False); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "torch" in result.stdout.split()
    assert "torch._dynamo" not in result.stdout.split()


def test_figures_use_neither_pyplot_nor_a_display() -> None:
    code = (
        "import cnnviz, io, sys, torch; from torch import nn\n"
        "maps = cnnviz.feature_maps(nn.Sequential(nn.Conv2d(1, 2, 3)), torch.rand(1, 8, 8), '0')\n"
        "maps.figure().savefig(io.BytesIO()); print('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_every_public_name_is_there_and_none_is_a_module() -> None:
    for name in cnnviz.__all__:
        assert getattr(cnnviz, name) is not None
        assert not (PACKAGE / f"{name}.py").exists()
        assert not (PACKAGE / name).exists()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cnnviz.nonsense
