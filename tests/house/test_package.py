"""The wheel, installed alone, has all it needs; what is published beside it belongs to it."""

import os
import re
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cnnviz
from cnnviz.galleries.verification import check
from cnnviz.models import builtin
from cnnviz.networks.provenance import fingerprint_in
from tests.support.paths import CAT, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "cnnviz", source / "cnnviz", ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(source / "dist"),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_weights_marker_and_command(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "cnnviz/py.typed" in names
    assert {f"cnnviz/models/{name}" for name in ("vgg16-mini.safetensors", "vgg16-conv.safetensors")} <= set(names)
    assert {"cnnviz/models/vgg16-NOTICE.txt", "cnnviz/web/cat.jpg", "cnnviz/web/cat-NOTICE.txt"} <= set(names)
    assert {"cnnviz/web/templates/start.html", "cnnviz/web/static/gallery.js"} <= set(names)
    assert any(name.endswith("LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"cnnviz", f"cnnviz-{_version(wheel)}.dist-info"}
    assert wheel.stat().st_size < 36_000_000


def _version(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def test_the_wheel_alone_makes_the_first_picture(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which sees this one's dependencies but not its cnnviz."""
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    folder = next(home.glob("lib/python*/site-packages"))
    (folder / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    with zipfile.ZipFile(wheel) as archive:
        assert (
            "cnnviz = cnnviz.__main__:main"
            in archive.read(f"cnnviz-{_version(wheel)}.dist-info/entry_points.txt").decode()
        )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(home / "bin" / "python")]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel)], check=True
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    where = [str(home / "bin" / "python"), "-c", "import cnnviz; print(cnnviz.__file__)"]
    found = subprocess.run(
        where, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
    ).stdout.strip()
    assert Path(found).is_relative_to(home)
    command = [
        str(home / "bin" / "cnnviz"),
        "featuremaps",
        str(CAT),
        "--layer",
        "block3_conv3",
        "--model",
        "vgg16-mini",
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "cat_vgg16-mini_featuremaps_block3_conv3.png").stat().st_size > 10_000


def test_the_card_is_of_the_network_that_is_shipped() -> None:
    card = (ROOT / "gallery" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| {builtin.SIDE} px | {builtin.describe()['top1']:.1f}% |" in card
    assert not re.search(r"^[A-Z]{3,}$", card, re.MULTILINE), "a place that is still to be filled"


def test_the_gallery_is_of_the_network_that_is_shipped_and_whole(empty_cache: Path) -> None:
    folder = ROOT / "gallery" / "vgg16"
    plan, faults = check(folder)
    assert faults == []
    assert [len(layer.filters) for layer in plan.layers] == [64] * 13
    assert plan.network["fingerprint"] == cnnviz.load("vgg16").fingerprint
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60_000_000


@pytest.mark.parametrize(
    ("name", "network"),
    [("cat_block2_conv1", "vgg16"), ("filters_block4_conv3", "vgg16"), ("coffee_saliency", "vgg16-mini")],
)
def test_images_of_the_gallery_tell_how_they_were_made(name: str, network: str, empty_cache: Path) -> None:
    record = cnnviz.read_record(ROOT / "gallery" / f"{name}.png")
    assert fingerprint_in(record["network"]) == cnnviz.load(network).fingerprint
    page = (ROOT / "gallery" / "README.md").read_text(encoding="utf-8")
    assert f"]({name}.png)" in page
