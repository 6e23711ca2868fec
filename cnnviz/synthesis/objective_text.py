"""Objectives in words: ``block4_conv3:12 + 0.5 * block4_conv3:88@center``, parsed and never evaluated.

A term is a layer and the number of a filter; behind ``@`` stands the position of a single neuron, ``center`` or row and
column. Terms may have a factor, and are added and subtracted; + and - stand between spaces, for names hold hyphens.
"""

import re
from dataclasses import dataclass

from cnnviz.errors import ShapeError, UnknownNameError

_TERM = re.compile(
    r"(?:(?P<factor>\d+(?:\.\d*)?|\.\d+)\s*\*\s*)?"
    r"(?P<layer>[A-Za-z0-9_][\w.-]*(?::pre)?):(?P<filter>\d{1,6})"
    r"(?:@(?:(?P<center>cent(?:er|re))|(?P<row>-?\d{1,5}),\s*(?P<column>-?\d{1,5})))?"
)
EXAMPLE = "block4_conv3:12 + 0.5 * block4_conv3:88@center"


@dataclass(frozen=True)
class Term:
    """A filter of a layer, or one of its neurons, with its weight in the sum.

    Attributes:
        position: (row, column) of a neuron; None for the whole map.
        center: whether it is the neuron in the middle.
    """

    factor: float
    layer: str
    filter: int
    position: tuple[int, int] | None = None
    center: bool = False

    def place(self, rows: int, columns: int) -> tuple[slice, slice] | None:
        """The neuron's place in a map of so many rows and columns; None for the whole map.

        Raises:
            ShapeError: if the map has no such position.
        """
        row, column = (rows // 2, columns // 2) if self.center else self.position or (None, None)
        if row is None or column is None:
            return None
        if not (-rows <= row < rows and -columns <= column < columns):
            raise ShapeError(f"{self.layer} has maps of {rows} x {columns} here; there is no position {row}, {column}.")
        row, column = row % rows, column % columns
        return slice(row, row + 1), slice(column, column + 1)


def parse_objective(text: str) -> tuple[Term, ...]:
    """The terms of a sum.

    Raises:
        UnknownNameError: if the text is none; says what is wrong with it.
    """
    parts = re.split(r"\s([+-])\s", f" {text.strip()}")
    signs = ["+", *parts[1::2]]
    return tuple(_term(sign, part.strip()) for sign, part in zip(signs, parts[::2], strict=True))


def _term(sign: str, text: str) -> Term:
    negative = text.startswith("-")
    match = _TERM.fullmatch(text.removeprefix("-").strip())
    if not match:
        raise UnknownNameError(f"{text!r} is no term of an objective; write it like {EXAMPLE}.")
    factor = float(match["factor"] or 1) * (-1 if negative != (sign == "-") else 1)
    position = None if match["row"] is None else (int(match["row"]), int(match["column"]))
    return Term(factor, match["layer"], int(match["filter"]), position, match["center"] is not None)
