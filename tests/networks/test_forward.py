"""Forwards that take things for granted: in-place inputs, gradients, colours, single images."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.errors import CnnvizError, ModelError, ShapeError

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.linear = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Linear(8, 4)

    def prepared(self, images: Tensor) -> Tensor:
        return images * 2 - 1

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.linear(self.features(self.prepared(images)).mean((2, 3)))
        return output


class InPlace(Net):
    def prepared(self, images: Tensor) -> Tensor:
        return images.mul_(2).sub_(1)


class ByParts(Net):
    def prepared(self, images: Tensor) -> Tensor:
        images[:, 0] *= 2
        images[:, 1:] *= 2
        images -= 1
        return images


@pytest.mark.parametrize("kind", [InPlace, ByParts])
@pytest.mark.parametrize("method", ["occlusion", "feature-ablation", "saliency", "integrated-gradients", "grad-cam"])
def test_a_forward_may_write_into_its_input(kind: type[Net], method: str) -> None:
    writing, plain = (cnnviz.wrap(net.eval(), name="net", input_size=32) for net in (kind(), Net()))
    options = {"samples": 20} if method == "kernel-shap" else {}
    values = cnnviz.attribute(writing, IMAGES, 1, method=method, **options)
    torch.testing.assert_close(values, cnnviz.attribute(plain, IMAGES, 1, method=method, **options))
    for raw in (kind().eval(), writing):
        before = IMAGES.clone()
        cnnviz.attribute(raw, IMAGES, 1, method=method, **options)
        assert torch.equal(before, IMAGES)


class Hooking(Net):
    """The network of a well-known tutorial of Grad-CAM, which hooks its own activations."""

    gradient: Tensor | None = None

    def save(self, gradient: Tensor) -> None:
        self.gradient = gradient

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(self.prepared(images))
        maps.register_hook(self.save)
        output: Tensor = self.linear(maps.mean((2, 3)))
        return output


class Differentiating(Net):
    """Needs the gradient of its own activations."""

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(self.prepared(images))
        (slope,) = torch.autograd.grad(maps.sum(), images, create_graph=True)
        output: Tensor = self.linear(maps.mean((2, 3)) + slope.mean())
        return output


@pytest.mark.parametrize("kind", [Hooking, Differentiating])
def test_a_forward_that_wants_gradients_gets_them(kind: type[Net]) -> None:
    module = kind().eval()
    expected = module(IMAGES.clone().requires_grad_()).detach()
    network = cnnviz.wrap(module, name="net", input_size=32)
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(network(IMAGES), expected)
    with torch.no_grad():
        assert not network(IMAGES).requires_grad
        assert not cnnviz.activations(network, IMAGES, ["features.0"])["features.0"].requires_grad
    maps = cnnviz.feature_maps(network, IMAGES, "features.1").maps
    torch.testing.assert_close(maps, module.features(module.prepared(IMAGES)).detach())
    assert cnnviz.layer_table(network)
    assert cnnviz.predict(network, IMAGES[0])
    cnnviz.explain(network, IMAGES[0], methods=["saliency"])


class Focus(nn.Module):
    """Its first convolution sees four times the colours."""

    def __init__(self, colours: int = 3) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(4 * colours, 8, 3), nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(functional.pixel_unshuffle(images, 2)).relu()
        output: Tensor = self.linear(maps.mean((2, 3)))
        return output


class Adapter(nn.Module):
    """Its first convolution is defined last."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.linear, self.grey = nn.Conv2d(3, 8, 3), nn.Linear(8, 2), nn.Conv2d(1, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.linear(self.body(self.grey(images)).relu().mean((2, 3)))
        return output


@pytest.mark.parametrize(
    ("module", "colours"), [(Focus(), 3), (Focus(1), 1), (Adapter(), 1), (nn.Conv2d(4, 2, 32), 4), (Net(), 3)]
)
def test_colours_are_those_the_network_runs_with(module: nn.Module, colours: int) -> None:
    for mean in (0.5, [0.5] * colours):
        network = cnnviz.wrap(module.eval(), name="net", input_size=32, mean=mean)
        assert network.channels == colours
        assert network(torch.rand(1, colours, 32, 32)).shape[0] == 1
    with pytest.raises(ModelError, match=f"mean has 2 numbers; net takes images of {colours} colour channels"):
        cnnviz.wrap(module, name="net", input_size=32, mean=[0.5, 0.5])


def test_one_may_say_how_many_colours_there_are() -> None:
    module = Focus(5)
    network = cnnviz.wrap(module, name="net", input_size=32, channels=5)
    assert network(torch.rand(1, 5, 32, 32)).shape == (1, 2)
    assert cnnviz.attribute(module, torch.rand(1, 5, 32, 32), 1, method="saliency").shape == (1, 5, 32, 32)


def test_a_forward_that_fails_is_told_for_what_it_is() -> None:
    class Failing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("no weights for this")

    network = cnnviz.wrap(nn.Sequential(nn.Conv2d(3, 4, 3), Failing()), name="net", input_size=32)
    calls = [lambda: cnnviz.predict(network, IMAGES[0]), lambda: cnnviz.explain(network, IMAGES[0])]
    for call in [*calls, lambda: cnnviz.layer_table(network)]:
        with pytest.raises(
            ShapeError, match=r"the forward pass of net fails on images of 3 x 32 x 32 \(no weights for"
        ):
            call()


def test_a_layer_called_by_its_forward_is_told_for_what_it_is() -> None:
    class PastHooks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.linear = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 2)

        def forward(self, images: Tensor) -> Tensor:
            output: Tensor = self.linear(self.second.forward(self.first(images)).mean((2, 3)))
            return output

    network = cnnviz.wrap(PastHooks(), name="net", input_size=32)
    with pytest.raises(CnnvizError, match=r"does not run for an image, or only by its forward\(\), past hooks"):
        cnnviz.feature_maps(network, IMAGES, "second")


class Normalising(Net):
    """Uses the statistics of whatever batch it is given."""

    def prepared(self, images: Tensor) -> Tensor:
        return functional.batch_norm(images, None, None, training=True)


@pytest.mark.parametrize("kind", ["functional", "module"])
def test_where_neighbours_in_the_batch_matter_images_are_seen_alone(kind: str) -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    module = (Normalising() if kind == "functional" else nn.Sequential(norm, Net())).eval()
    layer = "features.0" if kind == "functional" else "1.features.0"
    network = cnnviz.wrap(module, name="net", input_size=32)
    assert not network.independent
    assert cnnviz.wrap(Net().eval(), name="net", input_size=32).independent
    maps = cnnviz.feature_maps(network, IMAGES, layer).maps
    for row in range(2):
        alone = cnnviz.feature_maps(network, IMAGES[row], layer).maps
        torch.testing.assert_close(maps[row : row + 1], alone)
    for method in ("integrated-gradients", "occlusion", "smoothgrad", "grad-cam"):
        values = cnnviz.attribute(network, IMAGES, 1, method=method)
        torch.testing.assert_close(values[1:], cnnviz.attribute(network, IMAGES[1:], 1, method=method))
    image = IMAGES[:1]
    first = cnnviz.attribute(network, image, 1, method="occlusion", window=32, stride=32)
    scores = [module(each)[0, 1] for each in (image, torch.zeros_like(image))]
    assert first[0, 0, 0, 0].item() == pytest.approx((scores[0] - scores[1]).item(), rel=1e-3)
    together, apart = (cnnviz.filter_images(network, layer, filters, steps=3, tries=1) for filters in ([1, 2], [2]))
    assert torch.equal(together.images[1], apart.images[0])
    for method in ("deeplift", "conductance"):
        with pytest.raises(ModelError, match="depends on others in the batch"):
            cnnviz.attribute(network, IMAGES, 1, method=method)
