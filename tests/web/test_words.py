"""What a person reads in reports, galleries and the app are the field's terms."""

from pathlib import Path

import pytest

from tests.support.paths import ROOT

WEB = ROOT / "cnnviz" / "web"
FILES = sorted([*WEB.glob("*.py"), *WEB.glob("templates/*.html"), *WEB.glob("static/*.js")])
AVOIDED = (
    "taken for",
    "takes it for",
    "becomes of it",
    "what fired",
    "was climbed",
    "pictures reach",
    "images reach",
    "where it fires",
    "also called",
    "are apart",
    "a value sees",
    "turned edges",
    "why the class",
    "rather than",
    "looks for",
    "look for",
    "speaks for",
    "spoke for",
    "laid over",
    "silent channel",
    '"silent"',
    "not even",
    "likeness to the",
    "nothing to be seen",
    "draw it",
    "textbooks say, where",
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pages_use_the_fields_terms(path: Path) -> None:
    text = " ".join(path.read_text(encoding="utf-8").lower().split())
    assert [words for words in AVOIDED if words in text] == []


@pytest.mark.parametrize(
    ("file", "titles"),
    [
        ("report.html", ["Prediction", "Feature maps by depth", "Attribution", "Most active channels"]),
        (
            "filter.html",
            ["Feature visualization", "Top activating images", "Optimization curve", "Activation distribution"],
        ),
        ("layer.html", ["Receptive field", "Stride (input px)"]),
    ],
)
def test_titles_are_the_fields_terms(file: str, titles: list[str]) -> None:
    text = (WEB / "templates" / file).read_text(encoding="utf-8")
    assert [title for title in titles if f">{title}<" not in text] == []
