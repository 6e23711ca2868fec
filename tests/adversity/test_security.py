"""What could be abused: code and paths in what others hand over, the server, links, files while they are written."""

import ast
import http.client
import io
import json
import os
import re
import socket
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz.cli import cli
from cnnviz.errors import OutputError
from cnnviz.files import whole_file
from cnnviz.galleries.store import Store, file_name
from cnnviz.networks.network import Network
from cnnviz.pictures.records import METADATA
from cnnviz.web.gallery_site import write_site
from cnnviz.web.server import server
from tests.support.commands import Run
from tests.support.galleries import gallery, planned
from tests.support.paths import CAT, ROOT

PACKAGE = ROOT / "cnnviz"
MINI = ["--model", "vgg16-mini"]

# What runs code, or reads files that may hold code, and the one module that may: for a network of the user's own, the
# server of the app, and the cluster that the user asked for.
RUNNERS = {
    "pickle": set(),
    "marshal": set(),
    "shelve": set(),
    "joblib": set(),
    "yaml": set(),
    "dill": set(),
    "ctypes": set(),
    "runpy": set(),
    "eval": set(),
    "exec": set(),
    "compile": set(),
    "__import__": set(),
    "os.system": set(),
    "os.popen": set(),
    "np.load": set(),
    "numpy.load": set(),
    "torch.hub.load": set(),
    "torch.jit.load": set(),
    "torch.package": set(),
    "tempfile.mktemp": set(),
    "subprocess": {"cli/app.py"},
    "importlib.import_module": {"__init__.py", "models/custom.py"},  # the former of a table of its own
    "importlib.util.module_from_spec": {"models/custom.py"},
    "self.ray.cloudpickle": {"galleries/ray_engine.py"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def names_in(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports or mentions; of an import that takes an error alone, nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names if not alias.name.endswith("Error"))
        elif isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node)


def calls(tree: ast.AST, name: str) -> list[dict[str | None, ast.expr]]:
    """The keywords of all calls of a function."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]
    return [{keyword.arg: keyword.value for keyword in node.keywords} for node in calls]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_code_but_for_the_user_who_named_it(path: Path) -> None:
    tree, own = ast.parse(path.read_text()), path.relative_to(PACKAGE).as_posix()
    mentioned = set(names_in(tree))
    for name, allowed in RUNNERS.items():
        uses = [module for module in mentioned if module == name or module.startswith(f"{name}.")]
        assert not uses or own in allowed, uses
    for load in calls(tree, "torch.load"):
        assert ast.unparse(load["weights_only"]) == "True"
    for write in calls(tree, "write_array"):
        assert ast.unparse(write["allow_pickle"]) == "False"
    for start in (*calls(tree, "subprocess.run"), *calls(tree, "subprocess.Popen")):
        assert "shell" not in start
    for opened in [*calls(tree, "Image.open"), *calls(tree, "Pillow.open")]:
        assert "formats" in opened or own == "pictures/reading.py", (
            "some formats are programs; `read_picture` knows which"
        )
    assert "unsafe_allow_html" not in path.read_text()


def test_templates_escape_all_but_the_style_sheet() -> None:
    unescaped = {
        line.strip()
        for path in PACKAGE.rglob("*.html")
        for line in path.read_text().splitlines()
        if "|safe" in line.replace(" ", "") or "autoescape" in line
    }
    assert unescaped == {"{{ style|safe }}"}


def test_help_says_that_naming_a_factory_runs_its_code(run: Run) -> None:
    having = [
        name for name, command in cli.commands.items() if any("--model" in option.opts for option in command.params)
    ]
    assert len(having) > 8
    for name in having:
        assert "(executes that file)" in " ".join(run(name, "--help").stdout.split())
    assert "cnnviz executes that file" in (ROOT / "README.md").read_text(encoding="utf-8")


EVIL = ["evil.py:f", "./evil.py:f", "evil:f", "os:getcwd", "subprocess:Popen"]
CODE = "from pathlib import Path\nPath('ran').touch()\ndef f():\n    Path('ran').touch()\n"


def forged(mini: Network, **network: object) -> None:
    """An image, a.png, whose record says of its network what somebody wanted it to, and is in order."""
    sheet = cnnviz.kernel_sheet(mini)
    cnnviz.Sheet(sheet.pixels, {**sheet.made, "network": {**sheet.made["network"], **network}}).save("a.png")


@pytest.mark.parametrize("name", EVIL)
def test_no_code_is_run_because_a_record_names_it(
    run: Run, mini: Network, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("evil.py").write_text(CODE)
    monkeypatch.syspath_prepend(os.getcwd())
    forged(mini, name=name)
    for command in (["rerun", "a.png"], ["rerun", "a.png", "--weights", "random"], ["inspect", "a.png"]):
        result = run(*command)
        assert not Path("ran").exists()
        assert result.exit_code == (0 if "inspect" in command else 2)
        if "rerun" in command:
            assert (
                f"names a network of somebody's own, {name}, whose code would be run; name it with --model"
                in " ".join(result.stderr.split())
            )
    result = run("rerun", "a.png", "--model", "vgg16-mini")
    assert not Path("ran").exists()
    run("rerun", "a.png", "--model", "evil.py:f")
    assert Path("ran").exists(), "who names it wants it"


@pytest.mark.parametrize("name", EVIL)
def test_no_code_is_run_because_a_gallery_names_it(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("evil.py").write_text(CODE)
    monkeypatch.syspath_prepend(os.getcwd())
    gallery(Path("g"), planned({"block1_conv1": 2}, name=name, weights="evil.pth"))
    Image.open(CAT).resize((8, 8)).save("one.png")
    for command in (
        ["status", "g"],
        ["verify", "g"],
        ["site", "g"],
        ["build", "g", "--layers", "block1_conv1", *MINI],
        ["examples", "g", "--images", ".", *MINI],
    ):
        run("gallery", *command)
        assert not Path("ran").exists()
    assert f"--model {name}" in Path("g/filters/block1_conv1/0000.html").read_text(), "it is only told"


def test_records_lead_to_no_file_of_their_choice(run: Run, mini: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    for weights in ("/etc/secret.pth", "../secret.pth", "secret.safetensors"):
        forged(mini, weights=weights)
        result = run("rerun", "a.png")
        assert (result.exit_code, "--weights PATH" in " ".join(result.stderr.split())) == (2, True)
    for folder in ("given", "kept"):
        Path(folder).mkdir()
    Image.new("RGB", (8, 8), "red").save("given/b.png")
    Image.new("RGB", (8, 8), "blue").save("kept/b.png")
    Image.open(CAT).resize((32, 32)).save("cat.png")
    run("saliency", "cat.png", "--method", "saliency", "--baseline", "given/b.png", *MINI, "-o", "a.png", "--force")
    made = cnnviz.read_record("a.png")
    opened: list[str] = []
    for name in ("../kept/b.png", str(Path("kept/b.png").resolve())):
        forged_settings = {**made, "settings": {**made["settings"], "baseline": name}}
        cnnviz.Sheet(np.asarray(Image.open("a.png").convert("RGB")), forged_settings).save("c.png")
        monkeypatch.setattr(
            "cnnviz.networks.inputs.read_picture", lambda path: opened.append(str(path)) or cnnviz.read_picture(path)
        )
        result = run("rerun", "c.png", "--picture", "cat.png", "--folder", "given")
        assert (result.exit_code, "never would cnnviz have written a path" in result.stderr) == (1, True)
    assert not any("kept" in path for path in opened)


# --- the server


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., tuple[int, bytes]]]:
    """Pages, with things beside and beneath them that are nobody's business; gives what a request line is answered."""
    folder = tmp_path / "g"
    (folder / "images" / ".kept").mkdir(parents=True)
    for name in ("index.html", "images/a.png", "images/b c é.png", ".lock", ".working.json", "images/.kept/a.png"):
        (folder / name).write_text(f"it is {name}", encoding="utf-8")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "g-other").mkdir()
    (tmp_path / "g-other" / "secret").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (folder / "hidden").symlink_to(".lock")
    (folder / "in").symlink_to("images/a.png")
    os.mkfifo(folder / "pipe")
    with server(folder, 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        port = running.server_address[1]
        assert running.server_address[0] == "127.0.0.1"

        def ask(line: str, *headers: str) -> tuple[int, bytes]:
            with socket.create_connection(("127.0.0.1", port), timeout=600) as connection:
                connection.sendall(
                    "\r\n".join([line, *(headers or (f"Host: localhost:{port}",)), "", ""]).encode("latin-1")
                )
                connection.shutdown(socket.SHUT_WR)
                content = b"".join(iter(lambda: connection.recv(65536), b""))
            status = re.search(rb"^HTTP/\S+ (\d+)|Error code: (\d+)", content)  # the latter in an answer without head
            return int(status[1] or status[2]) if status else 0, content

        ask.port = port  # type: ignore[attr-defined]
        yield ask
        running.shutdown()
        thread.join()


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/", b"it is index.html"),
        ("/?x=1", b"it is index.html"),
        ("/index.html#a", b"it is index.html"),
        ("/images/a.png", b"it is images/a.png"),
        ("/images/b%20c%20%C3%A9.png", "it is images/b c é.png".encode()),
        ("/in", b"it is images/a.png"),
    ],
)
def test_files_of_the_folder_are_served(served: Callable[..., tuple[int, bytes]], path: str, told: bytes) -> None:
    status, content = served(get(path))
    assert (status, content.endswith(told)) == (200, True)
    assert b"access-control" not in content.lower()


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/images/../../secret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/..%2fsecret",
        "/..%5csecret",
        "/%252e%252e/secret",
        "/../g-other/secret",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/etc/passwd",
        "http://127.0.0.1/../secret",
        "http://[/../secret",
        "http://[/../..",
        "/index.html%00",
        "/%00",
        "/%ed%b2%80",
        "/%ff",
        "/" + "a" * 5000,
        "/images",
        "/images/",
        "/index.html/",
        "/.lock",
        "/.working.json",
        "/images/.kept/a.png",
        "/out",
        "/up/secret",
        "/up/",
        "/loop",
        "/hidden",
        "/pipe",
    ],
)
def test_nothing_else_is(
    served: Callable[..., tuple[int, bytes]], path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    status, content = served(get(path))
    if status != 404:
        assert (path, content.endswith(b"it is index.html")) == ("http://[/../..", True), content
    assert b"secret" not in content.partition(b"\r\n\r\n")[2]
    assert b"root:" not in content
    assert served(get("/"))[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (["POST / HTTP/1.1"], 501),
        (["PUT /index.html HTTP/1.1"], 501),
        (["DELETE /index.html HTTP/1.1"], 501),
        (["OPTIONS / HTTP/1.1"], 501),
        (["HEAD /.lock HTTP/1.1"], 404),
        (["HEAD / HTTP/1.1"], 200),
        (["GET / HTTP/1.1", "Accept: */*"], 403),
        (["GET / HTTP/1.1", "Host: evil.example"], 403),
        (["GET / HTTP/1.1", "Host: 127.0.0.1.evil.example"], 403),
        (["GET / HTTP/1.1", "Host: localhost", "Origin: http://evil.example"], 200),
        (["GET / HTTP/9.9"], 505),
        (["GET / HTTP/1.1", "Host: localhost", "X: " + "a" * 70_000], 431),
        (["GET / HTTP/1.1", "Host: localhost", *(f"X{n}: 1" for n in range(200))], 431),
        (["GET /" + "a" * 70_000 + " HTTP/1.1"], 414),
        (["nonsense"], 400),
        (["\x00\xff\x00 \x01 \x02"], 400),
    ],
    ids=lambda value: value[0][:30] + " " + " ".join(value[1:])[:30] if isinstance(value, list) else None,
)
def test_odd_requests_are_answered_and_do_no_harm(
    served: Callable[..., tuple[int, bytes]], request_: list[str], status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    answered, content = served(*request_)
    assert answered == status
    assert b"access-control" not in content.lower()
    assert served(get("/"))[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_request_of_http_0_9_is_refused_as_it_names_no_host(served: Callable[..., tuple[int, bytes]]) -> None:
    assert b"it is" not in served("GET /", "Accept: */*")[1]
    assert served(get("/"))[0] == 200


def test_who_is_slow_keeps_nobody_waiting(served: Any, capfd: pytest.CaptureFixture[str]) -> None:
    slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(20)]
    for connection in slow:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: local")
    quick = http.client.HTTPConnection("127.0.0.1", served.port, timeout=600)
    quick.request("GET", "/")
    assert quick.getresponse().read() == b"it is index.html"
    quick.close()
    for connection in slow:
        connection.close()
    assert capfd.readouterr() == ("", "")


# --- files


def test_a_file_is_private_until_it_is_finished(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a.bin") as file:
            file.write(b"1")
            (being_written,) = tmp_path.iterdir()
            assert stat.S_IMODE(being_written.stat().st_mode) == 0o600
            assert being_written.name.startswith(".a.bin.")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_meanwhile_other_threads_write_private_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[int] = []
    real = os.umask
    monkeypatch.setattr("os.umask", lambda mask: (masks.append(mask), real(mask))[1])
    with whole_file(tmp_path / "a.bin"):
        pass
    assert masks
    assert all(mask & 0o022 == 0o022 for mask in masks), "at no time may others write what is made"


def test_a_link_at_the_place_of_a_result_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a.bin").symlink_to("precious")
    with whole_file(tmp_path / "a.bin") as file:
        file.write(b"1")
    assert not (tmp_path / "a.bin").is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("link", ["images/block9", "records", "filters", "site", "layers"])
def test_a_gallery_with_a_link_that_leads_out_is_not_written(tmp_path: Path, run: Run, link: str) -> None:
    precious = [tmp_path / "elsewhere" / name for name in ("0001.png", "0001.html", "b.jsonl")]
    precious[0].parent.mkdir()
    for path in precious:
        path.write_text("precious")
    store = gallery(tmp_path / "g", planned({"block1_conv1": 2}))
    if (store.folder / link).exists():
        (store.folder / link).rename(tmp_path / "moved")
    (store.folder / link).symlink_to(precious[0].parent)
    with pytest.raises(OutputError, match="is a symbolic link"):
        write_site(store)
    for command in (["site", "g"], ["build", "g", *MINI, "--layers", "block1_conv1", "--steps", "1"]):
        result = run("gallery", *command)
        assert (result.exit_code, "is a symbolic link" in result.stderr) == (1, True)
    assert sorted(precious[0].parent.iterdir()) == sorted(precious)
    assert all(path.read_text() == "precious" for path in precious)


def test_a_lock_that_is_a_link_does_no_harm(tmp_path: Path) -> None:
    store = gallery(tmp_path / "g", planned({"block1_conv1": 2}))
    (tmp_path / "precious").write_text("precious")
    (store.folder / ".lock").unlink(missing_ok=True)
    (store.folder / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="is a symbolic link"), store.writing():
        pass
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("layer", ["..", ".", "../x", "/etc", "..:pre", ".hidden", "a/b", "", "\0"])
def test_no_layers_name_leads_out_of_its_folder(layer: str) -> None:
    name = file_name(layer)
    assert Path("x", name).resolve().parent == Path("x").resolve()
    assert not name.startswith(".")
    assert "\0" not in name


def test_examples_show_their_own_tiles_and_no_other_file(tmp_path: Path) -> None:
    from tests.support.galleries import add_examples

    store = gallery(tmp_path / "g", planned({"block1_conv1": 2}))
    add_examples(store)
    lines = store.example_lines("block1_conv1")
    kept = [json.loads(line) for line in lines.read_text().splitlines()]
    Path(tmp_path / "secret.webp").write_bytes(b"1")
    for other in ("../secret.webp", str(tmp_path / "secret.webp"), "javascript:alert(1)", "//evil.example/a.webp"):
        lines.write_text("\n".join(json.dumps(line | {"file": other}) for line in kept))
        write_site(store)
        page = (store.folder / "filters/block1_conv1/0000.html").read_text()
        assert "examples/block1_conv1/0000.webp" in page
        assert "secret" not in page
        assert "evil" not in page


# --- what files tell


TELLTALES = ("s3cret-place", "s3cret-user", "s3cret-host")
"""Of the folder that everything lies in, of the user and of the machine."""


def everything_in(path: Path) -> str:
    """A file's bytes with whatever is packed in them."""
    content = path.read_bytes()
    parts = [content, path.name.encode()]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts += [part for name in archive.namelist() for part in (name.encode(), archive.read(name))]
    elif path.suffix in (".png", ".jpg", ".webp", ".gif"):
        with Image.open(io.BytesIO(content)) as image:
            parts.append(repr({**image.info, **getattr(image, "text", {})}).encode())
    return b"\n".join(parts).decode("utf-8", "replace")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, user and machine that can be recognised, with images that hold their names as cameras write them."""
    folder = tmp_path / TELLTALES[0]
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, TELLTALES[1])
    monkeypatch.setenv("HOSTNAME", TELLTALES[2])
    monkeypatch.setattr("socket.gethostname", lambda: TELLTALES[2])
    monkeypatch.setattr("platform.node", lambda: TELLTALES[2])
    for name, photo in (("tabby", "cat.jpg"), ("espresso", "coffee.jpg")):
        (folder / "photos" / name).mkdir(parents=True)
        with Image.open(ROOT / "gallery" / "photos" / photo) as image:
            exif = Image.Exif()
            exif[0x013B] = exif[0x010E] = f"{TELLTALES[1]} at {folder}"
            image.resize((96, 64)).save(folder / "photos" / name / photo, exif=exif, comment=TELLTALES[1].encode())
    (folder / "labels.txt").write_text("tabby\nespresso\ncup\nhouse\ntree\n")
    (folder / "net.py").write_text(
        "from torch import nn\n"
        "from tests.support.networks import SmallVGG\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    return folder


def test_no_file_tells_a_path_a_user_or_a_machine(run: Run, place: Path, tmp_path: Path) -> None:
    """Of the built-in network, and of two of the user's own, which lie in that place."""
    monkey, out = place / "photos" / "tabby" / "cat.jpg", place / "out"
    few = ["--steps", "2", "--quiet"]
    own = ["--model", place / "net.py:net", "--input-size", "24", "--quiet"]
    vgg = ["--model", place / "net.py:SmallVGG", "--input-size", "32", "--labels", place / "labels.txt"]
    drawn = ["filters", "--layer", "block1_conv1", "--filters", "0", *vgg, *few]
    first = ["--layer", "block1_conv1"]
    commands: list[list[object]] = [
        ["featuremaps", monkey, *first, *MINI, "-o", out / f"a.{ending}", "--save-arrays", out / "a.npz"]
        for ending in ("png", "jpg", "webp")
    ]
    commands += [
        [*drawn, "-o", out / "b.png", "--film", out / "b.gif", "--save-arrays", out / "b.npz"],
        [*drawn, "-o", out / "c.png", "--references", place / "photos"],
        ["classimage", "tabby", *vgg, *few, "-o", out / "d.png"],
        ["dream", monkey, *first, "--size", "32", *vgg, *few, "-o", out / "e.png"],
        ["invert", monkey, *first, "--size", "32", *vgg, *few, "-o", out / "f.png"],
        ["kernels", *MINI, "-o", out / "g.png"],
        ["saliency", monkey, "--method", "saliency", "--baseline", monkey, *vgg, "-o", out / "h.png",
         "--overlay", out / "i.png"],
        ["evidence", place / "photos", "--method", "saliency", "--grids", "1", "--pictures", "1", "--confidence", "0",
         *MINI, "-o", out / "j.png"],
        ["report", monkey, "--filters", "1", "--method", "saliency", *vgg, *few, "-o", out / "k.html"],
        ["gallery", "build", out / "g", "--layers", "block1_conv1", "--filters", "0", *vgg, *few],
        ["gallery", "examples", out / "g", "--images", place / "photos", *vgg],
        ["gallery", "site", out / "g"],
        ["featuremaps", monkey, "--layer", "0", *own, "-o", out / "l.png"],
        ["gallery", "build", out / "own", *own, "--steps", "2"],
        ["gallery", "site", out / "own"],
    ]  # fmt: skip
    for command in commands:
        result = run(*command)
        assert result.exit_code == 0 or command[0] == "evidence", (
            result.stderr
        )  # the network has to be right about both
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".png", ".jpg", ".webp", ".gif", ".npz", ".html", ".json", ".jsonl"}
    assert len(files) > 30
    for path in files:
        content = everything_in(path)
        assert [telltale for telltale in (*TELLTALES, str(tmp_path)) if telltale in content] == [], path
    with Image.open(out / "l.png") as image:
        assert json.loads(image.text[METADATA])["network"]["name"] == "net.py:net"


def test_a_gallery_that_is_written_tells_a_process_and_a_time_only(tmp_path: Path) -> None:
    store = gallery(tmp_path / "g", planned({"block1_conv1": 2}))
    with store.writing():
        working = json.loads((store.folder / ".working.json").read_text())
        assert (store.folder / ".lock").read_bytes() == b""
    assert working.keys() == {"process", "since"}
    assert working["process"] == os.getpid()
    assert isinstance(Store(store.folder).planned().count, int)
