"""Training the embedded network: both layouts of the data, the recipe, resuming, folding, half precision."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from torch import nn
from torchvision.transforms import functional as torchvision_functional

import cnnviz
from cnnviz.models import builtin, evaluate, train
from cnnviz.models.builtin import folded, vgg16_mini
from cnnviz.models.evaluate import expected_calibration_error, fitted_temperature
from cnnviz.models.tiny_imagenet import class_names, read_split
from cnnviz.models.weights import read_weights

WNIDS = ("n01443537", "n02123045")


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """The data as plain class folders with classes.tsv."""
    root = tmp_path / "folders"
    for split in ("train", "val"):
        for number, wnid in enumerate(WNIDS):
            (root / split / wnid).mkdir(parents=True)
            for index in range(5):
                picture(10 * number + index).save(root / split / wnid / f"{index}.webp", lossless=True)
    (root / "classes.tsv").write_text("n01443537\tgoldfish\nn02123045\ttabby, tabby cat\n")
    return root


@pytest.fixture
def ordinary(tmp_path: Path) -> Path:
    """The same images as tiny-imagenet-200.zip lays them out."""
    root = tmp_path / "ordinary"
    (root / "val" / "images").mkdir(parents=True)
    rows = []
    for number, wnid in enumerate(WNIDS):
        (root / "train" / wnid / "images").mkdir(parents=True)
        for index in range(5):
            picture(10 * number + index).save(root / "train" / wnid / "images" / f"{index}.png")
            name = f"val_{10 * number + index}.png"
            picture(10 * number + index).save(root / "val" / "images" / name)
            rows.append(f"{name}\t{wnid}\t0\t0\t9\t9\n")
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(rows)))
    (root / "words.txt").write_text("n00000001\tthing\nn01443537\tgoldfish\nn02123045\ttabby, tabby cat\n")
    return root


def test_both_layouts_hold_the_same(class_folders: Path, ordinary: Path) -> None:
    assert class_names(class_folders) == class_names(ordinary) == {WNIDS[0]: "goldfish", WNIDS[1]: "tabby, tabby cat"}
    for split in ("train", "val"):
        (pictures, classes), (same, same_classes) = read_split(class_folders, split), read_split(ordinary, split)
        assert torch.equal(pictures.flatten(1).sum(1).sort().values, same.flatten(1).sum(1).sort().values)
        assert classes.tolist() == sorted(same_classes.tolist()) == [0] * 5 + [1] * 5
        expected = torch.from_numpy(np.array(picture(10))).permute(2, 0, 1)
        for images, truth in ((pictures, classes), (same, same_classes)):
            (row,) = [row for row in range(10) if torch.equal(images[row], expected)]
            assert truth[row] == 1


@pytest.fixture
def small_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "STAGES", (train.Stage(2, 0.6, (32, 48)), train.Stage(1, 1.0, (64,))))
    monkeypatch.setattr(train, "BATCH", 5)


def run(data: Path, out: Path, *options: str) -> str:
    arguments = ["--data", str(data), "--out", str(out), *options]
    result = CliRunner().invoke(train.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_stopped_run_continues_as_if_it_had_not_stopped(
    class_folders: Path, tmp_path: Path, small_recipe: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(class_folders, tmp_path / "whole")
    finish = train.Run.finish_epoch

    def stop_after_one(self: train.Run) -> None:
        finish(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(train.Run, "finish_epoch", stop_after_one)
    CliRunner().invoke(train.main, ["--data", str(class_folders), "--out", str(tmp_path / "parts")])
    monkeypatch.setattr(train.Run, "finish_epoch", finish)
    assert "continuing after epoch 1" in run(class_folders, tmp_path / "parts")
    whole, parts = (read_weights(tmp_path / name / "vgg16-mini.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    lines = ((tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts"))
    logs = [[json.loads(row) for row in rows] for rows in lines]
    for row in (*logs[0], *logs[1]):
        assert row.pop("seconds") >= 0
    assert logs[0] == logs[1]
    assert [(row["epoch"], row["share"], row["sides"]) for row in logs[0]] == [
        (1, 0.3, [32, 48]),
        (2, 0.6, [32, 48]),
        (3, 1.0, [64]),
    ]
    assert [set(row) for row in logs[0]] == 3 * [{"epoch", "share", "sides", "rate", "loss"}]
    with safe_open(tmp_path / "whole" / "vgg16-mini.safetensors", "pt") as file:
        assert set(file.metadata()) == {"classes", "top1"}
    result = CliRunner().invoke(
        train.main, ["--data", str(class_folders), "--out", str(tmp_path / "whole"), "--seed", "1"]
    )
    assert result.exit_code == 2
    assert "holds a run with --seed 0" in result.output


def test_what_is_trained_is_exported_again_without_training(
    class_folders: Path, tmp_path: Path, small_recipe: None
) -> None:
    run(class_folders, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    run(class_folders, tmp_path / "again", "--export", str(checkpoint))
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["vgg16-mini.safetensors"]
    trained, again = (read_weights(tmp_path / name / "vgg16-mini.safetensors") for name in ("run", "again"))
    assert all(torch.equal(trained[key], again[key]) for key in trained)
    averaged, last = read_weights(checkpoint)["model"], torch.load(checkpoint, weights_only=True)["network"]
    assert not torch.equal(averaged["features.0.weight"], last["features.0.weight"])


def test_the_average_follows_the_weights_and_the_measures_of_batch_norm(
    class_folders: Path, tmp_path: Path, small_recipe: None
) -> None:
    training = train.Run(tmp_path, seed=0)
    before = {name: tensor.clone() for name, tensor in training.average.state_dict().items()}
    pictures, classes = read_split(class_folders, "train")
    training._step(train.augmented(pictures, 32, 0.3, torch.Generator().manual_seed(0)), classes)
    after = training.network.state_dict()
    for name, tensor in training.average.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.999 * before[name] + 0.001 * after[name])
    assert not torch.equal(after["features.1.running_mean"], before["features.1.running_mean"])


@pytest.mark.gpu
def test_on_a_card_nothing_waits_between_batches(tmp_path: Path) -> None:
    training, card = train.Run(tmp_path, seed=0), torch.device("cuda")
    draws = torch.Generator(card).manual_seed(0)
    pictures = torch.randint(256, (32, 3, 64, 64), generator=draws, device=card).byte()
    rows = torch.randperm(32, generator=draws, device=card)

    def step() -> torch.Tensor:
        return training._step(train.augmented(pictures[rows], 48, 0.3, draws), rows)

    step()  # what is set up once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.device.type == "cuda"
    assert loss.isfinite()


def test_folding_batch_norm_away_changes_nothing() -> None:
    torch.manual_seed(0)
    network = vgg16_mini(batch_norm=True)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 2)
            part.bias.data.normal_()
    images = torch.rand(2, 3, 64, 64)
    plain = folded(network.eval())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in plain.modules())
    torch.testing.assert_close(plain(images), network(images), rtol=1e-3, atol=1e-4)


def test_a_folded_temperature_divides_the_logits() -> None:
    network, images = vgg16_mini().eval(), torch.rand(2, 3, 64, 64)
    before = network(images)
    network.divide_logits(0.5)
    torch.testing.assert_close(network(images), before / 0.5)


def test_augmented_pictures_are_crops_of_their_own_picture() -> None:
    pictures = torch.stack([torch.full((3, 64, 64), value, dtype=torch.uint8) for value in (40, 200)])
    images = train.augmented(pictures, 48, 0.35, torch.Generator().manual_seed(0))
    assert images.shape == (2, 3, 48, 48)
    assert images[0].mean() < images[1].mean()
    again = train.augmented(pictures, 48, 0.35, torch.Generator().manual_seed(0))
    assert torch.equal(images, again)


@pytest.mark.parametrize("smallest", [0.3, 0.55])
def test_crops_have_the_area_that_was_asked_for_and_half_of_them_are_flipped(
    monkeypatch: pytest.MonkeyPatch, smallest: float
) -> None:
    """An image whose red is its column and whose green is its row says what was cut out of it."""
    monkeypatch.setattr(train, "COLOUR", 0.0)
    monkeypatch.setattr(train, "normalised", lambda images: images)
    across = torch.arange(64, dtype=torch.uint8).expand(64, 64)
    pictures = torch.stack([across, across.T, torch.zeros_like(across)]).expand(200, 3, 64, 64)
    images = 255 * train.augmented(pictures, 48, smallest, torch.Generator().manual_seed(1))
    width, height = (images[:, 0, 24, -2] - images[:, 0, 24, 1]), (images[:, 1, -2, 24] - images[:, 1, 1, 24])
    area = width.abs() * height / (64 * 45 / 48) ** 2  # from the second to the last but one of 48 pixels
    assert 0.98 * smallest <= area.min() <= 1.1 * smallest
    assert 0.97 <= area.max() <= 1.01
    assert height.min() > 0
    assert 70 < (width < 0).sum() < 130
    assert 0 <= images[:, :2].min() <= images[:, :2].max() <= 63


def test_normalised_pictures_are_those_of_torchvision() -> None:
    images = torch.rand(2, 3, 8, 8)
    expected = torchvision_functional.normalize(images, list(builtin.MEAN), list(builtin.STD))
    torch.testing.assert_close(train.normalised(images), expected)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [train.rate_at(share / 1000) for share in range(1001)]
    assert rates.index(max(rates)) == 40
    assert rates[:41] == sorted(rates[:41])
    assert rates[40:] == sorted(rates[40:], reverse=True)
    assert max(rates) == pytest.approx(0.3)
    assert rates[520] == pytest.approx(0.15)
    assert rates[-1] == 0


def test_the_schedule_is_that_of_the_network_that_is_shipped() -> None:
    """Against the log of its training: sides at epochs, and the rate where a stage ends."""
    assert sum(stage.epochs for stage in train.STAGES) == 87
    first = {0: (48, 64), 20: (64, 80), 42: (80, 96), 65: (96, 112, 128), 82: (96, 112, 128, 144, 160)}
    for epoch in range(87):
        start = max(beginning for beginning in first if beginning <= epoch)
        assert train.sides_at(train.share_done(epoch)) == first[start]
    logged = {1: 0.0973, 20: 0.2809, 42: 0.1886, 65: 0.0694, 82: 0.0051, 87: 0.0}
    for epoch, rate in logged.items():
        assert train.rate_at(train.share_done(epoch)) == pytest.approx(rate, abs=0.02)
    crops = [train.smallest_crop_at(train.share_done(epoch)) for epoch in range(87)]
    assert crops == 56 * [0.3] + 21 * [0.4] + 10 * [0.55]


def measure(data: Path, *options: str) -> str:
    result = CliRunner().invoke(evaluate.main, ["--data", str(data), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_evaluation_measures_at_the_sides_that_are_asked_for(class_folders: Path) -> None:
    rows = [line for line in measure(class_folders, "--side", "32", "--side", "48").splitlines() if " px" in line]
    assert [row.split(" px")[0] for row in rows] == ["| 32", "| 48"]


def test_evaluation_counts_what_the_network_gets_right(class_folders: Path) -> None:
    output = measure(class_folders, "--first", "4")
    assert "4 images" in output
    assert len([line for line in output.splitlines() if " px |" in line]) == len(evaluate.SIDES)
    assert "| block5_conv3 | 192 |" in output

    logits, classes = torch.tensor([[0.0, 1, 2], [5, 1, 0], [1, 5, 0], [0, 2, 1]]), torch.tensor([2, 0, 0, 2])
    assert [evaluate.share_right(logits, classes, top) for top in (1, 2, 3)] == [0.5, 1, 1]
    network = cnnviz.wrap(nn.Conv2d(3, 3, 1), name="net", input_size=8, labels=["a", "b", "c"])
    best, worst, taken = evaluate.per_class(network, logits, classes)
    assert best == "- most often right: a 50%, c 50%"
    assert worst == "- least often right: c 50%, a 50%"
    assert taken.startswith("- most often taken: a for b (1), c for b (1)")


def test_dead_filters_are_those_that_never_fire() -> None:
    torch.manual_seed(0)
    module = vgg16_mini().eval()
    with torch.no_grad():
        module.features[0].weight[[2, 5]] = 0
        module.features[0].bias[[2, 5]] = -1
        module.features[0].bias[7] = 100
    network = cnnviz.wrap(module, name="net", input_size=64)
    images = [picture(seed) for seed in range(3)]
    dead = evaluate.dead_filters(network, images, 64)["block1_conv1"]
    fired = torch.stack([cnnviz.feature_maps(network, image, "block1_conv1").maximum[0] > 0 for image in images])
    assert torch.equal(dead, ~fired.any(0))
    assert dead[[2, 5, 7]].tolist() == [True, True, False]


def test_calibration_by_hand() -> None:
    """90 % sure and right in 3 of 4 cases, 60 % sure and right in none of 2."""
    logits = torch.tensor([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2).log()
    classes = torch.tensor([0, 0, 0, 1, 1, 1])
    assert expected_calibration_error(logits, classes) == pytest.approx((4 * 0.15 + 2 * 0.6) / 6)
    sure = torch.tensor([[0.75, 0.25]]).log().repeat(4, 1)
    assert expected_calibration_error(sure, classes[:4]) == pytest.approx(0, abs=1e-6)
    assert fitted_temperature(4 * sure, classes[:4]) == pytest.approx(4, rel=1e-4)


def test_the_shipped_file_is_half_precision() -> None:
    tensors = read_weights(builtin.FILE)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in tensors.values())
