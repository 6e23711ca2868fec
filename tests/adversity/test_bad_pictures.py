"""Images that are broken, odd or hostile: what a command says, how it ends, and what comes out where it works."""

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import cnnviz
from cnnviz.cli.options import Chosen
from cnnviz.cli.terminal import OBEYED
from cnnviz.errors import CnnvizError, PictureError, ShapeError
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network
from cnnviz.pictures.reading import picture_from_bytes, read_picture
from tests.support.commands import Run
from tests.support.networks import SmallVGG
from tests.support.paths import CAT
from tests.support.pictures import LARGE, bomb, jpeg

MAPS = ("--layer", "block1_conv1", "--top", "1", "--size", "32", "-o", "sheet.png", "--fit", "whole")


@pytest.fixture(autouse=True)
def loaded(mini: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in network, read once for all tests."""
    monkeypatch.setattr(Chosen, "load", lambda *_, **__: mini)


def encoded(kind: str, image: Image.Image | np.ndarray = LARGE, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour: str = "red", size: tuple[int, int] = (24, 16), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def real(value: float) -> bytes:
    return encoded("TIFF", np.full((16, 24), value, np.float32))


def transparent_palette() -> bytes:
    return encoded("PNG", plain("red").quantize(2), transparency=plain("red").quantize(2).getpixel((0, 0)))


def postscript() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 16\n%%EndComments\n(run) run\nshowpage\n%%EOF\n"


def lying_tiff() -> bytes:
    """Says that it has four times the rows that it holds."""
    content = bytearray(encoded("TIFF", np.zeros((16, 24), np.uint8)))
    height = struct.pack("<HHI", 257, 4, 1), struct.pack("<HHI", 257, 3, 1)  # the tag, 4 or 2 bytes long
    place = max(content.find(each) for each in height)
    content[place + 8 : place + 12] = struct.pack("<I", 64)
    return bytes(content)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.jpg": (lambda: b"", "empty.jpg is empty; give the path of an image."),
    "text.jpg": (lambda: b"To whom it may concern", "text.jpg is not an image"),
    "page.png": (lambda: b"<!doctype html><title>Not found</title>", "page.png is not an image"),
    "tall.png": (lambda: encoded("PNG", plain(size=(1, 10_000))), "tall.png is 1 x 10000: more than 8 times as long"),
    "wide.png": (lambda: encoded("PNG", plain(size=(10_000, 1))), "wide.png is 10000 x 1: more than 8 times as long"),
    "bomb.png": (bomb, "bomb.png has too many pixels to be opened safely"),
    "nan.tiff": (lambda: real(np.nan), "nan.tiff has grey values outside 0 to 1"),
    "inf.tiff": (lambda: real(np.inf), "inf.tiff has grey values outside 0 to 1"),
    "dark.tiff": (lambda: real(-0.5), "dark.tiff has grey values outside 0 to 1"),
    "bright.tiff": (lambda: real(2), "bright.tiff has grey values outside 0 to 1"),
    "short.tiff": (lying_tiff, "short.tiff is damaged and cannot be read"),
    "program.jpg": (postscript, "program.jpg is EPS, a program rather than an image"),
    "signature.png": (lambda: encoded("PNG")[:8], "signature.png is not an image"),
}
WORKS: dict[str, tuple[Callable[[], bytes], tuple[int, int], tuple[int, int, int]]] = {
    "one.png": (lambda: encoded("PNG", plain(size=(1, 1))), (1, 1), (255, 0, 0)),
    "png.jpg": (lambda: encoded("PNG", plain()), (24, 16), (255, 0, 0)),
    "jpeg.txt": (lambda: encoded("JPEG", plain("white")), (24, 16), (255, 255, 255)),
    "moving.gif": (
        lambda: encoded("GIF", plain(), save_all=True, append_images=[plain("blue")]),
        (24, 16),
        (255, 0, 0),
    ),
    "moving.webp": (
        lambda: encoded("WEBP", plain(), save_all=True, append_images=[plain("blue")], lossless=True),
        (24, 16),
        (255, 0, 0),
    ),
    "moving.png": (
        lambda: encoded("PNG", plain(), save_all=True, append_images=[plain("blue")]),
        (24, 16),
        (255, 0, 0),
    ),
    "cmyk.jpg": (lambda: encoded("JPEG", plain().convert("CMYK"), quality=98), (24, 16), (255, 0, 0)),
    "deep.png": (lambda: encoded("PNG", np.full((16, 24), 128 * 257, np.uint16)), (24, 16), (128, 128, 128)),
    "palette.png": (transparent_palette, (24, 16), (255, 255, 255)),
    "faint.png": (lambda: encoded("PNG", plain((255, 0, 0, 0), mode="RGBA")), (24, 16), (255, 255, 255)),
    "real.tiff": (lambda: real(0.5), (24, 16), (128, 128, 128)),
    "two.png": (lambda: encoded("PNG", plain("white", mode="1")), (24, 16), (255, 255, 255)),
}


def one_line(text: str) -> str:
    """The only line of what went to stderr."""
    assert text.count("\n") == 1, text
    assert text.startswith("Error: ")
    assert not OBEYED.search(text[:-1])
    return text


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shown_is_refused_in_one_line(run: Run, name: str) -> None:
    content, message = REFUSED[name]
    Path(name).write_bytes(content())
    commands = [("featuremaps", *MAPS), ("predict", "--fit", "whole")]
    if name in ("empty.jpg", "bomb.png", "nan.tiff", "program.jpg"):
        commands += [("saliency",), ("report",), ("dream", "--layer", "block1_conv1")]
        commands += [("invert", "--layer", "block1_conv1")]
    for command, *options in commands:
        result = run(command, name, *options)
        assert (result.exit_code, result.stdout) == (1, ""), command
        assert message in one_line(result.stderr), command
    assert [path.name for path in Path().iterdir()] == [name]


@pytest.mark.parametrize("name", WORKS)
def test_what_is_odd_but_a_picture_works(run: Run, name: str) -> None:
    content, size, colour = WORKS[name]
    Path(name).write_bytes(content())
    picture = read_picture(name)
    assert picture.image.size == size
    assert np.abs(picture.pixels()[0, 0].astype(int) - colour).max() <= 3
    result = run("featuremaps", name, *MAPS)
    assert (result.exit_code, result.stderr) == (0, "")
    height, width = (round(32 * side / min(size)) for side in size[::-1])
    assert f"16 maps of {width} x {height}" in result.stdout


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_shown_upright(run: Run, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Path("turned.jpg").write_bytes(encoded("JPEG", plain(size=(40, 20)), exif=exif))
    shape = "32 x 64" if orientation >= 5 else "64 x 32"
    assert f"16 maps of {shape}" in run("featuremaps", "turned.jpg", *MAPS).stdout


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})],
    ids=["jpeg", "progressive", "png"],
)
def test_a_cut_file_gives_all_of_its_pixels_or_none(run: Run, kind: str, options: dict[str, bool]) -> None:
    content = encoded(kind, np.asarray(Image.open(CAT).resize((96, 64))), **options)
    whole = picture_from_bytes(content, "whole").pixels()
    offsets = {round(len(content) * part / 50) for part in range(50)} | {len(content) - 1, len(content) - 12}
    refused = 0
    for offset in sorted(offsets):
        Path("cut").write_bytes(content[:offset])
        try:
            np.testing.assert_array_equal(read_picture("cut").pixels(), whole)
            status = 0
        except PictureError:
            status, refused = 1, refused + 1
        if offset % 5 == 0:
            result = run("predict", "cut")
            assert result.exit_code == status
            assert status == 0 or one_line(result.stderr)
    assert refused >= 50


def test_what_is_no_file_is_not_waited_for(run: Run) -> None:
    os.mkfifo("pipe.jpg")
    Path("folder.png").mkdir()
    os.symlink("loop.png", "loop.png")
    for command in (("featuremaps", *MAPS), ("predict",), ("inspect",), ("rerun",)):
        for name in ("pipe.jpg", "/dev/zero"):
            result = run(command[0], name, *command[1:])
            assert result.exit_code == 1
            assert f"{name} is not a file; give the path of an image." in one_line(result.stderr)
    for name, message in (("folder.png", "is a directory"), ("loop.png", "does not exist"), ("", "does not exist")):
        result = run("predict", name)
        assert result.exit_code == 2
        assert message in result.stderr.splitlines()[-1]


def test_a_file_that_may_not_be_read_says_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    Path("locked.png").write_bytes(encoded("PNG"))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for command in ("predict", "inspect"):
        assert "cannot read locked.png: Permission denied." in one_line(run(command, "locked.png").stderr)


def test_a_file_larger_than_any_picture_is_not_read(run: Run) -> None:
    with Path("endless.png").open("wb") as file:
        file.truncate(2**40)
    result = run("predict", "endless.png")
    assert "endless.png is larger than 1 GiB" in one_line(result.stderr)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mred\x07.png", "a\\x1b[31mred\\x07.png"),
        ("two\nlines.png", "two\\nlines.png"),
        ("tab\there.png", "tab\\there.png"),
        ("gnp\u202egnp.png", "gnp\\u202egnp.png"),
        ("c1\x9b31m.png", "c1\\x9b31m.png"),
        ("größe 猫 👩\u200d🔬.png", "größe 猫 👩\u200d🔬.png"),
        (os.fsdecode(b"not\xffutf8.png"), "not\\udcffutf8.png"),
        ("-v.png", "-v.png"),
        ("--help.png", "--help.png"),
        ("[red]markup.png", "[red]markup.png"),
        ("%s{0}$HOME`.png", "%s{0}$HOME`.png"),
    ],
)
def test_no_name_reaches_the_terminal_as_a_command(run: Run, name: str, shown: str) -> None:
    Path(name).write_bytes(encoded("PNG"))
    result = run("predict", "--top", "1", "--", name)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"{shown}, center crop (vgg16-mini, built in)"
    (row,) = json.loads(run("predict", "--top", "1", "--json", "--", name).stdout)["predictions"]
    assert row["picture"] == name
    Path(name).write_bytes(b"no image")
    for command in ("predict", "inspect"):
        assert one_line(run(command, "--", name).stderr)
    result = run("predict", "--", f"{name}-none")
    assert result.exit_code == 2
    assert not OBEYED.search(result.stderr.replace("\n", ""))
    result = run("report", "a.png", f"x{name}")
    assert result.exit_code == 2
    assert not OBEYED.search(result.stderr.replace("\n", ""))


def test_arrays_of_two_pictures_whatever_their_names(run: Run) -> None:
    for name in (b"a\xff.png", b"b.png"):
        Path(os.fsdecode(name)).write_bytes(encoded("PNG"))
    names = [os.fsdecode(b"a\xff.png"), "b.png"]
    arguments = ("--layer", "block1_conv1", "--top", "1", "--size", "32", "-o", "out", "--save-arrays", "a.npz")
    assert run("featuremaps", *names, *arguments).exit_code == 0
    with np.load("a.npz") as arrays:
        assert set(arrays) == {f"{stem}/{array}" for stem in ("a\ufffd", "b") for array in ("image", "block1_conv1")}


def test_the_same_picture_twice_is_shown_once(run: Run) -> None:
    Path("a.png").write_bytes(encoded("PNG"))
    result = run("featuremaps", "a.png", "a.png", "./a.png", *MAPS)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1


def test_a_report_is_about_one_state_of_the_file(tmp_path: Path) -> None:
    network = cnnviz.wrap(SmallVGG(), name="small", input_size=32)
    file = tmp_path / "a.png"
    file.write_bytes(encoded("PNG"))
    before = cnnviz.predict(network, file, top=1)[0]
    found = cnnviz.make_report(
        network, file, filters=1, steps=1, methods=["saliency"], watch=lambda *_: file.write_bytes(b"replaced")
    )
    assert file.read_bytes() == b"replaced"
    assert found.predictions[0] == before


def values(number: float) -> Tensor:
    images = torch.full((1, 3, 32, 32), 0.5)
    images[0, 1, 2, 3] = number
    return images


ASKED: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "feature_maps": lambda network, images: cnnviz.feature_maps(network, images, "block1_conv1"),
    "predict": lambda network, images: cnnviz.predict(network, images),
    "explain": lambda network, images: cnnviz.explain(network, images, methods=["saliency"]),
    "attribute": lambda network, images: cnnviz.attribute(network, images, 0, method="saliency"),
    "dream": lambda network, images: cnnviz.dream(network, images, "block1_conv1", steps=1),
    "invert": lambda network, images: cnnviz.invert(network, images, ["block1_conv1"], steps=1),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (np.nan, "1 of the 3072 values of this tensor are NaN or infinite"),
        (np.inf, "1 of the 3072 values of this tensor are NaN or infinite"),
        (-0.5, r"images lie in \[0, 1\]; this tensor goes from -0.5 to 0.5"),
        (255.0, r"images lie in \[0, 1\]; this tensor goes from 0.5 to 255"),
    ],
)
def test_a_tensor_that_is_no_picture_is_refused_by_whatever_is_asked(
    mini: Network, asked: str, number: float, message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        ASKED[asked](mini, values(number))


def test_a_plain_module_is_given_any_finite_values(mini: Network) -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    maps = cnnviz.feature_maps(module, values(-300.0), "0").maps
    with torch.no_grad():
        torch.testing.assert_close(maps, module[0](values(-300.0)))
    for broken in (values(np.nan), values(-np.inf)):
        with pytest.raises(ShapeError, match="NaN or infinite"):
            cnnviz.feature_maps(module, broken, "0")
        with pytest.raises(ShapeError, match="NaN or infinite"):
            cnnviz.attribute(module, broken, 0, method="saliency")
    with pytest.raises(CnnvizError, match="at least 1 pixel"):
        cnnviz.feature_maps(module, torch.zeros(1, 3, 0, 5), "0")


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 0), np.uint8),
        np.full((4, 4, 3), np.nan),
        np.full((4, 4, 3), -1, np.int16),
        np.zeros((4, 4, 2), np.uint8),
        np.uint8(3),
        Image.new("RGB", (0, 0)),
        Image.new("RGB", (3, 0)),
        b"cat.jpg",
        "a\0b.png",
        None,
        "",
    ],
)
def test_what_is_no_picture_is_refused_in_python(mini: Network, picture: object) -> None:
    with pytest.raises(PictureError):
        show(mini, picture)  # type: ignore[arg-type]


def test_a_picture_opened_by_pillow_may_turn_out_damaged(mini: Network) -> None:
    opened = Image.open(io.BytesIO(jpeg()[:-300]))
    with pytest.raises(PictureError, match="image is damaged and cannot be read"):
        cnnviz.predict(mini, opened)


def test_whatever_a_decoder_raises_is_a_damaged_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (IndexError("out of range"), TypeError("bad"), RuntimeError("codec"), ZeroDivisionError("zero")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Image, "open", fail)
        with pytest.raises(PictureError, match="is damaged"):
            picture_from_bytes(b"anything", "cat.jpg")
