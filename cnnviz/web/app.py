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
from cnnviz.attribution.explanations import Explanation
from cnnviz.attribution.methods import METHODS
from cnnviz.attribution.suitability import able
from cnnviz.errors import CnnvizError
from cnnviz.features.maps import FeatureMaps, feature_maps
from cnnviz.models import builtin, load
from cnnviz.networks.devices import devices
from cnnviz.networks.layers import all_convolutions
from cnnviz.networks.network import RANDOM, Network
from cnnviz.networks.predictions import Prediction, predict, said
from cnnviz.pictures.reading import Picture
from cnnviz.pictures.sheets import Sheet
from cnnviz.web.app_parts import (
    MEGABYTES,
    MEGAPIXELS,
    SAMPLE,
    TILE,
    Climb,
    blend,
    networks,
    thumbnail,
    tiles,
    uploaded,
)

MOST, FIRST = 64, 16  # channels on the page, at most and at first
EVERY = 8  # steps between two looks at a climb
QUICK = "grad-cam"  # the method at first: the default one can take half a minute
NEEDS_ESCAPE = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]()<>#+-.!|~$:&"})
Key = tuple[str, str | None]  # a network: its name and its weights, as `load` takes them


def identity(picture: Picture) -> tuple[str, str]:
    return picture.name, picture.sha256


OWN_HASH: Any = {Picture: identity}


def page() -> None:
    st.set_page_config(page_title="cnnviz", layout="wide")
    st.title("cnnviz: inside a convolutional network")
    with faults_in_one_line():
        left, right = st.columns(2, gap="large")
        with left:
            picture = picture_input()
        with right:
            network = network_input()
            classifier = classifier_beside(network)
            ranks(picture, classifier)
        layer, climb, why = st.container(), st.container(), st.container()
        with layer, faults_in_one_line():
            layer_part(picture, network)
        with why, faults_in_one_line():
            why_part(picture, classifier)
        with climb, faults_in_one_line():
            climb_part()


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


@st.cache_resource(max_entries=4, show_spinner="Looking ...", hash_funcs=OWN_HASH)
def maps_of(network: Key, layer: str, picture: Picture) -> FeatureMaps:
    return feature_maps(loaded(*network)[0], picture, layer)


@st.cache_data(max_entries=4, show_spinner="Drawing the sheet ...", hash_funcs=OWN_HASH)
def maps_png(network: Key, layer: str, picture: Picture, channels: list[int]) -> bytes:
    return maps_of(network, layer, picture).sheet(channels).png()


@st.cache_data(max_entries=4, show_spinner=False, hash_funcs=OWN_HASH)
def ranks_of(network: Key, picture: Picture) -> list[Prediction]:
    return predict(loaded(*network)[0], picture, top=5, fit="whole")


def picture_input() -> Picture:
    way = st.radio("Image", ["a file", "the camera"], horizontal=True)
    if way == "the camera":
        given = st.camera_input("Take an image")
    else:
        given = st.file_uploader(f"Drop a picture: at most {MEGABYTES} MB and {MEGAPIXELS} megapixels. It stays here.")
    picture = opened(given.getvalue(), given.name) if given else opened(SAMPLE.read_bytes(), SAMPLE.name)
    image = picture.image
    st.image(thumbnail(picture), caption=plain(f"{picture.name}, {image.width} x {image.height} px"))
    if not given:
        st.caption("A cat to begin with, until you give an image.")
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
    st.caption(f"What {network[0]} takes the whole image for:")
    for prediction in ranks_of(network, picture):
        st.progress(prediction.probability or 0.0, text=plain(f"{first_name(prediction)}: {prediction.text}"))


def first_name(prediction: Prediction) -> str:
    """The first of the synonyms of a class."""
    return prediction.label.split(", ")[0]


def layer_part(picture: Picture, network: Key) -> None:
    st.header("What a layer sees", divider="gray")
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
    st.header("What its filter looks for", divider="gray")
    filter_input(ready, layer, key, maps.maps.shape[1])


def channel_grid(maps: FeatureMaps, channels: list[int], key: str) -> None:
    """The maps, most active first, with a button each that chooses the filter."""
    _, count, height, width = maps.maps.shape
    st.caption(
        f"The {len(channels)} most active of {count} maps of {width} x {height}, each in its own colours, from its"
        " lowest value to its highest, which stands beneath. Click one to see what its filter looks for."
    )
    with st.container(horizontal=True, gap="small"):
        for channel, pixels in zip(channels, tiles(maps, channels), strict=True):
            with st.container(width=TILE, gap=None):
                note = "silent" if maps.silent[0, channel] else f"{maps.maximum[0, channel]:.3g}"
                st.image(pixels, caption=plain(note), width=TILE)
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


def filter_input(network: Network, layer: str, key: str, count: int) -> None:
    """Which filter to draw an image for; the climb to it is in the session, and leaves it when another is chosen."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = int(st.number_input("Filter", 0, count - 1, key=key, width=180))
        wanted = st.button(f"Draw what filter {number} looks for", type="primary")
    climb: Climb | None = st.session_state.get("climb")
    if wanted:
        st.session_state["climb"] = Climb(network, layer, number)
    elif climb is None or climb.about != (network.name, network.weights, layer, number):
        st.session_state["climb"] = None
        st.caption("By gradient ascent on the filter's mean activation: the deeper the layer, the longer it takes.")


def climb_part() -> None:
    """The image that was asked for, its climb on the way."""
    climb: Climb | None = st.session_state.get("climb")
    if climb is None:
        return
    place = st.empty()
    if not climb.over:
        with place.container():
            try:
                watched(climb)
            except CnnvizError:
                st.session_state["climb"] = None
                raise
    with place.container():
        drawn(climb)


def watched(climb: Climb) -> None:
    """Climb to the end, and show how."""
    st.button("Stop", on_click=climb.stop)
    bar = st.progress(climb.share)
    left, right = st.columns(2, gap="large")
    image, chart = left.empty(), right.empty()
    while climb.go_on(EVERY):
        step = f"Try {climb.tries}: step {len(climb.curve)} of {climb.steps}, score {climb.curve[-1]:.3g}"
        bar.progress(climb.share, text=step)
        image.image(climb.pixels(), width=400)
        chart.line_chart(climb.curve, x_label="step", y_label="score", height=300)


def drawn(climb: Climb) -> None:
    """The finished image with its numbers, or how far it came."""
    left, right = st.columns(2, gap="large")
    synthesis = climb.synthesis
    curve = synthesis.curves[0].tolist() if synthesis else climb.curve
    right.line_chart(curve, x_label="step", y_label="score", height=300)
    right.caption("Scores as the network saw the image on the way, shifted about.")
    left.image(climb.pixels(), width=400)
    if synthesis is None:
        left.caption(f"Stopped after {len(curve)} steps: not judged, so there is nothing to download.")
        return
    row, (name, _, layer, number) = synthesis.rows()[0], climb.about
    score = f"Score {row['score']:.3g}, {row['status']}"
    best = synthesis.synthesized[0].judgement
    left.caption(f"{score}; the best of {synthesis.references} is {best.best} with {best.best_score:.3g}.")
    with left:
        download("Download this image", climb.png, None, f"{name}_{layer}_{number}")


def why_part(picture: Picture, network: Key) -> None:
    st.header("Why the class came out", divider="gray")
    left, middle, right = st.columns(3)
    methods = able(explainer(loaded(*network)[0]).structure)
    titles = {name: f"{METHODS[name].title} ({METHODS[name].cost})" for name in methods}
    first = methods.index(QUICK) if QUICK in methods else 0
    method = left.selectbox("Method", methods, index=first, format_func=titles.__getitem__)
    predictions = ranks_of(network, picture)
    listed = {str(ranked.index): f"{first_name(ranked)} ({ranked.text})" for ranked in predictions}
    index = middle.selectbox("Class", list(listed), format_func=listed.__getitem__)
    other = right.text_input("Or any other class", placeholder="name, number or WordNet id")
    explanation, sheet = explained(picture, network, method, other.strip() or index)
    shown_with_evidence(picture, explanation, sheet)


def explained(picture: Picture, network: Key, method: str, name: str) -> tuple[Explanation, Sheet]:
    """The explanation asked for, kept until another one is."""
    key = network, identity(picture), method, name
    kept, now = st.session_state.get("explained"), st.empty()

    def say(text: str, _: float) -> None:
        now.caption(plain(text))

    if kept is None or kept[0] != key:
        say("Explaining ...", 0)
        explanation = explain(loaded(*network)[0], picture, [name], methods=[method], watch=say)
        now.empty()
        kept = st.session_state["explained"] = key, explanation, explanation.sheet()
    return kept[1], kept[2]


def shown_with_evidence(picture: Picture, explanation: Explanation, sheet: Sheet) -> None:
    attribution, row = explanation.attributions[0], explanation.rows()[0]
    opacity = st.slider("Opacity of the map", 0, 100, 60, format="%d %%") / 100
    mixed = blend(explanation, sheet.made, opacity)
    st.image(mixed.pixels, width=600)
    signed = METHODS[attribution.method].signed
    colours = "Red speaks for the class, blue against it." if signed else "The brighter, the more it matters."
    flat = " The map is flat: no pixel matters." if attribution.flat else ""
    share = said(attribution.probability, attribution.score)
    st.markdown(f"**Why {plain(explanation.label(attribution))} ({share})?** {colours}{flat}")
    st.caption(
        f"Deletion {row['deletion_auc']:.1%} (random order {row['deletion_auc_random']:.1%}; lower is better),"
        f" insertion {row['insertion_auc']:.1%} (random order {row['insertion_auc_random']:.1%}; higher is better):"
        " the class's mean probability while pixels go, or come back, in the map's order."
    )
    with st.container(horizontal=True):
        download("Download this image", mixed.png(), picture, f"{attribution.method}_overlay")
        download("Download the sheet", sheet.png(), picture, attribution.method)


def download(label: str, content: bytes, picture: Picture | None, what: str) -> None:
    """A button for a PNG, which holds its record."""
    name = f"{Path(picture.name).stem}_{what}.png" if picture else f"{what}.png"
    st.download_button(label, io.BytesIO(content), name, "image/png", on_click="ignore")


page()
