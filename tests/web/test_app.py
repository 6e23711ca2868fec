"""The app: what its page shows for what is chosen, how it refuses, and the whole of it in a browser."""

import http.client
import io
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cnnviz
from cnnviz.attribution.explain import explain
from cnnviz.attribution.explanations import Explanation
from cnnviz.errors import PictureError
from cnnviz.models import vgg16
from cnnviz.models.zoo import cache_file
from cnnviz.networks.network import Network
from cnnviz.pictures.colours import colour_map
from cnnviz.pictures.reading import Picture
from cnnviz.pictures.records import read_record
from cnnviz.web.app_parts import (
    CLASS,
    MEGABYTES,
    SAMPLE,
    Dream,
    Optimization,
    blend,
    colour_bar,
    map_overlay,
    networks,
    tiles,
    uploaded,
)
from tests.support.commands import Run
from tests.support.paths import CAT, ROOT

PAGE = ROOT / "cnnviz" / "web" / "app.py"
LAYER = "block2_conv1"
MARKDOWN = "my ![cat](https:x) *1* $2$ `3` :red[4] <img src=x onerror=alert(1)> &lt;b&gt; {{7*7}}.jpg"


def test_an_upload_keeps_its_base_name_and_its_bytes() -> None:
    picture = uploaded(CAT.read_bytes(), "../secret/cat.jpg")
    assert (picture.name, picture.sha256) == ("cat.jpg", cnnviz.read_picture(CAT).sha256)


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no image", "a.png is not an image"),
        (CAT.read_bytes()[:5000], "a.png is damaged"),
        (bytes(MEGABYTES * 2**20 + 1), "a.png is 20.0 MB; give an image of at most 20 MB"),
        (png(6001, 4000), "a.png has 24.0 megapixels; give an image of at most 24"),
        (png(20000, 20000), "a.png has too many pixels to be opened safely"),
    ],
)
def test_what_is_no_picture_or_too_large_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(PictureError, match=told):
        uploaded(content, "a.png")


def test_a_picture_just_within_the_limit_is_taken() -> None:
    assert uploaded(png(6000, 4000), "a.png").image.size == (6000, 4000)


def test_only_networks_whose_weights_are_here_are_offered(empty_cache: Path) -> None:
    assert networks(untrained=False) == ["vgg16", "vgg16-mini"]
    empty_cache.mkdir(parents=True)
    cache_file("alexnet").touch()
    cache_file("vgg16").touch()
    assert networks(untrained=False) == ["vgg16", "vgg16-mini", "alexnet"]
    untrained = networks(untrained=True)
    assert untrained[:2] == ["vgg16", "vgg16-mini"]
    assert "resnet18" in untrained
    assert len(untrained) == len(set(untrained))


def test_the_picture_to_begin_with_is_the_galleries_cat() -> None:
    assert SAMPLE.read_bytes() == CAT.read_bytes()
    assert "CC0" in SAMPLE.with_name("cat-NOTICE.txt").read_text(encoding="utf-8")


def test_tiles_are_the_maps_from_lowest_to_highest(mini: Network) -> None:
    maps = cnnviz.feature_maps(mini, CAT, "block5_conv3")
    channel = maps.order()[0]
    values = maps.maps[0, channel].numpy()
    (tile,) = tiles(maps, [channel])
    factor = tile.shape[0] // values.shape[0]
    levels = np.rint((values - values.min()) / np.ptp(values) * 255).astype(int)
    np.testing.assert_array_equal(tile, colour_map("viridis")[levels].repeat(factor, 0).repeat(factor, 1))
    assert factor >= 2


def test_a_blend_goes_from_the_picture_to_the_map(mini: Network) -> None:
    explanation = cnnviz.explain(mini, CAT, ["tabby"], methods=["grad-cam"], checks=())
    picture, half, over = (blend(explanation, {}, opacity).pixels.astype(float) for opacity in (0, 0.5, 1))
    np.testing.assert_array_equal(picture, np.asarray(Image.open(CAT).convert("RGB")))
    np.testing.assert_allclose(half, (picture + over) / 2, atol=0.5)
    assert np.ptp(over) > 200


def test_a_map_overlay_is_clear_at_the_minimum_and_yellow_at_the_maximum(mini: Network) -> None:
    maps = cnnviz.feature_maps(mini, CAT, "block1_conv2")
    channel = maps.order()[1]
    over, picture = map_overlay(maps, channel), np.asarray(Image.open(CAT).convert("RGB"))
    left, top, right, bottom = map(round, maps.shown.seen)
    values = maps.maps[0, channel].numpy()
    scale = (bottom - top) / values.shape[0]
    row, column = (round(top + scale * (place + 0.5)) for place in divmod(values.argmax(), values.shape[1]))
    assert over.shape == picture.shape
    assert np.abs(over[row, left + column - top].astype(int) - colour_bar("viridis")[0, -1]).mean() < 90
    assert (over[top:bottom, left:right] != picture[top:bottom, left:right]).any(2).mean() > 0.5


def test_a_class_is_optimized_like_a_filter(mini: Network) -> None:
    tabby = cnnviz.class_index(mini, "tabby")
    optimization = Optimization(mini, CLASS, tabby)
    while optimization.go_on(8):
        pass
    assert optimization.synthesis is not None
    whole = cnnviz.class_images(mini, tabby, preset="draft", batch=1)
    torch.testing.assert_close(optimization.synthesis.images, whole.images, rtol=0, atol=0)
    assert optimization.about == (mini.name, mini.weights, CLASS, tabby)


def test_an_optimization_in_pieces_ends_where_the_whole_one_does(mini: Network) -> None:
    optimization, shares, sights = Optimization(mini, LAYER, 3), [0.0], []
    while optimization.go_on(8):
        shares.append(optimization.share)
        sights.append(optimization.pixels())
    whole = cnnviz.filter_images(mini, LAYER, 3, preset="draft", batch=1)
    synthesis = optimization.synthesis
    assert synthesis is not None
    torch.testing.assert_close(synthesis.images, whole.images, rtol=0, atol=0)
    assert synthesis.settings == whole.settings
    assert optimization.curve == synthesis.curves[0].tolist()
    assert len(optimization.curve) == optimization.steps == 64
    assert (optimization.over, optimization.tries) == (True, 1)
    assert shares == sorted(shares)
    np.testing.assert_array_equal(optimization.pixels(), (synthesis.images[0].permute(1, 2, 0) * 255).round().byte())
    assert (sights[0] != sights[-1]).mean() > 0.5


def test_a_dream_step_by_step_ends_where_the_whole_one_does(mini: Network) -> None:
    dream = Dream(mini, cnnviz.read_picture(CAT), LAYER, size=96, steps=3)
    steps, shapes = [dream.progress.done], [dream.pixels().shape]
    while dream.go_on():
        steps.append(dream.progress.done)
        shapes.append(dream.pixels().shape)
    whole = cnnviz.dream(mini, CAT, LAYER, size=96, steps=3)
    np.testing.assert_array_equal(dream.pixels(), (whole.images[0].permute(1, 2, 0) * 255).round().byte())
    assert steps == list(range(1, 10)), "three steps at each of three scales"
    assert dream.progress.total == 9
    assert [shape[0] for shape in shapes] == [49] * 3 + [69] * 3 + [96] * 3
    assert not dream.go_on()


def test_an_optimization_that_is_stopped_goes_no_further(mini: Network) -> None:
    optimization = Optimization(mini, LAYER, 3)
    optimization.go_on(7)
    optimization.stop()
    assert not optimization.go_on(8)
    assert len(optimization.curve) == 8
    assert optimization.pixels().shape == (64, 64, 3)
    assert optimization.synthesis is None


KNOWN: dict[object, Explanation] = {}


def explained_once(network: Network, picture: Picture, classes: list[str], **options: Any) -> Explanation:
    """What `cnnviz.explain` gives; most tests only have the page around it, and the evidence takes seconds."""
    key = network.fingerprint, picture.name, picture.sha256, *classes, *options["methods"]
    if key not in KNOWN:
        KNOWN[key] = explain(network, picture, classes, **options)
    return KNOWN[key]


class Page:
    """The page without a browser: what it was given, what it shows, what it has to download."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        streamlit = pytest.importorskip("streamlit", reason="streamlit is not installed")
        from streamlit.testing.v1 import AppTest

        self.given: Any = None
        self.downloads: dict[str, tuple[str, bytes]] = {}
        monkeypatch.setattr(streamlit, "file_uploader", lambda *_, **__: self.given)
        monkeypatch.setattr(streamlit, "download_button", self.keep)
        monkeypatch.setattr("cnnviz.attribution.explain.explain", explained_once)
        self.test = AppTest.from_file(str(PAGE), default_timeout=120)

    def keep(self, label: str, content: Any, name: str, *_: object, **__: object) -> None:
        self.downloads[label] = name, content.getvalue()

    def give(self, content: bytes, name: str) -> None:
        self.given = io.BytesIO(content)
        self.given.name = name

    def run(self) -> Any:
        self.test.run()
        assert not self.test.exception
        return self.test

    def start(self, network: str = "vgg16-mini") -> None:
        """Open the page and choose a network: by default the small one, which has its classes and is quick."""
        self.run()
        self.widget("selectbox", "Network").set_value(network)
        self.run()

    def widget(self, kind: str, label: str) -> Any:
        return next(one for one in getattr(self.test, kind) if one.label == label)

    def errors(self) -> list[str]:
        return [one.value.replace("\\", "") for one in self.test.error]

    def captions(self) -> list[str]:
        return [caption.value for caption in self.test.caption]

    def record(self, label: str, folder: Path) -> dict[str, Any]:
        name, content = self.downloads[label]
        (folder / name).write_bytes(content)
        return read_record(folder / name)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Iterator[Page]:
    page = Page(monkeypatch)
    yield page
    import streamlit

    streamlit.cache_resource.clear()
    streamlit.cache_data.clear()


def test_the_page_starts_with_vgg16_and_a_cat_and_its_classes_by_the_small_network(page: Page, tmp_path: Path) -> None:
    page.run()
    assert page.errors() == []
    assert page.widget("selectbox", "Network").value == "vgg16"
    assert page.widget("selectbox", "Layer").value == "block3_conv3"
    maps = page.record("Download these maps", tmp_path)
    assert maps["picture"] == {"name": "cat.jpg", "sha256": cnnviz.read_picture(CAT).sha256}
    assert (maps["network"]["name"], maps["network"]["weights"]) == ("vgg16", vgg16.BUILT_IN)
    assert any("The 16 most active of 256 channels, maps of 56 x 56." in caption for caption in page.captions())
    (told,) = [caption for caption in page.captions() if "classifier" in caption]
    assert "classes are by vgg16-mini" in told
    assert "`cnnviz weights vgg16` downloads it (528 MB)" in told
    assert "Prediction: vgg16-mini" in page.captions()
    assert page.record("Download the sheet", tmp_path)["network"]["name"] == "vgg16-mini"


def test_a_network_with_its_classifier_does_it_all(page: Page, mini: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mini.twin()
    whole.name = "vgg16"
    monkeypatch.setattr("cnnviz.models.load", lambda name, **_: {"vgg16": whole}[name])
    page.run()
    assert page.errors() == []
    assert "Prediction: vgg16" in page.captions()
    assert not any("classifier" in caption for caption in page.captions())


def test_from_a_picture_to_its_maps_a_filter_and_an_explanation(page: Page, mini: Network, tmp_path: Path) -> None:
    page.give(CAT.read_bytes(), "my cat.jpg")
    page.start()
    page.widget("selectbox", "Layer").set_value(LAYER)
    page.run()
    page.widget("slider", "Channels").set_value(5)
    page.run()
    maps = cnnviz.feature_maps(mini, CAT, LAYER)
    buttons = [one.label for one in page.test.button if one.label.startswith("filter ")]
    assert buttons == [f"filter {channel}" for channel in maps.order()[:5]]
    made = page.record("Download these maps", tmp_path)
    assert made["picture"] == {"name": "my cat.jpg", "sha256": maps.shown.sha256}
    assert made["settings"]["channels"] == maps.order()[:5]

    chosen = maps.order()[3]
    page.widget("button", f"filter {chosen}").click()
    page.run()
    assert page.widget("number_input", "Filter").value == chosen
    page.widget("button", f"Visualize filter {chosen}").click()
    page.run()
    made = page.record("Download this filter visualization", tmp_path)
    assert (made["command"], made["settings"]["layer"], made["settings"]["filters"]) == ("filters", LAYER, [chosen])
    compared = "168 simple patterns, 16 noise images, 9 photographs"
    assert any(compared in caption for caption in page.captions())

    page.widget("selectbox", "Method").set_value("saliency")
    page.widget("text_input", "Class to explain: any other").set_value("tabby")
    page.widget("slider", "Opacity of the overlay").set_value(30)
    page.run()
    made = page.record("Download the sheet", tmp_path)
    tabby = cnnviz.class_index(mini, "tabby")
    assert (made["settings"]["methods"], made["settings"]["classes"]) == (["saliency"], [tabby])
    row = list(KNOWN.values())[-1].rows()[0]
    assert (row["method"], row["label"]) == ("saliency", "tabby")
    evidence = next(caption for caption in page.captions() if caption.startswith("deletion"))
    for name in ("deletion", "insertion"):
        area, random = row[f"{name}_auc"], row[f"{name}_auc_random"]
        assert f"{name} AUC {area:.1%} (random {100 * random:.1f}" in evidence
    assert page.record("Download the overlay", tmp_path)["opacity"] == 0.3


def test_a_class_visualization_and_a_dream(
    page: Page, mini: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamlit.delta_generator import DeltaGenerator

    page.start()
    page.widget("text_input", "Class to visualize: any other").set_value("goldfish")
    page.run()
    page.widget("button", "Visualize the class").click()
    page.run()
    made = page.record("Download this class visualization", tmp_path)
    assert (made["command"], made["settings"]["classes"]) == ("classimage", [cnnviz.class_index(mini, "goldfish")])
    layer, seen = page.widget("selectbox", "Layer").value, list[str]()
    note = DeltaGenerator.progress
    monkeypatch.setattr(
        DeltaGenerator, "progress", lambda at, share, text="": (seen.append(text), note(at, share, text))[1]
    )
    page.widget("button", f"Run DeepDream on {layer}").click()
    page.run()
    steps = [text for text in seen if text.startswith("Step ")]
    assert steps == [f"Step {step} of 18" for step in range(2, 19)], "the page shows every step but the first"
    made = page.record("Download the DeepDream", tmp_path)
    assert (made["command"], made["settings"]["layer"]) == ("dream", layer)
    assert page.errors() == []


def test_an_optimization_can_be_stopped_and_the_page_goes_on(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.start()
    drawing = next(one for one in page.test.button if one.label.startswith("Visualize filter"))
    on = Optimization.go_on

    def stopped_after_a_look(optimization: Optimization, steps: int) -> bool:
        if len(optimization.curve) > 1:
            optimization.stop()
        return on(optimization, steps)

    monkeypatch.setattr(Optimization, "go_on", stopped_after_a_look)
    drawing.click()
    page.run()
    assert any(caption.startswith("Stopped after 9 steps") for caption in page.captions())
    assert "Download this filter visualization" not in page.downloads
    page.widget("slider", "Channels").set_value(2)
    page.run()
    assert len([one for one in page.test.button if one.label.startswith("filter ")]) == 2


def test_faults_are_told_in_one_line(page: Page, mini: Network) -> None:
    page.give(CAT.read_bytes()[:5000], "cat.jpg")
    page.run()
    assert [error.split(":")[0] for error in page.errors()] == ["cat.jpg is damaged and cannot be read"]
    page.give(CAT.read_bytes(), "cat.jpg")
    page.run()
    page.widget("text_input", "Class to explain: any other").set_value("tabbi")
    page.run()
    with pytest.raises(cnnviz.CnnvizError) as told:
        cnnviz.class_index(mini, "tabbi")
    assert page.errors() == [str(told.value)]


def test_random_weights_are_announced(page: Page) -> None:
    page.start()
    page.widget("checkbox", "Random weights, for comparison").check()
    page.run()
    assert page.widget("selectbox", "Network").value == "vgg16-mini"
    assert "RANDOM weights" in page.test.warning[0].value
    assert "resnet18" in page.widget("selectbox", "Network").options


def test_without_streamlit_the_command_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "streamlit", None)
    result = run("app")
    assert result.exit_code == 1
    assert result.stderr == "Error: Streamlit is not installed; `pip install 'cnnviz[app]'` does that.\n"


def test_a_taken_port_is_told(run: Run) -> None:
    pytest.importorskip("streamlit", reason="streamlit is not installed")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run("app", "--port", port, "--no-browser")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: cannot serve at port {port}: ")


class Served:
    """`cnnviz app` as a process.

    Its port is bound here too, without listening, so that nobody else gets it.
    """

    def __init__(self, folder: Path, command: Sequence[str] = ("-m", "cnnviz")) -> None:
        self.held = socket.socket()
        self.held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.held.bind(("127.0.0.1", 0))
        self.port = self.held.getsockname()[1]
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, "app", "--no-browser", "--port", str(self.port)],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs inherit deafness
            )
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves the app from a folder in which somebody has put settings for Streamlit."""
    pytest.importorskip("streamlit", reason="streamlit is not installed")
    (tmp_path / ".streamlit").mkdir()
    settings = '[server]\naddress = "0.0.0.0"\nenableCORS = false\nenableXsrfProtection = false\n'
    (tmp_path / ".streamlit" / "config.toml").write_text(settings)
    servers: list[Served] = []

    def start(*command: str) -> Served:
        servers.append(Served(tmp_path, command or ("-m", "cnnviz")))
        return servers[-1]

    yield start
    for server in servers:
        server.end(signal.SIGTERM)
        server.held.close()


ENDLESS = f"""
import time
from cnnviz.web import app_parts

class Endless(app_parts.Optimization):
    def go_on(self, steps):
        if self.about[2] != "block5_conv3" or not self.curve or self.over:
            return super().go_on(steps)
        time.sleep(0.05)
        return True

if app_parts.Optimization.__name__ != "Endless":
    app_parts.Optimization = Endless
with open({str(PAGE)!r}) as file:
    exec(compile(file.read(), {str(PAGE)!r}, "exec"))
"""


@pytest.fixture
def endless(serve: Callable[..., Served], tmp_path: Path) -> Served:
    """The app, where an image for a filter of one layer takes for ever unless it is stopped."""
    place = tmp_path / "package"
    (place / "web").mkdir(parents=True)
    (place / "web" / "app.py").write_text(ENDLESS)
    command = "import cnnviz; from cnnviz.__main__ import main; cnnviz.__file__ = {!r}; main()"
    return serve("-c", command.format(str(place / "__init__.py")))


def saved(window: Any, label: str, folder: Path) -> dict[str, Any]:
    with window.expect_download() as download:
        window.get_by_role("button", name=label).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return read_record(path)


def still(window: Any) -> None:
    """Wait until the page is as it will stay."""
    window.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def take(window: Any, name: str, choice: str) -> None:
    """Choose from a list; it closes when something beneath it moves, and is then opened again."""
    box, option = window.get_by_role("combobox", name=name), window.get_by_role("option", name=choice, exact=True)
    for _ in range(30):
        still(window)
        box.fill("")
        box.fill(choice)
        window.wait_for_timeout(500)
        if option.is_visible():
            option.click()
            return
    raise AssertionError(f"{choice} could not be chosen as {name}")


def pick(window: Any, network: Network, layer: str) -> None:
    """Choose a network and one of its layers, and wait for its maps."""
    _, count, height, width = cnnviz.feature_maps(network, CAT, layer).maps.shape
    take(window, "Network", network.name)
    window.get_by_text("classes are by vgg16-mini").wait_for(state="hidden")  # until then the layers are another's
    still(window)
    take(window, "Layer", layer)
    window.get_by_text(f"of {count} channels, maps of {width} x {height}").wait_for()
    still(window)


def test_the_main_path_in_a_browser(browser: Any, endless: Served, mini: Network, tmp_path: Path) -> None:
    wrong: list[str] = []
    requests: list[str] = []
    window = browser.new_page(viewport={"width": 1280, "height": 4000})  # high enough never to scroll
    window.set_default_timeout(90_000)
    window.on("pageerror", lambda error: wrong.append(str(error)))
    window.on("dialog", lambda dialog: (wrong.append("a dialog"), dialog.dismiss()))
    window.on("request", lambda request: requests.append(request.url))
    window.on("websocket", lambda opened: requests.append(opened.url.replace("ws:", "http:")))
    window.goto(f"http://127.0.0.1:{endless.port}/")
    picture = {"name": MARKDOWN, "mimeType": "image/jpeg", "buffer": CAT.read_bytes()}
    window.locator("input[type=file]").set_input_files(files=[picture])
    window.get_by_text(f"{MARKDOWN}, 451 x 300 px", exact=True).wait_for()
    window.get_by_text(f"Attribution: {cnnviz.predict(mini, CAT)[0].label}").wait_for()
    window.get_by_text("classes are by vgg16-mini").wait_for()
    pick(window, mini, LAYER)
    place = window.locator('[class*="st-key-map-"]').nth(2)
    number = place.get_by_role("button").inner_text().removeprefix("filter ")
    seen = place.locator("img").bounding_box()
    window.mouse.click(seen["x"] + seen["width"] / 2, seen["y"] + seen["height"] / 2)  # the map itself
    window.get_by_role("button", name=f"Visualize filter {number}").click()
    window.get_by_text("noise images").wait_for()
    still(window)
    assert window.get_by_test_id("stVegaLiteChart").count() == 1, "nothing of what was shown on the way is left"
    made = saved(window, "Download this filter visualization", tmp_path)
    assert made["settings"]["filters"] == [int(number)]
    made = saved(window, "Download these maps", tmp_path)
    assert made["picture"] == {"name": MARKDOWN, "sha256": cnnviz.read_picture(CAT).sha256}
    pick(window, mini, "block5_conv3")
    window.get_by_role("button", name="Visualize filter").click()
    window.get_by_role("button", name="Stop").click()
    window.get_by_text("Stopped after").wait_for()
    window.set_viewport_size({"width": 390, "height": 4000})
    still(window)
    boxes = window.locator("[data-testid=stMain] :is(img, button, input, canvas, p)").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect()).filter(box => box.width).map(box => [box.x, box.right])"
    )
    assert len(boxes) > 50
    assert min(left for left, _ in boxes) >= 0
    assert max(right for _, right in boxes) <= 390, "a phone shows all of it"
    assert wrong == []
    assert len(requests) > 10
    own = (f"http://127.0.0.1:{endless.port}/", f"blob:http://127.0.0.1:{endless.port}/", "data:")
    assert [url for url in requests if not url.startswith(own)] == []
    assert endless.end(signal.SIGINT) == 130
    assert "Traceback" not in endless.log.read_text()
    assert endless.log.read_text().endswith("interrupted\n")
    assert not endless.answers()


def test_the_server_is_for_this_machine_and_ends_with_its_command(serve: Callable[..., Served]) -> None:
    """Whatever Streamlit's settings in the folder say, where somebody else may have put them."""
    served = serve()
    place = f"{served.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{place}")} == {f"0100007F:{place}"}
    for address in (
        "/",
        "/_stcore/health",
        "/_stcore/host-config",
        "/_stcore/upload_file/a/b",
        "/media/../../etc/passwd",
    ):
        for method in ("GET", "OPTIONS", "PUT"):
            asked = http.client.HTTPConnection("127.0.0.1", served.port, timeout=600)
            asked.request(method, address, headers={"Origin": "http://evil.example"})
            answer = asked.getresponse()
            assert answer.getheader("Access-Control-Allow-Origin") not in ("*", "http://evil.example"), address
            assert b"root:" not in answer.read()
            assert not (method == "PUT" and answer.status < 400), address
            asked.close()
    assert served.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert not served.answers()
