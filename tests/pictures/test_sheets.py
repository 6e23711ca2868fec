"""Sheets hold every tile, whole, where a reader looks for it; files appear whole or not at all."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnnviz.errors import OutputError, PictureError
from cnnviz.files import whole_file
from cnnviz.pictures.records import METADATA, read_record
from cnnviz.pictures.sheets import ColourBar, Sheet, Tile, columns_for, fitted, font, sheet


def flat(value: int, height: int = 10, width: int = 10) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize(("count", "height", "width"), [(1, 7, 7), (5, 14, 21), (16, 112, 112), (40, 1, 1), (9, 40, 3)])
def test_every_tile_is_there_whole_and_in_reading_order(count: int, height: int, width: int) -> None:
    tiles = [Tile(np.full((height, width, 3), (index, 77, 13), np.uint8), "") for index in range(count)]
    pixels = sheet(tiles, lines=["title"]).pixels
    boxes = []
    for index in range(count):
        rows, columns = np.nonzero((pixels == (index, 77, 13)).all(-1))
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert len(rows) == (bottom - top) * (right - left)
        assert (bottom - top) * width == (right - left) * height
        assert (bottom - top) % height == 0
        boxes.append((top, left))
    assert boxes == sorted(boxes)


@given(count=st.integers(1, 600), aspect=st.floats(0.2, 5))
def test_columns_fill_the_sheet_well(count: int, aspect: float) -> None:
    columns = columns_for(count, aspect)
    rows = -(-count // columns)
    assert 1 <= columns <= count
    assert columns * (rows - 1) < count
    if count > 12:
        assert 0.4 < columns * aspect / rows < 4


def test_tile_counts_of_common_layers_leave_no_holes() -> None:
    assert [64 % columns_for(64, 1), 128 % columns_for(128, 1), 256 % columns_for(256, 1)] == [0, 0, 0]
    assert 512 % columns_for(512, 1) == 0


def test_labels_and_notes_are_drawn_beneath_their_tiles() -> None:
    bare = sheet([Tile(flat(200), "")] * 4, lines=["title"]).pixels
    labelled = sheet([Tile(flat(200), "")] * 3 + [Tile(flat(200), "17", "0.5")], lines=["title"]).pixels
    rows, columns = np.nonzero((bare != labelled).any(-1))
    tile_rows, tile_columns = np.nonzero((bare == 200).all(-1))
    assert rows.min() > np.quantile(tile_rows, 0.99)
    assert columns.min() > np.median(tile_columns)
    assert (columns < np.median(columns)).any()


def test_the_header_is_never_cut_but_for_endless_names() -> None:
    line = "a line of the usual length, such as names of an image, a network and a layer need"
    bar = ColourBar(flat(5, 256)[:, 0], "0", "1")
    short = sheet([Tile(flat(9, 1, 1), "0")], lines=[line, line], colour_bars=[bar]).pixels
    assert short.shape[1] >= font(17).getlength(line)
    assert (short[:, -16:] == 255).all()
    endless = sheet([Tile(flat(9, 1, 1), "0")], lines=["x" * 3000]).pixels
    assert endless.shape[1] < 1400
    assert fitted("x" * 300, 17, 200).endswith("…")
    assert font(17).getlength(fitted("x" * 300, 17, 200)) <= 200


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "PNG"])
def test_files_are_what_their_ending_says(tmp_path: Path, ending: str) -> None:
    sheet = Sheet(flat(120, 30, 40), {"command": "test", "größe": "ü"})
    path = sheet.save(tmp_path / "new" / f"a.{ending}")
    with Image.open(path) as image:
        assert image.format == {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}[ending.lower()]
        assert image.size == (40, 30)
    if ending.lower() == "png":
        assert read_record(path) == {"command": "test", "größe": "ü"}
        np.testing.assert_array_equal(np.asarray(Image.open(path)), sheet.pixels)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_record_is_an_itxt_chunk(tmp_path: Path) -> None:
    path = Sheet(flat(1), {"a": 1}).save(tmp_path / "a.png")
    assert b"iTXt" + METADATA.encode() + b"\0" in path.read_bytes()


def test_a_picture_without_a_record_says_so(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="carries no record"):
        read_record(tmp_path / "a.png")
    Sheet(flat(1), {"a": 1}).save(tmp_path / "a.jpg")
    with pytest.raises(PictureError, match="carries no record"):
        read_record(tmp_path / "a.jpg")


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a.gif: images end in .png"):
        Sheet(flat(1)).save(tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


def test_formats_that_cannot_hold_the_sheet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="5 x 16384 px are too many for WEBP; write a "):
        Sheet(flat(1, 16384, 5)).save(tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(error: BaseException) -> None:
        with whole_file(path) as file:
            file.write(b"new and longer")
            raise error

    with pytest.raises(OutputError, match="No space left"):
        fail(OSError(28, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OutputError, match=r"cannot write .*a\.png: there is a file where a folder should be; choose another place"
    ):
        Sheet(flat(1)).save(tmp_path / "file" / "a.png")


def test_notebooks_get_the_same_pixels() -> None:
    sheet = Sheet(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sheet._repr_png_()))), sheet.pixels)
