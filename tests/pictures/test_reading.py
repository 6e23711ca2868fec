"""Image files become what a person sees when opening them."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnviz.errors import PictureError, UnknownNameError
from cnnviz.pictures.colours import SIGNED, UNSEEN, UNSIGNED, colour_map, painted, painted_between
from cnnviz.pictures.reading import read_picture
from tests.support.pictures import COLOURS, LARGE, bomb, jpeg


def saved(folder: Path, name: str, image: Image.Image, **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.gif", "a.webp", "a.jpg"])
def test_colours_survive_every_format(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name == "a.webp" else {"quality": 98, "subsampling": 0} if name == "a.jpg" else {}
    picture = read_picture(saved(tmp_path, name, Image.fromarray(LARGE), **options))
    tolerance = 12 if name == "a.jpg" else 0
    assert np.abs(picture.pixels().astype(int) - LARGE).max() <= tolerance
    assert picture.name == name
    assert picture.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_grey_stays_grey_and_becomes_three_equal_channels_on_demand(tmp_path: Path) -> None:
    picture = read_picture(saved(tmp_path, "a.png", Image.fromarray(LARGE[:, :, 0])))
    assert picture.image.mode == "L"
    np.testing.assert_array_equal(picture.pixels(), LARGE[:, :, :1].repeat(3, 2))


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    alpha = np.dstack([COLOURS, np.array([[255, 128, 0], [255, 0, 255]], np.uint8)])
    expected = np.rint(alpha[..., :3] * (alpha[..., 3:] / 255) + 255 * (1 - alpha[..., 3:] / 255))
    pixels = read_picture(saved(tmp_path, "a.png", Image.fromarray(alpha))).pixels()
    assert np.abs(pixels - expected).max() <= 1
    indexed = Image.fromarray(COLOURS).quantize(8)
    hidden = indexed.getpixel((0, 0))
    pixels = read_picture(saved(tmp_path, "p.png", indexed, transparency=hidden)).pixels()
    np.testing.assert_array_equal(pixels[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(pixels[0, 1], COLOURS[0, 1])


def test_cmyk_and_palettes(tmp_path: Path) -> None:
    cmyk = Image.fromarray(LARGE).convert("CMYK")
    pixels = read_picture(saved(tmp_path, "a.tiff", cmyk)).pixels()
    np.testing.assert_array_equal(pixels, np.asarray(cmyk.convert("RGB")))
    pixels = read_picture(saved(tmp_path, "p.png", Image.fromarray(LARGE).quantize(8))).pixels()
    np.testing.assert_array_equal(pixels, LARGE)


def test_sixteen_bits_and_real_numbers_become_eight(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768], [65535, 40000, 128]], np.uint16)
    expected = np.rint(values / 257)
    for name in ("a.png", "a.tiff"):
        picture = read_picture(saved(tmp_path, name, Image.fromarray(values)))
        np.testing.assert_array_equal(np.asarray(picture.image), expected)
    real = Image.fromarray((values / 65535).astype(np.float32))
    np.testing.assert_array_equal(np.asarray(read_picture(saved(tmp_path, "f.tiff", real)).image), expected)
    with pytest.raises(PictureError, match="outside 0 to 1"):
        read_picture(saved(tmp_path, "g.tiff", Image.fromarray(np.array([[np.nan, 0.5]], np.float32))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_after_exif(tmp_path: Path, orientation: int) -> None:
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](COLOURS)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_picture(saved(tmp_path, "a.png", stored, exif=exif)).pixels(), COLOURS)


def test_a_gif_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, "a.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_picture(path).pixels()[0, 0], [255, 0, 0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"To whom it may concern", "is not an image"),
        (jpeg()[:-300], "is damaged"),
        (bomb(), "too many pixels"),
    ],
)
def test_what_is_no_picture_is_said_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "cat.jpg").write_bytes(content)
    with pytest.raises(PictureError, match=message) as caught:
        read_picture(tmp_path / "cat.jpg")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="is not there"):
        read_picture(tmp_path / "none.jpg")
    with pytest.raises(PictureError, match="not a file"):
        read_picture(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PictureError, match="not a file"):
        read_picture(tmp_path / "pipe.jpg")


def test_colour_maps_are_matplotlibs() -> None:
    np.testing.assert_allclose(colour_map("gray"), np.arange(256)[:, None].repeat(3, 1), atol=1)
    np.testing.assert_allclose(colour_map("viridis")[[0, 255]], [[68, 1, 84], [253, 231, 37]], atol=1)
    with pytest.raises(UnknownNameError, match="did you mean 'viridis'"):
        colour_map("viridi")


def test_values_by_hand_are_the_colours_of_their_place() -> None:
    values = np.array([-9, -2, -1, 0, 1, 2, 9, np.nan], dtype=np.float32)
    around, above = colour_map(SIGNED), colour_map(UNSIGNED)
    unseen = [[UNSEEN] * 3]
    np.testing.assert_array_equal(painted(values, 2, signed=True), [*around[[0, 0, 64, 128, 191, 255, 255]], *unseen])
    np.testing.assert_array_equal(painted(values, 2, signed=False), [*above[[0, 0, 0, 0, 128, 255, 255]], *unseen])
    np.testing.assert_array_equal(painted(values[3:4], 0, signed=True), around[[128]], "a flat map is white")
    low, high = np.float32([[1], [4]]), np.float32([[6], [4]])
    between = painted_between(np.float32([[1, 2, 6], [4, 4, 4]]), low, high, "magma")
    np.testing.assert_array_equal(between, colour_map("magma")[[[0, 51, 255], [128, 128, 128]]])


def test_pixels_of_which_pillow_only_warns_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = saved(tmp_path, "a.png", Image.new("L", (10, 11)))
    with pytest.raises(PictureError, match="too many pixels"):
        read_picture(path)
    assert read_picture(saved(tmp_path, "b.png", Image.new("L", (10, 10)))).image.size == (10, 10)
