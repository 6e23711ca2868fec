"""torchvision's published weights by name and by file: the preprocessing is always that of the weights."""

import hashlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models import WeightsEnum, get_model_weights

import cnnviz
from cnnviz.errors import UnknownNameError, WeightsError
from cnnviz.models import outline, zoo
from cnnviz.networks.inputs import show
from cnnviz.networks.network import Network
from tests.support.commands import Run
from tests.support.paths import CAT

TWO = ["mobilenet_v2", "efficientnet_b1"]  # small, with two presets: of these two, even the interpolation differs
SAVED = 0.01  # all weights in a stand-in


def entry(name: str, version: str = "IMAGENET1K_V1") -> WeightsEnum:
    return get_model_weights(name)[version]


def saved(path: Path, name: str, weights: WeightsEnum) -> Path:
    """A file with keys and shapes of published weights; it holds one number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = zoo.skeleton(name, weights).state_dict()
    state = {key: torch.full((), SAVED, dtype=tensor.dtype).expand(tensor.shape) for key, tensor in shapes.items()}
    torch.save(state, path)
    return path


def publish(monkeypatch: pytest.MonkeyPatch, path: Path, weights: WeightsEnum) -> str:
    """Let torchvision have published this file; returns its name there."""
    start = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    name = weights.url.rpartition("/")[2].rpartition("-")[0] + f"-{start}.pth"
    monkeypatch.setattr(weights.value, "url", f"https://download.pytorch.org/models/{name}")
    monkeypatch.setitem(weights.meta, "_file_size", round(path.stat().st_size / 2**20, 3))
    return name


def assert_preprocesses_for(network: Network, weights: WeightsEnum) -> None:
    """torchvision's own transforms are the oracle, on an image whose sides are no multiples of anything."""
    preset, image = weights.transforms(), Image.open(CAT).resize((451, 300))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    shown = show(network, image, fit="crop").images[0]
    torch.testing.assert_close((shown - mean) / std, preset(image))
    torch.testing.assert_close(network.mean.flatten(), torch.tensor(preset.mean))
    torch.testing.assert_close(network.std.flatten(), torch.tensor(preset.std))
    assert network.labels == tuple(weights.meta["categories"])
    assert network.input_size == 2 * (preset.crop_size[0],)


@pytest.mark.parametrize("name", TWO)
def test_presets_differ(name: str) -> None:
    first, second = (entry(name, f"IMAGENET1K_V{version}").transforms() for version in (1, 2))
    assert (first.resize_size, first.interpolation) != (second.resize_size, second.interpolation)


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("version", ["IMAGENET1K_V1", "IMAGENET1K_V2", "DEFAULT"])
@pytest.mark.parametrize("full", [False, True])
def test_weights_are_loaded_by_name(empty_cache: Path, name: str, version: str, full: bool) -> None:
    weights = entry(name, version)
    saved(zoo.cache_file(name, weights), name, weights)
    network = cnnviz.load(name, weights=f"{type(weights).__name__}.{version}" if full else version)
    assert network.weights == str(weights)
    assert all((parameter == SAVED).all() for parameter in network.parameters())
    assert_preprocesses_for(network, weights)


def test_weights_by_name_are_downloaded_with_their_hash_checked(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, calls = entry("mobilenet_v2"), []

    def download(url: str, **options: object) -> None:
        calls.append((url, options))
        saved(zoo.cache_file("mobilenet_v2", weights), "mobilenet_v2", weights)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    cnnviz.load("mobilenet_v2", weights="IMAGENET1K_V1", progress=False)
    assert calls == [(weights.url, {"progress": False, "check_hash": True, "weights_only": True})]


def test_weights_by_name_that_cannot_be_downloaded_are_told(empty_cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"resnet50 cannot be downloaded \(Network is unreachable\)"):
        cnnviz.load("resnet50", weights="IMAGENET1K_V1")


@pytest.mark.parametrize(
    "word", ["IMAGENET1K_V3", "imagenet", "ResNet50_Weights.V1", "ResNet18_Weights.IMAGENET1K_V1", "DEFAULTS"]
)
def test_of_unknown_names_those_that_there_are_are_told(empty_cache: Path, word: str) -> None:
    message = rf"resnet50 has no weights named '{word}'; there are IMAGENET1K_V1, IMAGENET1K_V2; or give a \.pth"
    for make in (cnnviz.load, outline):
        with pytest.raises(WeightsError, match=message):
            make("resnet50", weights=word)
    with pytest.raises(UnknownNameError, match="no network named 'resnet51'"):
        cnnviz.load("resnet51", weights=word)


def test_a_published_file_that_was_saved_anew_inside_something_is_understood(empty_cache: Path) -> None:
    path = saved(zoo.cache_file("mobilenet_v2"), "mobilenet_v2", zoo.published("mobilenet_v2"))
    torch.save([{"state_dict": torch.load(path, weights_only=True)}], path)
    assert all((parameter == SAVED).all() for parameter in cnnviz.load("mobilenet_v2").parameters())


def test_the_command_line_takes_names(run: Run, empty_cache: Path) -> None:
    weights = entry("mobilenet_v2")
    saved(zoo.cache_file("mobilenet_v2", weights), "mobilenet_v2", weights)
    result = run("predict", CAT, "--model", "mobilenet_v2", "--weights", "IMAGENET1K_V1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "MobileNet_V2_Weights.IMAGENET1K_V1" in result.stdout
    result = run("predict", CAT, "--model", "mobilenet_v2", "--weights", "IMAGENET1K_V7")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "there are IMAGENET1K_V1, IMAGENET1K_V2" in result.stderr


def test_a_file_without_an_ending_is_a_file(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("mine"), "mobilenet_v2", entry("mobilenet_v2"))
    assert cnnviz.load("mobilenet_v2", weights="mine").weights == "mine"


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("own_name", [True, False])
def test_a_published_file_is_known_by_its_hash(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, own_name: bool
) -> None:
    weights = entry(name)
    path = saved(tmp_path / "downloads" / "w.pth", name, weights)
    published = publish(monkeypatch, path, weights)
    if own_name:
        path = path.rename(path.with_name(published))
        monkeypatch.setitem(weights.meta, "_file_size", 1e6)
    network = cnnviz.load(name, weights=path)
    assert network.weights == path.name
    assert_preprocesses_for(network, weights)


@pytest.mark.parametrize("name", TWO)
def test_other_files_keep_the_recommended_preprocessing(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    weights = entry(name)
    named_alike = saved(tmp_path / zoo.cache_file(name, weights).name, name, weights)
    assert_preprocesses_for(cnnviz.load(name, weights=named_alike), zoo.published(name))
    monkeypatch.setitem(weights.meta, "_file_size", round(named_alike.stat().st_size / 2**20, 3))
    as_large = named_alike.rename(tmp_path / "w.pth")
    assert_preprocesses_for(cnnviz.load(name, weights=as_large), zoo.published(name))
    assert_preprocesses_for(cnnviz.load(name, weights="random"), zoo.published(name))


def test_torch_hubs_own_file_is_what_its_name_says(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = entry("mobilenet_v2")
    path = saved(zoo.cache_file("mobilenet_v2", weights), "mobilenet_v2", weights)
    monkeypatch.chdir(path.parent)
    assert_preprocesses_for(cnnviz.load("mobilenet_v2", weights=path.name), weights)


def test_only_what_may_be_published_is_hashed(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    monkeypatch.setattr(zoo, "_sha256", lambda path: hashed.append(path.name) or "")
    weights = entry("mobilenet_v2")
    path = saved(tmp_path / "w.pth", "mobilenet_v2", weights)
    cnnviz.load("mobilenet_v2", weights=path)
    assert hashed == []
    for version in ("IMAGENET1K_V1", "IMAGENET1K_V2"):
        size = round(path.stat().st_size / 2**20, 3)
        monkeypatch.setitem(entry("mobilenet_v2", version).meta, "_file_size", size)
    cnnviz.load("mobilenet_v2", weights=path)
    assert hashed == ["w.pth"]


def test_hashes_are_in_all_names_that_torchvision_publishes() -> None:
    for name in zoo.names():
        for weights in get_model_weights(name):
            start = zoo.cache_file(name, weights).stem.rpartition("-")[2]
            assert len(start) >= 8
            assert int(start, 16) >= 0
            assert weights.meta["_file_size"] > 1


def test_outlines_follow_the_weights_and_download_nothing(empty_cache: Path, tmp_path: Path) -> None:
    name, version = "vit_b_16", "IMAGENET1K_SWAG_E2E_V1"
    network = outline(name, weights=version)
    assert network.input_size == (384, 384)
    assert all(parameter.is_meta for parameter in network.parameters())
    assert outline(name).input_size == outline(name, weights="random").input_size == (224, 224)
    assert outline("vgg16", weights="IMAGENET1K_FEATURES").labels is None
    assert not empty_cache.exists()
    path = saved(tmp_path / "w.pth", "mobilenet_v2", entry("mobilenet_v2"))
    assert outline("mobilenet_v2", weights=path).weights == "w.pth"


def test_networks_for_images_of_another_size_take_their_weights(empty_cache: Path) -> None:
    name, weights = "vit_b_16", entry("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    saved(zoo.cache_file(name, weights), name, weights)
    network = cnnviz.load(name, weights="IMAGENET1K_SWAG_E2E_V1")
    assert (network.input_size, network.weights) == ((384, 384), "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1")


def test_a_file_that_may_not_be_read_is_told_as_such(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = entry("mobilenet_v2")
    path = saved(tmp_path / zoo.cache_file("mobilenet_v2", weights).name, "mobilenet_v2", weights)

    def forbid(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbid)
    with pytest.raises(WeightsError, match=r"cannot read the weights .*: Permission denied"):
        cnnviz.load("mobilenet_v2", weights=path)
