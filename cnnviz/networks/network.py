"""Network: an image classifier as the rest of cnnviz sees it.

Whatever it was made from, a `Network` takes images in [0, 1], is frozen and in eval mode, overwrites no tensor it has
given away, and names its layers. `wrap` makes one of any ``nn.Module``; `cnnviz.load` makes the known ones.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cnnviz.errors import (
    FORWARD_ERRORS,
    CnnvizError,
    LayerError,
    ModelError,
    ShapeError,
    UnknownNameError,
    WeightsError,
    did_you_mean,
    fault_of_machine,
    translated,
)
from cnnviz.networks.devices import check_device
from cnnviz.networks.forward import as_rows, run
from cnnviz.networks.layer_names import PRE, LayerName, as_listed, layer_names, split_use, with_use
from cnnviz.networks.missing_weights import MissingWeightsError, guard, missing_weights
from cnnviz.networks.module_copies import frozen_copy, structural_copy, unwrapped
from cnnviz.networks.outputs import Ends, Outputs, check_outputs, noticed
from cnnviz.networks.published_labels import published_labels

RANDOM = "random"
Result = TypeVar("Result")
Fetch = Callable[["Network"], None]
_fetching = Lock()


class Originals(WeakKeyDictionary[nn.Module, str]):
    """Paths of the modules that a network's are copies of, as long as somebody else keeps them; never pickled."""

    def __reduce__(self) -> tuple[type["Originals"], tuple[()]]:
        return Originals, ()


@dataclass(frozen=True)
class Crop:
    """A network's published preprocessing: short side resized, then the centre cut out. Lengths in pixels."""

    resize: int
    side: int
    interpolation: str  # the name of a ``PIL.Image.Resampling``


class Network(nn.Module):
    """A frozen classifier over images in [0, 1].

    Made by `wrap` or `cnnviz.load`, not by its constructor.

    Attributes:
        name: what the user calls it.
        input_size: (height, width) in pixels of the images it was made for.
        channels: colour channels of its images, 1 or 3 as a rule.
        labels: a name per class, synonyms separated by commas; or None where none are known.
        wnids: a WordNet id per class, where they are known.
        weights: where the weights came from, for people.
        weights_sha256: of the file of weights that was given, in hexadecimal; None where none was.
        outputs_told: what its outputs are, where somebody has said it; see `outputs`.
        crop: its published preprocessing, or None where there is none.
        computes_in: the kind of numbers that its module is given, if not that of its first weights.
        fetch: gets the weights that are missing, where there is a way to get them; see `completed`.
        names: what people call its layers, beside PyTorch's names; for the VGG family ``block4_conv2`` (after the
            ReLU), ``block4_conv2:pre`` (before it) and ``block4_pool``.
        layers: its modules, by PyTorch's qualified names (``features.19``) and by `names`.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        input_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        labels: Sequence[str] | None,
        wnids: Sequence[str] | None,
        weights: str,
        crop: Crop | None,
        channels: int,
        any_size: bool | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__()
        self.module, self.channels = module, channels
        self.name, self.input_size, self.weights, self.crop = name, input_size, weights, crop
        self.weights_sha256: str | None = None
        self.outputs_told = outputs
        self.computes_in: torch.dtype | None = None
        self.fetch: Fetch | None = None
        self._hashed: tuple[tuple[int, ...], str] | None = None
        # Here from the start: a thread that copies these attributes walks over them.
        self._any_size, self._outputs, self._twin = any_size, outputs, False
        self._independent: bool | None = None
        self._uses: Counter[str] | None = None
        self._normalisation: tuple[Sequence[float], Sequence[float]] | None = None
        self._originals = Originals()
        self.labels = tuple(labels) if labels is not None else None
        self.wnids = tuple(wnids) if wnids is not None else None
        self.register_buffer("mean", _per_channel(mean, self.channels, "mean"), persistent=False)
        self.register_buffer("std", _per_channel(std, self.channels, "std"), persistent=False)
        modules = {path: part for path, part in module.named_modules() if path}
        self.names: Mapping[str, LayerName] = layer_names(module)
        self.layers: Mapping[str, nn.Module] = modules | {
            name: modules[layer.module] for name, layer in self.names.items()
        }

    mean: Tensor
    std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (N, classes), logits as a rule (see `outputs`), of images (N, C, H, W) with values in [0, 1].

        Weights of its classifier that are not there yet are fetched first.

        Raises:
            ShapeError: if the images have another number of dimensions or channels.
            WeightsError: if there are weights missing and they cannot be had.
        """
        if self.fetch is not None and not images.is_meta:
            self._fetch_missing()  # first, or another thread would do it under the way
        return self.completed(partial(self._forward, images), "the output")

    def _forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != self.channels:
            given = "x".join(map(str, images.shape))
            raise ShapeError(f"{self.name} takes images of shape N x {self.channels} x H x W; these are {given}.")
        normalised = (images.to(self.mean) - self.mean) / self.std
        logits: Tensor = as_rows(run(self.module, normalised.to(self.dtype)), len(images))
        return logits

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the weights that it has not got; what needs none of them can be had."""
        return missing_weights(self.module)

    def completed(self, work: Callable[[], Result], purpose: str) -> Result:
        """What `work` with this network gives; weights that it turns out to need are fetched.

        Args:
            purpose: what the work is for, for the error.

        Raises:
            WeightsError: if weights are needed that cannot be had.
        """
        try:
            return work()
        except MissingWeightsError:
            if self._twin:  # the network that this is a copy of fetches them, and makes other copies
                raise
        missing = self.missing
        if missing and self.fetch is None:
            listed = ", ".join(missing[:2]) + (f" and {len(missing) - 2} more" if len(missing) > 2 else "")
            raise WeightsError(
                f"{self.weights} holds no {listed}, which {purpose} of {self.name} needs;"
                " give a file that holds all weights, or look at layers before these."
            )
        self._fetch_missing()
        return work()  # and where another thread was quicker, at once

    def _fetch_missing(self) -> None:
        with _fetching:
            if self.fetch is not None and self.missing:
                self.fetch(self)
            self.fetch = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Network":
        """Move or convert everything; weights that are missing are nowhere and stay so."""

        def applied(tensor: Tensor) -> Tensor:
            return tensor if tensor.is_meta else fn(tensor)

        return super()._apply(applied, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def to(self, *arguments: Any, **keywords: Any) -> "Network":
        """As of any module; in place.

        Raises:
            ModelError: if PyTorch does not compute on that device here.
        """
        devices = (given for given in (*arguments, *keywords.values()) if isinstance(given, str | torch.device))
        for device in devices:
            if str(device) != "meta":
                check_device(device)
        return super().to(*arguments, **keywords)

    def cuda(self, device: int | torch.device | None = None) -> "Network":
        """As `to` a graphics card, the first one by default."""
        return self.to(torch.device("cuda", device) if isinstance(device, int) else device or "cuda")

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """The kind of numbers that the module is given."""
        weights = (tensor.dtype for tensor in self.module.parameters() if tensor.is_floating_point())
        return self.computes_in or next(weights, self.mean.dtype)

    @property
    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and deviation of each colour channel."""
        if self._normalisation is None:
            self._normalisation = self.mean.flatten().tolist(), self.std.flatten().tolist()
        return self._normalisation

    @property
    def aliases(self) -> dict[str, str]:
        """PyTorch's names of layers by what people call them."""
        return {name: layer.module for name, layer in self.names.items()}

    @property
    def convolutions(self) -> list[str]:
        """The names that people use for convolutions, after their activation; empty where they use none."""
        return [name for name, layer in self.names.items() if layer.convolution and not layer.before_activation]

    def name_of(self, layer: str) -> LayerName:
        """What people call a layer, whichever of its names is given; PyTorch's name where they call it nothing else.

        Raises:
            UnknownNameError: as `qualified`.
        """
        path = self.qualified(layer)
        return next((name for name in self.names.values() if name.module == path), LayerName(path, path))

    def called(self, layer: str) -> str:
        """A layer's name for people: the one like block4_conv2, if it has one."""
        return self.name_of(layer).name

    def filters_of(self, layer: str) -> LayerName:
        """The layer whose filters are meant by any name of a convolution, or of the activation behind it.

        Returns:
            What people call it, after its activation unless `layer` ends with ``:pre``; and PyTorch's name of the
            module whose output enters the activation.

        Raises:
            UnknownNameError: as `qualified`.
            LayerError: if a second use of a layer is asked for: filters are those of the first one.
        """
        self._check_name(layer)
        if split_use(layer.removesuffix(PRE))[1] > 1:
            raise LayerError(
                f"filters are visualized at the first use of a layer; instead of {layer!r}, name the convolution whose"
                " output goes there."
            )
        if layer.endswith(PRE) and as_listed(layer) not in self.names:  # any layer has something before
            own = self.filters_of(layer.removesuffix(PRE))
            return replace(own, name=own.plain + PRE)
        own = self.name_of(layer)
        entering = self.names.get(own.plain + PRE, own)
        return entering if layer.endswith(PRE) else replace(entering, name=own.plain)

    def qualified(self, layer: str) -> str:
        """PyTorch's name of a layer that may be given by any of its names, ``conv4_2`` and ``Block4-Conv2`` included.

        With ``@2`` at its end, as in ``relu@2``, it is the same layer, where it is used for the second time.

        Raises:
            UnknownNameError: if there is none of that name; says which are close.
        """
        self._check_name(layer)
        layer, _ = split_use(layer)
        if layer in self.layers and layer not in self.names:
            return layer
        known = self.names.get(as_listed(layer))
        if known:
            return known.module
        hint = did_you_mean(layer, self.layers)
        raise UnknownNameError(
            f"{self.name} has no layer named {layer!r}{hint} `cnnviz layers` for the same --model, or network.layers in"
            " Python, lists them."
        )

    def listed(self, layer: str) -> str:
        """A layer's name as `cnnviz layers` spells it, with its use: "block4_conv2" of "conv4_2", "relu@2" of itself.

        With ``:pre`` at its end it is spelt as the layer is, with that at its end.

        Raises:
            UnknownNameError: as `qualified`.
        """
        if layer.endswith(PRE) and as_listed(layer) not in self.names:
            return self.listed(layer.removesuffix(PRE)) + PRE
        return layer if self.qualified(layer) == split_use(layer)[0] else as_listed(layer)

    def layer_name(self, layer: str | nn.Module) -> str:
        """A layer's name, which is given back, or PyTorch's name of one that is given as its module.

        Args:
            layer: a name; or a module of `layers`, or of the module that the network was made of by `wrap`.

        Raises:
            UnknownNameError: if it is neither; whether there is a layer of that name shows when it is looked up.
        """
        if not isinstance(layer, nn.Module):
            self._check_name(layer)
            return layer
        own = (path for path, part in self.layers.items() if part is layer)
        path = next(own, None) or self._originals.get(layer)
        if path is None:
            kind = type(layer).__name__
            raise UnknownNameError(
                f"this {kind} is no module of {self.name}; give the layer by its name, or the module from"
                " network.layers."
            )
        return path

    def _check_name(self, layer: object) -> None:
        if not isinstance(layer, str):
            example, kind = next(iter(self.layers), "features"), type(layer).__name__
            raise UnknownNameError(
                f"a layer is given by its name, such as {example!r}, or as its module, not as a {kind}."
            )

    @property
    def outputs(self) -> Outputs:
        """What its outputs are; noticed once where nobody has said it, by an image of noise."""
        if self._outputs is None:
            noticed_outputs: Outputs = self.completed(self._noticed_outputs, "the output")
            self._outputs = noticed_outputs
            return noticed_outputs
        return self._outputs

    @torch.no_grad()
    def _noticed_outputs(self) -> Outputs:
        draws = torch.Generator().manual_seed(0)
        image = torch.rand(1, self.channels, *self.input_size, generator=draws).to(self.device)
        with forward_pass(self, image), Ends() as ends:
            rows = self.twin()(image)
            return noticed(check_logits(rows, 1, self.name), ends)

    @property
    def independent(self) -> bool:
        """Whether what it gives for an image depends on that image alone, not on others in the batch; tried once."""
        if self._independent is None:
            self._independent = self._known or self.completed(self._gives_the_same_alone, "the output")
        return self._independent

    @property
    def _known(self) -> bool:
        """Whether its code is torchvision's or ours."""
        return type(self.module).__module__.startswith(("torchvision.", "cnnviz."))

    @torch.no_grad()
    def _gives_the_same_alone(self) -> bool:
        draws = torch.Generator().manual_seed(1)
        images = torch.rand(2, self.channels, *self.input_size, generator=draws).to(self.device)
        images[1] *= 0.1
        try:
            twin = self.twin()
            together, alone = twin(images)[:1].float(), twin(images[:1]).float()
            largest = float(alone.abs().amax())
            return not math.isfinite(largest) or torch.allclose(together, alone, rtol=1e-3, atol=1e-3 * largest)
        except FORWARD_ERRORS as error:
            if fault_of_machine(error) or isinstance(error, MissingWeightsError):
                raise
            return True  # whatever is wrong is told by whoever needs the output

    @property
    def takes_any_size(self) -> bool:
        """Whether images of other sizes than `input_size` give logits too; tried once where it is not known."""
        if self._any_size is None:
            self._any_size = self._bears_other_sizes()
        return self._any_size

    @torch.no_grad()
    def _bears_other_sizes(self) -> bool:
        """Whether two images larger than the network's own, one high and one wide as well, give as many logits.

        With real numbers, though shapes alone would do: on the meta device PyTorch imports more than a pass costs.
        """
        twin, (height, width) = self.on_meta() if self.missing else self.twin(), self.input_size
        sizes = (height + 32, width), (height + 32, width + 64)
        try:
            high, wide = (twin(torch.full((1, self.channels, *size), 0.5, device=twin.device)) for size in sizes)
        except FORWARD_ERRORS as error:
            if fault_of_machine(error):
                raise
            return False
        return not isinstance(high, Tensor) or high.shape[:2] == wide.shape[:2]

    def uses(self, layer: str) -> int:
        """How often a layer runs for an image of the network's own size; counted once for all layers.

        Raises:
            UnknownNameError: as `qualified`.
        """
        path = self.qualified(layer)
        if self._uses is None:
            vgg = self._known and self.names  # its layers are known to run once; a pass of it is slow
            self._uses = Counter[str]() if vgg else self._counted_uses()
        return max(self._uses[path], split_use(layer)[1])

    @torch.no_grad()
    def _counted_uses(self) -> Counter[str]:
        """By PyTorch's name; what stands behind a fault, such as weights that are missing, is not counted."""
        twin, counts = self.twin(), Counter[str]()
        for path, part in twin.module.named_modules():
            part.register_forward_hook(lambda *_, own=path: counts.update([own]))
        twin.module.register_forward_pre_hook(lambda *_: counts.clear())  # `run` may try it again with gradients
        with suppress(*FORWARD_ERRORS):
            twin(torch.full((1, self.channels, *self.input_size), 0.5, device=self.device))
        return counts

    def titled(self, layer: str) -> str:
        """A layer's name as titles have it, with which of its uses is meant if there are several; see `uses`."""
        return with_use(layer, self.uses(layer))

    def on_meta(self) -> "Network":
        """The same network without numbers: tensors have shapes only, so a forward pass costs nothing."""
        return self.copy(lambda tensor: tensor.to("meta"))

    def twin(self) -> "Network":
        """The same network in modules of its own, to hook as one likes; the weights are shared."""
        return self.copy(Tensor.detach)

    def copy(self, convert: Callable[[Tensor], Tensor]) -> "Network":
        """The same network in modules of its own, every tensor being `convert` of this one's."""
        with _fetching if self.fetch is not None else nullcontext():  # not half of it before and half of it after
            copied = structural_copy(self, convert)
        copied._twin, copied.fetch = True, None
        return copied

    @property
    def fingerprint(self) -> str:
        """sha256, in hexadecimal, of the names and bytes of all weights and buffers as they are now, not of a file."""
        versions = self.versions
        if self._hashed is None or self._hashed[0] != versions:
            self._hashed = versions, self._hash()
        return self._hashed[1]

    @property
    def versions(self) -> tuple[int, ...]:
        """Numbers that change when weights or buffers are written into."""
        tensors = [tensor for _, tensor in self._tensors()]
        return sum(tensor.is_meta for tensor in tensors), *(tensor._version for tensor in tensors)

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self._tensors()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            if tensor.is_meta:
                continue
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _tensors(self) -> list[tuple[str, Tensor]]:
        """Weights and buffers; what else a module of the user's keeps with them may be anything."""
        return [(name, held) for name, held in self.module.state_dict().items() if isinstance(held, Tensor)]

    def label(self, index: int) -> str:
        """The name of a class for people: its first synonym, or its number."""
        return self.labels[index].split(", ")[0] if self.labels else f"class {index}"


def wrap(
    module: nn.Module,
    *,
    name: str,
    input_size: int | tuple[int, int],
    mean: float | Sequence[float] | Tensor = 0.0,
    std: float | Sequence[float] | Tensor = 1.0,
    labels: Sequence[str] | None = None,
    wnids: Sequence[str] | None = None,
    weights: str = "as given",
    crop: Crop | None = None,
    channels: int | None = None,
    any_size: bool | None = None,
    outputs: Outputs | None = None,
) -> Network:
    """Any image classifier as a `Network`; the module itself stays exactly as it is.

    Layers of the network may be given as modules of the original, too.

    Works on a structural copy that shares the weights' storage. The copy is frozen, in eval mode, and its in-place
    activations write elsewhere; hooks, flags, gradients and modes of the original are not touched. Hooks that the
    module brings along are part of what it computes, and run.

    Args:
        module: takes images (N, C, H, W) normalised by `mean` and `std`, gives outputs (N, classes).
        name: what to call it in images and messages.
        input_size: side, or (height, width), in pixels of the images it was made for.
        mean, std: one number per colour channel, or one for all, in units of the [0, 1] range; a tensor or an array of
            any shape with so many numbers, such as (1, 3, 1, 1), will do.
        labels: a name per class; synonyms may follow, separated by commas. Of torchvision's networks for segmentation
            those of its weights by default.
        wnids: a WordNet id per class.
        weights: where the weights came from, for people.
        crop: the preprocessing that its accuracy was measured with.
        channels: colour channels of its images; by default as many as there are means, or else 3 or 1, whichever it
            runs with.
        any_size: whether it takes images of other sizes too; tried when it matters, if not said.
        outputs: what it gives: "logits", "probabilities", "multilabel", which are logits of labels that do not exclude
            each other, or "value", as of a regression. If not said, it is noticed when it matters: rows in [0, 1] that
            sum to 1, or that a softmax or sigmoid has given, are probabilities; a single other output is a value.

    Raises:
        UnknownNameError: if there is no such kind of outputs.
        ModelError: if a size, mean or std makes no sense, or the module cannot be looked into or copied.
    """
    if outputs is not None:
        check_outputs(outputs)
    check_module(module)
    module = unwrapped(module)
    check_open(module, name)
    size = _height_width(input_size, name)
    if min(size) < 1:
        raise ModelError(f"the input size of {name} must be at least 1 pixel, not {size[0]} x {size[1]}.")
    frozen, means = frozen_copy(module), _numbers(mean, "mean")
    if channels is None:
        channels, output = _colour_channels(frozen, size, means, name)
        _check_count(labels, output, name)
    network = Network(
        frozen,
        name=name,
        input_size=size,
        mean=means,
        std=_numbers(std, "std"),
        labels=published_labels(module) if labels is None else labels,
        wnids=wnids,
        weights=weights,
        crop=crop,
        channels=channels,
        any_size=any_size,
        outputs=outputs,
    )
    network._originals.update({part: path for path, part in module.named_modules() if path in network.layers})
    guard(frozen)
    weights_of = sorted(filter(Tensor.is_floating_point, frozen.parameters()), key=lambda tensor: tensor.is_meta)
    home = weights_of[0] if weights_of else None  # on no device only if all are
    network.mean, network.std = (buffer if home is None else buffer.to(home) for buffer in (network.mean, network.std))
    return network.eval()


@contextmanager
def forward_pass(network: Network, images: Tensor) -> Iterator[None]:
    """Say in one line that a network cannot take these images, when its own code raises something unforeseen.

    Raises:
        ShapeError: for what PyTorch or the network's forward raises.
    """

    def fault(reason: str) -> CnnvizError:
        height, width = images.shape[2:]
        if (height, width) != network.input_size:
            own = " x ".join(map(str, network.input_size[::-1]))
            return ShapeError(
                f"{network.name} cannot take an image of {width} x {height} px ({reason}); its own size is {own}."
            )
        return ShapeError(
            f"the forward pass of {network.name} fails on images of {network.channels} x {height} x {width} ({reason});"
            " give the size and the number of channels that it was made for, or correct its forward()."
        )

    with translated(fault):
        yield


def check_network(network: object) -> None:
    """Notice a module, or anything else, where a `Network` is wanted: sizes, colours and names must be known.

    Raises:
        ModelError: says how to make one.
    """
    if not isinstance(network, Network):
        raise ModelError(f"a {type(network).__name__} has to become a network of cnnviz's first, by cnnviz.wrap().")


def check_module(module: object) -> None:
    """Notice what is no module, and no network.

    Raises:
        ModelError: says of what type it is.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"a network is made of an nn.Module; this is of type {type(module).__name__}.")


def as_network(module: nn.Module, images: Tensor) -> Network:
    """A plain module as a `Network` that gives it such images as they are; a `Network` itself.

    Args:
        images: (N, C, H, W).

    Raises:
        ModelError: if it is no module.
        ShapeError: if the images are no such tensor.
    """
    check_module(module)
    if not isinstance(images, Tensor):
        raise ShapeError(f"images are a tensor (N, C, H, W), not a {type(images).__name__}.")
    if isinstance(module, Network):
        return module
    if images.ndim != 4:
        raise ShapeError(f"images are a tensor (N, C, H, W), not {' x '.join(map(str, images.shape))}.")
    _, channels, height, width = images.shape
    return wrap(module, name=type(module).__name__, input_size=(height, width), channels=channels)


def count_parameters(module: nn.Module) -> int:
    """How many numbers the module learns, each counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _check_count(labels: Sequence[str] | None, output: object, name: str) -> None:
    """Notice class names that are not as many as a module's outputs for an image, where these are a row.

    Raises:
        ModelError: says how many there are of both.
    """
    rows = as_rows(output, 1)
    if labels is not None and isinstance(rows, Tensor) and rows.ndim == 2 and rows.shape[1] != len(labels):
        raise ModelError(f"{name} has {len(labels)} class names for {rows.shape[1]} classes; give one name for each.")


def _colour_channels(module: nn.Module, size: tuple[int, int], mean: Sequence[float], name: str) -> tuple[int, object]:
    """How many colours the images of a frozen module have, the number that it runs with, and what it gives for one.

    Tried are as many as there are means, 3 and 1, and what its convolutions take. One that runs with none of these says
    why when it is to run.
    """
    given = [len(mean)] if len(mean) > 1 else []
    convolutions = [part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)]
    shapes_alone = any(tensor.is_meta for tensor in module.state_dict().values() if isinstance(tensor, Tensor))
    tried = structural_copy(module, lambda tensor: tensor.to("meta")) if shapes_alone else module
    candidates = [*dict.fromkeys([*given, 3, 1, *convolutions[:1]])]
    outputs = ((number, _output(tried, (1, number, *size))) for number in candidates)
    channels, output = next((pair for pair in outputs if pair[1] is not None), (candidates[0], None))
    if given and channels != given[0]:
        raise ModelError(f"mean has {given[0]} numbers; {name} takes images of {channels} colour channels.")
    return channels, output


@torch.no_grad()
def _output(module: nn.Module, shape: tuple[int, ...]) -> object:
    """What a module gives for an image of zeros of this shape; None if it does not run."""
    tensors = (tensor for tensor in module.parameters() if tensor.is_floating_point())
    like = next(tensors, torch.empty(0))
    try:
        return run(module, torch.zeros(shape, dtype=like.dtype, device=like.device))
    except FORWARD_ERRORS as error:
        if fault_of_machine(error):
            raise
        return None


def _height_width(size: int | Sequence[int], name: str) -> tuple[int, int]:
    try:
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)
    except (TypeError, ValueError):
        raise ModelError(f"the input size of {name} is a side or (height, width) in pixels, not {size!r}.") from None


def _numbers(values: float | Sequence[float] | Tensor, what: str) -> list[float]:
    try:
        return [float(value) for value in torch.as_tensor(values, dtype=torch.float64).flatten()]
    except (TypeError, ValueError, RuntimeError):  # what no tensor can be made of
        kind = type(values).__name__
        raise ModelError(f"{what} is a number, or one for each colour channel; this {kind} is neither.") from None


def _per_channel(values: Sequence[float], channels: int, what: str) -> Tensor:
    if len(values) not in (1, channels):
        raise ModelError(f"{what} has {len(values)} numbers; the network has {channels} colour channels.")
    numbers = torch.tensor([float(value) for value in values])
    if not numbers.isfinite().all() or (what == "std" and bool((numbers <= 0).any())):
        raise ModelError(f"{what} must be finite numbers{', above zero' * (what == 'std')}, not {list(values)}.")
    if what == "mean" and bool((numbers > 1).any()):
        raise ModelError(f"images lie in [0, 1], and mean is {list(values)}; divide mean and std by 255.")
    return numbers.expand(channels).reshape(1, channels, 1, 1).clone()


def check_open(module: nn.Module, name: str) -> None:
    """Notice a module that has no layers to be hooked, no gradients or no weights.

    Raises:
        ModelError: says what to give instead.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"{name} is TorchScript, whose layers cannot be looked into; give the module it was made of.")
    if any("quantized" in type(part).__module__.split(".") for part in module.modules()):
        raise ModelError(f"{name} is quantized and has no gradients; give the network as it was before.")
    if any(is_lazy(tensor) for tensor in chain(module.parameters(), module.buffers())):
        raise ModelError(f"{name} has lazy layers that have no weights yet; let its factory show it some images first.")


def check_logits(output: object, count: int, name: str) -> Tensor:
    """What a network gave for `count` images, if that is a row of real numbers for each.

    Raises:
        ModelError: says what it is instead.
    """
    if isinstance(output, Tensor):
        rows = output.ndim == 2 and len(output) == count and output.shape[1] > 0
        if rows and output.is_floating_point():
            return output
        given = (
            f"{str(output.dtype).removeprefix('torch.')} of shape {' x '.join(map(str, output.shape)) or 'one number'}"
        )
    else:
        given = f"a {type(output).__name__}"
    raise ModelError(
        f"{name} is no classifier of single images: it gives no single row of logits but {given}; look at its layers"
        " and filters, or name a factory of a module that gives logits alone."
    )
