"""cnnviz: see inside convolutional networks.

    network = cnnviz.load("vgg16")
    maps = cnnviz.feature_maps(network, "cat.jpg", "block4_conv2")
    maps.sheet().save("maps.png")

The public names are listed in `__init__.pyi`, once, and imported when they are first used: ``import cnnviz`` costs
nothing. To add one, add its import there.
"""

import lazy_loader

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("cnnviz")
    if name not in __all__:
        raise AttributeError(f"module 'cnnviz' has no attribute {name!r}")
    return _lazy(name)
