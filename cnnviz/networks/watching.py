"""Watching the functions of torch that run, and what they give."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode


class Watching(TorchFunctionMode):
    """While active, is told of every function of torch, once it has run."""

    def note(self, name: str, result: Any, given: Sequence[Any]) -> None:
        """Be told of a call.

        Args:
            name: of the function, less what tells its versions apart: "softmax" of ``torch.softmax`` and
                ``Tensor.softmax``, "add" of ``Tensor.add_`` and ``Tensor.__add__``.
            given: what it was called with, by position and then by name.
        """
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").partition(".")[0].strip("_")
        self.note(name, result, (*args, *(kwargs or {}).values()))
        return result
