"""cnnviz: see inside convolutional networks.

    network = cnnviz.load("vgg16-mini")
    maps = cnnviz.feature_maps(network, "cat.jpg", "block4_conv2")
    maps.sheet().save("maps.png")

Names are imported when they are first used, so that ``import cnnviz`` costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnviz.architecture import Layer, layer_table
    from cnnviz.ascent import ascend
    from cnnviz.attribution import attribute
    from cnnviz.classes import class_index
    from cnnviz.comparison import Comparison, compare_methods
    from cnnviz.dreams import dream, invert
    from cnnviz.errors import CnnvizError
    from cnnviz.explainers import Target
    from cnnviz.explaining import explain
    from cnnviz.explanations import Explanation
    from cnnviz.featuremaps import FeatureMaps, feature_maps
    from cnnviz.galleries.building import build_gallery
    from cnnviz.hooks import activations
    from cnnviz.kernels import kernel_sheet
    from cnnviz.models import load
    from cnnviz.network import Network, wrap
    from cnnviz.pictures import Picture, read_picture
    from cnnviz.predictions import Prediction, predict
    from cnnviz.provenance import read_record
    from cnnviz.report import Report, make_report
    from cnnviz.sheets import Sheet, Tile, sheet
    from cnnviz.synthesis import Synthesis, class_images, filter_images, maximize

_HOMES = {
    "architecture": ("Layer", "layer_table"),
    "classes": ("class_index",),
    "comparison": ("Comparison", "compare_methods"),
    "errors": ("CnnvizError",),
    "featuremaps": ("FeatureMaps", "feature_maps"),
    "galleries.building": ("build_gallery",),
    "dreams": ("dream", "invert"),
    "hooks": ("activations",),
    "kernels": ("kernel_sheet",),
    "models": ("load",),
    "network": ("Network", "wrap"),
    "pictures": ("Picture", "read_picture"),
    "predictions": ("Prediction", "predict"),
    "provenance": ("read_record",),
    "report": ("Report", "make_report"),
    "sheets": ("Sheet", "Tile", "sheet"),
    "synthesis": ("Synthesis", "class_images", "filter_images", "maximize"),
    "ascent": ("ascend",),
    "attribution": ("attribute",),
    "explainers": ("Target",),
    "explaining": ("explain",),
    "explanations": ("Explanation",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CnnvizError",
    "Comparison",
    "Explanation",
    "FeatureMaps",
    "Layer",
    "Network",
    "Picture",
    "Prediction",
    "Report",
    "Sheet",
    "Synthesis",
    "Target",
    "Tile",
    "__version__",
    "activations",
    "ascend",
    "attribute",
    "build_gallery",
    "class_images",
    "class_index",
    "compare_methods",
    "dream",
    "explain",
    "feature_maps",
    "filter_images",
    "invert",
    "kernel_sheet",
    "layer_table",
    "load",
    "make_report",
    "maximize",
    "predict",
    "read_picture",
    "read_record",
    "sheet",
    "wrap",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("cnnviz")
    if name in _HOME:
        return getattr(import_module(f"cnnviz.{_HOME[name]}"), name)
    raise AttributeError(f"module 'cnnviz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
