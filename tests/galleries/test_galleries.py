"""Galleries: what is drawn, what identifies it, and that nothing is lost or damaged whatever interrupts."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from time import sleep

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import cnnviz
import cnnviz.networks.layers
from cnnviz.errors import OutputError, ShapeError, UnknownNameError
from cnnviz.galleries.building import _encoded_beside, build_gallery, building
from cnnviz.galleries.drawing import Drawing
from cnnviz.galleries.engines import InProcess
from cnnviz.galleries.plan import Plan, Request, chunks, estimate, make_plan, plan_layers
from cnnviz.galleries.rates import Speed, measured_speeds, with_zeros
from cnnviz.galleries.store import Store, file_name
from cnnviz.galleries.verification import check
from cnnviz.galleries.wiring import Wiring
from cnnviz.models import outline
from cnnviz.networks.network import Network
from cnnviz.synthesis.costs import step_cost, step_memory
from cnnviz.synthesis.judgement import references_for
from cnnviz.synthesis.objectives import channel
from cnnviz.synthesis.views import View, Viewer
from cnnviz.web.gallery_site import write_site
from tests.support.commands import Run
from tests.support.networks import SmallVGG
from tests.support.paths import ROOT

LAYERS = ["block1_conv2", "block3_conv1"]
FAST = {"steps": 3, "size": 32}


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(7)
    return cnnviz.wrap(SmallVGG().eval(), name="small", input_size=32)


def drawn(folder: Path) -> dict[str, int]:
    """When each image was written."""
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def test_a_gallery_holds_what_filter_images_draws(network: Network, tmp_path: Path) -> None:
    plan = build_gallery(network, tmp_path, LAYERS, seed=5, **FAST)
    assert [(layer.layer, len(layer.filters)) for layer in plan.layers] == [("block1_conv2", 4), ("block3_conv1", 8)]
    store = Store(tmp_path)
    for layer in LAYERS:
        synthesis = cnnviz.filter_images(network, layer, seed=5, batch=4, **FAST)
        for number, row in enumerate(synthesis.rows()):
            record = store.records(layer)[number]
            pixels = np.asarray(Image.open(store.image(layer, number)))
            assert np.array_equal(pixels, (synthesis.images[number] * 255).round().byte().permute(1, 2, 0).numpy())
            assert {name: record[name] for name in ("score", "start", "percentile", "status", "tries")} == {
                name: row[name] for name in ("score", "start", "percentile", "status", "tries")
            }
            assert record["curve"] == pytest.approx(synthesis.curves[number].tolist(), rel=1e-3)
    assert cnnviz.read_record(store.image("block3_conv1", 2))["settings"] == {
        "layer": "block3_conv1",
        "filter": 2,
        "seed": 5,
        "recipe": "early",
        "steps": 3,
        "size": [32, 32],
        "batch": 4,
        "precision": plan.layers[1].settings["precision"],
        "tries": 4,
        "objective": "mean of block3_conv1 after relu",
    }
    assert check(tmp_path)[1] == []


def test_a_second_build_draws_nothing_and_another_setting_only_what_it_must(network: Network, tmp_path: Path) -> None:
    build_gallery(network, tmp_path, LAYERS, **FAST)
    before = drawn(tmp_path)
    build_gallery(network, tmp_path, LAYERS, **FAST)
    assert drawn(tmp_path) == before
    build_gallery(network, tmp_path, ["block1_conv2"], steps=4, size=32)
    after = drawn(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {
        f"images/block1_conv2/{number:04d}.png" for number in range(4)
    }


def test_a_gallery_grows_by_layers_and_filters(network: Network, tmp_path: Path) -> None:
    build_gallery(network, tmp_path, ["block3_conv1"], [1, 100], **FAST)
    first = drawn(tmp_path)
    build_gallery(network, tmp_path, ["block3_conv1"], [0, 1], **FAST)
    plan = build_gallery(network, tmp_path, ["block1_conv2"], [3], **FAST)
    assert [(layer.layer, layer.filters) for layer in plan.layers] == [("block1_conv2", (3,)), ("block3_conv1", (0, 1))]
    assert drawn(tmp_path).items() > first.items()


def test_nothing_of_the_users_is_taken_for_a_gallery(network: Network, tmp_path: Path) -> None:
    kept = [tmp_path / "images" / "holiday" / "0001.png", tmp_path / "records" / "tax.csv", tmp_path / "index.html"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    with pytest.raises(OutputError, match="is not empty and holds no gallery"):
        build_gallery(network, tmp_path, LAYERS, **FAST)
    build_gallery(network, tmp_path / "g", LAYERS, **FAST)
    (tmp_path / "g" / "images" / "notes.txt").write_text("mine")
    build_gallery(network, tmp_path / "g", LAYERS, **FAST)
    assert all(path.read_text() == "mine" for path in [*kept, tmp_path / "g" / "images" / "notes.txt"])


def test_what_a_build_leaves_that_is_killed_as_it_begins_is_no_users(network: Network, tmp_path: Path) -> None:
    left = [".lock", ".working.json", "..working.json.0652dbfc.partial", ".gallery.json.0652dbfc.partial"]
    for name in left:
        (tmp_path / name).touch()
    build_gallery(network, tmp_path, ["block1_conv2"], **FAST)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "gallery.json", "images", "records"}
    assert check(tmp_path)[1] == []


def test_another_network_does_not_touch_a_gallery(network: Network, tmp_path: Path) -> None:
    build_gallery(network, tmp_path, LAYERS, **FAST)
    before = (tmp_path / "gallery.json").read_bytes()
    other = cnnviz.wrap(nn.Sequential(nn.Conv2d(3, 2, 3)), name="other", input_size=32)
    with pytest.raises(OutputError, match="holds a gallery of small; choose another folder for other"):
        build_gallery(other, tmp_path, **FAST)
    fewer = cnnviz.wrap(nn.Sequential(nn.Conv2d(3, 2, 3)), name="small", input_size=32)
    with pytest.raises(UnknownNameError):
        build_gallery(fewer, tmp_path, **FAST)
    assert (tmp_path / "gallery.json").read_bytes() == before
    assert check(tmp_path)[1] == []


def test_the_same_weights_in_another_network_are_another_network(tmp_path: Path) -> None:
    """What is computed without weights counts too: activations, and a user's own forward."""
    parts = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
    plans = []
    for activation in (nn.ReLU(), nn.Tanh()):
        network = cnnviz.wrap(nn.Sequential(parts[0], activation, parts[1]), name="net", input_size=16)
        plans.append(make_plan(network, Request(("2",), None, {"steps": 1, "seed": 0})))
    assert plans[0].network["fingerprint"] == plans[1].network["fingerprint"]
    assert plans[0].key(plans[0].layers[0], 0) != plans[1].key(plans[1].layers[0], 0)
    for number, formula in enumerate(("maps.relu()", "maps.sin()")):
        (tmp_path / f"net{number}.py").write_text(
            "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            f"        self.c = nn.Conv2d(3, 2, 3)\n    def forward(self, maps):\n        return self.c({formula})\n"
        )
    networks = [cnnviz.load(f"{tmp_path}/net{number}.py:Net", input_size=16) for number in (0, 1)]
    assert networks[0].fingerprint == networks[1].fingerprint
    assert make_plan(networks[0], Request()).seen != make_plan(networks[1], Request()).seen


def test_layers_whose_names_differ_by_little_have_files_of_their_own(tmp_path: Path) -> None:
    names = ["a:b", "a-b", "a b", "a:pre", "a-pre", "a", "A" * 300, "A" * 299]
    assert len({file_name(name) for name in names}) == len(names)
    assert file_name("block4_conv2:pre") == "block4_conv2-pre"
    assert all(len(file_name(name)) < 100 for name in names)


def test_a_layer_that_is_named_twice_is_one(network: Network, tmp_path: Path) -> None:
    own = network.qualified("block1_conv2")
    build_gallery(network, tmp_path, [own, "block1-conv2"], [0], **FAST)
    plan = build_gallery(network, tmp_path, ["block1_conv2"], [1], **FAST)
    assert [(layer.layer, layer.filters) for layer in plan.layers] == [("block1_conv2", (0, 1))]


def test_other_weights_make_everything_stale(network: Network, tmp_path: Path) -> None:
    build_gallery(network, tmp_path, LAYERS, **FAST)
    before = drawn(tmp_path)
    torch.manual_seed(8)
    other = cnnviz.wrap(SmallVGG().eval(), name="small", input_size=32)
    build_gallery(other, tmp_path, ["block1_conv2"], **FAST)
    assert all(when != before[name] for name, when in drawn(tmp_path).items())
    assert check(tmp_path)[1] == []


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"recipe": "soft"},
        {"steps": 4},
        {"size": 33},
        {"batch": 2},
        {"precision": "bfloat16"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_determines_a_picture_is_in_its_key(network: Network, change: dict[str, object]) -> None:
    fixed = {"seed": 0, "steps": 3, "size": 32, "batch": 4, "precision": "float32"}
    plans = [make_plan(network, Request(("block1_conv1",), None, settings)) for settings in (fixed, fixed | change)]
    keys = [{plan.key(plan.layers[0], number) for number in range(4)} for plan in plans]
    assert not keys[0] & keys[1]
    assert all(len(different) == 4 for different in keys)


def test_a_plan_survives_its_file(network: Network) -> None:
    plan = make_plan(network, Request((), (0, 2), {"steps": 3, "seed": 0}))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert len(plan.layers) == 13
    work = [(chunk.layer, number) for chunk in chunks(plan, {"block2_conv1": {0}}) for number in chunk.filters]
    assert sorted(work) == sorted(
        (layer.layer, n) for layer in plan.layers for n in (0, 2) if (layer.layer, n) != ("block2_conv1", 0)
    )


def test_a_step_costs_what_its_convolutions_cost_by_hand() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 7, 3, padding=1), nn.ReLU())
    network = cnnviz.wrap(module, name="two", input_size=16)
    first = 2 * 16 * 16 * 5 * 3 * 9  # additions and multiplications
    assert step_cost(network, channel("2", [0]), (16, 16)) == 2 * first  # the last convolution is not run
    second = 2 * 16 * 16 * 7 * 5 * 9
    assert step_cost(network, channel("3", [0]), (16, 16)) == 2 * (first + second)
    plan = make_plan(network, Request(("2",), None, {"steps": 10, "size": 16, "seed": 0}))
    assert estimate(plan.layers).flops == 7 * 10 * 2 * (first + second // 7)  # of the last one, a filter's own channel
    assert estimate(plan.layers).pixels == 7 * 16 * 16 * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_keeps_the_maps_that_its_gradient_needs(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 7, 3, padding=1), nn.ReLU())
    network = cnnviz.wrap(module, name="two", input_size=32)
    for layer, channels in (("1", 3 + 5), ("3", 3 + 5 + 7)):  # the image, and what each ReLU gives
        kept = step_memory(network, channel(layer, [0]), (32, 32), dtype)
        assert kept == pytest.approx(channels * 32 * 32 * dtype.itemsize, rel=0.01)


def drawing(number: int, encode: Callable[[], bytes] = bytes) -> Drawing:
    return Drawing("layer", number, encode, {})


def test_images_are_encoded_while_the_next_ones_are_drawn_and_added_in_order() -> None:
    begun, free, added = Event(), Event(), list[int]()

    def slow() -> bytes:
        begun.set()
        assert free.wait(10)
        return b"png"

    with _encoded_beside(lambda drawings: added.extend(each.number for each in drawings)) as add:
        add([drawing(1, slow)])
        assert begun.wait(10)
        assert not added
        free.set()
        add([drawing(2), drawing(3)])
        assert added == [1]
    assert added == [1, 2, 3]


def test_an_image_that_cannot_be_encoded_ends_the_build() -> None:
    def fails() -> bytes:
        raise OutputError("too large")

    def build() -> None:
        with _encoded_beside(lambda drawings: None) as add:
            add([drawing(1, fails)])
            add([drawing(2)])

    with pytest.raises(OutputError, match="too large"):
        build()


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_what_is_drawn_is_added_whatever_interrupts(error: type[BaseException]) -> None:
    added = list[int]()

    def interrupted() -> None:
        with _encoded_beside(lambda drawings: added.extend(each.number for each in drawings)) as add:
            add([drawing(1, lambda: sleep(0.2) or b"png")])
            raise error

    with pytest.raises(error):
        interrupted()
    assert added == [1]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_wiring_of_a_vgg_is_its_order_and_its_weights(batch_norm: bool) -> None:
    torch.manual_seed(1)
    module = SmallVGG(batch_norm=batch_norm).eval()
    network = cnnviz.wrap(module, name="small", input_size=32)
    names = [alias for alias in network.aliases if alias[-5:-1] == "conv"]
    wiring = Wiring(network, names)
    assert [wiring.inputs(name) for name in names] == [None, *names[:-1]]
    weights = [part.weight for part in module.features if isinstance(part, nn.Conv2d)][4][3]
    strongest = wiring.strongest(names[4], 3)
    sums = weights.sum((1, 2))
    assert [number for number, _ in strongest] == sums.abs().argsort(descending=True)[:8].tolist()
    assert [weight for _, weight in strongest] == pytest.approx([sums[number].item() for number, _ in strongest])


def test_behind_a_sum_or_a_functional_call_nothing_is_said() -> None:
    network = cnnviz.load("resnet18", weights="random")
    wiring = Wiring(network, cnnviz.networks.layers.all_convolutions(network))
    assert wiring.inputs("layer1.0.conv1") == "conv1"  # through batch norm, ReLU and pool
    assert wiring.inputs("layer1.0.conv2") == "layer1.0.conv1"
    assert wiring.inputs("layer1.1.conv1") is None
    assert wiring.strongest("layer1.1.conv1", 0) == []


def test_of_a_convolution_that_is_used_twice_nothing_is_said() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.again(self.again(self.first(images)).relu())

    wiring = Wiring(cnnviz.wrap(Twice(), name="twice", input_size=16), ["first", "again"])
    assert wiring.inputs("again") is None


def test_verify_names_each_kind_of_fault(network: Network, tmp_path: Path, run: Run) -> None:
    build_gallery(network, tmp_path / "g", ["block1_conv2"], **FAST)
    assert run("gallery", "verify", "g").exit_code == 0
    images = tmp_path / "g" / "images" / "block1_conv2"
    (images / "0000.png").unlink()
    (images / "0001.png").write_bytes(b"no image")
    (images / "9999.png").write_bytes(b"")
    (images / ".0003.png.x.partial").write_bytes(b"")
    records = tmp_path / "g" / "records" / "block1_conv2.jsonl"
    lines = records.read_text().splitlines()
    records.write_text("\n".join([*lines[:2], lines[2].replace('"key":"', '"key":"0'), lines[3], '{"filter":']))
    result = run("gallery", "verify", "g")
    assert result.exit_code == 1
    assert [line.partition(" (")[0] for line in result.stdout.splitlines()] == [
        "missing: images/block1_conv2/0000.png",
        "damaged: images/block1_conv2/0001.png",
        "stale: images/block1_conv2/0002.png",
        "left over: images/block1_conv2/.0003.png.x.partial",
        "left over: images/block1_conv2/9999.png",
    ]
    build_gallery(network, tmp_path / "g", ["block1_conv2"], **FAST)
    assert check(tmp_path / "g")[1] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")
def test_killed_at_ten_random_moments_the_same_gallery_comes_out(tmp_path: Path) -> None:
    """In a process of its own, which has no threads yet when it forks."""
    script = [sys.executable, str(ROOT / "tests" / "long_runs" / "interrupted.py"), str(tmp_path)]
    part = ["--small", "--layers", "block1_conv1,block2_conv1", "--steps", "2"]
    result = subprocess.run([*script, *part], capture_output=True, text=True, check=False)
    assert result.stdout == "10 filters, killed at work 10 times: no difference\n", result.stderr


def test_a_full_disk_stops_the_build_with_a_line_and_nothing_damaged(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, left = os.replace, [7]

    def full(source: str, target: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"^cannot write .*: No space left on device; make room, .*\.$"):
        build_gallery(network, tmp_path, LAYERS, **FAST)
    monkeypatch.undo()
    faults = check(tmp_path)[1]
    assert faults
    assert {fault.kind for fault in faults} == {"missing"}
    build_gallery(network, tmp_path, LAYERS, **FAST)
    assert check(tmp_path)[1] == []


def test_two_builds_at_once_the_second_refuses_and_names_the_first(network: Network, tmp_path: Path, run: Run) -> None:
    build_gallery(network, tmp_path / "g", ["block1_conv1"], **FAST)
    with Store(tmp_path / "g").writing():
        result = run("gallery", "build", "g", "--model", "vgg16-mini", "--layers", "block1_conv1", "--steps", "2")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: g is being written by process {os.getpid()}, since ")
    assert result.stderr.count("\n") == 1
    assert check(tmp_path / "g")[1] == []


def test_who_stops_early_keeps_what_is_finished(network: Network, tmp_path: Path) -> None:
    steps: Iterator[object] = building(InProcess(network), Store(tmp_path), Request((), None, FAST | {"seed": 0}))
    for progress in steps:
        if progress.finished >= 8:
            break
    steps.close()
    store = Store(tmp_path)
    assert sum(map(len, store.done(store.planned()).values())) == progress.finished
    with store.writing():
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "g", "--layers", "block9_conv1"], "did you mean"),
        (["build", "g", "--layers", "classifier"], "has no feature maps"),
        (["build", "g", "--layers", "block1_conv1", "--filters", "5000"], "none of the filters asked for exists"),
        (["build", "g", "--address", "auto"], "--engine ray"),
        (["status", "."], "there is no gallery in ."),
        (["examples", ".", "--images", "."], "there is no gallery in ."),
        (["serve", "."], "there are no pages in ."),
        (["build", ".", "--layers", "block1_conv1", "--filters", "x"], "is no channel or range"),
    ],
)
def test_faults_are_told_in_one_line(run: Run, arguments: list[str], said: str, tmp_path: Path) -> None:
    result = run("gallery", *arguments, *(["--model", "vgg16-mini"] if arguments[0] in ("build", "examples") else []))
    assert result.exit_code in (1, 2)
    assert said in result.stderr.splitlines()[-1]
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1, "network": {}, "layers": [{}]}', '{"format": 99}'])
def test_a_gallery_whose_plan_is_damaged_says_so(tmp_path: Path, run: Run, content: str) -> None:
    (tmp_path / "gallery.json").write_text(content)
    check_damage_is_told(run)


@pytest.mark.parametrize(
    "edit",
    [
        {"network": {}},
        {"layers": []},
        {"filters": []},
        {"filters": ["a"]},
        {"layer": 3},
        {"settings": {}},
        {"filters": 5},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_plan_that_was_edited_into_nonsense_says_so(
    network: Network, tmp_path: Path, run: Run, edit: dict[str, object]
) -> None:
    build_gallery(network, tmp_path, ["block1_conv1"], [0], **FAST)
    data = json.loads((tmp_path / "gallery.json").read_text())
    place = data if set(edit) <= set(data) else data["layers"][0]
    place.update(edit)
    (tmp_path / "gallery.json").write_text(json.dumps(data))
    check_damage_is_told(run)


def check_damage_is_told(run: Run) -> None:
    for command in ("status", "verify", "site"):
        result = run("gallery", command, ".")
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert "gallery" in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("edit", [{"status": "odd"}, {"score": None}, {"inputs": 5}, {"curve": "x"}, {"max": None}])
def test_a_record_that_makes_no_sense_is_none(network: Network, tmp_path: Path, edit: dict[str, object]) -> None:
    build_gallery(network, tmp_path, ["block1_conv1"], [0, 1], **FAST)
    records = tmp_path / "records" / "block1_conv1.jsonl"
    first, second = records.read_text().splitlines()
    records.write_text(json.dumps(json.loads(first) | edit) + "\n" + second + "\n")
    assert [(fault.kind, fault.file) for fault in check(tmp_path)[1]] == [("missing", "images/block1_conv1/0000.png")]
    write_site(Store(tmp_path))
    build_gallery(network, tmp_path, ["block1_conv1"], [0, 1], **FAST)
    assert check(tmp_path)[1] == []


def test_status_and_plan_count(run: Run) -> None:
    run(
        "gallery", "build", "g", "--model", "vgg16-mini", "--layers", "block1_conv1", "--filters", "0-2", "--steps", "2"
    )
    status = json.loads(run("gallery", "status", "g", "--json").stdout)["layers"]
    assert status[0] | {"ok": 0, "weak": 0, "dead": 0} == {
        "layer": "block1_conv1", "filters": 3, "drawn": 3, "ok": 0, "weak": 0, "dead": 0
    }  # fmt: skip
    planned = json.loads(run("gallery", "plan", "--model", "vgg16", "--layers", "all", "--json").stdout)
    assert planned["filters"] == 4224
    times = [row["seconds"] for row in planned["layers"]]
    assert all(row["seconds"] > row["flops"] / row["flops_per_second"] for row in planned["layers"])
    assert planned["start_seconds"] > 0
    assert planned["seconds"] == pytest.approx(planned["start_seconds"] + sum(times))
    assert [row["filters"] for row in planned["layers"]] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6


def test_an_estimate_is_of_what_the_build_will_do(mini: Network) -> None:
    """Without numbers, a network is planned for as one with them: the same batch, the same kind of numbers."""
    request, zeros = Request(("block3_conv1", "block5_conv1")), with_zeros(outline("vgg16-mini"), torch.device("cpu"))
    layers = plan_layers(zeros, request)
    assert [layer.settings for layer in layers] == [layer.settings for layer in plan_layers(mini, request)]
    assert min(speed.seconds(layer) for speed, layer in zip(measured_speeds(zeros, layers), layers, strict=True)) > 0


def test_an_estimate_counts_what_is_judged(mini: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All images that the network is shown, with the way back or without it."""
    shown, called = {True: 0, False: 0}, Viewer.__call__

    def count(viewer: Viewer, images: Tensor, rows: Tensor) -> View:
        shown[torch.is_grad_enabled()] += 0 if images.is_meta else len(images)
        return called(viewer, images, rows)

    monkeypatch.setattr(Viewer, "__call__", count)
    settings = {"steps": 3, "size": 16, "batch": 4, "precision": "float32", "tries": 1}
    request = Request(("block2_conv1",), tuple(range(20)), settings)
    (layer,) = make_plan(mini, request).layers
    references = len(references_for(3, (16, 16)).names)
    for _ in building(InProcess(mini), Store(tmp_path / "g"), request):
        pass
    assert shown[True] == 20 * 3
    assert shown[False] == 2 * references + 3 * 20
    assert Speed(5, 3, 7, references).seconds(layer) == pytest.approx(
        layer.flops * (20 * 3 / 5 + 2 * references / 3 / 2 + 3 * 20 / 7 / 2)
    )


def test_wrong_settings_are_refused(network: Network, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        build_gallery(network, tmp_path / "g", ["block1_conv1"], recipe="forrier")
    with pytest.raises(ShapeError):
        build_gallery(network, tmp_path / "g", ["block1_conv1"], steps=0)
    with pytest.raises(ShapeError, match="there is no -1"):
        build_gallery(network, tmp_path / "g", ["block1_conv1"], [-1])
    with pytest.raises(TypeError):
        build_gallery(network, tmp_path / "g", ["block1_conv1"], references=tmp_path)
    assert not (tmp_path / "g").exists()
