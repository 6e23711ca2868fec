"""Images of filters that are known by construction, and their scores by the forward pass written out."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.errors import LayerError, ShapeError, UnknownNameError
from cnnviz.networks.network import Network
from cnnviz.pictures.reading import read_picture
from cnnviz.synthesis.judgement import references_for
from cnnviz.synthesis.maximization import filter_job
from cnnviz.synthesis.objectives import channel, mean_activation
from cnnviz.synthesis.patterns import patterns
from cnnviz.synthesis.results import Synthesis
from cnnviz.synthesis.views import Viewer
from tests.support.networks import SmallVGG


def filters(*kernels: Tensor, bias: float = 0.0) -> Network:
    """A network with these kernels (3, F, F), and a ReLU."""
    module = nn.Sequential(nn.Conv2d(3, len(kernels), kernels[0].shape[1], padding=1), nn.ReLU())
    module[0].weight.data, module[0].bias.data = torch.stack(kernels), torch.full((len(kernels),), bias)
    return cnnviz.wrap(module, name="built", input_size=48)


def lines_of(synthesis: Synthesis) -> str:
    """The text of a sheet's header."""
    return "\n".join(text.get_text() for text in synthesis.figure().axes[0].texts)


def edge(angle: int) -> Tensor:
    """From dark to light, (3, 3, 3)."""
    return torch.tensor([-1.0, 0, 1]).expand(3, 3, 3).rot90(angle, (1, 2))


@pytest.mark.parametrize("angle", range(4))
def test_an_edge_filter_is_given_its_edge(angle: int) -> None:
    kernel = edge(angle)
    synthesis = cnnviz.filter_images(filters(kernel), "0", [0], steps=64)
    patches = functional.unfold(synthesis.images, 3)[0].T
    responses = (patches @ kernel.flatten()).relu()
    mean_patch = responses @ (patches - patches.mean(1, keepdim=True)) / responses.sum()
    assert functional.cosine_similarity(mean_patch, kernel.flatten(), dim=0) >= 0.95
    assert synthesis.status == ("ok",)
    assert synthesis.scores.item() > 1  # of 3 at most, that every position can not reach; flat colours give 0


@pytest.mark.parametrize("weights", [(1, -1, -1), (-1, 1, 1), (0.5, 1, -1)])
def test_a_colour_filter_is_given_its_colour(weights: tuple[float, ...]) -> None:
    kernel = torch.tensor(weights).view(3, 1, 1)
    module = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU())
    module[0].weight.data[0] = kernel
    synthesis = cnnviz.filter_images(cnnviz.wrap(module, name="colour", input_size=32), "0", steps=64)
    expected = (kernel > 0).float().expand(3, 32, 32)
    assert (synthesis.images[0] - expected).abs().max() < 0.02
    assert synthesis.status == ("ok",)


@pytest.mark.parametrize("layer", ["block1_conv1", "block2_conv2", "block5_conv1", "features.2"])
def test_the_score_is_the_mean_after_the_relu_of_the_image_in_its_file(
    mini: Network, tmp_path: Path, layer: str
) -> None:
    synthesis = cnnviz.filter_images(mini, layer, [1, 3], steps=4, tries=1, precision="float32")
    depth = int(mini.filters_of(layer).module.split(".")[1])
    scores = []
    for number, image in zip((1, 3), synthesis.images, strict=True):
        file = tmp_path / "image.png"
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(file)
        values = torch.frombuffer(bytearray(read_picture(file).image.tobytes()), dtype=torch.uint8)
        pixels = values.view(1, *image.shape[1:], 3).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            maps = mini.module.features[: depth + 1]((pixels - mini.mean) / mini.std)[0, number].relu()
        margin = {"block1_conv1": 1, "block2_conv2": 3, "block5_conv1": 0, "features.2": 2}[layer]
        scores.append(maps[margin : maps.shape[0] - margin, margin : maps.shape[1] - margin].mean())
    torch.testing.assert_close(synthesis.scores, torch.stack(scores), rtol=1e-4, atol=1e-5)


def test_before_the_relu_only_on_request(mini: Network) -> None:
    after = {
        filter_job(mini, name, [0]).settings["objective"] for name in ("block2_conv1", "features.5", "block2-conv1")
    }
    assert after == {"mean of block2_conv1 after relu over the 28 x 28 positions without padding"}
    synthesis = cnnviz.filter_images(mini, "block2_conv1:pre", [2], steps=2, tries=1, precision="float32")
    maps = cnnviz.activations(mini, synthesis.images, ["block2_conv1:pre"])["block2_conv1:pre"]
    assert synthesis.scores.item() == pytest.approx(maps[0, 2].mean().item(), rel=1e-4)
    assert synthesis.settings["objective"] == "mean of block2_conv1:pre"


def test_before_the_relu_behind_batch_norm_in_any_network() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval()
    module[1].running_mean.fill_(3.0)
    network = cnnviz.wrap(module, name="net", input_size=16)
    synthesis = cnnviz.filter_images(network, "0:pre", [0, 1], steps=2, tries=1, precision="float32")
    with torch.no_grad():
        expected = module[:2](synthesis.images)[[0, 1], [0, 1]].mean((1, 2))
    torch.testing.assert_close(synthesis.scores, expected)
    assert (synthesis.scores < 0).all()


def test_a_filter_that_nothing_activates_is_woken() -> None:
    """No pattern, noise or photograph comes near a kernel of random signs; its own image does."""
    signs = torch.randint(0, 2, (3, 7, 7), generator=torch.Generator().manual_seed(3)) * 2.0 - 1
    highest = signs.clamp(min=0).sum().item()
    network = filters(signs, bias=-0.75 * highest)
    size = (48, 48)
    references = references_for(3, size).images
    assert (network.module(references) == 0).all()
    synthesis = cnnviz.filter_images(network, "0", [0], steps=128)
    assert synthesis.status == ("ok",)
    assert synthesis.scores.item() > 0


def test_one_channel_alone_is_computed_as_among_all(small_vgg: SmallVGG) -> None:
    network = cnnviz.wrap(small_vgg, name="small", input_size=48)
    path = network.filters_of("block3_conv1").module
    objective = mean_activation(path, [5, 0, 2], (slice(1, 9), slice(2, 12)))
    results = []
    for elided in (True, False):
        images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(4)).requires_grad_()
        scores = objective.score(Viewer(network, objective.layers, images.detach(), elided=elided)(images))
        (gradient,) = torch.autograd.grad(scores.sum(), images)
        results.append((scores.detach(), gradient))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


class Tilted(nn.Module):
    """Adds a number to each column of its maps, of which there are as many as channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv, self.tilt = nn.Conv2d(3, 8, 3, padding=1), nn.Parameter(torch.arange(8.0))

    def forward(self, images: Tensor) -> Tensor:
        return (self.conv(images) + self.tilt).relu().mean((2, 3))


def test_what_is_added_to_columns_is_not_taken_for_channels() -> None:
    network = cnnviz.wrap(Tilted(), name="tilted", input_size=8)
    images = torch.rand(2, 3, 8, 8)
    objective = mean_activation("conv", [1, 6])
    scores = objective.score(Viewer(network, objective.layers, images)(images))
    torch.testing.assert_close(scores, network(images)[[0, 1], [1, 6]])


def test_patterns_are_as_many_as_they_are_said_to_be_and_no_two_alike() -> None:
    colours, grey = patterns(3, (64, 64)), patterns(1, (64, 48))
    assert (len(colours), len(grey)) == (168, 42)
    assert len({tuple(image.flatten().tolist()) for image in colours.values()}) == 168
    stripes = colours["red and cyan stripes, 4 px, 0 degrees"]
    assert stripes[:, 0, :9].tolist() == [[1] * 4 + [0] * 4 + [1], *[[0] * 4 + [1] * 4 + [0]] * 2]
    assert torch.equal(stripes, stripes[:, :1].expand(3, 64, 64))
    assert grey["plain white"].shape == (1, 64, 48)


def test_an_image_that_a_pattern_beats_begins_from_it_and_says_so() -> None:
    network = filters(edge(0), edge(1))
    slow = cnnviz.filter_images(network, "0", [0, 1], recipe="soft", steps=1, tries=1, batch=2)
    assert slow.status == ("weak", "weak")
    rows = slow.rows()
    assert "stripes" in str(rows[0]["best reference"])
    references = references_for(3, (48, 48))
    scores = network.module(references.images)[:, 0, 1:-1, 1:-1].mean((1, 2))
    assert rows[0]["best reference's score"] == pytest.approx(scores.max().item(), rel=1e-5)
    assert rows[0]["best reference"] == references.names[int(scores.argmax())]
    text = lines_of(slow)
    assert f"0 (score {slow.scores[0]:.3g}; {rows[0]['best reference']}: {scores.max():.3g})" in text
    again = cnnviz.filter_images(network, "0", [0, 1], recipe="soft", steps=1, tries=2, batch=2)
    assert (again.scores > 4 * slow.scores).all()
    assert "as it began" not in lines_of(slow)


def test_an_image_that_no_step_improves_is_said_to_be_as_it_began() -> None:
    """White is the best there is for a filter that adds up all colours."""
    network = filters(torch.full((3, 3, 3), 0.1))
    drawn = cnnviz.filter_images(network, "0", [0], recipe="early", steps=3, tries=1)
    assert "as it began, for no step improved it: 0" in lines_of(drawn)


def test_images_of_a_filter_that_responds_to_two_things_show_both() -> None:
    """Red or blue excite it alike; a single image shows some of each, for images that differ there is one of each."""
    first, second = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 3, 1, bias=False)
    first.weight.data = torch.tensor([[1.0, -0.5, -0.4], [-0.4, -0.5, 1]]).view(2, 3, 1, 1)
    second.weight.data = torch.tensor([[1.0, 1], [1, 0], [0, 1]]).view(3, 2, 1, 1)
    network = cnnviz.wrap(nn.Sequential(first, nn.ReLU(), second, nn.ReLU()), name="two", input_size=24)
    (alone,), reds = (
        (images[:, 0] - images[:, 2]).mean((1, 2)).tolist()
        for images in (
            cnnviz.filter_images(network, "2", [0], recipe="soft", diverse=count, steps=96, tries=1).images
            for count in (1, 4)
        )
    )
    assert abs(alone) < 0.15
    assert sum(red > 0.2 for red in reds) == sum(red < -0.2 for red in reds) == 2
    with pytest.raises(ShapeError, match="optimized together"):
        cnnviz.filter_images(network, "2", [0], diverse=4, batch=3)


def test_objectives_in_words(mini: Network) -> None:
    text = "block2_conv1:3 + 0.5 * block2_conv2:7 - block2_conv1:1@center"
    synthesis = cnnviz.maximize(mini, text, steps=3, tries=1, precision="float32")
    names = ["block2_conv1", "block2_conv2"]
    maps = cnnviz.activations(mini, synthesis.images, names)
    one, two = (maps[name][0] for name in names)
    rows, columns = one.shape[1:]
    expected = one[3, 2:-2, 2:-2].mean() + 0.5 * two[7, 3:-3, 3:-3].mean() - one[1, rows // 2, columns // 2]
    assert synthesis.scores.item() == pytest.approx(expected.item(), rel=1e-4)
    for wrong, error in (
        ("block2_conv1", UnknownNameError),
        ("block2_conv1:3 + ", UnknownNameError),
        ("__import__('os'):3", UnknownNameError),
        ("block2_conv9:3", UnknownNameError),
        ("block2_conv1:999", ShapeError),
        ("block2_conv1:3@99,0", ShapeError),
        ("classifier.linear:3", LayerError),
    ):
        with pytest.raises(error):
            cnnviz.maximize(mini, wrong)


def test_a_plain_function_is_an_objective(mini: Network) -> None:
    synthesis = cnnviz.maximize(
        mini, lambda view: view.map("block2_conv1")[:, 3].mean((1, 2)), steps=3, tries=1, size=48, precision="float32"
    )
    maps = cnnviz.activations(mini, synthesis.images, ["block2_conv1"])["block2_conv1"]
    assert synthesis.scores.item() == pytest.approx(maps[0, 3].mean().item(), rel=1e-4)
    assert (synthesis.scores > synthesis.starts).all()
    with pytest.raises(ShapeError, match="one score per image"):
        cnnviz.maximize(mini, lambda view: view.map("block2_conv1").mean())


class Twice(nn.Module):
    """One ReLU behind two convolutions, the second one used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.two(self.relu(self.two(self.relu(self.one(images))))))
        return maps.mean((2, 3))


@pytest.mark.parametrize("layer", ["two@2", "relu@2", "relu@3"])
def test_a_later_use_of_a_layer_is_that_one_or_refused(layer: str) -> None:
    torch.manual_seed(0)
    network = cnnviz.wrap(Twice().eval(), name="twice", input_size=16)
    images = torch.rand(2, 3, 16, 16)
    expected = cnnviz.activations(network, images, layer)[layer][:, 1].mean((1, 2))
    for objective in (channel(layer, 1), lambda view: view[layer][:, 1].mean((1, 2))):
        (step,) = cnnviz.ascend(network, objective, images, steps=1)
        torch.testing.assert_close(step.scores, expected)
    with pytest.raises(LayerError, match="first use"):
        cnnviz.filter_images(network, layer, 1, steps=1, size=16)
    with pytest.raises(LayerError, match="first use"):
        cnnviz.maximize(network, mean_activation(layer, 1), steps=1, size=16)
