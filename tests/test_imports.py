"""What importing costs, and which way imports go."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cnnviz

PACKAGE = Path(cnnviz.__file__).parent

# Lowest first; a module may import from its own level and those above it in this list.
LEVELS = [
    {
        "aliases",
        "captumcalls",
        "errors",
        "files",
        "machine",
        "patches",
        "precision",
        "receptive",
        "refusals",
        "shared",
        "untrusted",
    },
    {"unforeseen"},
    {"methods", "sheets"},
    {"images", "network", "pictures", "transforms"},
    {"hooks", "architecture", "inputs", "models", "provenance", "views", "wiring"},
    {"baselines", "classes", "kernels", "mapsheets", "objectives", "predictions", "structure"},
    {"explainers"},
    {"attribution", "heatmaps"},
    {"evidence", "examples", "explanationsheets", "metrics"},
    {"explanations", "pointing"},
    {"comparisoncharts"},
    {"comparison"},
    {"explaining"},
    {"ascent", "featuremaps", "judgement", "recipes"},
    {"filtersheets", "jobs"},
    {"settings"},
    {"synthesis"},
    {"dreams", "galleries"},
    {"reruns"},
    {"appparts"},
    {"app"},
    {"report", "reportpages"},
    {"cli", "__init__", "__main__"},
]
HEAVY = ("torch", "torchvision", "captum", "matplotlib", "numpy", "rich", "PIL", "ray", "jinja2", "streamlit")


def imported(path: Path) -> set[str]:
    """Modules of cnnviz that a file imports when it runs, wherever the statement stands."""
    tree = ast.parse(path.read_text())
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    skipped = {id(inner) for block in typing for inner in ast.walk(block)}
    nodes = [node for node in ast.walk(tree) if id(node) not in skipped]
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in froms), "imports are absolute"
    names = [node.module for node in froms if node.module]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("cnnviz.")}


def level(module: str) -> int:
    return next(number for number, names in enumerate(LEVELS) if module in names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imported(path):
        assert level(module) <= level(own), f"{own} must not import {module}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 320
    assert ast.get_docstring(ast.parse(text))


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
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cnnviz.nonsense
