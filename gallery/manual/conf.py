"""How Sphinx makes pages of the manual: `make docs` writes them to build/manual.

Everything is plain Markdown that reads well on GitHub, so Sphinx reads the repository itself, and whatever a page links
to is a page, an image or a file to download there too. Three things are added on the way:

- the contents at the side are the lists of links in index.md, a part for each heading;
- in api.md, an entry of a list, such as "- `cnnviz.load`: ...", becomes that object's documentation;
- pages of HTML that are linked to, such as a gallery's, come along with their folders.
"""

import inspect
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx

import cnnviz

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent.relative_to(ROOT).as_posix()

project = "cnnviz"
author = "The cnnviz authors"
copyright = "The cnnviz authors"  # noqa: A001  # as Sphinx calls it
version = release = cnnviz.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = f"{HERE}/index"
include_patterns = ["*.md", "gallery/*.md", "gallery/*/*.md", f"{HERE}/*/*.md", "tests/adversity/*.md"]
exclude_patterns = [".*", "build", "dist", "mutants", "runs", "cnnviz"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as on GitHub
suppress_warnings = ["myst.header"]  # a heading may begin at any level, as on GitHub

default_role = "py:obj"  # `load` in a docstring is a link where there is such an object, else code
autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"cnnviz {release}"
html_copy_source = False
html_show_sphinx = False


def contents(index: str) -> str:
    """The toctrees of an index: for each part with a heading, what its lists link to."""
    trees = []
    for part in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        caption = part.partition("\n")[0].strip()
        links = re.findall(r"^- \[([^\]]*)\]\(([^)#:]+)\.md\)", part, re.MULTILINE)
        pages = [f"{title} <{page.replace('../../', '/')}>" for title, page in links]
        if pages:
            trees.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]))
    return "\n\n".join(trees)


def documented(name: str) -> str:
    """The directive that documents an object, by its full name."""
    module, _, attribute = name.rpartition(".")
    thing = getattr(import_module(module), attribute)
    kind = "function"
    if inspect.isclass(thing):
        kind = "exception" if issubclass(thing, BaseException) else "class"
    return f"```{{eval-rst}}\n.. auto{kind}:: {name}\n```"


def adapted(_: Sphinx, page: str, source: list[str]) -> None:
    """Markdown as GitHub shows it to Markdown as Sphinx needs it."""
    text = source[0]
    if page == root_doc:
        text = f"{text}\n\n{contents(text)}\n"
    elif page == f"{HERE}/api":
        text = re.sub(
            r"^- `(cnnviz[\w.]*)`:.*\n(?:  .*\n)*", lambda entry: documented(entry[1]) + "\n", text, flags=re.M
        )
    elif not page.startswith(f"{HERE}/"):
        text = f"---\norphan: true\n---\n{text}"  # belongs to no part of the contents
    source[0] = text


def literal_blocks(*event: Any) -> None:
    """Indented lines after a colon are code, as whoever reads the source sees."""
    lines: list[str] = event[-1]
    for number, line in enumerate(lines[:-2]):
        if re.search(r"[^:]:$", line) and not lines[number + 1].strip() and _indent(lines[number + 2]) > _indent(line):
            lines[number] += ":"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def pages_beside(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Links to pages of HTML lead to these, with all that lies in their folder, instead of to a copy of one file."""
    for link in list(doctree.findall(download_reference)):
        target = str(link["reftarget"])
        file = (
            (ROOT / Path(page).parent / unquote(target)).resolve() if not target.startswith("/") else ROOT / target[1:]
        )
        if file.suffix == ".html" and file.is_relative_to(ROOT):
            folder = file.parent.relative_to(ROOT)
            shutil.copytree(file.parent, Path(app.outdir) / folder, dirs_exist_ok=True)
            up = "../" * page.count("/")
            link.replace_self(
                nodes.reference("", "", *link.children, refuri=f"{up}{file.relative_to(ROOT).as_posix()}")
            )


def start_page(app: Sphinx, error: Exception | None) -> None:
    """The folder opens with the manual."""
    if error is None and app.builder.format == "html":
        page = f'<!DOCTYPE html><title>cnnviz</title><meta http-equiv="refresh" content="0; url={root_doc}.html">'
        (Path(app.outdir) / "index.html").write_text(f"{page}\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", adapted)
    app.connect("autodoc-process-docstring", literal_blocks)
    app.connect("doctree-resolved", pages_beside)
    app.connect("build-finished", start_page)
    return {"parallel_read_safe": True}
