"""Training the embedded network: both layouts of the data, resuming, folding, half precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from torch import nn

import cnnviz
from cnnviz.models import builtin, evaluate, train
from cnnviz.models.builtin import folded, freeze, unfolded, vgg16_mini
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
    """The same pictures as tiny-imagenet-200.zip lays them out."""
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
    cycles = (train.Cycle(0.2, 0.5, 0.35, 0, ((32, 48), (32, 48))), train.Cycle(0.1, 0.5, 0.5, 2, ((64, 64),)))
    monkeypatch.setattr(train, "EPOCHS", [(cycle, done) for cycle in cycles for done in range(len(cycle.sides))])
    monkeypatch.setattr(train, "BATCH", 5)


def run(data: Path, out: Path) -> str:
    result = CliRunner().invoke(train.main, ["--data", str(data), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_stopped_run_continues_as_if_it_had_not_stopped(
    class_folders: Path, tmp_path: Path, small_recipe: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(class_folders, tmp_path / "whole")
    finish = train.Run.finish_epoch

    def stop_after_one(self: train.Run, *arguments: object) -> None:
        finish(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(train.Run, "finish_epoch", stop_after_one)
    CliRunner().invoke(train.main, ["--data", str(class_folders), "--out", str(tmp_path / "parts")])
    monkeypatch.setattr(train.Run, "finish_epoch", finish)
    assert "continuing after epoch 1" in run(class_folders, tmp_path / "parts")
    whole, parts = (read_weights(tmp_path / name / "vgg16-mini.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert len((tmp_path / "parts" / "log.jsonl").read_text().splitlines()) == 3
    with safe_open(tmp_path / "whole" / "vgg16-mini.safetensors", "pt") as file:
        assert set(file.metadata()) == {"classes", "top1"}
    result = CliRunner().invoke(
        train.main, ["--data", str(class_folders), "--out", str(tmp_path / "whole"), "--seed", "1"]
    )
    assert result.exit_code == 2
    assert "holds a run with --seed 0" in result.output


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


def test_batch_norm_put_back_changes_nothing_and_can_be_folded_away_again() -> None:
    torch.manual_seed(0)
    plain, images = vgg16_mini().eval(), torch.randn(4, 3, 64, 64)
    trained = unfolded(plain, images)
    torch.testing.assert_close(trained(images), plain(images), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(folded(trained)(images), plain(images), rtol=1e-3, atol=1e-5)
    kernels = [part.weight.flatten(1).norm(dim=1) for part in trained.features if isinstance(part, nn.Conv2d)]
    torch.testing.assert_close(torch.cat(kernels), torch.ones(sum(map(len, kernels))))
    maps = images
    for part in trained.features:
        if isinstance(part, nn.BatchNorm2d):
            torch.testing.assert_close(part.running_mean, maps.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
        maps = part(maps)


def test_frozen_blocks_stay_as_they_are() -> None:
    torch.manual_seed(0)
    network = vgg16_mini(batch_norm=True).train()
    freeze(network, 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(torch.randn(4, 3, 32, 32)).square().mean().backward()
    torch.optim.SGD((parameter for parameter in network.parameters() if parameter.grad is not None), lr=0.1).step()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    pool_of_block2 = 13  # with batch norm, three modules a convolution
    numbers = {int(name.split(".")[1]) for name in changed if name.startswith("features")}
    assert min(numbers) == pool_of_block2 + 1


def test_the_last_cycle_starts_from_shipped_weights(class_folders: Path, tmp_path: Path, small_recipe: None) -> None:
    data, out = ["--data", str(class_folders)], ["--out", str(tmp_path / "run")]
    arguments = [*data, *out, "--start", str(builtin.FILE)]
    assert CliRunner().invoke(train.main, arguments, catch_exceptions=False).exit_code == 0
    assert [row.split(",")[0] for row in (tmp_path / "run" / "log.jsonl").read_text().splitlines()] == ['{"epoch": 3']
    before, after = read_weights(builtin.FILE), read_weights(tmp_path / "run" / "vgg16-mini.safetensors")
    torch.testing.assert_close(after["features.5.weight"], before["features.5.weight"], rtol=0.01, atol=1e-3)
    assert not torch.allclose(after["features.28.weight"], before["features.28.weight"], rtol=0.01, atol=1e-3)


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


def test_the_rate_rises_then_falls_to_nothing() -> None:
    cycle = train.Cycle(peak=0.2, warm_up=0.15, smallest_crop=0.35, frozen=0, sides=4 * ((32, 48),))
    rates = [cycle.rate(step / 25) for step in range(100)]
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(0.2)
    assert rates[-1] < 0.001


def test_evaluation_counts_what_the_network_gets_right(class_folders: Path) -> None:
    result = CliRunner().invoke(evaluate.main, ["--data", str(class_folders), "--first", "4"], catch_exceptions=False)
    assert "4 pictures" in result.output
    assert len([line for line in result.output.splitlines() if " px |" in line]) == len(evaluate.SIDES)
    assert "| block5_conv3 | 192 |" in result.output

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
