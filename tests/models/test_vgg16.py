"""VGG16 out of the box: its convolutions in the package, its classifier when it is asked for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import VGG16_Weights

import cnnviz
from cnnviz.errors import WeightsError
from cnnviz.galleries.building import build_gallery
from cnnviz.models import outline, vgg16, zoo
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network
from cnnviz.networks.provenance import structure
from tests.support.commands import Run
from tests.support.paths import CAT, NETWORKS
from tests.support.weights import stand_in

# Of each layer the root mean square of its maps of the cat, and the means of the six maps with the largest means, by
# channel, computed with the float32 originals in plain torch.
ORIGINALS: dict[str, tuple[float, list[tuple[int, float]]]] = {
    "block1_conv1": (
        0.41877,
        [(47, 0.914432), (57, 0.653382), (58, 0.650703), (51, 0.60018), (0, 0.600164), (34, 0.590654)],
    ),
    "block1_conv2": (
        0.87219,
        [(56, 2.28973), (28, 1.21279), (19, 1.1542), (60, 1.03659), (40, 1.01662), (55, 1.00127)],
    ),
    "block2_conv1": (
        1.24236,
        [(76, 1.42353), (38, 1.41348), (114, 1.39825), (30, 1.37216), (35, 1.37054), (122, 1.36887)],
    ),
    "block2_conv2": (1.6903, [(33, 1.79367), (24, 1.7859), (108, 1.4826), (23, 1.46734), (91, 1.46653), (99, 1.38201)]),
    "block3_conv1": (
        2.42831,
        [(63, 2.71895), (148, 2.66455), (160, 2.60854), (144, 2.48116), (18, 2.28878), (75, 2.26845)],
    ),
    "block3_conv2": (
        2.78393,
        [(136, 2.71538), (142, 2.61011), (173, 2.53164), (47, 2.31715), (190, 2.29705), (102, 2.29504)],
    ),
    "block3_conv3": (
        2.67823,
        [(135, 2.91936), (109, 2.46556), (206, 2.3727), (9, 2.18984), (71, 1.98642), (103, 1.90694)],
    ),
    "block4_conv1": (
        2.88583,
        [(188, 3.72738), (450, 3.64632), (382, 3.4646), (245, 3.17651), (35, 3.13196), (50, 2.95398)],
    ),
    "block4_conv2": (
        2.35991,
        [(161, 3.50173), (345, 3.1945), (339, 2.63817), (381, 2.32944), (371, 2.29002), (454, 2.26859)],
    ),
    "block4_conv3": (
        1.58901,
        [(177, 1.93694), (313, 1.89021), (0, 1.88213), (8, 1.86949), (255, 1.57999), (322, 1.55091)],
    ),
    "block5_conv1": (
        2.06648,
        [(301, 3.81871), (429, 3.44137), (176, 3.37486), (295, 3.3387), (379, 3.09892), (460, 2.96227)],
    ),
    "block5_conv2": (
        1.75583,
        [(27, 4.54804), (443, 3.47915), (511, 3.35535), (84, 3.27582), (327, 3.17733), (294, 3.14447)],
    ),
    "block5_conv3": (
        1.09744,
        [(328, 6.69619), (90, 3.29414), (385, 2.7222), (432, 2.65499), (144, 2.08918), (245, 2.02206)],
    ),
}


@pytest.fixture
def built_in(empty_cache: Path) -> Network:
    return cnnviz.load("vgg16")


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of networks whose weights were fetched; what comes takes no memory, being one number for each tensor."""
    fetched: list[str] = []

    def download(name: str, *, progress: bool) -> dict[str, Tensor]:
        fetched.append(name)
        with torch.device("meta"):
            shapes = vgg16.VGG().state_dict()
        return {key: torch.tensor(1e-3).expand(tensor.shape) for key, tensor in shapes.items()}

    monkeypatch.setattr(zoo, "download", download)
    return fetched


@torch.no_grad()
def test_maps_are_those_of_the_float32_originals(built_in: Network) -> None:
    outputs = cnnviz.activations(built_in, show(built_in, CAT, fit="whole").images, list(ORIGINALS))
    assert list(ORIGINALS) == built_in.convolutions
    for layer, (scale, means) in ORIGINALS.items():
        maps = outputs[layer][0]
        assert [maps[channel].mean().item() for channel, _ in means] == pytest.approx(
            [mean for _, mean in means], rel=0, abs=0.002 * scale
        )
        assert maps.square().mean().sqrt().item() == pytest.approx(scale, rel=1e-3)


def test_it_is_torchvisions_vgg16(built_in: Network) -> None:
    published, preset = outline("vgg16"), VGG16_Weights.IMAGENET1K_V1.transforms()
    assert structure(built_in) == structure(published)
    assert list(built_in.module.state_dict()) == list(published.module.state_dict())
    assert [t.shape for t in built_in.module.state_dict().values()] == [
        t.shape for t in published.module.state_dict().values()
    ]
    assert built_in.labels == tuple(VGG16_Weights.IMAGENET1K_V1.meta["categories"])
    assert (built_in.crop, built_in.input_size, built_in.names) == (
        published.crop,
        published.input_size,
        published.names,
    )
    torch.testing.assert_close(built_in.mean.flatten(), torch.tensor(preset.mean))
    torch.testing.assert_close(built_in.std.flatten(), torch.tensor(preset.std))
    assert zoo.cache_file("vgg16").name == vgg16.CACHED


def test_a_notice_says_whose_the_weights_are() -> None:
    notice = vgg16.FILE.with_name("vgg16-NOTICE.txt").read_text()
    for words in ("BSD 3-Clause License", "Soumith Chintala", "half precision", "classifier was left out"):
        assert words in notice


def test_what_needs_no_class_fetches_nothing(built_in: Network, downloads: list[str], tmp_path: Path) -> None:
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = cnnviz.feature_maps(built_in, image, "block3_conv1")
    cnnviz.filter_images(built_in, "block1_conv2", [0], steps=1, size=32, tries=1)
    cnnviz.invert(built_in, image, ["block1_conv2"], steps=1)
    cnnviz.dream(built_in, image, "block2_conv1", steps=1)
    cnnviz.kernel_sheet(built_in)
    build_gallery(built_in, tmp_path / "g", ["block1_conv1"], [0], steps=1, size=32)
    assert downloads == []
    assert built_in.weights == "VGG16, convolutions built in, float16"
    assert maps.sheet().made["network"]["weights"] == built_in.weights
    assert [name.partition(".")[0] for name in built_in.missing] == 6 * ["classifier"]


@torch.no_grad()
def test_logits_fetch_the_whole_file_once(built_in: Network, downloads: list[str]) -> None:
    before, image = built_in.fingerprint, torch.rand(1, 3, 224, 224)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(built_in, [image, image])
    assert downloads == ["vgg16"]
    assert torch.equal(first, second)
    assert (built_in.missing, built_in.weights) == ((), "VGG16_Weights.IMAGENET1K_V1")
    assert built_in.fingerprint != before
    assert all(not weight.requires_grad for weight in built_in.parameters())
    maps = cnnviz.activations(built_in, image, ["features.0", "classifier.4"])
    assert maps["features.0"].unique(dim=1).shape[1] == 1, "the convolutions are the file's now"
    assert maps["classifier.4"].shape == (1, 4096)
    assert downloads == ["vgg16"]


@pytest.mark.parametrize("layer", ["classifier.0", "classifier.1", "classifier.6"])
def test_layers_of_the_classifier_fetch_it(built_in: Network, downloads: list[str], layer: str) -> None:
    cnnviz.activations(built_in, torch.rand(1, 3, 224, 224), [layer])
    assert downloads == ["vgg16"]


def test_where_nothing_can_be_fetched_classes_are_refused_in_a_line(run: Run, empty_cache: Path) -> None:
    ways = ("connect to the internet", "--weights", "--model vgg16-mini")
    for command in (
        ("predict", CAT),
        ("saliency", CAT, "--method", "grad-cam"),
        ("classimage", "tabby", "--steps", "1"),
        ("report", CAT),
        ("featuremaps", CAT, "--layer", "classifier.0"),
    ):
        result = run(*command, "--model", "vgg16")
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert all(way in result.stderr for way in ways)
    assert not list(empty_cache.glob("*"))


def test_the_whole_file_in_the_cache_is_used_for_everything(run: Run, empty_cache: Path) -> None:
    stand_in(empty_cache, "vgg16", 0.001)
    network = cnnviz.load("vgg16")
    assert (network.missing, network.weights) == ((), "VGG16_Weights.IMAGENET1K_V1")
    assert (network.module.features[0].weight == 0.001).all()
    assert "VGG16_Weights.IMAGENET1K_V1" in run("predict", CAT).stdout


def test_a_gallery_is_not_silently_gone_on_with_with_the_whole_file(
    built_in: Network, downloads: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_gallery(built_in, tmp_path, ["block1_conv1"], [0], steps=1, size=32)
    build_gallery(built_in, tmp_path, ["block1_conv1"], [0], steps=1, size=32)
    assert caplog.messages == []
    built_in(torch.rand(1, 3, 224, 224))
    build_gallery(built_in, tmp_path, ["block1_conv1"], [0], steps=1, size=32)
    assert caplog.messages == [
        f"{tmp_path.name} was drawn with other weights (VGG16, convolutions built in, float16):"
        " all of it is drawn again with these (VGG16_Weights.IMAGENET1K_V1)"
    ]


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """Weights of a small network without its classifier."""
    module = outline(f"{NETWORKS}:SmallVGG", input_size=32).module
    state = {key: tensor.clone() for key, tensor in module.state_dict().items() if key.startswith("features.")}
    save_file(state, tmp_path / "part.safetensors")
    return tmp_path / "part.safetensors"


def test_a_part_of_the_weights_serves_for_what_needs_no_more(part: Path) -> None:
    network = cnnviz.load(f"{NETWORKS}:SmallVGG", weights=part, input_size=32)
    assert network.missing == ("classifier.weight", "classifier.bias")
    assert cnnviz.feature_maps(network, CAT, "block5_conv3").maps.isfinite().all()
    assert network.takes_any_size
    for work, purpose in (
        (lambda: cnnviz.predict(network, CAT), "the output"),
        (lambda: cnnviz.attribute(network, torch.rand(1, 3, 32, 32), 1, method="saliency"), "the output"),
        (lambda: cnnviz.activations(network, torch.rand(1, 3, 32, 32), ["classifier"]), "layer classifier"),
        (lambda: cnnviz.class_images(network, [1], steps=1, size=32), "the output"),
    ):
        with pytest.raises(WeightsError) as caught:
            work()
        for words in ("part.safetensors holds no classifier.weight, classifier.bias", purpose, "give a file"):
            assert words in str(caught.value)


def test_whatever_needs_the_output_fetches_what_is_missing(part: Path) -> None:
    whole = cnnviz.load(f"{NETWORKS}:SmallVGG", input_size=32)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def fetch(network: Network) -> None:
        network.module.load_state_dict(whole.module.state_dict(), assign=True)

    for work in (
        lambda network: network(image),
        lambda network: torch.tensor([ranked.probability for ranked in cnnviz.predict(network, image[0])]),
        lambda network: cnnviz.attribute(network, image, 1, method="integrated-gradients"),
        lambda network: cnnviz.class_images(network, [1], steps=2, size=32).images,
        lambda network: cnnviz.activations(network, image, ["block1_conv1", "classifier"])["classifier"],
    ):
        network = cnnviz.load(f"{NETWORKS}:SmallVGG", weights=part, input_size=32)
        network.fetch = fetch
        torch.testing.assert_close(work(network), work(whole))
        assert network.missing == ()


def test_convolutions_from_a_file_are_enough_for_vgg16(run: Run, empty_cache: Path) -> None:
    result = run("featuremaps", CAT, "--layer", "block1_conv2", "--weights", vgg16.FILE, "--size", "64", "-o", "a.png")
    assert (result.exit_code, result.stderr) == (0, "")
    result = run("predict", CAT, "--weights", vgg16.FILE)
    assert result.exit_code == 1
    assert "vgg16-conv.safetensors holds no classifier.0.weight, classifier.0.bias and 4 more" in result.stderr
