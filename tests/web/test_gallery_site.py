"""The pages of a gallery: what they say, where they lead, and how they behave in a browser."""

import io
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnnviz.cli.filters import filters
from cnnviz.errors import OutputError
from cnnviz.galleries.store import Store
from cnnviz.web import charts
from cnnviz.web.gallery_site import command, write_site
from cnnviz.web.templating import TIMES
from tests.support.browser import Visit, contrast
from tests.support.galleries import HOSTILE, SETTINGS, add_examples, colour, drawn, gallery, planned

POSITIVE = st.floats(0.01, 100)
BLOCKS = {"block1_conv1": 6, "block1_conv2": 6, "block2_conv1": 9}


class Reader(HTMLParser):
    """What a page refers to, says, and consists of."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.references += [value for name, value in attrs if name in ("href", "src") and value]
        self.handlers += [name for name in given if name.startswith("on")]
        if tag == "img":
            self.images.append(given)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def pages(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))


def read(store: Store, page: str) -> Reader:
    return Reader(store.folder / page)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return gallery(tmp_path / "out", planned(BLOCKS))


@pytest.mark.parametrize("name", ["vgg-tiny", HOSTILE])
def test_every_link_leads_to_a_file_of_the_folder(tmp_path: Path, name: str) -> None:
    store = gallery(tmp_path / "out", planned({"block1_conv1": 3, name: 7, "é ü": 2}, name=name))
    add_examples(store)
    assert write_site(store) == store.folder / "index.html"
    assert len(pages(store.folder)) == 1 + 3 + 12
    for page in pages(store.folder):
        reader = Reader(page)
        assert all("alt" in image for image in reader.images)
        for reference in reader.references:
            parts = urlsplit(reference)
            assert (parts.query, parts.fragment, parts.netloc) == ("", "", "")
            if parts.scheme:
                assert reference == "data:,"
                continue
            path = (page.parent / unquote(parts.path)).resolve()
            assert path.is_file(), reference
            assert path.is_relative_to(store.folder.resolve())


def test_what_others_named_is_text(tmp_path: Path) -> None:
    store = gallery(tmp_path / "out", planned({"a": 3, HOSTILE: 3}, name=HOSTILE, weights=HOSTILE))
    add_examples(store, picture=HOSTILE)
    write_site(store)
    for page in pages(store.folder):
        reader = Reader(page)
        assert HOSTILE in reader.text
        assert not reader.handlers
        assert not any(image["src"] == "x" for image in reader.images)


def test_what_is_not_drawn_or_drawn_otherwise_is_said_to_be_not_drawn_yet(store: Store) -> None:
    plan = store.planned()
    layer = plan.layers[2]
    other = replace(layer, settings=SETTINGS | {"steps": 99})
    stale = drawn(plan, layer, 3)
    store.add([replace(stale, record=stale.record | {"key": plan.key(other, 3)})])
    store.image(layer.layer, 4).unlink()
    write_site(store)
    for number in range(9):
        said = "not drawn yet" in read(store, f"filters/block2_conv1/{number:04d}.html").text
        assert said == (number in (3, 4, 5))
    assert "9: 2 ok, 2 weak, 2 dead, 3 not drawn yet" in read(store, "layers/block2_conv1.html").text
    assert "16 drawn" in read(store, "index.html").text
    assert "receptive field full input · 33 % dead" in read(store, "index.html").text


def test_a_gallery_of_which_nothing_is_drawn_has_its_pages(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin(planned(BLOCKS))
    write_site(store)
    assert "21 in 3 layers 0 drawn" in read(store, "index.html").text


def test_a_filter_page_says_what_its_record_says(store: Store) -> None:
    write_site(store)
    text = read(store, "filters/block1_conv2/0001.html").text
    for said in (
        "Score 6.00",
        "Percentile 97.5 % of simple patterns, noise and photographs score lower",
        "Attempts 2",
        "Mean activation 1.50",
        "Max activation 20.0",
    ):
        assert said in text
    assert "weak : A simple pattern, noise or a photograph scores higher" in text
    assert "filter 0 +0.500" in text
    assert "filter 2 \N{MINUS SIGN}1.50" in text
    assert "--filters 1 --model vgg-tiny" in text
    assert "--batch 2" in text, "as many at a time as memory did for"


def test_examples_are_shown_where_they_are_and_of_the_same_weights_only(store: Store) -> None:
    write_site(store)
    page = "filters/block1_conv2/0002.html"
    bare = (store.folder / page).read_bytes()
    assert "pictures" not in read(store, page).text
    add_examples(store)
    write_site(store)
    reader = read(store, page)
    tiles = [image for image in reader.images if "examples/" in str(image["src"])]
    assert [tile["style"] for tile in tiles] == [f"object-position:{share}% 0" for share in ("0.0", "50.0", "100.0")]
    assert "max 4.50 cats/1.jpg max 3.50 cats/1.jpg max 2.50 cats/1.jpg" in reader.text
    assert "visualization: 20.0" in reader.text
    without = read(store, "filters/block1_conv2/0001.html")
    assert "4.50 cats/1.jpg" in without.text
    assert not any("examples/" in str(image["src"]) for image in without.images)
    about = store.folder / "examples.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"seen": "other"}))
    write_site(store)
    assert (store.folder / page).read_bytes() == bare


def test_tiles_of_a_strip_are_the_filters_in_order(store: Store) -> None:
    write_site(store)
    strip = np.asarray(Image.open(store.folder / "site/strips/block2_conv1.webp").convert("RGB")).astype(int)
    assert strip.shape == (128, 9 * 128, 3)
    for number in range(9):
        expected = charts.BLANK if number == 5 else colour(number)
        assert np.abs(strip[64, number * 128 + 64] - expected).max() < 12


def test_numbers_have_three_digits_and_no_exponent_if_they_are_large() -> None:
    assert [charts.short(value) for value in (0, 2, 14, 0.919, 999.9, 12345.6)] == [
        "0.00",
        "2.00",
        "14.0",
        "0.919",
        "1000",
        "12346",
    ]


@pytest.mark.parametrize(
    ("names", "boxes"),
    [
        (["block1_conv1", "block1_conv2", "block2_conv1"], ["block1", "block2"]),
        (["conv1", "layer1.0.conv1", "layer2.0.conv1"], [f"32 {TIMES} 32", f"16 {TIMES} 16"]),
    ],
)
def test_layers_stand_in_boxes(tmp_path: Path, names: list[str], boxes: list[str]) -> None:
    store = gallery(tmp_path, planned(dict.fromkeys(names, 2)))
    write_site(store)
    text = read(store, "index.html").text
    places = [text.index(f" {part} maps") for part in boxes] + [text.index(f" {name} maps 2 {TIMES}") for name in names]
    assert sorted(places) == [places[0], places[2], places[3], places[1], places[4]]


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ({"name": "vgg16"}, {"model": "vgg16", "weights": None, "mean": None}),
        ({"name": "vgg16", "weights": "random, seed 0"}, {"weights": "random"}),
        ({"name": "a b.py:Net", "weights": "my net's.pth"}, {"model": "a b.py:Net", "weights": "my net's.pth"}),
        ({"name": "m:f"}, {"input_size": (32, 32), "mean": (0.485, 0.5, -0.25), "std": (0.229, 1.0, 0.5)}),
    ],
)
def test_the_command_says_what_was_done(network: dict[str, str], expected: dict[str, Any]) -> None:
    plan = planned({HOSTILE: 50}, **network)
    words = shlex.split(command(plan, plan.layers[0], 41, 2))
    assert words[:2] == ["cnnviz", "filters"]
    given = filters.make_context("filters", words[2:]).params
    same = {"single": (HOSTILE,), "numbers": (41,), "recipe": "fourier", "steps": 32, "size": (24, 32), "seed": 3}
    for name, value in (same | {"batch": 2, "precision": "float32"} | expected).items():
        assert given[name] == value


def test_two_runs_write_the_same_and_stale_pages_go(store: Store) -> None:
    add_examples(store)
    write_site(store)
    first = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    write_site(store)
    assert first == {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    mine = store.folder / "site" / "mine.txt"
    mine.write_text("not a page")
    plan = store.planned()
    store.begin(replace(plan, layers=(plan.layers[0], replace(plan.layers[1], filters=(0, 2)))))
    write_site(store)
    gone = {path.relative_to(store.folder).parts[-2:] for path in first if not path.exists()}
    assert {("block1_conv2", "0001.html"), ("layers", "block2_conv1.html"), ("strips", "block2_conv1.webp")} <= gone
    assert not (store.folder / "filters" / "block2_conv1").exists()
    assert len(pages(store.folder)) == 1 + 2 + 6 + 2
    assert mine.exists()


def test_errors_say_what_to_do(tmp_path: Path, store: Store) -> None:
    with pytest.raises(OutputError, match=r"no gallery in .*gallery build"):
        write_site(Store(tmp_path / "nowhere"))
    image = store.image("block1_conv1", 0)
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(OutputError, match=r"0000\.png: it is damaged; build the gallery again"):
        write_site(store)
    (store.folder / "examples.json").write_text("[]")
    with pytest.raises(OutputError, match=r"cannot read .*examples\.json .*delete it"):
        write_site(store)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=300))
def test_a_curve_goes_from_the_first_score_to_the_last_within_its_axes(scores: list[float]) -> None:
    chart = charts.optimization_curve(scores)
    points = [tuple(map(float, point.split(","))) for point in chart.path[1:].split()]
    assert len(points) == min(len(scores), charts.POINTS)
    assert points == sorted(points)
    assert points[0][0] == charts.LEFT
    heights = [y for _, y in points]
    assert charts.TOP - 0.1 <= min(heights) <= max(heights) <= charts.BOTTOM + 0.1
    if scores[0] < scores[-1]:
        assert heights[0] >= heights[-1], "up is more"


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=9), st.just(0.0) | POSITIVE, st.none() | POSITIVE)
def test_a_histogram_has_a_step_per_run_of_bins_and_its_mark_inside(
    counts: list[int], top: float, reached: float | None
) -> None:
    chart = charts.histogram(counts, top, reached)
    steps = [tuple(map(float, step.split("H"))) for step in chart.path.split("V")[1:-1]]
    runs = [count for count, _ in groupby(counts)]
    assert len(steps) == len(runs)
    by_count = sorted(zip(runs, [-height for height, _ in steps], strict=True))
    assert [height for _, height in by_count] == sorted(height for _, height in by_count), "more is higher"
    assert charts.LEFT < steps[-1][1] <= charts.RIGHT
    assert (chart.mark is None) == (reached is None)
    if chart.mark and reached is not None:
        assert charts.LEFT <= chart.mark.place <= charts.RIGHT
        assert reached <= top or chart.mark.place > steps[-1][1] - 0.1, "beyond all images"


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_a_few_round_numbers_inside(low: float, length: float) -> None:
    places = charts.ticks(low, low + length)
    assert 2 <= len(places) <= 6
    assert all(low - length / 1e3 <= place <= low + length * 1.001 for place in places)


@pytest.fixture
def visit(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Visit]]:
    """Opens windows on folders; in the end nothing must have gone wrong, and all requests stayed in the folder."""
    visits: list[Visit] = []

    def start(folder: Path, **options: Any) -> Visit:
        visits.append(Visit(browser, folder, **options))
        return visits[-1]

    yield start
    for visit in visits:
        visit.check()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages with everything there is, and names that nobody should trust."""
    layers = BLOCKS | {"block2_conv2": 3}
    store = gallery(tmp_path_factory.mktemp("a #1 50% gallery?"), planned(layers, name=HOSTILE))
    add_examples(store, picture=HOSTILE)
    write_site(store)
    return store.folder


def test_what_were_smuggled_into_a_page_would_do_nothing(site: Path, browser: Any, tmp_path: Path) -> None:
    """The second wall behind escaping: pages allow neither scripts of their own nor anything from elsewhere."""
    for place in ("index.html", "layers/block2_conv1.html"):
        page = tmp_path / place
        page.parent.mkdir(exist_ok=True)
        smuggled = (
            "<script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)><base href=http://127.0.0.1:9/>"
        )
        page.write_text((site / place).read_text(encoding="utf-8").replace("<main>", f"<main>{smuggled}"), "utf-8")
        here = Visit(browser, tmp_path)
        sent: list[str] = []
        here.page.on("requestfinished", lambda request, sent=sent: sent.append(request.url))
        here.open(place)
        here.window.close()
        assert "a dialog" not in here.wrong
        assert sum("Content Security Policy" in message for message in here.wrong) >= 3
        assert not any("127.0.0.1" in url for url in sent)


def test_a_way_through_the_pages(site: Path, visit: Callable[..., Visit]) -> None:
    here = visit(site)
    page = here.open("index.html")
    here.see_everything()
    page.get_by_text("block2_conv1").click()
    assert here.shown() == list(range(9))
    here.see_everything()
    page.locator("figure a").nth(4).click()
    here.see_everything()
    assert page.get_by_role("heading", level=1).inner_text() == "Filter 4 of block2_conv1"
    assert page.locator("svg.chart").count() == 2
    page.get_by_text("filter 2", exact=True).click()
    assert page.get_by_role("heading", level=1).inner_text() == "Filter 2 of block1_conv2"


def test_keys_lead_to_neighbours_and_up(site: Path, visit: Callable[..., Visit]) -> None:
    here = visit(site)
    here.open("filters/block2_conv1/0004.html")
    here.press("ArrowRight", "/0005.html")
    here.press("ArrowLeft", "/0004.html")
    here.press("ArrowUp", "/block2_conv1.html")
    here.press("ArrowLeft", "/block1_conv2.html")
    here.press("ArrowRight", "/block2_conv1.html")
    here.page.locator("input").press("ArrowLeft")
    assert here.page.url.endswith("/block2_conv1.html"), "keys that are typed somewhere are not for us"
    here.page.locator("h1").click()
    here.press("u", "/index.html")


def test_a_layer_is_sorted_and_filtered(site: Path, visit: Callable[..., Visit]) -> None:
    here = visit(site)
    page = here.open("layers/block2_conv1.html")
    sort, status, number = (page.locator(f"[name={name}]") for name in ("sort", "status", "number"))
    sort.select_option("score")
    assert here.shown() == [7, 4, 1, 8, 2, 6, 3, 0, 5], "the highest first, what is not drawn last"
    sort.select_option("status")
    assert here.shown() == [0, 3, 6, 1, 4, 7, 2, 8, 5]
    status.select_option("dead")
    assert here.shown() == [2, 8]
    assert page.locator("output").inner_text() == "2 of 9 shown"
    number.fill("8")
    assert here.shown() == [8]
    status.select_option("missing")
    number.fill("")
    assert here.shown() == [5]


def test_without_scripts_everything_is_shown(site: Path, visit: Callable[..., Visit]) -> None:
    here = visit(site, java_script_enabled=False)
    page = here.open("layers/block2_conv1.html")
    assert here.shown() == list(range(9))
    assert not page.locator("form").is_visible()
    here.open("filters/block2_conv1/0004.html")
    assert "cnnviz filters" in page.locator("pre").inner_text()
    assert not page.locator("button").is_visible()


def test_the_command_is_copied(site: Path, visit: Callable[..., Visit]) -> None:
    here = visit(site, permissions=["clipboard-read", "clipboard-write"])
    page = here.open("filters/block2_conv1/0004.html")
    page.locator("button").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("pre code").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_can_be_read(site: Path, visit: Callable[..., Visit], scheme: str) -> None:
    here = visit(site, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    for name in ("index.html", "layers/block2_conv1.html", *(f"filters/block2_conv1/000{n}.html" for n in (4, 5))):
        page = here.open(name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for selector in ("h1", "a", "dt, b.missing"):
            assert contrast(page, selector) >= 4.5, f"{selector} of {name}"


@pytest.mark.parametrize(("width", "least"), [(1280, 160), (390, 150)])
def test_tiles_are_as_large_as_the_window_allows(
    site: Path, visit: Callable[..., Visit], width: int, least: int
) -> None:
    here = visit(site, viewport={"width": width, "height": 900})
    here.open("layers/block2_conv1.html")
    sizes = widths(here, ".grid figure:has(img)")
    assert min(sizes) >= least
    assert max(sizes) - min(sizes) < 1
    here.open("index.html")
    here.see_everything()
    assert min(widths(here, ".preview img")) >= 64
    assert len(widths(here, ".preview img")) == 6 + 6 + 9 + 3
    here.open("filters/block2_conv1/0004.html")
    assert min(widths(here, ".large")) >= 340
    assert min(widths(here, ".tiles img")) >= 100


def widths(visit: Visit, selector: str) -> list[float]:
    return list(visit.page.eval_on_selector_all(selector, "all => all.map(each => each.getBoundingClientRect().width)"))


def test_the_start_page_leads_to_layers_and_filters(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    store = gallery(tmp_path, planned({"block1_conv1": 30}))
    write_site(store)
    page = visit(tmp_path).open("index.html")
    assert page.locator(".preview img").count() == 24
    page.get_by_text("All 30 filters").click()
    page.go_back()
    page.locator(".preview a").nth(3).click()
    assert page.get_by_role("heading", level=1).inner_text() == "Filter 3 of block1_conv1"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16's 4,224 filters, as images of noise: nothing is harder to compress."""
    names = [
        f"block{block}_conv{conv}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for conv in range(1, count + 1)
    ]
    plan = planned(dict(zip(names, [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6, strict=True)))
    noise = np.random.default_rng(0).integers(0, 256, (50, 24, 32, 3), dtype=np.uint8)
    pictures = []
    for pixels in noise:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        pictures.append(buffer.getvalue())
    store = Store(tmp_path_factory.mktemp("large"))
    store.begin(plan)
    store.add([drawn(plan, layer, n, pictures[n % 50]) for layer in plan.layers for n in layer.filters])
    write_site(store)
    return store.folder


def test_the_start_page_of_vgg16_with_all_it_loads_is_small(large: Path, visit: Callable[..., Visit]) -> None:
    here = visit(large)
    here.open("index.html")
    here.see_everything()
    fetched = [Path(unquote(urlsplit(url).path)) for url in set(here.requests) if url != "data:,"]
    assert sum(path.suffix == ".webp" for path in fetched) == 13
    assert sum(path.stat().st_size for path in fetched) < 2_000_000


def test_a_page_of_512_filters_asks_for_little(large: Path, visit: Callable[..., Visit]) -> None:
    here = visit(large)
    page = here.open("layers/block5_conv3.html")
    assert sum(url.endswith(".png") for url in here.requests) < 300, "images far down wait until they are seen"
    page.locator("[name=sort]").select_option("score")
    page.locator("[name=number]").fill("511")
    assert here.shown() == [511]
    assert (large / "layers" / "block5_conv3.html").stat().st_size < 400_000
    assert page.evaluate("document.querySelectorAll('*').length") < 5_000
    assert max(path.stat().st_size for path in (large / "filters" / "block5_conv3").iterdir()) < 8_000
