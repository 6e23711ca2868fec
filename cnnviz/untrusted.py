"""What others may have written: JSON that is read with suspicion, numbers that are numbers."""

import json
from typing import Any

DEEPEST = 32  # levels of lists and objects; cnnviz writes six


def parsed(text: str | bytes) -> Any:
    """What JSON says, if Python can go through it, show it and write it again.

    Raises:
        ValueError: whatever is wrong with it.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for each in level for inner in _inside(each)]
    if level:
        raise ValueError("it is nested too deeply")
    json.dumps(value, ensure_ascii=False).encode()  # halves of characters could not be
    return value


def _inside(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def is_whole(value: object, least: int = 0, below: int = 2**63) -> bool:
    """Whether this is an integer in [least, below)."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < below


def is_real(value: object) -> bool:
    """Whether this is a number that can be computed with: neither NaN nor larger than any that a network gives."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def is_list(value: object, kind: Any, length: int | None = None) -> bool:
    """Whether this is a list of so many (any number, if not said) of what `kind` tells."""
    return isinstance(value, list) and length in (None, len(value)) and all(map(kind, value))


def is_text(value: object) -> bool:
    return isinstance(value, str)
