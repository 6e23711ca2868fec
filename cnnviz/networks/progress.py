"""How far long work is, in one shape for all of it: whoever does the work yields this, whoever waits draws it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far long work is.

    Attributes:
        done, total: in the work's own measure, such as steps; the total grows if something has to be done again.
        finished, count: results that can be had, of how many.
        batch: how many at a time from here on, where memory just ran out for more.
    """

    done: int
    total: int
    finished: int
    count: int
    batch: int | None = None

    @property
    def share(self) -> float:
        """How much is done, in [0, 1]."""
        return self.done / max(1, self.total)
