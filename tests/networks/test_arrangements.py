"""Layers that give anything but (N, C, H, W), against plain hooks."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

import cnnviz
from cnnviz.errors import LayerError
from cnnviz.networks.network import Network

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def hooked(module: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer gives, and its gradient of class 1."""
    kept: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _module, _given, output: kept.append(output))
    scores = module(images)[:, 1]
    handle.remove()
    return kept[0].detach(), torch.autograd.grad(scores.sum(), kept[0])[0]


@pytest.fixture(scope="module")
def swin() -> nn.Module:
    torch.manual_seed(0)
    return models.swin_t(num_classes=4).eval()


@pytest.fixture(scope="module")
def convnext() -> nn.Module:
    torch.manual_seed(0)
    return models.convnext_tiny(num_classes=4).eval()


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    size = {"image_size": 64, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    module = models.VisionTransformer(num_classes=4, **size).eval()
    nn.init.normal_(module.heads.head.weight)
    return module


@pytest.mark.parametrize(
    "layer", ["features.1.0.norm1", "features.3.1.mlp.0", "features.5.5", "features.7.1.norm2", "norm"]
)
def test_swins_channels_are_moved_first(swin: nn.Module, layer: str) -> None:
    output, gradient = hooked(swin, layer, IMAGES)
    network = cnnviz.wrap(swin, name="swin", input_size=64)
    assert torch.equal(cnnviz.feature_maps(network, IMAGES, layer).maps, output.permute(0, 3, 1, 2))
    expected = (output * gradient.mean((1, 2), keepdim=True)).sum(-1).relu()[:, None]
    found = cnnviz.attribute(network, IMAGES, 1, method="grad-cam", layer=layer)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("layer", "last"), [("features.1.0.block.2", True), ("features.1.0.block.0", False)])
def test_convnexts_inner_layers(convnext: nn.Module, layer: str, last: bool) -> None:
    output, _ = hooked(convnext, layer, IMAGES)
    network = cnnviz.wrap(convnext, name="convnext", input_size=64)
    expected = output.permute(0, 3, 1, 2) if last else output
    torch.testing.assert_close(cnnviz.feature_maps(network, IMAGES, layer).maps, expected)


def test_tokens_become_a_grid_without_the_class_token(vit: nn.Module) -> None:
    layer = "encoder.layers.encoder_layer_0"
    output, gradient = hooked(vit, layer, IMAGES)
    network = cnnviz.wrap(vit, name="vit", input_size=64)
    maps = output[:, 1:].transpose(1, 2).reshape(2, 32, 4, 4)
    torch.testing.assert_close(cnnviz.feature_maps(network, IMAGES, layer).maps, maps)
    other = cnnviz.feature_maps(network, IMAGES, layer, grid=(2, 8)).maps
    torch.testing.assert_close(other, output[:, 1:].transpose(1, 2).reshape(2, 32, 2, 8))
    weights = gradient[:, 1:].mean(1)[:, :, None, None]
    expected = (maps * weights).sum(1, keepdim=True).relu()
    found = cnnviz.attribute(network, IMAGES, 1, method="grad-cam", layer=layer)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_filters_of_a_layer_with_channels_last(convnext: nn.Module) -> None:
    network = cnnviz.wrap(convnext, name="convnext", input_size=64)
    synthesis = cnnviz.filter_images(network, "features.1.0.block.3", [5], steps=2, tries=1)
    output, _ = hooked(convnext, "features.1.0.block.4", synthesis.images)
    assert synthesis.synthesized[0].judgement.maximum == pytest.approx(output[0, ..., 5].max().item(), rel=1e-3)
    with pytest.raises(cnnviz.CnnvizError, match="its 384 filters are 0 to 383"):
        cnnviz.filter_images(network, "features.1.0.block.3", [384], steps=2)


class Joining(nn.Module):
    """Puts the maps of two convolutions together, channels last, or two times the same maps as well."""

    def __init__(self, join: Callable[[list[Tensor]], Tensor], channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.join, self.joined, self.linear = join, nn.Identity(), nn.Linear(channels, 4)

    def forward(self, images: Tensor) -> Tensor:
        maps = [convolution(images).permute(0, 2, 3, 1) for convolution in (self.first, self.second)]
        output: Tensor = self.linear(self.joined(self.join(maps)).mean((1, 2)))
        return output


@pytest.mark.parametrize(
    ("join", "channels"),
    [
        (lambda maps: torch.cat(maps, -1), 10),
        (lambda maps: torch.concatenate(tensors=tuple(maps), dim=-1), 10),
        (lambda maps: torch.cat([maps[0], torch.ones(2, 64, 64, 4)], 1), 4),
        (lambda maps: torch.stack([maps[1], maps[1]]).mean(0), 6),
    ],
)
def test_channels_are_followed_through_what_is_put_together(
    join: Callable[[list[Tensor]], Tensor], channels: int
) -> None:
    module = Joining(join, channels).eval()
    output, _ = hooked(module, "joined", IMAGES)
    maps = cnnviz.feature_maps(cnnviz.wrap(module, name="net", input_size=64), IMAGES, "joined").maps
    assert maps.shape[1] == channels
    torch.testing.assert_close(maps, output.permute(0, 3, 1, 2))


class ClassToken(nn.Module):
    """Reads its classes off a token of their own, behind an attention and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 16, 16), nn.Parameter(torch.ones(1, 1, 8))
        self.before, self.both, self.norm, self.head = (
            nn.Linear(8, 8),
            nn.Linear(8, 16),
            nn.LayerNorm(8),
            nn.Linear(8, 4),
        )

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.before(torch.cat([self.token.expand(len(images), 1, 8), tokens], 1))
        keys, values = self.both(tokens).chunk(2, 2)
        attended = (tokens @ keys.transpose(1, 2)).softmax(2) @ values
        output: Tensor = self.head(self.norm(tokens + attended)[:, 0])
        return output


def test_grad_cam_looks_where_more_than_the_class_token_counts() -> None:
    torch.manual_seed(0)
    module = ClassToken().eval()
    nn.init.normal_(module.head.weight)
    output, gradient = hooked(module, "before", IMAGES)
    weights = gradient[:, 1:].mean(1)[:, :, None, None]
    expected = (output[:, 1:].transpose(1, 2).reshape(2, 8, 4, 4) * weights).sum(1, keepdim=True).relu()
    assert expected.any()
    heat = cnnviz.attribute(cnnviz.wrap(module, name="token", input_size=64), IMAGES, 1, method="grad-cam")
    torch.testing.assert_close(heat, expected, rtol=1e-3, atol=1e-6)


class Registers(nn.Module):
    """Cuts images into patches without a convolution, and puts four more tokens before them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.registers = nn.Linear(3 * 16 * 16, 8), nn.Parameter(torch.ones(1, 4, 8))
        self.heads, self.norm, self.head = nn.Identity(), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(functional.unfold(images, 16, stride=16).transpose(1, 2))
        tokens = torch.cat([self.registers.expand(len(images), 4, 8), patches], 1)
        heads = self.heads(tokens.reshape(len(images), 20, 2, 4).transpose(1, 2))
        output: Tensor = self.head(self.norm(heads.transpose(1, 2).flatten(2))[:, 4:].mean(1))
        return output


def test_tokens_of_a_network_without_convolutions_become_a_grid() -> None:
    module = Registers().eval()
    output, _ = hooked(module, "norm", IMAGES)
    network = cnnviz.wrap(module, name="registers", input_size=64)
    maps = output[:, 4:].transpose(1, 2).reshape(2, 8, 4, 4)
    torch.testing.assert_close(cnnviz.feature_maps(network, IMAGES, "norm").maps, maps)
    heat = cnnviz.attribute(network, IMAGES, 1, method="grad-cam")
    torch.testing.assert_close(heat, cnnviz.attribute(network, IMAGES, 1, method="grad-cam", layer="norm"))


class Heads(nn.Module):
    """Gives N x heads x tokens x numbers on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.keys, self.linear = nn.Conv2d(3, 16, 16, 16), nn.Identity(), nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        heads = self.keys(tokens.reshape(len(images), 16, 2, 8).transpose(1, 2))
        output: Tensor = self.linear(heads.transpose(1, 2).reshape(len(images), 16, 16).mean(1))
        return output


class Parts(nn.Module):
    """Sees an image's quarters as images of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.relu, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        count, colours, height, width = images.shape
        parts = images.view(count, colours, 2, height // 2, 2, width // 2).permute(0, 2, 4, 1, 3, 5)
        maps = self.relu(self.convolution(parts.reshape(count * 4, colours, height // 2, width // 2)))
        output: Tensor = self.linear(maps.mean((2, 3))).view(count, 4, 4).mean(1)
        return output


def refused(network: Network, layer: str) -> list[str]:
    messages = []
    for call in (
        lambda: cnnviz.feature_maps(network, IMAGES, layer),
        lambda: cnnviz.attribute(network, IMAGES, 1, method="grad-cam", layer=layer),
        lambda: cnnviz.filter_images(network, layer, [0], steps=1),
    ):
        with pytest.raises(LayerError) as caught:
            call()
        messages.append(str(caught.value))
    return messages


def test_what_is_no_map_is_refused() -> None:
    maps, _, filters = refused(cnnviz.wrap(Heads().eval(), name="net", input_size=64), "keys")
    assert "gives no feature maps but 2 x 16 x 8 numbers" in maps
    assert "gives no feature maps but 2 x 16 x 8 numbers" in filters


def test_a_first_axis_that_is_not_the_images_is_noticed() -> None:
    network = cnnviz.wrap(Parts().eval(), name="net", input_size=64)
    maps, _, filters = refused(network, "convolution")
    assert "gives 8 x 8 x 32 x 32 for 2 images: its first axis is not the images" in maps
    assert "gives 4 x 8 x 32 x 32 for 1 image: its first axis is not the images" in filters
    with pytest.raises(LayerError, match="no layer with feature maps"):
        cnnviz.attribute(network, IMAGES, 1, method="grad-cam")
