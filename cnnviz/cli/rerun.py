"""Making an image again from the record inside it, and saying whether it came out the same.

To add a command, write a function of a network, the record's settings and what the user supplies that gives a `Sheet`,
and enter it in `MAKERS`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from cnnviz.attribution.baselines import BASELINES, TENSOR
from cnnviz.attribution.comparison import compare_methods
from cnnviz.attribution.explain import explain
from cnnviz.attribution.means import mean_attribution
from cnnviz.attribution.regions import Region, read_mask, recorded
from cnnviz.errors import CnnvizError, PictureError, translated
from cnnviz.features.kernels import kernel_sheet
from cnnviz.features.maps import FeatureMaps, feature_maps
from cnnviz.files import is_list, is_real, is_text, is_whole
from cnnviz.networks.network import Network
from cnnviz.networks.provenance import fingerprint_in
from cnnviz.pictures.colours import drawable
from cnnviz.pictures.reading import Picture, content_of, picture_files, read_picture
from cnnviz.pictures.records import kind_of, same_image
from cnnviz.pictures.sheets import Layout, Sheet
from cnnviz.synthesis.dreams import dream, invert
from cnnviz.synthesis.maximization import class_images, filter_images, finished, objective_job, recorded_layer
from cnnviz.synthesis.recipes import RECIPES
from cnnviz.synthesis.results import Synthesis

EXACT, ASCENDED = 1e-3, 0.02  # how far results may differ by rounding; ascents carry it along
ASCENTS = ("filters", "objective", "classimage", "dream", "invert", "gallery")
MOST_THREADS = 1024
PARTS = {"command": str, "network": dict, "settings": dict, "versions": dict, "results": dict}


@dataclass(frozen=True)
class Supplied:
    """What a record does not hold: the user's image, the mask of its region, the folder of others that took part."""

    picture: Path | None = None
    folder: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class Verdict:
    """How an image that was made again compares.

    Attributes:
        identical: whether all pixels are the same, or all bytes in a PDF or SVG.
        close: whether its numbers are, but for rounding.
        difference: the largest relative difference of the numbers; None if there are none to compare.
        reasons: what is not as it was then, in words.
    """

    identical: bool
    close: bool
    difference: float | None
    reasons: tuple[str, ...]


def remake(record: Mapping[str, Any], network: Network, supplied: Supplied) -> Sheet:
    """The image that a record is about, made again.

    Raises:
        PictureError: if the record is of something that cannot be made again, something is missing for it, or the
            image supplied is another one.
    """
    check_record(record)
    own = _Own(network, record["settings"], _picture(record, supplied.picture), supplied.folder, supplied.mask)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(record.get("threads", before))  # sums over other parts would round otherwise
        with translated(_unfollowed):
            return MAKERS[record["command"]](own)
    finally:
        torch.set_num_threads(before)


def check_record(record: Mapping[str, Any]) -> None:
    """Notice a record that cnnviz did not write, or from which nothing can be made again.

    Raises:
        PictureError: says what is the matter.
    """
    for part, kind in PARTS.items():
        if not isinstance(record.get(part), kind):
            raise PictureError(f"this record has no {part}; only images by this version of cnnviz can be made again.")
    command, network, picture = record["command"], record["network"], record.get("picture")
    if command not in MAKERS:
        raise PictureError(f"images by {command!r} cannot be made again from their record: run what made them.")
    odd = [name for name, value in record["results"].items() if not is_list(value, _is_number)]
    odd += [name for name in ("name", "weights") if not is_text(network.get(name))]
    odd += [] if is_text(network.get("outputs") or "") else ["outputs"]
    odd += [name for name in ("mean", "std") if not is_list(network.get(name), is_real)]
    odd += [] if is_list(network.get("input_size"), lambda side: is_whole(side, 1), 2) else ["input_size"]
    odd += [] if is_whole(record.get("threads", 1), 1, MOST_THREADS + 1) else ["threads"]
    odd += [] if picture is None or (isinstance(picture, dict) and is_text(picture.get("name"))) else ["picture"]
    if odd:
        raise PictureError(f"the record's {odd[0]!r} makes no sense; it was not written by cnnviz.")


def _is_number(value: object) -> bool:
    """Whether NumPy takes this for a real number; some measures are NaN where there is nothing to measure."""
    return isinstance(value, float) or is_real(value)


def compared(record: Mapping[str, Any], content: bytes, again: Sheet) -> Verdict:
    """How an image that was made again compares with the file that holds the record, in that file's format."""
    reasons = tuple(_reasons(record, again.made))
    identical = same_image(content, replace(again, made=record).content(kind_of(content)))
    difference = _difference(record["results"], cast("Mapping[str, Any]", again.made["results"]))
    allowed = ASCENDED if record["command"] in ASCENTS else EXACT
    return Verdict(identical, identical or (difference is not None and difference <= allowed), difference, reasons)


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    """The largest difference, in shares of the largest number of its kind."""
    differences = []
    for name in before.keys() & now.keys():
        first, second = np.asarray(before[name], dtype=float), np.asarray(now[name], dtype=float)
        if first.shape != second.shape:
            return np.inf
        if first.size:
            differences.append(float(np.abs(first - second).max() / max(np.abs(first).max(), np.finfo(float).tiny)))
    return max(differences, default=None)


def _reasons(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    reasons = []
    if fingerprint_in(before["network"]) != fingerprint_in(now["network"]):
        reasons.append("the network has other weights")
    elif before["network"].get("structure") != now["network"]["structure"]:
        reasons.append("the network computes otherwise with the same weights")
    versions = [
        f"{name} {was}, now {now['versions'].get(name)}"
        for name, was in before["versions"].items()
        if now["versions"].get(name) != was
    ]
    reasons += [f"other versions: {'; '.join(versions)}"] if versions else []
    for name in ("device", "threads"):
        if before.get(name) != now[name]:
            reasons.append(f"{name}: {before.get(name)}, now {now[name]}")
    return reasons


def _unfollowed(reason: str) -> CnnvizError:
    return PictureError(f"this cannot be made again from its record ({reason}); was it written by this cnnviz?")


def _picture(record: Mapping[str, Any], path: Path | None) -> Picture | None:
    """The image that the record names, which the user supplies."""
    wanted = record.get("picture")
    if wanted is None:
        return None
    if not wanted.get("sha256"):
        raise PictureError(f"this was made from {wanted['name']}, which no file holds; it cannot be made again.")
    if path is None:
        raise PictureError(f"this was made from {wanted['name']}; say where that is with --image PATH.")
    picture = read_picture(path)
    if picture.sha256 != wanted["sha256"]:
        raise PictureError(f"{path} is not the {wanted['name']} that this was made from: its sha256 is another.")
    return picture


@dataclass(frozen=True)
class _Own:
    """What makers work with."""

    network: Network
    settings: Mapping[str, Any]
    supplied: Picture | None
    folder: Path | None
    mask: Path | None

    @property
    def picture(self) -> Picture:
        if self.supplied is None:
            raise PictureError("the record names no image, without which it cannot be made again.")
        return self.supplied

    def pictures(self, name: str) -> Path:
        """The folder that the record calls by its name, or of the image that it names."""
        if name != Path(name).name:
            raise PictureError(f"the record names {name!r}, and never would cnnviz have written a path.")
        if self.folder is None:
            raise PictureError(
                f"this was made with {name!r}; give that folder, or the one it lies in, as --folder PATH."
            )
        return self.folder

    def listed(self, images: Sequence[Mapping[str, Any]]) -> Iterator[Picture]:
        """The images that a mean was taken over, found in the folder by their sha256."""
        if self.folder is None:
            raise PictureError(f"this is a mean over {len(images)} images; give their folder as --folder PATH.")
        files = {hashlib.sha256(content_of(path)).hexdigest(): path for path in picture_files(self.folder)}
        for image in images:
            if image["sha256"] not in files:
                raise PictureError(f"{image['name']}, as it was then, is not in {self.folder}: no file has its sha256.")
            yield read_picture(files[image["sha256"]])

    @property
    def layout(self) -> Layout:
        """How the sheet was laid out, where not as usual."""
        return cast("Layout", self.settings.get("layout", {}))

    def region(self) -> Region | None:
        """The region whose class was explained: of a mask the record keeps the sha256 only."""
        region = self.settings.get("region")
        if not isinstance(region, str):
            return cast("Region | None", region)
        if self.mask is None:
            raise PictureError(
                "this was made with a mask, which its record does not hold; give it as --target-mask PATH."
            )
        mask = read_mask(self.mask)
        if recorded(mask) != region:
            raise PictureError(f"{self.mask} is not the mask that this was made with: its sha256 is another.")
        return mask

    def filters_layer(self) -> str:
        """The layer whose filters were drawn."""
        return recorded_layer(self.network, self.settings["layer"], self.settings.get("objective"))

    def ascent(self) -> dict[str, Any]:
        """How an ascent was set up."""
        settings = self.settings
        if settings["recipe"] not in RECIPES:
            raise PictureError("this was made by a recipe of one's own, which its record does not hold.")
        if isinstance(settings["batch"], list):
            raise PictureError("memory ran out while this was made; its parts cannot be made again together.")
        kept = {name: settings[name] for name in ("recipe", "steps", "batch", "precision", "tries", "seed")}
        folders = {name: self.pictures(settings[name]) for name in ("references", "spectrum") if settings.get(name)}
        return kept | {"size": tuple(settings["size"])} | folders


def _maps(own: _Own) -> Sheet:
    settings = own.settings
    shown: Any = {name: settings.get(name) for name in ("fit", "size", "grid")}
    overlay = bool(settings.get("overlay"))
    maps: FeatureMaps = feature_maps(own.network, own.picture, settings["layer"], **shown)
    return maps.sheet(
        settings["channels"], scale=settings["scale"], cmap=settings["cmap"], overlay=overlay, **own.layout
    )


def _filters(own: _Own) -> Sheet:
    numbers = list(dict.fromkeys(own.settings["filters"]))
    diverse = own.settings.get("diverse", 1)
    return filter_images(own.network, own.filters_layer(), numbers, diverse=diverse, **own.ascent()).sheet(**own.layout)


def _objective(own: _Own) -> Sheet:
    return finished(objective_job(own.network, str(own.settings["objective"]), **own.ascent())).sheet(**own.layout)


def _gallery(own: _Own) -> Sheet:
    settings = own.settings
    synthesis: Synthesis = filter_images(own.network, own.filters_layer(), [settings["filter"]], **own.ascent())
    return Sheet(drawable(synthesis.images[0]), {**synthesis.sheet().made, "command": "gallery", "settings": settings})


def _classes(own: _Own) -> Sheet:
    settings = own.settings
    return class_images(own.network, settings["classes"], alone=settings["alone"], **own.ascent()).sheet(**own.layout)


def _dream(own: _Own) -> Sheet:
    settings = own.settings
    kept = {name: settings[name] for name in ("size", "steps", "seed")}
    return dream(own.network, own.picture, settings["layer"], **kept).sheet(**own.layout)


def _invert(own: _Own) -> Sheet:
    settings = own.settings
    kept = {name: settings[name] for name in ("size", "steps", "seed")}
    return invert(own.network, own.picture, settings["layers"], **kept).sheet(**own.layout)


def _kernels(own: _Own) -> Sheet:
    return kernel_sheet(own.network, own.settings["layer"], **own.layout)


def _saliency(own: _Own) -> Sheet:
    settings = own.settings
    kept = {name: settings[name] for name in ("methods", "versus", "layer", "fit", "size", "seed", "checks")}
    name = settings["baseline"]
    if name.startswith(TENSOR):
        raise PictureError("this was made with a tensor as its baseline, of which its record holds the sha256 only.")
    baseline = name if name in BASELINES else own.pictures(name) / Path(name).name  # in that folder and nowhere else
    explained = partial(
        explain,
        own.network,
        classes=settings["classes"],
        region=own.region(),
        baseline=baseline,
        precise=settings.get("precise", True),  # as all earlier ones were
        **kept,
        **settings["options"],
    )
    look: Any = {name: settings[name] for name in ("alpha", "cmap") if name in settings}
    if "mean" in settings:
        return mean_attribution(map(explained, own.listed(settings["mean"]))).sheet(**look, **own.layout)
    explanation = explained(own.picture)
    if settings.get("overlay") is None:
        return explanation.sheet(**look, **own.layout)
    return explanation.overlay(settings["overlay"], **look)


def _evidence(own: _Own) -> Sheet:
    settings = own.settings
    kept = {name: settings[name] for name in ("methods", "grids", "pictures", "confidence", "size", "seed")}
    cells = tuple(settings.get("cells", (1, 2)))  # earlier grids were pairs
    return compare_methods(own.network, own.pictures(settings["folder"]), cells=cells, **kept).sheet()


MAKERS: Mapping[str, Callable[[_Own], Sheet]] = {
    "featuremaps": _maps,
    "filters": _filters,
    "objective": _objective,
    "gallery": _gallery,
    "classimage": _classes,
    "dream": _dream,
    "invert": _invert,
    "kernels": _kernels,
    "saliency": _saliency,
    "evidence": _evidence,
}
