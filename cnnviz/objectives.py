"""A short way to `cnnviz.synthesis.objectives`, which says more: ``from cnnviz.objectives import channel``."""

from cnnviz.synthesis.objectives import *  # noqa: F403
from cnnviz.synthesis.objectives import __all__ as __all__
