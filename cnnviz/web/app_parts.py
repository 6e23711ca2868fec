"""What `cnnviz app` does besides drawing its page: images within limits, ascents in pieces, tiles, overlays.

Nothing here knows of Streamlit, and nothing touches the disk.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from cnnviz.attribution.explanations import Explanation
from cnnviz.attribution.methods import METHODS
from cnnviz.errors import PictureError
from cnnviz.features.maps import FeatureMaps
from cnnviz.models import builtin, vgg16, zoo
from cnnviz.networks.network import Network
from cnnviz.networks.overlays import map_over, placed
from cnnviz.pictures.colours import FEATURES, Pixels, colour_map, drawable, painted, painted_between
from cnnviz.pictures.reading import Picture, picture_from_bytes
from cnnviz.pictures.sheets import Sheet
from cnnviz.synthesis.dreams import ImageProgress, dream_steps
from cnnviz.synthesis.jobs import SynthesisProgress
from cnnviz.synthesis.judgement import as_shown
from cnnviz.synthesis.maximization import class_job, collect, filter_job
from cnnviz.synthesis.parametrisations import Parametrisation
from cnnviz.synthesis.results import Synthesis

MEGABYTES, MEGAPIXELS = 20, 24  # of an image from outside
TILE = 110  # pixels a side; the least to which maps are enlarged
SAMPLE = Path(__file__).with_name("cat.jpg")  # to look at before somebody gives an image
CLASS = "class"  # in the place of a layer: filters are then the network's classes
LONGEST_SIDE, PREVIEW = 900, 420  # pixels, of images on the page, and of the one that was given


def uploaded(content: bytes, name: str) -> Picture:
    """An image that somebody handed in, under the base name of its file.

    Raises:
        PictureError: if it is no image, or too large.
    """
    name = Path(name).name
    if len(content) > MEGABYTES * 2**20:
        raise PictureError(f"{name} is {len(content) / 2**20:.1f} MB; give an image of at most {MEGABYTES} MB.")
    picture = picture_from_bytes(content, name)
    size = picture.image.width * picture.image.height / 1e6
    if size > MEGAPIXELS:
        raise PictureError(
            f"{name} has {size:.1f} megapixels; give an image of at most {MEGAPIXELS}, or make it smaller first."
        )
    return picture


def networks(*, untrained: bool) -> list[str]:
    """Networks that can be had without a download, those that are built in first; all if they need no training."""
    built_in = [vgg16.NAME, builtin.NAME]
    others = (name for name in zoo.names() if name not in built_in)
    return built_in + [name for name in others if untrained or zoo.is_there(zoo.cache_file(name))]


def thumbnail(picture: Picture) -> Image.Image:
    """The image, small enough to stand beside the prediction."""
    small = picture.image.copy()
    small.thumbnail((PREVIEW, PREVIEW), Image.Resampling.LANCZOS)
    return small


def tiles(feature_maps: FeatureMaps, channels: list[int]) -> list[Pixels]:
    """The maps of channels in the colours of their sheet, every value a square."""
    maps = feature_maps.maps[0, channels].numpy()
    axes = (1, 2) if maps[0].size > 1 else None  # a single value has no range of its own
    low, high = maps.min(axes, keepdims=True), maps.max(axes, keepdims=True)
    high = np.where(high > low, high, low + 1)  # what is flat is dark
    factor = max(1, -(-TILE // max(maps.shape[1:])))
    return list(painted_between(maps, low, high, FEATURES).repeat(factor, 1).repeat(factor, 2))


def blend(explanation: Explanation, record: Mapping[str, object], opacity: float) -> Sheet:
    """The first map over the image, of an opacity in [0, 1].

    Args:
        record: of the explanation's sheet.
    """
    (attribution, *_), shown = explanation.attributions, explanation.shown
    picture = _limited(shown.pictures[0])
    values = placed(attribution.heat, shown, (picture.height, picture.width))
    over = painted(values, attribution.scale, signed=METHODS[attribution.method].signed)
    mixed: Pixels = np.rint(np.asarray(picture) * (1 - opacity) + over * opacity).astype(np.uint8)
    return Sheet(mixed, {**record, "command": "app", "opacity": opacity})


def map_overlay(feature_maps: FeatureMaps, channel: int) -> Pixels:
    """The map of a channel over the image, from its minimum, which is transparent, to its maximum."""
    shown = feature_maps.shown
    limited = _limited(shown.pictures[0])
    return map_over(shown, feature_maps.maps[0, channel], (limited.height, limited.width))


def colour_bar(cmap: str) -> Pixels:
    """The colours of a map, lowest to highest."""
    return colour_map(cmap)[None].repeat(12, 0)


def _limited(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return image


class Optimization:
    """An image for one filter or class, made a few steps at a time, that can be looked at and left on the way.

    Its first step is made at once. Errors as `cnnviz.filter_images`.

    Attributes:
        about: network, weights, layer and filter; or network, weights, "class" and its number.
        steps: how many a try has.
        tries: how many have begun.
        curve: scores of the try at hand, as the network sees the image on the way.
        share: how much is done, in [0, 1].
        over: whether there is nothing more to come.
    """

    def __init__(self, network: Network, layer: str, number: int) -> None:
        self.about = network.name, network.weights, layer, number
        if layer == CLASS:
            self._job = job = class_job(network, number, preset="draft", batch=1)
        else:
            self._job = job = filter_job(network, layer, number, preset="draft", batch=1)
        self.steps, self.tries, self.share = job.steps, 0, 0.0
        self.curve: list[float] = []
        self._image: Parametrisation
        self.over = False
        self._steps, self._lock = job.run(), Lock()  # a new run of the page may overlap with the last one's end
        self.go_on(1)  # so that there is an image to look at

    def go_on(self, steps: int) -> bool:
        """Make some steps; whether there are more to come. Errors as `cnnviz.filter_images`."""
        with self._lock:
            for _ in range(0 if self.over else steps):
                progress = next(self._steps, None)
                if progress is None:
                    self.over = True
                    break
                self._note(progress)
        return not self.over

    def _note(self, progress: SynthesisProgress) -> None:
        self._progress, self.share = progress, progress.share
        if progress.step is not None:
            self._image = progress.step.image
            if progress.tries > self.tries:
                self.curve, self.tries = [], progress.tries
            self.curve.append(progress.step.scores[0].item())

    def stop(self) -> None:
        with self._lock:
            self.over = True

    def pixels(self) -> Pixels:
        """The image so far, or what came of it: (H, W, 3)."""
        if self.over and self.synthesis:
            return drawable(self.synthesis.images[0])
        return drawable(as_shown(self._image()).cpu()[0])

    @cached_property
    def synthesis(self) -> Synthesis | None:
        """What is finished when it is over, if anything is."""
        return collect(self._job, self._progress) if self._progress.finished else None

    @cached_property
    def png(self) -> bytes:
        """The sheet of what is finished."""
        assert self.synthesis is not None
        return self.synthesis.sheet().png()


class Dream:
    """A DeepDream, made step by step; its first step is made at once. Errors as `cnnviz.dream`.

    Attributes:
        progress: how far it is.
    """

    def __init__(self, network: Network, picture: Picture, layer: str, *, size: int | None, steps: int) -> None:
        self._steps, self._lock = dream_steps(network, picture, layer, size=size, steps=steps), Lock()
        self.progress: ImageProgress = next(self._steps)

    def go_on(self) -> bool:
        """Make a step; whether there are more to come. Errors as `cnnviz.dream`."""
        with self._lock:
            if self.progress.synthesis is None:
                self.progress = next(self._steps)
            return self.progress.synthesis is None

    def pixels(self) -> Pixels:
        """The image so far, or what came of it: (H, W, 3)."""
        synthesis = self.progress.synthesis
        return drawable(as_shown(self.progress.image()).cpu()[0] if synthesis is None else synthesis.images[0])

    @cached_property
    def png(self) -> bytes:
        """The sheet of what came of it."""
        assert self.progress.synthesis is not None
        return self.progress.synthesis.sheet().png()
