"""DeepLift through max pools, and where it has no business."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

import cnnviz
from cnnviz.errors import ModelError
from cnnviz.networks.network import Network


def drawn(seed: int, count: int = 1, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def small(*body: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), *body, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 4)
    )
    return module.eval()


POOLED = {
    "behind a ReLU": (nn.ReLU(), nn.MaxPool2d(2)),
    "alone": (nn.MaxPool2d(2),),
    "overlapping": (nn.MaxPool2d(3, 2),),
    "overlapping, behind a ReLU": (nn.ReLU(), nn.MaxPool2d(3, 1, 1)),
    "padded, rounded up, dilated": (nn.ELU(), nn.MaxPool2d(3, 2, 1, dilation=2, ceil_mode=True)),
    "two": (nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.MaxPool2d((3, 2), (1, 2))),
}


@pytest.mark.parametrize("body", POOLED.values(), ids=POOLED)
@pytest.mark.parametrize("baseline", ["mean", "black", "image"])
def test_contributions_add_up_to_the_difference(body: tuple[nn.Module, ...], baseline: str) -> None:
    module = small(*body)
    network = cnnviz.wrap(module, name="net", input_size=32)
    images = drawn(1, 2)
    reference = drawn(2) if baseline == "image" else torch.full((1, 3, 32, 32), 0.0)
    given = reference if baseline == "image" else baseline
    values = cnnviz.attribute(network, images, 1, method="deeplift", baseline=given)
    with torch.no_grad():
        expected = (module(images) - module(reference))[:, 1]
    torch.testing.assert_close(values.sum((1, 2, 3)), expected, rtol=1e-3, atol=1e-5)


def test_a_pool_by_hand() -> None:
    """Two windows of three that overlap in the middle value, which is the largest of both."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.linear = nn.MaxPool2d((1, 3), (1, 2)), nn.Linear(2, 2, bias=False)
            self.linear.weight.data = torch.tensor([[2.0, 3.0], [0.0, 0.0]])

        def forward(self, images: Tensor) -> Tensor:
            output: Tensor = self.linear(self.pool(images).flatten(1))
            return output

    network = cnnviz.wrap(Net(), name="net", input_size=(1, 5), channels=1)
    image, reference = torch.tensor([0.1, 0.2, 0.9, 0.3, 0.4]), torch.tensor([0.6, 0.0, 0.2, 0.0, 0.5])
    values = cnnviz.attribute(
        network, image.view(1, 1, 1, 5), 0, method="deeplift", baseline=reference.view(1, 1, 1, 5)
    )
    expected = [0, 0, 2 * (0.9 - 0.6) + 3 * (0.9 - 0.5), 0, 0]
    assert values.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_squeezenet_and_the_embedded_network_are_complete(mini: Network) -> None:
    torch.manual_seed(0)
    module = models.squeezenet1_1(num_classes=5).eval()
    network = cnnviz.wrap(module, name="squeezenet", input_size=64)
    images = drawn(3, 1, 64)
    values = cnnviz.attribute(network, images, 2, method="deeplift", baseline="black")
    with torch.no_grad():
        expected = (module(images) - module(torch.zeros_like(images)))[0, 2].item()
    assert values.sum().item() == pytest.approx(expected, rel=1e-3)
    explained = cnnviz.explain(mini, drawn(4, 1, 128)[0], methods="deeplift", checks=())
    gap = explained.attributions[0].evidence.gap
    assert gap is not None
    assert abs(gap) < 1e-3


class Bilinear(nn.Module):
    def __init__(self, function: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.relu, self.linear = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(64, 4)
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.convolution(images)).flatten(2)
        if self.function == "bmm":
            product = torch.bmm(maps, maps.transpose(1, 2))
        elif self.function == "mm":
            product = torch.stack([each @ each.T for each in maps])
        elif self.function == "convolution":
            kernels = maps[0, :, :9].reshape(8, 1, 3, 3)
            product = functional.conv2d(self.relu(self.convolution(images)), kernels, groups=8)[:, :, :8, 0]
        else:
            product = torch.einsum("nip,njp->nij", maps, maps)
        output: Tensor = self.linear(product.flatten(1) / maps.shape[2])
        return output


@pytest.mark.parametrize("function", ["bmm", "mm", "convolution", "einsum"])
def test_products_of_two_activations_are_refused(function: str) -> None:
    network = cnnviz.wrap(Bilinear(function).eval(), name="net", input_size=32)
    with pytest.raises(ModelError, match="multiplies with each other what depends on the image"):
        cnnviz.attribute(network, drawn(1), 2, method="deeplift")


@pytest.mark.parametrize(
    "module",
    [nn.InstanceNorm2d(8), nn.BatchNorm2d(8, track_running_stats=False), nn.Softmax(1), nn.GroupNorm(2, 8)],
    ids=lambda module: type(module).__name__,
)
def test_norms_by_statistics_and_softmax_are_refused(module: nn.Module) -> None:
    network = cnnviz.wrap(small(module, nn.ReLU()), name="net", input_size=32)
    with pytest.raises(ModelError, match="DeepLift cannot explain net"):
        cnnviz.attribute(network, drawn(1), 2, method="deeplift")
