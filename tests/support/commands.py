"""Command lines as tests run them."""

from collections.abc import Callable

from click.testing import Result

Run = Callable[..., Result]
