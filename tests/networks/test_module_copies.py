"""Modules as people have them: compiled, parallel, traced, with hooks and lists of their own."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import parametrizations
from torchvision import models

import cnnviz
from cnnviz.networks.layers import all_convolutions
from cnnviz.networks.module_copies import unwrapped


def small() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_compiled_parts_are_replaced_wherever_they_are() -> None:
    plain, compiled = small(), small()
    compiled[0] = torch.compile(compiled[0])  # type: ignore[assignment]
    whole = torch.compile(nn.Sequential(compiled))
    network = cnnviz.wrap(whole, name="net", input_size=32)  # type: ignore[arg-type]
    assert not any("OptimizedModule" in type(part).__name__ for part in network.modules())
    for method in ("guided-backprop", "saliency"):
        values = cnnviz.attribute(network, IMAGES, 1, method=method)
        torch.testing.assert_close(values, cnnviz.attribute(plain, IMAGES, 1, method=method))
    assert type(compiled[0]).__name__ == "OptimizedModule"


def test_data_parallel_is_opened() -> None:
    vgg = models.vgg11(num_classes=4).eval()
    network = cnnviz.wrap(nn.DataParallel(vgg), name="net", input_size=64)
    assert network.names.keys() == cnnviz.wrap(vgg, name="net", input_size=64).names.keys()
    inner = nn.Sequential(nn.DataParallel(small()[0]), *small()[1:])
    torch.testing.assert_close(cnnviz.wrap(inner, name="net", input_size=32)(IMAGES), small()(IMAGES).detach())
    assert unwrapped(nn.DataParallel(vgg)) is vgg


def test_distributed_data_parallel_is_opened(tmp_path: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        vgg = models.vgg11(num_classes=4).eval()
        network, plain = (
            cnnviz.wrap(module, name="net", input_size=64) for module in (nn.parallel.DistributedDataParallel(vgg), vgg)
        )
    finally:
        distributed.destroy_process_group()
    assert network.names.keys() == plain.names.keys()
    images = torch.rand(1, 3, 64, 64)
    for method in ("guided-backprop", "grad-cam"):
        values = cnnviz.attribute(network, images, 1, method=method)
        assert torch.equal(values, cnnviz.attribute(plain, images, 1, method=method))


def test_traced_and_exported_modules_run() -> None:
    module = small()
    expected = module(IMAGES).detach()
    for graph in (torch.fx.symbolic_trace(module), torch.export.export(module, (IMAGES[:1],)).module()):
        network = cnnviz.wrap(graph, name="net", input_size=32)
        torch.testing.assert_close(network(IMAGES), expected)
        values = cnnviz.attribute(network, IMAGES, 1, method="integrated-gradients", steps=8)
        plain = cnnviz.attribute(module, IMAGES, 1, method="integrated-gradients", steps=8)
        torch.testing.assert_close(values, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_hooks_of_traced_and_exported_modules_run_in_copies(exported: bool, inside: bool) -> None:
    """They are part of what the network computes; PyTorch's own copy of such a module has none."""
    module = small()
    graph = torch.export.export(module, (IMAGES[:1],)).module() if exported else torch.fx.symbolic_trace(module)
    graph.register_forward_pre_hook(lambda _, inputs: (inputs[0] + 1, *inputs[1:]))
    graph.register_forward_hook(lambda _, __, kinds, output: 2 * output, with_kwargs=True)
    expected = 2 * module(IMAGES + 1).detach()
    network = cnnviz.wrap(nn.Sequential(graph) if inside else graph, name="net", input_size=32)
    torch.testing.assert_close(network(IMAGES), expected)
    torch.testing.assert_close(network.twin()(IMAGES), expected)


class Keeps(nn.Module):
    """Keeps activations in a list, a dict in it, and gradients nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.seen: list[dict[str, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append({"maps": self.convolution(images)})
        output: Tensor = self.linear(self.seen[-1]["maps"].relu().mean((2, 3)))
        return output


def test_activations_in_lists_and_dicts_are_no_hindrance() -> None:
    module = Keeps().eval()
    expected = module(IMAGES)
    network = cnnviz.wrap(module, name="net", input_size=32)
    torch.testing.assert_close(network(IMAGES), expected.detach())
    assert len(module.seen) == 1


def test_weights_made_in_inference_mode_can_be_climbed() -> None:
    with torch.inference_mode():
        module = small()
        network = cnnviz.wrap(module, name="net", input_size=32)
    values = cnnviz.attribute(network, IMAGES, 1, method="saliency")
    assert values.abs().sum() > 0


SEEN_BY_ALL: list[Tensor] = []


@pytest.mark.parametrize("kind", ["closure", "method of a list", "global", "method of an object"])
def test_a_users_hooks_do_not_gather_what_cnnviz_shows(kind: str) -> None:
    module, kept = small(), []

    class Recorder:
        def __init__(self) -> None:
            self.seen = kept

        def save(self, module: nn.Module, given: object, output: Tensor) -> None:
            self.seen.append(output)

    hooks = {
        "closure": lambda _module, _given, output: kept.append(output),
        "method of a list": lambda _module, _given, output: kept.append(output),
        "global": lambda _module, _given, output: SEEN_BY_ALL.append(output),
        "method of an object": Recorder().save,
    }
    module[0].register_forward_hook(hooks[kind])
    SEEN_BY_ALL.clear()
    network = cnnviz.wrap(module, name="net", input_size=32)
    cnnviz.feature_maps(network, IMAGES, "0.0")
    cnnviz.attribute(network, IMAGES, 1, method="saliency")
    assert not kept
    assert not SEEN_BY_ALL
    module(IMAGES)
    assert len(kept) + len(SEEN_BY_ALL) == 1


def test_hooks_that_change_something_stay() -> None:
    def write(_module: nn.Module, _given: object, output: Tensor) -> None:
        output.add_(1)

    module = small()
    module[0].register_forward_hook(lambda _module, _given, output: output * 2)
    module[1].register_forward_hook(write)
    with torch.no_grad():
        expected = module(IMAGES)
    network = cnnviz.wrap(module, name="net", input_size=32)
    for _ in range(2):
        torch.testing.assert_close(network(IMAGES), expected)


def test_only_pytorchs_own_switches_are_turned_off() -> None:
    class Swapping(nn.Module):
        """Has its own idea of what inplace means."""

        def __init__(self) -> None:
            super().__init__()
            self.inplace = True

        def forward(self, images: Tensor) -> Tensor:
            return images * 2 if self.inplace else images

    module = nn.Sequential(Swapping(), *small(), nn.ReLU(inplace=True)).eval()
    network = cnnviz.wrap(module, name="net", input_size=32)
    torch.testing.assert_close(network(IMAGES), module(IMAGES).detach())
    assert not network.layers["5"].inplace


def test_all_convolutions_are_found_whatever_their_class() -> None:
    class Same(nn.Conv2d):
        pass

    norm = parametrizations.spectral_norm
    first, second = norm(nn.Conv2d(3, 8, 3)), parametrizations.weight_norm(nn.Conv2d(8, 8, 3, bias=False))
    old = torch.nn.utils.spectral_norm(nn.Conv2d(8, 8, 3))
    module = nn.Sequential(first, nn.ReLU(), second, Same(8, 8, 3), old, *small()[1:]).eval()
    network = cnnviz.wrap(module, name="net", input_size=32)
    assert all_convolutions(network) == ["0", "2", "3", "4"]
    rows = {row.name: row for row in cnnviz.layer_table(network)}
    assert rows["0"].parameters == 3 * 8 * 9 + 8
    assert list(rows) == ["0", "1", "2", "3", "4", "5", "6", "7"]
    torch.testing.assert_close(network(IMAGES), module(IMAGES).detach())


def test_no_convolution_is_said_in_one_line() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    with pytest.raises(cnnviz.CnnvizError, match="runs no convolution of two dimensions"):
        all_convolutions(cnnviz.wrap(module, name="net", input_size=32))
