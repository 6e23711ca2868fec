"""Classes by the names people use for them."""

from cnnviz.errors import ModelError, ShapeError, UnknownNameError, did_you_mean
from cnnviz.network import Network

SHOWN = 8  # how many of several matching names an error lists


def class_index(network: Network, name: str | int) -> int:
    """The class that a name stands for.

    Names are tried in this order, capitals or not: the class's number, its WordNet id, any of its synonyms as a whole
    ("tabby cat"), a word of a synonym and the beginning of one; the last two if they are of one class only.

    Args:
        name: such as 30, "30", "n02123045", "tabby", "Tabby cat", "tabb".

    Raises:
        ShapeError: if there is no class of that number.
        UnknownNameError: if no class has that name, which then says what is close; or if several might be meant.
    """
    text = str(name).strip().lower()
    if text.lstrip("-").isdecimal():
        return _by_number(network, int(text))
    if network.labels is None:
        raise UnknownNameError(
            f"{network.name} has no class names; give the number of a class, or names with --labels."
        )
    synonyms = {
        index: [synonym.strip().lower() for synonym in label.split(",")] for index, label in enumerate(network.labels)
    }
    if network.wnids is not None and text in network.wnids:
        return network.wnids.index(text)
    exact = [index for index, names in synonyms.items() if text in names]
    worded = [index for index, names in synonyms.items() if any(text in each.split() for each in names)]
    begun = [index for index, names in synonyms.items() if text and any(each.startswith(text) for each in names)]
    for found in (exact, worded, begun):
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(f"{network.label(index)} ({index})" for index in found[:SHOWN])
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise UnknownNameError(f"{name!r} may be {listed}{more}; give the number of the class you mean.")
    hint = did_you_mean(text, [each for names in synonyms.values() for each in names])
    raise UnknownNameError(f"{network.name} knows no class {name!r}{hint} List them with `cnnviz classes`.")


def check_labels(network: Network, classes: int) -> None:
    """Notice class names that belong to another network.

    Raises:
        ModelError: if there are not as many as classes.
    """
    if network.labels is not None and len(network.labels) != classes:
        given = f"{len(network.labels)} class names for {classes} classes"
        raise ModelError(f"{network.name} has {given}; give one name for each.")


def _by_number(network: Network, index: int) -> int:
    count = len(network.labels) if network.labels is not None else None
    if index < 0 or (count is not None and index >= count):
        known = f"its {count} classes are 0 to {count - 1}" if count else "classes are counted from 0"
        raise ShapeError(f"{network.name} has no class {index}; {known}.")
    return index
