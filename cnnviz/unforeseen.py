"""What PyTorch and code of others raise, made into errors of cnnviz's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cnnviz.errors import CnnvizError
from cnnviz.machine import fault_of_machine

FORWARD_ERRORS = (Exception, SystemExit)  # what a forward pass, code of others, may raise: all but an interruption
USUAL = (RuntimeError, AssertionError, ValueError, IndexError, TypeError)  # for pictures of a size it cannot take


@contextmanager
def instead_of_unforeseen(error: Callable[[str], CnnvizError]) -> Iterator[None]:
    """Raise an error of cnnviz's, made of the first line of what PyTorch or code of others raises.

    Where the machine failed, its own error stays.
    """
    try:
        yield
    except CnnvizError:
        raise
    except FORWARD_ERRORS as unforeseen:
        if fault_of_machine(unforeseen):
            raise
        said = str(unforeseen).strip().partition("\n")[0].rstrip(".")
        kind = "" if said and isinstance(unforeseen, USUAL) else type(unforeseen).__name__
        raise error(": ".join(filter(None, [kind, said]))) from unforeseen
