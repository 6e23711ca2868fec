"""README and manual do what they say: their commands and lines of Python run, their links lead somewhere.

Each page has a folder of its own, with some photographs, and a ``cnnviz.toml`` that makes commands short. A page's
blocks run in their order: commands by click in this process, each once; lines of Python with variables that they share.
A block headed by ``<!-- not run: why -->`` is read only: its commands and options must exist, its Python be Python.
"""

import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from textwrap import dedent
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import cnnviz
from cnnviz import objectives
from cnnviz.cli import cli
from cnnviz.synthesis import judgement, settings
from cnnviz.synthesis.patterns import patterns
from tests.support.commands import COMMANDS
from tests.support.networks import LeNet
from tests.support.paths import NETWORKS, ROOT
from tests.support.weights import stand_in

README, MANUAL, PHOTOS = ROOT / "README.md", ROOT / "gallery" / "manual", ROOT / "gallery" / "photos"
PAGES = [README, *sorted(MANUAL.rglob("*.md"))]
LINKING = sorted({*ROOT.glob("*.md"), *(ROOT / "gallery").glob("*.md"), *(ROOT / "gallery").glob("*/*.md"), *PAGES})

WRITTEN = {name for page in PAGES for name in re.findall(r"^# (\w+)\.py$", page.read_text("utf-8"), re.MULTILINE)}

# Never run: what prepares a machine, what serves until it is interrupted, what downloads.
PREPARING = ("pip install", "make", "git clone", "eval")
WAITING = ("app", "gallery serve", "weights")
SHELL = ("|", ">", ">>", "<", "&&", "&", ";")
DOWNLOADED = ("resnet18", "alexnet")  # stand-ins lie where their weights would be cached

# As vgg16-mini sees the photographs.
CLASSES = {
    "cat": "Egyptian cat",
    "coffee": "espresso",
    "brick": "scoreboard",
    "camera": "dumbbell",
    "grass": "thatch",
    "gravel": "brain coral",
}
SHORT = """
[filters]
steps = 2
size = 32
[classimage]
steps = 2
size = 32
[dream]
steps = 1
size = 64
[invert]
steps = 2
size = 32
[saliency]
size = 64
[evidence]
method = "grad-cam"
grids = 1
images = 1
confidence = 0.05
[report]
steps = 2
filters = 1
[gallery.build]
layers = "block1_conv1"
filters = "0-3"
steps = 2
size = 32
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is that of its first line, counted from 1."""

    language: str
    text: str
    line: int
    is_run: bool


class WrongPageError(Exception):
    """A page does not do what it says."""


def blocks_of(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    start, head = 0, ""
    for number, line in enumerate(lines, 1):
        fence = re.match(r"\s*(```+)\s*(\w*)", line)
        if fence and not start:
            start, head = number, fence[2]
        elif fence and not fence[2]:
            above = lines[start - 2].strip() if start > 1 else ""
            text = dedent("\n".join(lines[start : number - 1]))
            yield Block(head, text, start + 1, not re.fullmatch(r"<!-- not run: .+ -->", above))
            start = 0
    if start:
        raise WrongPageError(f"{page.name}:{start}: a block that does not end")


def commands_of(block: Block) -> Iterator[tuple[int, str]]:
    """The commands of a block with their lines; one may go on after a backslash."""
    command, first = "", block.line
    for number, line in enumerate(block.text.splitlines(), block.line):
        first = first if command else number
        command += line.strip()
        if command.endswith("\\"):
            command = command[:-1]
            continue
        if command and not command.startswith("#"):
            yield first, command
        command = ""


def words_of(command: str) -> tuple[dict[str, str], list[str]]:
    """Variables that precede a command, and its words, without the comment at its end."""
    words, variables = shlex.split(command, comments=True), {}
    while words and (variable := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
        variables[variable[1]] = variable[2]
        words.pop(0)
    return variables, words


def check(words: list[str]) -> None:
    """Whether there are such a command and options, and these take such values; files need not be there.

    Raises:
        click.UsageError: if not.
    """
    command, context = cli, click.Context(cli, info_name="cnnviz")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, command, words = command.resolve_command(context, words)
        assert command is not None
        context = click.Context(command, info_name=name, parent=context)
    given, rest, _ = command.make_parser(context).parse_args(list(words))
    if rest:
        raise click.UsageError(f"unexpected: {' '.join(rest)}")
    for option in command.params:
        if isinstance(option, click.Option) and option.name in given and not isinstance(option.type, click.Path):
            option.type_cast_value(context, given[option.name])


def run_command(command: str, *, is_run: bool) -> str:
    """What a command prints; nothing if it is not run."""
    if command.startswith(PREPARING):
        return ""
    variables, words = words_of(command)
    shell = next((place for place, word in enumerate(words) if word in SHELL), None)
    if words[:1] != ["cnnviz"] or shell is not None:
        if is_run:
            raise WrongPageError("not a command of cnnviz alone")
        if words[:1] != ["cnnviz"]:
            return ""
    words = words[:shell]
    try:
        check(words[1:])
    except click.UsageError as error:
        raise WrongPageError(error.format_message()) from error
    if not is_run or " ".join(words[1:]).startswith(WAITING):
        return ""
    result = CliRunner().invoke(cli, words[1:], env=variables)
    if result.exit_code != 0:
        raised = "" if isinstance(result.exception, SystemExit) else f"{result.exception!r} "
        raise WrongPageError(f"exit status {result.exit_code}: {raised}{result.stderr.strip()}") from result.exception
    return result.stdout


def run_python(block: Block, page: Path, variables: dict[str, Any]) -> None:
    """Run Python, or write it to the file that its first line names; tracebacks show the page's own lines."""
    file = re.match(r"# ([\w/.-]+\.\w+)\n", block.text)
    try:
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        if block.is_run and file:
            Path(file[1]).write_text(block.text + "\n", encoding="utf-8")
        elif block.is_run:
            exec(code, variables)
    except Exception as error:
        raise WrongPageError(f"{page.name}:{block.line}: {type(error).__name__}: {error}") from error


def run_page(page: Path) -> None:
    """Run what a page says in the folder that this process is in.

    Raises:
        WrongPageError: at the first line that does not work.
    """
    variables: dict[str, Any] = {"__name__": "__main__"}
    done = set()
    for block in blocks_of(page):
        if block.language == "python":
            run_python(block, page, variables)
        elif block.language == "sh":
            for line, command in commands_of(block):
                words = tuple(words_of(command)[1])
                try:
                    run_command(command, is_run=block.is_run and words not in done)
                except WrongPageError as error:
                    raise WrongPageError(f"{page.name}:{line}: {command}: {error}") from error
                done.add(words)


def prose_of(page: Path) -> str:
    return re.sub(r"^\s*```.*?^\s*```\s*$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def wrong_words(page: Path) -> list[str]:
    """Of a page's sentences, commands and options that there are not."""
    wrong = []
    options = {
        name
        for command in COMMANDS.values()
        for param in command.params
        for name in (*param.opts, *param.secondary_opts)
    }
    for code in re.findall(r"`([^`]+)`", prose_of(page)):
        first, *words = code.split() or [""]
        if first == "cnnviz" and words:
            try:
                check(words_of(code.replace("...", ""))[1][1:])
            except click.UsageError as error:
                wrong.append(f"{code}: {error.format_message()}")
        elif re.fullmatch(r"--[a-z-]+", first) and first not in options | {"--help", "--version"}:
            wrong.append(code)
    return wrong


def slugs_of(page: Path) -> set[str]:
    """The fragments that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """Targets of a page's links and images, elsewhere than on the web, that are not there."""
    text = re.sub(r"`[^`\n]+`", "", prose_of(page))
    targets = re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)|<(?:img|a)\b[^>]*(?:src|href)=\"([^\"]+)\"", text, re.M)
    dead = []
    for target in map("".join, targets):
        path, _, fragment = target.partition("#")
        file = page.parent / path if path else page
        if not re.match(r"[a-z]+:", target) and not (file.exists() and (not fragment or fragment in slugs_of(file))):
            dead.append(target)
    return dead


@pytest.fixture
def folder(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What every page may count on; images are compared with few others, and made once."""
    for name, label in CLASSES.items():
        place = tmp_path / "page" / "photographs" / label
        place.mkdir(parents=True)
        shutil.copy(PHOTOS / f"{name}.jpg", place)
    for name in ("cat", "coffee"):
        shutil.copy(PHOTOS / f"{name}.jpg", tmp_path / "page")
    (tmp_path / "page" / "cnnviz.toml").write_text(SHORT, encoding="utf-8")
    monkeypatch.setattr(judgement, "patterns", lambda *whose: dict(islice(patterns(*whose).items(), 8)))
    monkeypatch.setattr(judgement, "NOISES", 2)
    monkeypatch.setattr(settings, "TRIES", 1)
    monkeypatch.chdir(tmp_path / "page")
    monkeypatch.syspath_prepend(tmp_path / "page")
    for name in WRITTEN:  # other tests have files of the same names
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = set(sys.modules)
    with torch.random.fork_rng(devices=[]):
        yield tmp_path / "page"
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def complete_readme(folder: Path) -> None:
    """Files that README takes for granted: a network of one's own, its weights and an image for it, and a sheet."""
    shutil.copy(NETWORKS, folder / "net.py")
    torch.save(LeNet().state_dict(), folder / "lenet.pth")
    Image.new("L", (28, 28), 128).save(folder / "digit.png")
    maps = cnnviz.feature_maps(cnnviz.load("vgg16-mini"), folder / "cat.jpg", "block4_conv2")
    maps.sheet().save(folder / "maps.png")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).with_suffix("").as_posix())
def test_a_page_does_what_it_says(page: Path, folder: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    for name in DOWNLOADED:
        if name in text:
            stand_in(empty_cache, name)
    if page == README:
        complete_readme(folder)
    run_page(page)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).with_suffix("").as_posix())
def test_commands_and_options_in_sentences_exist(page: Path) -> None:
    assert not wrong_words(page)


def test_links_lead_somewhere() -> None:
    dead = {str(page.relative_to(ROOT)): links for page in LINKING if (links := dead_links(page))}
    assert not dead


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    (released,) = re.findall(r"^date-released: (\S+)$", citation, re.MULTILINE)
    assert f"\nversion: {version}\n" in citation
    assert f"\n## {version} ({released})\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_page_is_in_the_contents() -> None:
    index = MANUAL / "index.md"
    linked = {(MANUAL / link).resolve() for link in re.findall(r"\]\(([^)]+\.md)\)", index.read_text(encoding="utf-8"))}
    assert set(MANUAL.rglob("*.md")) - {index} <= linked


def test_the_reference_lists_everything_public_once() -> None:
    entries = re.findall(r"^- `(cnnviz[\w.]+)`:", (MANUAL / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(entries) == len(set(entries))
    public = {f"cnnviz.{name}" for name in cnnviz.__all__} - {"cnnviz.__version__"}
    public |= {f"cnnviz.objectives.{name}" for name in objectives.__all__} - {"cnnviz.objectives.LOGITS"}
    assert public <= set(entries)
    assert {"cnnviz.feature_maps", "cnnviz.objectives.channel"} <= public


GOOD = """# A page

Run `cnnviz layers --model vgg16-mini`, see [the heading](#a-page) and ![the cat](cat.jpg).

```sh
cnnviz featuremaps cat.jpg --layer block1_conv1 --model vgg16-mini \\
    -o maps.png    # a comment
```

```python
# numbers.py
ANSWER = 42
```

```python
from numbers_of_page import ANSWER
import cnnviz
```

<!-- not run: there is no such image -->
```sh
cnnviz featuremaps nowhere.jpg --top 3
```
""".replace("numbers.py", "numbers_of_page.py")

WRONG = {
    "command": ("cnnviz layers", "cnnviz layer"),
    "command in a block": ("cnnviz featuremaps cat", "cnnviz featuremap cat"),
    "command that is not run": ("cnnviz featuremaps nowhere", "cnnviz featuremap nowhere"),
    "option": ("--layer block1_conv1", "--layr block1_conv1"),
    "option that is not run": ("--top", "--tip"),
    "value that is not run": ("--top 3", "--top some"),
    "exit status": ("block1_conv1", "block9_conv9"),
    "argument": ("featuremaps cat.jpg", "featuremaps dog.jpg"),
    "program": ("cnnviz featuremaps cat", "rm cat"),
    "Python": ("import cnnviz", "import cnnvis"),
    "syntax": ("ANSWER = 42", "ANSWER = = 42"),
    "file": ("ANSWER = 42", "QUESTION = 42"),
    "link": ("(cat.jpg)", "(dog.jpg)"),
    "fragment": ("#a-page", "#another-page"),
    "end of a block": ("import cnnviz\n```\n", "import cnnviz\n"),
}


def faults_of(page: Path) -> list[str]:
    try:
        run_page(page)
    except WrongPageError as error:
        return [str(error)]
    return wrong_words(page) + dead_links(page)


def test_a_good_page_has_no_faults(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text(GOOD, encoding="utf-8")
    assert faults_of(page) == []
    assert (folder / "maps.png").exists()
    assert not (folder / "nowhere.jpg").exists()


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_page_has_a_fault(what: str, folder: Path) -> None:
    page, (right, wrong) = folder / "page.md", WRONG[what]
    page.write_text(GOOD.replace(right, wrong, 1), encoding="utf-8")
    assert GOOD.count(right) >= 1
    assert len(faults_of(page)) == 1
