"""Natural examples: against brute force, in any order, through any interruption."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import cnnviz
from cnnviz.errors import OutputError, PictureError
from cnnviz.features.crops import TILE, Place, cut_out
from cnnviz.galleries.building import build_gallery
from cnnviz.galleries.engines import InProcess
from cnnviz.galleries.excitation import BINS, Shard, Tally, excite
from cnnviz.galleries.natural_examples import find_examples
from cnnviz.galleries.store import Store, read_lines
from cnnviz.galleries.verification import check
from cnnviz.networks.inputs import show
from cnnviz.networks.layers import layer_table
from cnnviz.networks.network import Network
from cnnviz.networks.progress import Progress
from cnnviz.pictures.reading import read_picture
from cnnviz.web.gallery_site import write_site
from tests.support.commands import Run
from tests.support.networks import SmallVGG
from tests.support.paths import CAT

LAYERS = ["block1_conv2", "block4_conv1"]
SHARD, COUNT = 16, 40  # pictures: more than two shards


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(7)
    return cnnviz.wrap(SmallVGG().eval(), name="small", input_size=32, mean=0.5, std=0.25)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnviz.galleries.natural_examples.SHARD", SHARD)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pieces of a photograph in two folders, one of them grey, and two files that are no images."""
    folder = tmp_path_factory.mktemp("photographs")
    cat, draws = Image.open(CAT), np.random.default_rng(0)
    (folder / "b").mkdir()
    for number in range(COUNT - 2):
        left, top = draws.integers(0, cat.width - 60), draws.integers(0, cat.height - 60)
        piece = cat.crop((left, top, left + 44, top + 40)).convert("L" if number % 10 == 0 else "RGB")
        piece.save(folder / ("b" if number % 2 else "") / f"{number:03d}.png")
    (folder / "no.png").write_bytes(b"no image")
    (folder / "b" / "empty.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def gallery(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "g"
    build_gallery(network, folder, LAYERS, steps=2, size=32)
    return folder


@pytest.fixture
def store(gallery: Path, tmp_path: Path) -> Store:
    """A copy of the gallery, which a test may change."""
    return Store(shutil.copytree(gallery, tmp_path / "g"))


def run_through(steps: Iterator[Progress]) -> Progress:
    *_, last = steps
    return last


def lines(store: Store, layer: str) -> dict[int, dict]:
    return read_lines(store.folder / "examples" / f"{layer}.jsonl")


def test_top_lists_histograms_and_places_are_those_of_brute_force(
    network: Network, photographs: Path, store: Store
) -> None:
    last = run_through(find_examples(InProcess(network), store, photographs, top=5))
    assert last == Progress(COUNT, COUNT, COUNT - 2, COUNT)
    files = sorted(path for path in photographs.rglob("*.png") if path.name != "no.png")
    images = torch.cat([show(network, path, fit="crop").images for path in files])
    for layer in LAYERS:
        with torch.no_grad():
            maps = cnnviz.activations(network, images, [layer])[layer]
        peaks = maps.flatten(2).amax(2)
        for number, line in lines(store, layer).items():
            order = peaks[:, number].argsort(descending=True, stable=True)[:5]
            order = order[peaks[order, number] > 0]
            assert [example["picture"] for example in line["top"]] == [
                files[index].relative_to(photographs).as_posix() for index in order.tolist()
            ]
            torch.testing.assert_close(torch.tensor([e["value"] for e in line["top"]]), peaks[order, number])
            top = line["histogram"]["top"]
            counted = torch.histc(peaks[:, number], BINS, 0, top)
            assert line["histogram"]["counts"] == counted.long().tolist()
            assert sum(line["histogram"]["counts"]) == len(files)
            assert not order.numel() or top / 2 <= peaks[:, number].max() < top
    about = json.loads((store.folder / "examples.json").read_text())
    assert [example["picture"] for example in about["unreadable"]] == ["b/empty.jpg", "no.png"]
    assert about["pictures"] == COUNT - 2
    assert check(store.folder)[1] == []


def test_nothing_runs_behind_the_last_of_the_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network = cnnviz.load("vgg16")  # without its classifier, which nothing here needs
    assert network.missing
    shard = Shard(0, ((CAT.name, CAT.read_bytes()),))
    found = excite(network, ["block1_conv1", "block1_conv2"], 2, shard)
    maps = cnnviz.feature_maps(network, CAT, "block1_conv2")
    torch.testing.assert_close(found.tallies["block1_conv2"].values[:, 0], maps.maximum[0])
    assert set(found.tallies) == {"block1_conv1", "block1_conv2"}


def test_a_box_holds_what_the_unit_depends_on_and_nothing_less(network: Network, photographs: Path) -> None:
    path = photographs / "002.png"  # 44 x 40 px, of which the network sees the middle
    rows = {row.name: row for row in layer_table(network)}
    layer, position = "block3_conv1", (3, 4)
    row = rows[network.qualified(layer)]
    (cut,) = cut_out(network, row, row.output[1:], [Place(0, position)], lambda _: read_picture(path))
    shown = show(network, path, fit="crop")
    images = shown.images.clone().requires_grad_()
    torch.manual_seed(1)
    positive = cnnviz.wrap(SmallVGG().eval(), name="small", input_size=32)
    for part in positive.module.parameters():
        part.abs_()  # everything that can matter does
    cnnviz.activations(positive, images, [layer])[layer][0, :, position[0], position[1]].sum().backward()
    assert images.grad is not None
    columns, across = (images.grad[0].abs().sum(0).sum(axis).nonzero().flatten() for axis in (0, 1))
    left, top, right, bottom = shown.seen
    wide, high = (right - left) / 32, (bottom - top) / 32
    expected = [left + columns.min() * wide, top + across.min() * high]
    expected += [left + (columns.max() + 1) * wide, top + (across.max() + 1) * high]
    assert cut.box == pytest.approx([float(side) for side in expected])
    assert cut.tile.size == (TILE, TILE)


def test_tiles_are_the_pictures_own_pixels(network: Network, tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:16], pixels[:, :16, 1] = (255, 0, 0), 255
    Image.fromarray(pixels).save(tmp_path / "four.png")
    (cut,) = cut_out(network, None, (1, 1), [Place(0, (0, 0))], lambda _: read_picture(tmp_path / "four.png"))
    assert cut.box == (0, 0, 32, 32)
    corners = [np.asarray(cut.tile)[y, x].tolist() for y in (0, TILE - 1) for x in (0, TILE - 1)]
    assert corners == [[255, 255, 0], [255, 0, 0], [0, 255, 0], [0, 0, 0]]


def test_strips_outline_where_the_filter_fired(tmp_path: Path) -> None:
    """One white pixel in row 9, column 5: in the middle of the crops of a 3 x 3 filter, whose tiles are 80 px wide."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[9, 5] = 255
    (tmp_path / "p").mkdir()
    Image.fromarray(pixels).save(tmp_path / "p" / "spot.png")
    module = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.zeros_(module[0].weight)
    module[0].weight.data[:, :, 1, 1] = 1
    nn.init.zeros_(module[0].bias)
    network = cnnviz.wrap(module, name="centre", input_size=16)
    build_gallery(network, tmp_path / "g", steps=1, size=16)
    run_through(find_examples(InProcess(network), Store(tmp_path / "g"), tmp_path / "p"))
    with Image.open(tmp_path / "g" / "examples" / "0" / "0000.webp") as strip:
        tile = np.asarray(strip.convert("RGB")).astype(int)
    yellow = (tile[..., 0] > 130) & (tile[..., 1] > 110) & (tile[..., 2] < 0.7 * tile[..., 0])
    rows, columns = np.nonzero(yellow)
    around = [rows.min(), columns.min(), rows.max(), columns.max()]
    assert around == pytest.approx([TILE / 3, TILE / 3, 2 * TILE / 3, 2 * TILE / 3], abs=3)
    assert (tile[33:47, 33:47] > 200).all(), "what fired stays to be seen"
    write_site(Store(tmp_path / "g"))
    assert "position of the maximum outlined" in (tmp_path / "g" / "filters" / "0" / "0000.html").read_text()


def test_an_interrupted_pass_goes_on_and_gives_the_same(network: Network, photographs: Path, store: Store) -> None:
    whole = Store(store.folder.with_name("whole"))
    shutil.copytree(store.folder, whole.folder)
    run_through(find_examples(InProcess(network), whole, photographs))
    starts: list[int] = []

    class Counting(InProcess):
        def excite(self, layers, top, shards):
            for shard in shards:
                starts.append(shard.start)
                yield from super().excite(layers, top, iter([shard]))

    interrupted = find_examples(Counting(network), store, photographs)
    next(interrupted)
    interrupted.close()
    run_through(find_examples(Counting(network), store, photographs))
    assert starts == [0, SHARD, 2 * SHARD]
    for layer in LAYERS:
        assert lines(store, layer) == lines(whole, layer)
    assert {path.name for path in store.folder.iterdir()} == {path.name for path in whole.folder.iterdir()}


def test_faults_among_examples_are_named(network: Network, photographs: Path, store: Store) -> None:
    run_through(find_examples(InProcess(network), store, photographs))
    strips = sorted((store.folder / "examples" / "block1_conv2").iterdir())
    strips[0].unlink()
    strips[1].write_bytes(b"no image")
    assert [fault.kind for fault in check(store.folder)[1]] == ["missing", "damaged"]
    about = store.folder / "examples.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"seen": "another"}))
    assert [fault.kind for fault in check(store.folder)[1]] == ["stale"]


def test_a_pass_that_stops_while_it_writes_leaves_no_examples(
    network: Network, photographs: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_through(find_examples(InProcess(network), store, photographs))
    (photographs.parent / "one").mkdir(exist_ok=True)
    shutil.copy(CAT, photographs.parent / "one")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cnnviz.galleries.natural_examples._write_layer", stop)
        with pytest.raises(KeyboardInterrupt):
            run_through(find_examples(InProcess(network), store, photographs.parent / "one"))
    assert not (store.folder / "examples.json").exists()
    (store.folder / ".examples.state").write_bytes(b"damaged")
    run_through(find_examples(InProcess(network), store, photographs.parent / "one"))
    assert [example["picture"] for example in lines(store, LAYERS[0])[0]["top"]] in (["cat.jpg"], [])
    assert check(store.folder)[1] == []


def test_a_folder_of_nothing_but_damage_changes_nothing(network: Network, store: Store, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    with pytest.raises(PictureError, match="none of the 1 images"):
        run_through(find_examples(InProcess(network), store, tmp_path / "bad"))
    assert not (store.folder / "examples.json").exists()


def test_another_preprocessing_than_the_gallerys_is_refused(store: Store, photographs: Path) -> None:
    torch.manual_seed(7)
    other = cnnviz.wrap(SmallVGG().eval(), name="small", input_size=32, mean=0.4, std=0.25)
    with pytest.raises(OutputError, match="preprocessing"):
        run_through(find_examples(InProcess(other), store, photographs))


def test_a_unit_that_sees_only_padding_and_names_of_any_bytes(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1, padding=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.constant_(module[0].weight, -1.0)
    nn.init.constant_(module[0].bias, 5.0)
    network = cnnviz.wrap(module, name="padded", input_size=16)
    (tmp_path / "p").mkdir()
    Image.open(CAT).resize((20, 20)).save(os.path.join(os.fsencode(tmp_path), b"p", b"\xff.png"), "PNG")
    build_gallery(network, tmp_path / "g", steps=1, size=16)
    run_through(find_examples(InProcess(network), Store(tmp_path / "g"), tmp_path / "p"))
    assert check(tmp_path / "g")[1] == []
    write_site(Store(tmp_path / "g"))
    assert "\N{REPLACEMENT CHARACTER}.png" in (tmp_path / "g" / "filters" / "0" / "0000.html").read_text()


def test_another_network_than_the_gallerys_is_refused(store: Store, run: Run, photographs: Path) -> None:
    result = run("gallery", "examples", store.folder, "--images", photographs, "--model", "vgg16-mini")
    assert result.exit_code == 1
    assert "is of another network" in result.stderr


@settings(max_examples=60)
@given(st.data())
def test_tallies_merge_in_any_order_into_that_of_one_pass(data: st.DataObject) -> None:
    count, channels = data.draw(st.integers(1, 12)), 3
    some = st.sampled_from([-1.0, 0.0, 1e-9, 0.5, 0.5, 1.0, 3.0, 700.0])
    values = torch.tensor(data.draw(st.lists(some, min_size=count * channels, max_size=count * channels)))
    values, positions = values.view(count, channels), torch.arange(count * channels).view(count, channels)
    numbers = torch.arange(count)
    whole = tally_of(values, positions, numbers)
    parts = [tally_of(values[n : n + 1], positions[n : n + 1], numbers[n : n + 1]) for n in range(count)]
    merged = Tally(channels, 2)
    for number in data.draw(st.permutations(range(count))):
        merged.merge(parts[number])
    kept = whole.values > 0
    assert torch.equal(merged.values, whole.values)
    assert torch.equal(merged.pictures[kept], whole.pictures[kept])
    assert torch.equal(merged.positions[kept], whole.positions[kept])
    assert torch.equal(merged.counts, whole.counts)
    assert torch.equal(merged.powers, whole.powers)


def tally_of(values: Tensor, positions: Tensor, numbers: Tensor) -> Tally:
    tally = Tally(values.shape[1], 2)
    tally.add(values, positions, numbers)
    return tally
