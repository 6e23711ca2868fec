"""The page of `cnnviz app`, a script for Streamlit: it asks, calls the library and shows what comes back.

Whatever is done on the page, Streamlit breaks off this script and runs it anew, in another thread. So what takes long
comes last, is kept for the next run, and goes on where it was. To add a part, write a function and call it in `page`.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import streamlit as st

from cnnviz.attribution.explain import explain
from cnnviz.attribution.explainer import explainer
from cnnviz.attribution.explanations import Explanation, curve_lines
from cnnviz.attribution.methods import METHODS
from cnnviz.attribution.suitability import able
from cnnviz.errors import CnnvizError
from cnnviz.features.maps import FeatureMaps, feature_maps
from cnnviz.models import builtin, load
from cnnviz.networks.devices import devices
from cnnviz.networks.layers import all_convolutions
from cnnviz.networks.network import RANDOM, Network
from cnnviz.networks.predictions import Prediction, class_index, predict
from cnnviz.pictures.colours import FEATURES, SIGNED, UNSIGNED
from cnnviz.pictures.reading import Picture
from cnnviz.pictures.sheets import Sheet
from cnnviz.web.app_parts import (
    CLASS,
    MEGABYTES,
    MEGAPIXELS,
    SAMPLE,
    Dream,
    Optimization,
    blend,
    colour_bar,
    map_overlay,
    networks,
    thumbnail,
    tiles,
    uploaded,
)

MOST, FIRST = 64, 16  # channels on the page, at most and at first
EVERY = 8  # steps between two looks at an optimization
WIDTH, DREAM_WIDTH = 400, 600  # pixels, of images
DREAM, DREAM_STEPS = 160, 6  # pixels of the short side, steps at each scale
FILTER = "filter"  # as `CLASS`, the key of an optimization in the session
QUICK = "grad-cam"  # the method at first: the default one can take half a minute
STYLE = """<style>
.st-key-maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(8rem, 30%), 1fr)); gap: 0.75rem; }
[class*="st-key-map-"] { position: relative; }
[class*="st-key-map-"] * { position: static; }
[class*="st-key-map-"] [data-testid="stElementToolbar"] { display: none; }
[class*="st-key-map-"] button::after { content: ""; position: absolute; inset: 0; }
[class*="st-key-map-"] img { image-rendering: pixelated; }
</style>"""  # the button of a map spreads over all of it
NEEDS_ESCAPE = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]()<>#+-.!|~$:&"})
Key = tuple[str, str | None]  # a network: its name and its weights, as `load` takes them


def identity(picture: Picture) -> tuple[str, str]:
    return picture.name, picture.sha256


OWN_HASH: Any = {Picture: identity}


def page() -> None:
    st.set_page_config(page_title="cnnviz", layout="wide")
    st.html(STYLE)
    st.title("cnnviz: inside a convolutional network")
    with faults_in_one_line():
        left, right = st.columns(2, gap="large")
        with left:
            picture = picture_input()
        with right:
            network = network_input()
            classifier = classifier_beside(network)
            ranks(picture, classifier)
        maps, filter_image, classes, class_image, dreamt, why = (st.container() for _ in range(6))
        with maps, faults_in_one_line():
            layer = layer_part(picture, network)
        with classes, faults_in_one_line():
            class_input(picture, classifier)
        with dreamt, faults_in_one_line():
            dream_input(picture, network, layer)
        with why, faults_in_one_line():
            why_part(picture, classifier)
        with filter_image, faults_in_one_line():
            optimization_part(FILTER)
        with class_image, faults_in_one_line():
            optimization_part(CLASS)
        with dreamt, faults_in_one_line():
            dream_part(picture, network, layer)


@contextmanager
def faults_in_one_line() -> Iterator[None]:
    """Tell a caller's faults in one line, as the command line does."""
    try:
        yield
    except CnnvizError as error:
        st.error(plain(" ".join(str(error).split())))


def plain(text: str) -> str:
    """Text that Streamlit's Markdown leaves as it is: a file's name may be anything."""
    return text.translate(NEEDS_ESCAPE)


@st.cache_resource(max_entries=3, show_spinner="Reading the network ...")
def loaded(name: str, weights: str | None) -> tuple[Network, list[str]]:
    """The network and its convolutions."""
    network = load(name, weights=weights, device=devices()[0], progress=False)
    network.fetch = None  # nobody who plays with a page expects it to download half a gigabyte
    return network, all_convolutions(network)


@st.cache_data(ttl=60, show_spinner=False)
def offered(untrained: bool) -> list[str]:
    return networks(untrained=untrained)


@st.cache_resource(max_entries=2, show_spinner="Reading the image ...")
def opened(content: bytes, name: str) -> Picture:
    return uploaded(content, name)


@st.cache_resource(max_entries=4, show_spinner="Computing feature maps ...", hash_funcs=OWN_HASH)
def maps_of(network: Key, layer: str, picture: Picture) -> FeatureMaps:
    return feature_maps(loaded(*network)[0], picture, layer)


@st.cache_data(max_entries=4, show_spinner="Drawing the sheet ...", hash_funcs=OWN_HASH)
def maps_png(network: Key, layer: str, picture: Picture, channels: list[int]) -> bytes:
    return maps_of(network, layer, picture).sheet(channels).png()


@st.cache_data(max_entries=4, show_spinner=False, hash_funcs=OWN_HASH)
def ranks_of(network: Key, picture: Picture) -> list[Prediction]:
    return predict(loaded(*network)[0], picture, top=5)


def picture_input() -> Picture:
    way = st.radio("Image", ["a file", "the camera"], horizontal=True)
    if way == "the camera":
        given = st.camera_input("Take an image")
    else:
        limits = f"at most {MEGABYTES} MB and {MEGAPIXELS} megapixels"
        given = st.file_uploader(f"An image file: {limits}. It stays on this machine.")
    picture = opened(given.getvalue(), given.name) if given else opened(SAMPLE.read_bytes(), SAMPLE.name)
    image = picture.image
    st.image(thumbnail(picture), caption=plain(f"{picture.name}, {image.width} x {image.height} px"))
    if not given:
        st.caption("Example image, until you give one.")
    return picture


def network_input() -> Key:
    place = st.container()
    untrained = st.checkbox("Random weights, for comparison", help="Any network of torchvision's, without training.")
    name = place.selectbox(
        "Network", offered(untrained), key="network", help="Those built in, and those whose weights are here."
    )
    if untrained:
        st.warning(f"{name} has RANDOM weights (seed 0): nothing it shows was learned.")
    return name, RANDOM if untrained else None


def classifier_beside(network: Key) -> Key:
    """The network itself, or the small one in its place where its classifier is not on this machine."""
    name, _ = network
    if not loaded(*network)[0].missing:
        return network
    st.caption(
        f"Maps and filters are {name}'s. Its classifier is not on this machine, so classes are by {builtin.NAME}:"
        f" `cnnviz weights {name}` downloads it (528 MB); then start the app again."
    )
    return builtin.NAME, None


def ranks(picture: Picture, network: Key) -> None:
    st.caption(f"Prediction: {network[0]}")
    for prediction in ranks_of(network, picture):
        st.progress(prediction.probability or 0.0, text=plain(f"{first_name(prediction)}: {prediction.text}"))


def first_name(prediction: Prediction) -> str:
    """The first of the synonyms of a class."""
    return prediction.label.split(", ")[0]


def layer_part(picture: Picture, network: Key) -> str:
    """The maps of a layer and the choice of a filter; gives the layer."""
    st.header("Feature maps", divider="gray")
    ready, layers = loaded(*network)
    left, right = st.columns(2, gap="large")
    layer = left.selectbox("Layer", layers, index=len(layers) // 2, key=f"layer of {network[0]}")
    maps = maps_of(network, layer, picture)
    most = max(2, min(MOST, maps.maps.shape[1]))
    channels = maps.order()[: right.slider("Channels", 1, most, min(FIRST, most))]
    key = f"filter of {network[0]} {layer}"
    st.session_state.setdefault(key, channels[0])
    channel_grid(maps, channels, key)
    download("Download these maps", maps_png(network, layer, picture, channels), picture, layer)
    st.header("Feature visualization", divider="gray")
    filter_input(ready, maps, key)
    return layer


def channel_grid(maps: FeatureMaps, channels: list[int], key: str) -> None:
    """The maps, most active first; a click on one chooses its filter."""
    _, count, height, width = maps.maps.shape
    st.caption(
        f"The {len(channels)} most active of {count} channels, maps of {width} x {height}. Colours: per-map minimum to"
        " per-map maximum, which stands beneath. Click a map to select its filter."
    )
    with st.container(key="maps"):
        for channel, pixels in zip(channels, tiles(maps, channels), strict=True):
            with st.container(key=f"map {channel}", gap=None):
                note = "inactive" if maps.silent[0, channel] else f"max {maps.maximum[0, channel]:.3g}"
                st.image(pixels, caption=plain(note), width="stretch")
                kind: Any = "primary" if channel == st.session_state[key] else "secondary"
                st.button(
                    f"filter {channel}",
                    key=f"{key} {channel}",
                    type=kind,
                    width="stretch",
                    on_click=choose,
                    args=(key, channel),
                )


def choose(key: str, channel: int) -> None:
    st.session_state[key] = channel


def filter_input(network: Network, maps: FeatureMaps, key: str) -> None:
    """Which filter to visualize, with its map; when another is chosen, the optimization leaves the session."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = int(st.number_input("Filter", 0, maps.maps.shape[1] - 1, key=key, width=180))
        wanted = st.button(f"Visualize filter {number}", type="primary")
    st.image(map_overlay(maps, number), width=WIDTH)
    low, high = maps.minimum[0, number].item(), maps.maximum[0, number].item()
    scale(FEATURES, f"Feature map of filter {number}, overlay: activation {low:.3g} to {high:.3g}")
    optimization_for(FILTER, network, maps.layer, number, wanted)


def scale(cmap: str, caption: str) -> None:
    with st.container(width=WIDTH):
        st.image(colour_bar(cmap), caption=plain(caption), width="stretch")


def optimization_for(key: str, network: Network, layer: str, number: int, wanted: bool) -> None:
    """Begin an optimization, or forget the one that is for something else."""
    optimization: Optimization | None = st.session_state.get(key)
    if wanted:
        st.session_state[key] = Optimization(network, layer, number)
    elif optimization is not None and optimization.about != (network.name, network.weights, layer, number):
        st.session_state[key] = None


def class_input(picture: Picture, network: Key) -> None:
    st.header("Class visualization", divider="gray")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        index = class_choice(picture, network, "Class to visualize")
        wanted = st.button("Visualize the class", type="primary")
    st.caption("An image that maximizes logit - 0.5 x runner-up logit. It is no photograph of the class.")
    ready = loaded(*network)[0]
    optimization_for(CLASS, ready, CLASS, class_index(ready, index), wanted)


def class_choice(picture: Picture, network: Key, label: str) -> str:
    """A class: one of the most probable, or any other."""
    listed = {str(ranked.index): f"{first_name(ranked)} ({ranked.text})" for ranked in ranks_of(network, picture)}
    index = st.selectbox(label, list(listed), format_func=listed.__getitem__)
    other = st.text_input(f"{label}: any other", placeholder="name, number or WordNet id")
    return other.strip() or index


def optimization_part(key: str) -> None:
    """The image that was asked for, the optimization on the way."""
    optimization: Optimization | None = st.session_state.get(key)
    if optimization is None:
        return
    if not optimization.over:
        try:
            watched(optimization)
        except CnnvizError:
            st.session_state[key] = None
            raise
        st.rerun()  # what was shown on the way goes: it would stay beside the finished image
    drawn(optimization)


def watched(optimization: Optimization) -> None:
    """Optimize to the end, and show how."""
    st.button("Stop", on_click=optimization.stop, key=f"stop {optimization.about}")
    bar = st.progress(optimization.share)
    left, right = st.columns(2, gap="large")
    image, chart = left.empty(), right.empty()
    while optimization.go_on(EVERY):
        curve = optimization.curve
        step = f"Attempt {optimization.tries}: step {len(curve)} of {optimization.steps}, score {curve[-1]:.3g}"
        bar.progress(optimization.share, text=step)
        image.image(optimization.pixels(), width=WIDTH)
        chart.line_chart(curve, x_label="step", y_label="score", height=300)


def drawn(optimization: Optimization) -> None:
    """The finished image with its numbers, or how far it came."""
    left, right = st.columns(2, gap="large")
    synthesis = optimization.synthesis
    curve = synthesis.curves[0].tolist() if synthesis else optimization.curve
    right.line_chart(curve, x_label="step", y_label="score", height=300)
    right.caption("Optimization curve (with random jitter).")
    left.image(optimization.pixels(), width=WIDTH)
    if synthesis is None:
        left.caption(f"Stopped after {len(curve)} steps: not evaluated, so there is nothing to download.")
        return
    row, (name, _, layer, number) = synthesis.rows()[0], optimization.about
    best = synthesis.synthesized[0].judgement
    left.caption(
        f"Score {row['score']:.3g}, {row['status']}; best reference: {best.best}, {best.best_score:.3g}"
        f" (of {synthesis.references})."
    )
    with left:
        what = "class" if layer == CLASS else "filter"
        download(f"Download this {what} visualization", optimization.png, None, f"{name}_{layer}_{number}")


def dream_input(picture: Picture, network: Key, layer: str) -> None:
    st.header("DeepDream", divider="gray")
    st.caption(f"The image, changed to increase the activations of {layer}: the layer chosen above.")
    if st.button(f"Run DeepDream on {layer}", type="primary"):
        st.session_state["dream"] = (network, layer, identity(picture)), None


def dream_part(picture: Picture, network: Key, layer: str) -> None:
    """The dream that was asked for, while it is of this image and layer: on the way, and when it is finished."""
    about, dream = st.session_state.get("dream") or (None, None)
    if about != (network, layer, identity(picture)):
        return
    bar, image = st.empty(), st.empty()
    try:
        dream = dream or begun_dream(picture, network, layer)
        st.session_state["dream"] = about, dream
        while dream.go_on():
            progress = dream.progress
            bar.progress(progress.share, text=f"Step {progress.done} of {progress.total}")
            image.image(dream.pixels(), width=DREAM_WIDTH)
    except CnnvizError:
        st.session_state["dream"] = None
        raise
    bar.empty()
    image.image(dream.pixels(), width=DREAM_WIDTH)
    download("Download the DeepDream", dream.png, picture, f"dream_{layer}")


def begun_dream(picture: Picture, network: Key, layer: str) -> Dream:
    ready = loaded(*network)[0]
    with st.spinner("Beginning the DeepDream ..."):
        return Dream(ready, picture, layer, size=DREAM if ready.takes_any_size else None, steps=DREAM_STEPS)


def why_part(picture: Picture, network: Key) -> None:
    st.header("Attribution", divider="gray")
    methods = able(explainer(loaded(*network)[0]).structure)
    titles = {name: f"{METHODS[name].title} ({METHODS[name].cost})" for name in methods}
    first = methods.index(QUICK) if QUICK in methods else 0
    with st.container(horizontal=True):
        method = st.selectbox("Method", methods, index=first, format_func=titles.__getitem__)
        name = class_choice(picture, network, "Class to explain")
    explanation, sheet = explained(picture, network, method, name)
    shown_with_evidence(picture, explanation, sheet)


def explained(picture: Picture, network: Key, method: str, name: str) -> tuple[Explanation, Sheet]:
    """The attribution asked for, kept until another one is."""
    key = network, identity(picture), method, name
    kept, now = st.session_state.get("explained"), st.empty()

    def say(text: str, _: float) -> None:
        now.caption(plain(text))

    if kept is None or kept[0] != key:
        say("Computing the attribution ...", 0)
        explanation = explain(loaded(*network)[0], picture, [name], methods=[method], watch=say)
        now.empty()
        kept = st.session_state["explained"] = key, explanation, explanation.sheet()
    return kept[1], kept[2]


def shown_with_evidence(picture: Picture, explanation: Explanation, sheet: Sheet) -> None:
    attribution = explanation.attributions[0]
    st.markdown(f"**Attribution: {plain(explanation.described(attribution))}**")
    opacity = st.slider("Opacity of the overlay", 0, 100, 60, format="%d %%") / 100
    mixed = blend(explanation, sheet.made, opacity)
    st.image(mixed.pixels, width=600)
    most = f"{attribution.scale:.3g}"
    if METHODS[attribution.method].signed:
        scale(SIGNED, f"decreases the class score (-{most}) to increases it (+{most})")
    else:
        scale(UNSIGNED, f"importance (unsigned), 0 to {most}")
    flat = " The map is constant: no pixel is more important than another." if attribution.flat else ""
    verdicts = "; ".join(curve_lines(attribution.evidence))
    st.caption(f"{verdicts}. Deletion: lower is better; insertion: higher is better.{flat}")
    with st.container(horizontal=True):
        download("Download the overlay", mixed.png(), picture, f"{attribution.method}_overlay")
        download("Download the sheet", sheet.png(), picture, attribution.method)


def download(label: str, content: bytes, picture: Picture | None, what: str) -> None:
    """A button for a PNG, which holds its record."""
    name = f"{Path(picture.name).stem}_{what}.png" if picture else f"{what}.png"
    st.download_button(label, io.BytesIO(content), name, "image/png", on_click="ignore")


page()
