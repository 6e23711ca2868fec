"""Class activation maps against their closed forms, and which use of a layer is looked at."""

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.errors import LayerError
from cnnviz.networks.network import Network

IMAGES = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(1)
    body = nn.Conv2d(3, 6, 5, stride=2), nn.Tanh(), nn.Conv2d(6, 5, 3), nn.ELU()
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Tanh(), nn.Linear(20, 3)).eval()


@pytest.fixture
def network(module: nn.Module) -> Network:
    return cnnviz.wrap(module, name="net", input_size=24)


def maps_and_gradients(module: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    maps = module[:4](image).detach().requires_grad_()  # type: ignore[index]
    (gradients,) = torch.autograd.grad(module[4:](maps)[0, 1], maps)  # type: ignore[index]
    return maps.detach()[0].double(), gradients[0].double()


def test_grad_cam_plus_plus(module: nn.Module, network: Network) -> None:
    found = cnnviz.attribute(network, IMAGES, 1, method="grad-cam++", layer="3")
    for row in range(2):
        maps, gradients = maps_and_gradients(module, IMAGES[row : row + 1])
        expected = torch.zeros(maps.shape[1:]).double()
        for own, slopes in zip(maps, gradients, strict=True):
            weight = 0.0
            for slope in slopes.flatten().tolist():
                alpha = slope**2 / (2 * slope**2 + own.sum().item() * slope**3)
                weight += alpha * max(slope, 0)
            expected += weight * own
        torch.testing.assert_close(found[row, 0].double(), expected.relu(), rtol=1e-3, atol=1e-6)


def test_layer_cam(module: nn.Module, network: Network) -> None:
    found = cnnviz.attribute(network, IMAGES, 1, method="layer-cam", layer="3")
    for row in range(2):
        maps, gradients = maps_and_gradients(module, IMAGES[row : row + 1])
        expected = (gradients.clamp(min=0) * maps).sum(0).clamp(min=0)
        torch.testing.assert_close(found[row, 0].double(), expected, rtol=1e-4, atol=1e-7)


def test_eigen_cam(module: nn.Module, network: Network) -> None:
    found = cnnviz.attribute(network, IMAGES, 1, method="eigen-cam", layer="3")
    assert torch.equal(found, cnnviz.attribute(network, IMAGES, 2, method="eigen-cam", layer="3"))
    for row in range(2):
        maps, _ = maps_and_gradients(module, IMAGES[row : row + 1])
        values = maps.flatten(1)
        vectors = torch.linalg.eigh(values.cov()).eigenvectors
        projected = vectors[:, -1] @ (values - values.mean(1, keepdim=True))
        projected = projected * (vectors[:, -1] @ values.mean(1)).sign()
        torch.testing.assert_close(found[row, 0].double().flatten(), projected.clamp(min=0), rtol=1e-3, atol=1e-5)


def test_score_cam(module: nn.Module, network: Network) -> None:
    found = cnnviz.attribute(network, IMAGES, 1, method="score-cam", layer="3", baseline="black", batch=2)
    for row in range(2):
        image = IMAGES[row : row + 1]
        maps, _ = maps_and_gradients(module, image)
        gains = []
        for own in maps.float():
            large = nn.functional.interpolate(own[None, None], (24, 24), mode="bilinear")
            mask = (large - large.min()) / (large.max() - large.min())
            gains.append((module(image * mask) - module(0 * image))[0, 1].item())
        weights = torch.tensor(gains).softmax(0).double()
        expected = (weights[:, None, None] * maps).sum(0).clamp(min=0)
        torch.testing.assert_close(found[row, 0].double(), expected, rtol=1e-3, atol=1e-6)


class Reusing(nn.Module):
    """Uses one activation three times."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second, self.third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 6, 3)
        self.act, self.linear = nn.ELU(), nn.Linear(6, 3)

    def stages(self, images: Tensor) -> list[Tensor]:
        one = self.act(self.first(images))
        two = self.act(self.second(one))
        return [one, two, self.act(self.third(two))]

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.linear(self.stages(images)[-1].mean((2, 3)))
        return output


@pytest.mark.parametrize("use", [1, 2, 3])
def test_all_agree_on_the_use_of_a_layer(use: int) -> None:
    module = Reusing().eval()
    network = cnnviz.wrap(module, name="net", input_size=24)
    layer = "act" if use == 1 else f"act@{use}"
    stages = module.stages(IMAGES)
    maps = stages[use - 1]
    (gradients,) = torch.autograd.grad(module.linear(stages[-1].mean((2, 3)))[:, 1].sum(), maps)
    torch.testing.assert_close(cnnviz.feature_maps(network, IMAGES, layer).maps, maps.detach())
    torch.testing.assert_close(cnnviz.activations(network, IMAGES, [layer])[layer].detach(), maps.detach())
    expected = {
        "grad-cam": (gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu(),
        "gradient-x-activation": (gradients * maps).sum(1, keepdim=True),
        "layer-cam": (gradients.relu() * maps).sum(1, keepdim=True).relu(),
    }
    for method, values in expected.items():
        found = cnnviz.attribute(network, IMAGES, 1, method=method, layer=layer)
        torch.testing.assert_close(found, values.detach(), rtol=1e-4, atol=1e-7)


def test_a_use_that_there_is_not_is_told_so() -> None:
    network = cnnviz.wrap(Reusing().eval(), name="net", input_size=24)
    calls = [
        lambda: cnnviz.feature_maps(network, IMAGES, "act@4"),
        lambda: cnnviz.attribute(network, IMAGES, 1, method="grad-cam", layer="act@4"),
    ]
    for call in calls:
        with pytest.raises(LayerError, match="net uses 'act' 3 times"):
            call()
