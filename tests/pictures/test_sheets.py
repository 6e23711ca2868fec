"""Sheets hold every tile, whole, where a reader looks for it; files appear whole or not at all."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnnviz.errors import OutputError, PictureError, ShapeError
from cnnviz.files import whole_file
from cnnviz.pictures.drawings import font, resized, wrapped
from cnnviz.pictures.records import METADATA, read_record
from cnnviz.pictures.sheets import ColourBar, Layout, Sheet, Tile, sheet, slide_columns


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


@given(count=st.integers(1, 600), width=st.floats(10, 300), height=st.floats(10, 300), header=st.floats(0, 300))
def test_no_other_number_of_columns_is_nearer_to_a_slide_but_for_its_empty_places(
    count: int, width: float, height: float, header: float
) -> None:
    def size(columns: int) -> tuple[float, float]:
        return columns * width, math.ceil(count / columns) * height + header

    def off(columns: int) -> float:
        across, down = size(columns)
        return abs(math.log(across / down / (16 / 9)))

    chosen = slide_columns(count, size)
    gaps = -count % chosen / (count + -count % chosen)
    for other in range(1, count + 1):
        others = -count % other / (count + -count % other)
        assert off(chosen) <= off(other) + 1.5 * (others - gaps) + 1e-9
    if size(1)[0] / size(1)[1] < 16 / 9 < size(count)[0] / size(count)[1] and count > 100 and 0.5 < width / height < 2:
        assert off(chosen) < 0.15


def test_labels_and_notes_are_drawn_beneath_their_tiles() -> None:
    bare = sheet([Tile(flat(200), "0")] * 4, lines=["title"]).pixels
    labelled = sheet([Tile(flat(200), "0")] * 3 + [Tile(flat(200), "17", "0.5")], lines=["title"]).pixels
    rows, columns = np.nonzero((bare != labelled).any(-1))
    tile_rows, tile_columns = np.nonzero((bare == 200).all(-1))
    assert rows.min() > np.quantile(tile_rows, 0.99)
    assert columns.min() > np.median(tile_columns)
    assert (columns < np.median(columns)).any()


def words_of(page: Sheet) -> list[str]:
    """Every line of text on a sheet, as its figure has it."""
    return [text.get_text() for text in page.figure().axes[0].texts]


def test_header_and_captions_wrap_and_are_never_cut() -> None:
    line = "a line of the usual length, such as names of an image, a network and a layer need"
    bar = ColourBar(flat(5, 256)[:, 0], "0", "1")
    short = sheet([Tile(flat(9, 1, 1), "0")], lines=[line, line], colour_bars=[bar])
    assert short.pixels.shape[1] >= font(17).getlength(line)
    assert (short.pixels[:, -16:] == 255).all()
    endless = sheet([Tile(flat(9, 1, 1), "0")], lines=["x" * 3000])
    assert endless.pixels.shape[1] < 1400
    assert "".join(words_of(endless)) == "x" * 3000 + "0"
    label, note, below = "a label that needs more than one line", "and a note that needs its own", "evidence " * 9
    page = sheet([Tile(flat(9), label, note, below=[below])] * 2, lines=["title"], tile=120)
    assert " ".join(words_of(page)).count(f"{label} {note} {below}".strip()) == 2
    assert (page.pixels[-16:] == 255).all()


@given(text=st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=80), width=st.integers(20, 300))
def test_wrapped_lines_fit_and_keep_every_letter(text: str, width: int) -> None:
    lines = wrapped(text, 13, width)
    assert all(font(13).getlength(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(text.split())


SHAPES = [
    (20, 56, 56),
    (16, 112, 112),
    (32, 16, 16),
    (32, 12, 18),
    (64, 56, 56),
    (64, 28, 42),
    (100, 30, 20),
    (512, 7, 7),
]


@pytest.mark.parametrize(("count", "height", "width"), SHAPES)
@pytest.mark.parametrize("picture", [None, flat(1, 200, 300)])
def test_sheets_of_many_tiles_are_as_wide_as_a_slide(
    count: int, height: int, width: int, picture: np.ndarray | None
) -> None:
    tiles = [Tile(flat(9, height, width), str(number), "0.5") for number in range(count)]
    page = sheet(tiles, lines=["title", "a", "b", "c"], picture=picture)
    assert 16 / 9 / 1.2 < page.pixels.shape[1] / page.pixels.shape[0] < 16 / 9 * 1.2


def test_captions_of_many_lines_count_too() -> None:
    tiles = [Tile(flat(9, 30, 30), str(number), below=["evidence"] * 6) for number in range(64)]
    page = sheet(tiles, lines=["title"])
    assert 1.6 < page.pixels.shape[1] / page.pixels.shape[0] < 2


def test_a_layout_can_be_asked_for() -> None:
    tiles = [Tile(flat(100 + number, 10, 20), "label", "note", below=["below"]) for number in range(5)]
    usual = sheet(tiles, lines=["title", "more"], picture=flat(1))
    bare = sheet(tiles, lines=["title", "more"], picture=flat(1), columns=2, tile=40, captions=False)
    assert bare.pixels.shape == (2 * 16 + 3 * 20 + 2 * 8, 2 * 16 + 2 * 40 + 8, 3)
    assert words_of(bare) == []
    titled = sheet(tiles, lines=["title", "more"], title="Mine")
    assert words_of(titled)[:3] == ["Mine", "title", "more"]
    assert words_of(usual)[0] == "title"
    wide = sheet(tiles, lines=["title"], tile=37).pixels
    rows, columns = np.nonzero((wide == 101).all(-1))
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (37, 18)


@pytest.mark.parametrize("layout", [{"columns": 0}, {"tile": 10**9}, {"dpi": 10**6}, {"tile": "x"}])
def test_layouts_out_of_range_are_refused(layout: Layout) -> None:
    with pytest.raises(ShapeError, match="must be 1 to"):
        sheet([Tile(flat(1), "")], lines=["title"], **layout)


def page_of_four(**layout: int) -> Sheet:
    tiles = [Tile(flat(60 * number, 8, 8), str(number), "$0.5") for number in range(4)]
    bar = ColourBar(flat(5, 256)[:, 0], "low", "high")
    return sheet(tiles, lines=["A title", "größer"], picture=flat(33), colour_bars=[bar], **layout)


def test_vector_files_have_text_as_text_and_no_date(tmp_path: Path) -> None:
    page = page_of_four()
    svg = page.save(tmp_path / "a.svg").read_text()
    for text in ("A title", "größer", "low", "high", "$0.5"):
        assert f">{text}</text>" in svg
    pdf = page.save(tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf, "TrueType, whose text can be selected and edited"
    assert b"CreationDate" not in pdf
    assert "<dc:date>" not in svg
    assert page_of_four().save(tmp_path / "b.svg").read_text() == svg
    assert page_of_four().save(tmp_path / "b.pdf").read_bytes() == pdf


def test_the_figure_has_every_tile_where_the_sheet_has_it() -> None:
    page = page_of_four()
    figure = page.figure()
    height, width = page.pixels.shape[:2]
    assert tuple(figure.get_size_inches() * 100) == (width, height)
    drawn = page_of_four(dpi=100).pixels
    for value in (0, 60, 120, 180):
        mask = (page.pixels == value).all(-1)
        same = (np.abs(drawn.astype(int) - value) <= 2).all(-1) & mask
        assert same.sum() > 0.9 * mask.sum() > 100
    assert page_of_four(dpi=200).pixels.shape[:2] == pytest.approx((2 * height, 2 * width), abs=1)


def test_the_resolution_is_written_into_files(tmp_path: Path) -> None:
    with Image.open(page_of_four(dpi=150).save(tmp_path / "a.png")) as image:
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)


def test_a_sheet_of_pixels_alone_becomes_a_vector_file_too(tmp_path: Path) -> None:
    assert b"<image" in Sheet(flat(7, 30, 40)).save(tmp_path / "a.svg").read_bytes()


def test_small_images_are_enlarged_as_squares() -> None:
    pixels = np.zeros((28, 28, 3), np.uint8)
    pixels[::2] = 255
    page = sheet([Tile(flat(9), "")], lines=["title"], picture=pixels).pixels
    thumbnail = page[16 : 16 + 28 * 5, 16 : 16 + 28 * 5]
    assert np.array_equal(thumbnail, pixels.repeat(5, 0).repeat(5, 1))
    assert set(np.unique(resized(pixels, 84, 84, smooth=False))) == {0, 255}
    assert len(np.unique(resized(pixels, 84, 84, smooth=True))) > 2


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "PNG"])
def test_files_are_what_their_ending_says(tmp_path: Path, ending: str) -> None:
    sheet = Sheet(flat(120, 30, 40), {"command": "test", "größe": "ü"})
    path = sheet.save(tmp_path / "new" / f"a.{ending}")
    with Image.open(path) as image:
        assert image.format == {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}[ending.lower()]
        assert image.size == (40, 30)
    assert read_record(path) == {"command": "test", "größe": "ü"}
    if ending.lower() == "png":
        np.testing.assert_array_equal(np.asarray(Image.open(path)), sheet.pixels)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_record_is_an_itxt_chunk(tmp_path: Path) -> None:
    path = Sheet(flat(1), {"a": 1}).save(tmp_path / "a.png")
    assert b"iTXt" + METADATA.encode() + b"\0" in path.read_bytes()


def test_a_picture_without_a_record_says_so(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="carries no record"):
        read_record(tmp_path / "a.png")


TROUBLESOME = {"text": "größe \\ ) ( & < &amp; > \" ' \n \\n </dc:description>", "numbers": [1 / 3] * 9000}


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "pdf", "svg"])
def test_every_format_carries_the_record_and_shows_that_it_was_changed(tmp_path: Path, ending: str) -> None:
    path = Sheet(flat(120, 30, 40), TROUBLESOME).save(tmp_path / f"a.{ending}")
    assert read_record(path) == TROUBLESOME
    content = path.read_bytes()
    path.rename(path := tmp_path / "renamed")
    assert read_record(path) == TROUBLESOME
    for place in (len(content) // 3, len(content) // 2, len(content) * 9 // 10):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(PictureError, match=r"is not as cnnviz wrote it|carries no record"):
            read_record(path)


@pytest.mark.parametrize("ending", ["jpg", "webp", "gif", "pdf", "svg"])
def test_other_formats_without_a_record_say_so(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending in ("pdf", "svg"):
        page_of_four().figure().savefig(path)
    else:
        Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(PictureError, match=rf"a\.{ending} carries no record of how it was made; only images by cnnviz"):
        read_record(path)


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a.gif: images end in .png, .* .pdf, .svg"):
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
