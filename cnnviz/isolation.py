"""What the threads of a process have in common, used without getting into each other's way and left as it was.

PyTorch's and NumPy's random generators have one user at a time. What is the same for all who want it, as quiet is, they
have together, and nobody waits.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from functools import partial, wraps
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

Given = ParamSpec("Given")
Result = TypeVar("Result")
_generators = RLock()


@contextmanager
def seeded(seed: int, device: "torch.device | None" = None) -> Iterator[None]:
    """Draw from the generators that everybody uses; other threads wait meanwhile.

    What is drawn on a graphics card or another device comes from the processor's generator all the same, so that it is
    the same numbers everywhere.
    """
    import torch

    elsewhere = device is not None and device.type != "cpu"
    with _generators, torch.random.fork_rng(devices=[]), _draws_here() if elsewhere else nullcontext():
        kept = np.random.get_state()  # noqa: NPY002 - captum's GradientSHAP takes no other
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every graphics card too
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(kept)  # noqa: NPY002


def _draws_here(
    is_elsewhere: "Callable[[torch.device], bool]" = lambda device: device.type != "cpu",
) -> "TorchDispatchMode":
    """A mode in which operations that draw do so on the processor, and their results go where they belong.

    Args:
        is_elsewhere: whether a device is another one than the processor.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten, tree_map_only

    class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if torch.Tag.nondeterministic_seeded not in func.tags:
                return func(*args, **kwargs)
            tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
            device = tensors[0].device if tensors else kwargs.get("device") or torch.device("cpu")
            known_here = torch._C._dispatch_has_computed_kernel_for_dispatch_key(func.name(), "CPU")
            if not (known_here and is_elsewhere(device)):
                return func(*args, **kwargs)
            given, named = tree_map_only(torch.Tensor, torch.Tensor.cpu, (args, kwargs))
            drawn = func(*given, **(named if named.get("device") is None else named | {"device": torch.device("cpu")}))
            written = [place for place, argument in enumerate(func._schema.arguments) if argument.is_write]
            for place in written:
                args[place].copy_(given[place])
            return args[0] if 0 in written else tree_map_only(torch.Tensor, lambda result: result.to(device), drawn)

    return Draws()  # type: ignore[no-untyped-call]


class Together:
    """A state of the whole process: the first one in enters it, the last one out leaves it."""

    def __init__(self, state: Callable[[], AbstractContextManager[None]]) -> None:
        self._state, self._lock, self._inside = state, Lock(), 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._entered = self._state()
                self._entered.__enter__()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._entered.__exit__(None, None, None)


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _in_float32() -> Iterator[None]:
    """float32 numbers are multiplied as such, whatever a caller allows for speed (TF32, bfloat16), and twice alike."""
    import torch

    backends: Any = torch.backends  # of whose parts mypy does not know all
    units = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    units += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    precisions = [unit.fp32_precision for unit in units]
    older = _older_settings()
    benchmark, deterministic = backends.cudnn.benchmark, backends.cudnn.deterministic
    try:
        for setting in older:  # say the same, or whoever reads them meanwhile gets an error
            setting.write(setting.exact)
        for unit in units:
            unit.fp32_precision = "ieee"
        backends.cudnn.benchmark, backends.cudnn.deterministic = False, True
        yield
    finally:
        for setting in older:
            setting.write(setting.value)
        for unit, precision in zip(units, precisions, strict=True):
            unit.fp32_precision = "none"  # what a unit takes over from the others it goes on taking over
            if unit.fp32_precision != precision:
                unit.fp32_precision = precision
        backends.cudnn.benchmark, backends.cudnn.deterministic = benchmark, deterministic


class _Older(NamedTuple):
    """One of PyTorch's older settings for what `_in_float32` sets: its value, and the one for float32."""

    write: Callable[[Any], None]
    value: Any
    exact: Any


def _older_settings() -> list[_Older]:
    """Those that can be read: PyTorch refuses what newer settings contradict."""
    import torch

    cudnn, settings = torch.backends.cudnn, []
    with suppress(RuntimeError):
        settings.append(_Older(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision(), "highest"))
    with suppress(RuntimeError):
        settings.append(_Older(partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32, False))
    return settings


quiet, _products = Together(_without_warnings), Together(_in_float32)


@contextmanager
def exact() -> Iterator[None]:
    """Compute in the numbers that tensors hold: neither TF32 nor bfloat16 in their stead, nor a caller's autocast."""
    import torch

    with ExitStack() as left_aside, _products():
        for device in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device):
                left_aside.enter_context(torch.autocast(device, enabled=False))
        yield


def exactly(steps: Callable[Given, Iterator[Result]]) -> Callable[Given, Iterator[Result]]:
    """A generator that computes as `exact` has it, while whoever takes its steps computes as before."""

    @wraps(steps)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Iterator[Result]:
        running = steps(*args, **kwargs)
        with closing(running):  # type: ignore[type-var]  # it is a generator
            while True:
                with exact():
                    try:
                        result = next(running)
                    except StopIteration:
                        return
                yield result

    return run
