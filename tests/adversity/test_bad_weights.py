"""Files given as weights that are none, or not these: one line and exit 1, no code run, nothing filled with memory."""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

import cnnviz
from cnnviz.errors import WeightsError
from cnnviz.models import zoo
from tests.support.commands import Run, faults
from tests.support.paths import CAT

NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
"""
OWN = ["--model", "net.py:net", "--input-size", "16"]
State = dict[str, Tensor]
DAMAGED = "cannot be read as weights: it is damaged, not a .pth or .safetensors file, or holds more than tensors"
NO_STATE, NO_FILE = "holds no state dict", "there are no weights at"


@pytest.fixture
def state(tmp_path: Path) -> State:
    (tmp_path / "net.py").write_text(NET)
    return dict(cnnviz.load(f"{tmp_path}/net.py:net", input_size=16).module.state_dict())


def refused(run: Run, name: str, message: str) -> None:
    result = run("predict", CAT, *OWN, "--weights", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert faults(result).startswith("Error: ")
    assert faults(result).count("\n") == 1
    assert message in result.stderr


def saved(content: object, **options: object) -> bytes:
    torch.save(content, "saved", **options)
    return Path("saved").read_bytes()


class Code:
    """What a pickle may do when it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


CODE: dict[str, Callable[[State], bytes]] = {
    "plain": lambda state: pickle.dumps(Code()),
    "in a dict": lambda state: pickle.dumps({"state_dict": {"0.weight": Code()}}),
    "in an archive": lambda state: saved(state | {"x": Code()}),
    "in a checkpoint": lambda state: saved({"state_dict": state, "args": Code()}),
    "in the old format": lambda state: saved(state | {"x": Code()}, _use_new_zipfile_serialization=False),
    "a whole module": lambda state: saved(nn.Linear(2, 2)),
}


BLOCKED = dict.fromkeys(("in an archive", "in a checkpoint", "in the old format"), f"{os.system.__module__}.system") | {
    "a whole module": "torch.nn.modules.linear.Linear"
}


@pytest.mark.parametrize("kind", CODE)
@pytest.mark.parametrize("ending", ["pth", "safetensors", "bin"])
def test_code_in_a_file_never_runs(run: Run, state: State, kind: str, ending: str) -> None:
    Path(f"w.{ending}").write_bytes(CODE[kind](state))
    blocked = BLOCKED.get(kind)
    refused(run, f"w.{ending}", f"it holds {blocked}, which cnnviz does not open" if blocked else DAMAGED)
    assert not Path("ran").exists()


@pytest.mark.parametrize("kind", ["pth", "old pth", "safetensors"])
def test_cut_off_anywhere_it_is_no_weights(run: Run, state: State, kind: str) -> None:
    whole = save(state) if kind == "safetensors" else saved(state, _use_new_zipfile_serialization=kind == "pth")
    Path("w.bin").write_bytes(whole)
    assert run("predict", CAT, *OWN, "--weights", "w.bin").exit_code == 0
    for place in range(50):
        Path("w.bin").write_bytes(whole[: place * len(whole) // 50])
        refused(run, "w.bin", "damaged" if place else "cannot be read as weights: it is empty")


TENSOR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
LIES: dict[str, tuple[bytes, int | None]] = {
    "longer than the file": (b"{}", 10**6),
    "2**63 bytes": (b"{}", 2**63),
    "2**64 - 1 bytes": (b"{}", 2**64 - 1),
    "places out of the file": (json.dumps({"a": TENSOR | {"data_offsets": [0, 1600]}}).encode(), None),
    "places that overlap": (json.dumps({"a": TENSOR, "b": TENSOR}).encode(), None),
    "a negative side": (json.dumps({"a": TENSOR | {"shape": [-4]}}).encode(), None),
    "more numbers than bytes": (json.dumps({"a": TENSOR | {"shape": [5]}}).encode(), None),
    "a side that overflows": (json.dumps({"a": TENSOR | {"shape": [2**62, 4]}}).encode(), None),
    "no JSON": (b"{hello world", None),
    "deep lists": (b'{"a":' + b"[" * 100_000, None),
    "deep objects": (b'{"a":' * 50_000, None),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_found_out(run: Run, state: State, lie: str) -> None:
    header, length = LIES[lie]
    start = struct.pack("<Q", len(header) if length is None else length)
    Path("w.safetensors").write_bytes(start + header + bytes(16))
    refused(run, "w.safetensors", DAMAGED)


def test_a_header_with_a_name_twice_gives_one_tensor(run: Run, state: State) -> None:
    entry = json.dumps({"a": TENSOR})[1:-1]
    header = f"{{{entry},{entry}}}".encode()
    Path("w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    refused(run, "w.safetensors", "extra: a")


OTHERS: dict[str, tuple[bytes, str]] = {
    "web page": (b"<!DOCTYPE html><title>Log in</title>", "it is a web page, as a proxy"),
    "web page behind blanks": (b"\xef\xbb\xbf\n\n <HTML>", "it is a web page, as a proxy"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "run `git lfs pull`"),
    "empty": (b"", "it is empty; get it again"),
    "text": (b"hello", DAMAGED),
    "picture": (CAT.read_bytes(), DAMAGED),
    "pickle of a list": (pickle.dumps([1]), DAMAGED),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_what_a_file_is_instead_is_said(run: Run, state: State, kind: str, ending: str) -> None:
    content, message = OTHERS[kind]
    Path(f"w.{ending}").write_bytes(content)
    refused(run, f"w.{ending}", message)


def changed(state: State, value: object) -> State:
    return state | {"0.weight": value}  # type: ignore[dict-item]


CONTENTS: dict[str, tuple[Callable[[State], object], str]] = {
    "list": (lambda state: list(state.values()), NO_STATE),
    "nothing": (lambda state: {}, NO_STATE),
    "a number among tensors": (lambda state: state | {"epoch": 3}, NO_STATE),
    "names that are numbers": (lambda state: state | {3: torch.zeros(2)}, NO_STATE),
    "a name that is None": (lambda state: state | {None: torch.zeros(2)}, NO_STATE),
    "itself": (lambda state: state.setdefault("state_dict", state), NO_STATE),  # type: ignore[arg-type]
    "no numbers": (lambda state: changed(state, state["0.weight"].to("meta")), NO_STATE),
    "petabytes of no numbers": (lambda state: changed(state, torch.empty(10**6, 10**9, device="meta")), NO_STATE),
    "sparse": (lambda state: changed(state, state["0.weight"].to_sparse()), NO_STATE),
    "huge and sparse": (lambda state: changed(state, torch.sparse_coo_tensor(size=(10**6, 10**6))), NO_STATE),
    "quantized": (lambda state: changed(state, quantized(state["0.weight"])), NO_STATE),
    "huge by repetition": (lambda state: changed(state, torch.zeros(1).expand(10**6, 10**6)), "another shape: 0.w"),
    "int8": (lambda state: {key: value.to(torch.int8) for key, value in state.items()}, "no real numbers: 0.weight"),
    "bool": (lambda state: {key: value.to(torch.bool) for key, value in state.items()}, "no real numbers: 0.weight"),
    "complex": (lambda state: changed(state, state["0.weight"] + 0j), "no real numbers: 0.weight"),
    "another network's": (lambda state: nn.Linear(2, 2).state_dict(), "extra: weight, bias; give weights of"),
    "one too few": (
        lambda state: {key: state[key] for key in list(state)[1:]},
        "holds no 0.weight, which the output of net.py:n",
    ),
    "one of another shape": (lambda state: changed(state, torch.zeros(4, 3, 5, 5)), "another shape: 0.weight; give"),
    "NaN": (lambda state: changed(state, state["0.weight"] / 0 * 0), "logits that are not finite; look for NaN among"),
    "infinite": (lambda state: changed(state, state["0.weight"] / 0), "logits that are not finite; look for NaN among"),
}


def quantized(tensor: Tensor) -> Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore:.*quantize", "ignore:Sparse invariant checks")
@pytest.mark.parametrize("kind", CONTENTS)
def test_contents_that_are_no_weights_of_the_network(run: Run, state: State, kind: str) -> None:
    content, message = CONTENTS[kind]
    torch.save(content(state), "w.pth")
    assert Path("w.pth").stat().st_size < 20_000
    refused(run, "w.pth", message)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_more_or_fewer_digits_are_understood(run: Run, state: State, dtype: torch.dtype) -> None:
    torch.save({key: value.to(dtype) for key, value in state.items()}, "w.pth")
    network = cnnviz.load("net.py:net", weights="w.pth", input_size=16)
    assert network.dtype == torch.float32
    assert torch.equal(network.module[0].weight, state["0.weight"].to(dtype).float())


@pytest.mark.parametrize("ending", ["pth", "safetensors", "bin", "ckpt", "pt", "SAFETENSORS", "txt"])
def test_the_content_counts_and_not_the_ending(run: Run, state: State, ending: str) -> None:
    for content in (save(state), saved({"model": state, "epoch": 3})):
        Path(f"w.{ending}").write_bytes(content)
        assert run("predict", CAT, *OWN, "--weights", f"w.{ending}").exit_code == 0


def test_what_is_no_file_is_not_opened(run: Run, state: State) -> None:
    Path("folder.pth").mkdir()
    os.mkfifo("pipe.pth")
    Path("loop.pth").symlink_to("loop.pth")
    for name in ("folder.pth", "pipe.pth", "loop.pth", "none.pth", "", "/dev/zero", "a\0b.pth"):
        refused(run, name, NO_FILE)
    refused(run, "x" * 300, "File name too long; give another file")


def test_a_file_without_permission_is_not_called_damaged(
    run: Run, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, "w.pth")
    plainly = Path.open

    def forbid(path: Path, *arguments: str) -> object:
        if path.name == "w.pth":
            raise PermissionError(13, "Permission denied")
        return plainly(path, *arguments)

    monkeypatch.setattr(Path, "open", forbid)
    refused(run, "w.pth", "cannot read the weights w.pth: Permission denied; give another file")


def test_an_archive_that_would_fill_the_memory_is_not_unpacked(
    run: Run, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile("w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/version", "3")
        archive.writestr("archive/data.pkl", bytes(200_000_000))
    assert Path("w.pth").stat().st_size < 250_000
    unpacked = []
    monkeypatch.setattr(torch, "load", lambda *_, **__: unpacked.append(1))
    refused(run, "w.pth", DAMAGED)
    assert not unpacked


@pytest.mark.parametrize("kind", [*OTHERS, "code", "int8"])
def test_a_cached_download_that_is_none_is_named(empty_cache: Path, kind: str) -> None:
    name = "squeezenet1_1"
    file = zoo.cache_file(name)
    file.parent.mkdir(parents=True)
    if kind == "code":
        file.write_bytes(pickle.dumps(Code()))
    elif kind == "int8":
        torch.save({key: value.to(torch.int8) for key, value in zoo.skeleton(name).state_dict().items()}, file)
    else:
        file.write_bytes(OTHERS[kind][0])
    message = "no real numbers: features" if kind == "int8" else "cannot be read; delete that file"
    with pytest.raises(WeightsError, match=message):
        cnnviz.load(name)
    assert not Path("ran").exists()


@pytest.mark.parametrize("command", ["featuremaps", "filters", "kernels", "saliency", "classimage"])
def test_weights_that_are_nan_give_no_blank_picture(run: Run, state: State, command: str) -> None:
    state["0.weight"].fill_(torch.nan)
    torch.save(state, "w.pth")
    arguments = {
        "featuremaps": [CAT, "--layer", "0"],
        "filters": ["--layer", "0", "--filters", "0", "--steps", "2"],
        "kernels": [],
        "saliency": [CAT],
        "classimage": ["0", "--steps", "2"],
    }
    result = run(command, *arguments[command], *OWN, "--weights", "w.pth")
    assert result.exit_code == 1, result.stdout
    assert "not finite; look for NaN" in result.stderr
    assert not list(Path().glob("*.png"))


@pytest.mark.filterwarnings("ignore:.*deprecated")  # PyTorch's own, about TorchScript
def test_a_torchscript_archive_is_told_for_what_it_is(run: Run, state: State) -> None:
    torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).save("w.pth")
    refused(run, "w.pth", "it is a TorchScript archive, which holds code too; save `torch.jit.load(file).state_dict()`")
