"""What people read speaks the field's language: none of the expressions that it once had instead."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RETIRED = (
    r"what (all )?\d+( of \d+)? (filters look for|channels see)",
    r"[Ww]hy the class came out",
    r"nothing to be seen",
    r"speaks? (for|against) (the|its|a) class",
    r"sums up to the score",
    r"hottest pixels",
    r"without sign",
    r"laid over the (picture|image)",
    r"shown to the network whole",
    r"[Ww]hat it takes for",
    r"less half the runner-up",
    r"[Aa] value sees",
    r"[Nn]eighbours are apart",
    r"also called",
    r"\bclimb(s|ed|ing)?\b",
    r"\bfilm of\b",
    r"[Ww]hat (pictures|images) reach",
    r"[Ww]here it fires in",
    r"what \S+ keeps of it",
    r"\bdreams it\b",
    r"share of the energy",
    r"likeness to the turned edges",
    r"channels that are not even",
    r"[Ww]hat it is taken for",
    r"[Ww]hat becomes of it with depth",
    r"[Ww]hat fired",
    r"on the right half",
    r"knowing nothing",
    r"\bunmoved\b",
    r"ablation of patches",
    r"does no better",
    r"nobody's eye",
    r"[Aa]nother one gives",
    r"[Aa]nother number of steps",
    r"[Oo]f your own network:",
    r"which runs that code",
    r"in what else Pillow",
    r"shifted about",
    r"\b(?<!, )pictures?\b(?!:|,\)|, positions:)",
)
SHOWN = [
    *(path for path in (ROOT / "cnnviz" / "web" / "templates").glob("*.html")),
    ROOT / "README.md",
    *(ROOT / "gallery").glob("*.md"),
    *(ROOT / "gallery" / "manual").rglob("*.md"),
    ROOT / "CONTRIBUTING.md",
    ROOT / "gallery" / "tour.ipynb",
]


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """By line, what is not code: of Python strings with a blank in them, of Markdown and HTML all but code."""
    text = path.read_text()
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING and " " in token.string:
                yield token.start[0], re.sub(r"\{[^{}]*\}|`[^`]*`", "", token.string)
    else:
        text = re.sub(r"```.*?```", lambda fenced: "\n" * fenced[0].count("\n"), text, flags=re.DOTALL)
        for number, line in enumerate(text.splitlines(), 1):
            yield number, re.sub(r"`[^`]*`|\{[{%].*?[%}]\}|<[^>]*>|\]\([^)]*\)", "", line)


@pytest.mark.parametrize("pattern", RETIRED)
def test_retired_words_are_gone(pattern: str) -> None:
    files = [*(ROOT / "cnnviz").rglob("*.py"), *SHOWN]
    uses = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        for line, text in sentences(path)
        if re.search(pattern, text)
    ]
    assert not uses
