"""A short way to `cnnviz.synthesis.objectives`: ``from cnnviz.objectives import channel``."""

from cnnviz.synthesis.objectives import *  # noqa: F403
