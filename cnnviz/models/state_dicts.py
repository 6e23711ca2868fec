"""The state dict of a network among all that a checkpoint holds, and which of its tensors is which of the network's.

Programs keep a state dict inside mappings and lists, beside optimizers and averages, and put prefixes before its names.
What counts is whether its names and shapes are the network's. Where those of several state dicts are, a complete one
comes before a part, and then the one that only keys in `USUAL` lead to, the first of these before the others; if none
is such, it cannot be told which is meant. A part is not taken where another state dict shares more names.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Place = tuple[str, ...]
Prepare = Callable[[dict[str, Tensor]], dict[str, Tensor]]

USUAL = ("state_dict", "model", "model_state_dict", "net", "params")  # keys under which programs keep the weights
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # PyTorch's, anywhere in names
COUNT = "num_batches_tracked"  # of batch norm, for training alone
CONTAINERS = (dict, list, tuple)
DEEPEST = 32  # levels of mappings and lists that are searched
LONGEST = 8  # parts of a prefix


@dataclass(frozen=True)
class Match:
    """A state dict and a network, tensor by tensor.

    Attributes:
        place: the keys that lead to the state dict, and the parts of the prefix.
        own: all tensors of the network.
        given: all tensors of the state dict.
        names: of tensors of the network that are given, and what the state dict calls them.
        inside: how many names in the state dict start with the prefix.
    """

    place: tuple[str, ...]
    own: State
    given: State
    names: Mapping[str, str]
    inside: int

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """What the state dict has for the network, by the network's names."""
        return {name: self.given[here] for name, here in self.names.items()}

    @cached_property
    def missing(self) -> list[str]:
        """What gets no numbers: neither by its own name, nor as another name of what does. Counts need none."""
        numbers = {name: _numbers(name, tensor) for name, tensor in self.own.items()}
        filled = {numbers[name] for name in self.names}
        return sorted(name for name in self.own if numbers[name] not in filled and not name.endswith(COUNT))

    @property
    def nothing_extra(self) -> bool:
        """Whether all tensors are the network's; or those with its prefix, if it is whole, beside a loss or teacher."""
        return len(self.names) == len(self.given) or (self.inside == len(self.names) and not self.missing)

    @property
    def fits(self) -> bool:
        return bool(self.names) and self.nothing_extra and not any(self.faults.values())

    @cached_property
    def faults(self) -> dict[str, list[str]]:
        """Names of tensors that do not fit, by what is wrong with them."""
        taken = set(self.names.values())
        other = [name for name, tensor in self.tensors.items() if self.own[name].shape != tensor.shape]
        alike = [name for name, tensor in self.tensors.items() if self.own[name].shape == tensor.shape]
        return {
            "extra": [] if self.nothing_extra else [name for name in self.given if name not in taken],
            "of another shape": other,
            "no real numbers": [name for name in alike if not _converts(self.tensors[name], self.own[name])],
        }

    @property
    def classes(self) -> tuple[int, int] | None:
        """How many classes the state dict and the network have, if nothing but these two numbers is at fault."""
        extra, other, unreal = self.faults.values()
        shapes = [(self.tensors[name].shape, self.own[name].shape) for name in other]
        last = next((name for name in reversed([*self.own]) if self.own[name].ndim > 1), None)
        if extra or unreal or last not in other or any(given[1:] != own[1:] for given, own in shapes):
            return None
        same = len({(given[:1], own[:1]) for given, own in shapes}) == 1
        return (len(self.tensors[last]), len(self.own[last])) if same else None


def state_dicts(content: object) -> Iterator[tuple[Place, dict[str, Tensor]]]:
    """Every mapping of names to tensors, the outermost first, with the keys that lead to it."""
    waiting: deque[tuple[Place, Any]] = deque([((), content)] if isinstance(content, CONTAINERS) else [])
    known = set()
    while waiting:
        place, value = waiting.popleft()
        if id(value) in known or len(place) > DEEPEST:
            continue
        known.add(id(value))
        # An OrderedDict from a file may have whatever it likes as its attribute `items`.
        entries: list[tuple[Any, Any]] = [*dict.items(value)] if isinstance(value, dict) else [*enumerate(value)]
        if entries and all(map(_is_entry, entries)):
            yield place, dict(entries)
        else:
            waiting.extend(((*place, str(key)), inner) for key, inner in entries if isinstance(inner, CONTAINERS))


def matches(own: State, content: object, prepare: Prepare) -> list[Match]:
    """What fits the network: one match; several, if it cannot be told which is meant; or the closest, if none fits.

    Args:
        own: the tensors of the network.
        content: what a file holds, with a state dict in it.
        prepare: changes the tensors of a state dict first.
    """
    every = [match for place, tensors in state_dicts(content) for match in _readings(place, own, prepare(tensors))]
    closest = max(every, key=lambda match: (len(match.names), len(match.given)))
    fitting = [match for match in every if match.fits]
    parts = [match for match in fitting if len(match.names) == len(closest.names)]
    best = [match for match in fitting if not match.missing] or parts
    usual = [match for match in best if set(match.place) <= set(USUAL)]
    if usual:
        return [min(usual, key=lambda match: [USUAL.index(key) for key in match.place])]
    return best or [closest]


def _readings(place: Place, own: State, tensors: State) -> list[Match]:
    """What the names in a state dict may mean: as they are, if that fits, or else without wrappers."""
    read: list[Match] = []
    for shorten in (str, _without_wrappers):
        names, given = ({shorten(name): name for name in state} for state in (own, tensors))
        if len(names) == len(own) and len(given) == len(tensors) and not any(match.fits for match in read):
            shortened = {name: tensors[before] for name, before in given.items()}
            read += _with_prefixes(place, own, names, shortened)
    return read


def _with_prefixes(place: Place, own: State, names: Mapping[str, str], given: State) -> list[Match]:
    """Matches of the names as they are or, if none is the network's, without the prefixes that hide most of its names.

    Args:
        names: those to be looked for, and the network's names for the same.
    """
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    inside: Counter[str] = Counter()
    for name in given:
        for prefix, rest in _splits(name):
            inside[prefix] += 1
            if rest in names:
                groups[prefix][names[rest]] = name
    most = max(map(len, groups.values()), default=0)
    prefixes = [prefix for prefix, group in groups.items() if len(group) == most]
    prefixes = [""] if "" in groups or not groups else prefixes
    parts = {prefix: [part for part in prefix.split(".") if part and part not in WRAPPERS] for prefix in prefixes}
    return [Match((*place, *parts[prefix]), own, given, groups[prefix], inside[prefix]) for prefix in prefixes]


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """A name as prefix and rest: "a.b.c" is "" and "a.b.c", "a." and "b.c", "a.b." and "c"."""
    prefix, rest = "", name
    for _ in range(LONGEST + 1):
        yield prefix, rest
        part, dot, rest = rest.partition(".")
        if not dot:
            return
        prefix += part + dot


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _numbers(name: str, tensor: Tensor) -> object:
    """The same for names of the same numbers."""
    return name if tensor.is_meta or not tensor.numel() else tensor.data_ptr()


def _is_entry(entry: tuple[object, object]) -> bool:
    """Whether this is the name of a tensor that has numbers, one for each place."""
    name, tensor = entry
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        return False
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def _converts(given: Tensor, own: Tensor) -> bool:
    """Whether numbers keep their meaning in the place of these: scaled ones, as int8 weights are, do not."""
    return not given.is_complex() and (given.is_floating_point() or not own.is_floating_point())
