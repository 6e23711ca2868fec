"""What can go wrong by a caller's hand.

    CnnvizError
    ├── UnknownNameError   no such network, layer or class; says which names are close
    ├── ModelError         a network that cannot be built or wrapped
    ├── WeightsError       weights that cannot be had, read or fitted to their network
    ├── LayerError         a layer that never ran, or gives no feature maps
    ├── ShapeError         a tensor, size or channel number that does not fit
    ├── PictureError       a file that is no picture, or one that cannot be used
    └── OutputError        a result that cannot be written where it was asked for

Every message says what was given, what was expected and what to do next, on one line: the command line prints it as it
is. A broken invariant of cnnviz itself is an `assert`, not one of these.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CnnvizError(Exception):
    """Any of the errors below."""


class UnknownNameError(CnnvizError, LookupError):
    pass


class ModelError(CnnvizError):
    pass


class WeightsError(CnnvizError):
    pass


class LayerError(CnnvizError):
    pass


class ShapeError(CnnvizError, ValueError):
    pass


class PictureError(CnnvizError):
    pass


class OutputError(CnnvizError):
    pass


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: "; did you mean 'conv1'?" or a full stop."""
    as_written = {each.lower(): each for each in known}
    close = [as_written[each] for each in get_close_matches(name.lower(), as_written, n=3, cutoff=0.4)]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
