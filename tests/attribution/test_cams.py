"""Class activation maps against their closed forms, and which use of a layer is looked at."""

import json

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.attribution import explanations
from cnnviz.attribution.cams import mean_over_layers
from cnnviz.errors import LayerError
from cnnviz.features import maps
from cnnviz.networks.network import Network
from tests.support.commands import Run
from tests.support.paths import CAT

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


@pytest.mark.parametrize(
    ("layer", "title", "use", "uses"),
    [
        ("act", "act (1st of 3 uses)", 1, 3),
        ("act@2", "act (2nd of 3 uses)", 2, 3),
        ("act@3", "act (3rd of 3 uses)", 3, 3),
        ("second", "second", 1, 1),
    ],
)
def test_sheets_and_json_say_which_use_is_shown(
    monkeypatch: pytest.MonkeyPatch, layer: str, title: str, use: int, uses: int
) -> None:
    network, written = cnnviz.wrap(Reusing().eval(), name="net", input_size=24), []
    for module in (explanations, maps):
        monkeypatch.setattr(module, "sheet", lambda _tiles, *, lines, **_: written.append("\n".join(lines)))
    explanation = cnnviz.explain(network, IMAGES[0], [1], methods=["grad-cam"], layer=layer)
    explanation.sheet()
    assert [line for line in written.pop().splitlines() if line.endswith(f"layer: {title}")]
    (row,) = explanation.rows()
    assert (row["layer"], row["use"], row["uses"]) == (layer, use, uses)
    cnnviz.feature_maps(network, IMAGES, layer).sheet()
    assert written.pop().startswith(f"Feature maps: {title} (")


def test_a_use_that_there_is_not_is_told_so() -> None:
    network = cnnviz.wrap(Reusing().eval(), name="net", input_size=24)
    calls = [
        lambda: cnnviz.feature_maps(network, IMAGES, "act@4"),
        lambda: cnnviz.attribute(network, IMAGES, 1, method="grad-cam", layer="act@4"),
    ]
    for call in calls:
        with pytest.raises(LayerError, match="net uses 'act' 3 times"):
            call()


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "layer-cam", "score-cam", "eigen-cam"])
def test_the_mean_over_layers(network: Network, method: str) -> None:
    """Of single maps, each without negative values and over its own maximum, as large as the finest, here the first."""
    found = cnnviz.attribute(network, IMAGES, 1, method=method, layer=["0", "3"])
    fine, coarse = (cnnviz.attribute(network, IMAGES, 1, method=method, layer=layer) for layer in ("0", "3"))
    assert fine.shape[2:] == found.shape[2:] == (10, 10)
    assert coarse.shape[2:] == (8, 8)
    for row in range(2):
        scaled = [maps[row : row + 1].clamp(min=0) / (maps[row].max() or 1) for maps in (fine, coarse)]
        large = nn.functional.interpolate(scaled[1], (10, 10), mode="bilinear")
        torch.testing.assert_close(found[row : row + 1], (scaled[0] + large) / 2)
    alone = cnnviz.attribute(network, IMAGES, 1, method=method, layer=["3"])
    assert torch.equal(alone, coarse)


def test_a_map_of_zeros_counts_as_zeros_in_the_mean() -> None:
    maps = torch.zeros(1, 1, 2, 3), torch.tensor([[[[4.0, 2.0], [-1.0, 0.0], [1.0, 3.0]]]])
    mean = mean_over_layers(maps)
    assert mean.shape == (1, 1, 3, 3)
    assert mean.amax() == pytest.approx(0.5)
    assert mean.amin() == 0


def test_several_layers_are_for_class_activation_maps(network: Network) -> None:
    for method in ("conductance", "gradient-x-activation", "saliency"):
        with pytest.raises(LayerError, match=r"gives no maps of several layers .*; grad-cam, grad-cam\+\+, layer-cam"):
            cnnviz.explain(network, IMAGES[0], [1], methods=["grad-cam", method], layer=["1", "3"])
        with pytest.raises(LayerError, match="gives no maps of several layers"):
            cnnviz.attribute(network, IMAGES, 1, method=method, layer=["1", "3"])
    with pytest.raises(LayerError, match="this list of layers is empty"):
        cnnviz.attribute(network, IMAGES, 1, method="grad-cam", layer=[])
    with pytest.raises(LayerError, match="gives no feature maps"):
        cnnviz.explain(network, IMAGES[0], [1], methods="grad-cam", layer=["3", "5"])


def test_the_command_takes_several_layers(run: Run) -> None:
    own = ("--model", "vgg16-mini", "--size", "48", "--method", "grad-cam", "-o", "a.png")
    result = run("saliency", CAT, *own, "--layers", "block3_conv3,block4_conv3", "--json")
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)["attributions"]
    assert row["layers"] == ["block3_conv3", "block4_conv3"]
    assert row["layer"] is None
    assert "identical" in run("rerun", "a.png", "--picture", CAT).stdout
    result = run("saliency", CAT, *own, "--layers", "block3_conv3", "--layer", "block3_conv3")
    assert (result.exit_code, "give one of them" in result.stderr) == (2, True)
    result = run("saliency", CAT, *own, "--layers", ",")
    assert (result.exit_code, "',' names nothing" in result.stderr) == (2, True)
