"""Networks of a user's own that are odd, broken or of another kind: what works works, the rest is told in one line."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import Result

import cnnviz
from tests.support.commands import Run, faults

NETS = """
import collections, dataclasses, sys, threading
import torch
from torch import nn
from torch.nn import functional as F

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Linear(4, 5)
    def logits(self, x): return self.head(self.relu(self.conv(x)).mean((2, 3)))
    def forward(self, x): return self.logits(x)
def tail(*first): return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten())

def mlp(): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, 5))
class Conv1d(nn.Module):
    def __init__(self): super().__init__(); self.conv, self.head = nn.Conv1d(3, 4, 3), nn.Linear(4, 5)
    def forward(self, x): return self.head(self.conv(x.flatten(2)).mean(2))
class Conv3d(nn.Module):
    def __init__(self): super().__init__(); self.conv, self.head = nn.Conv3d(1, 4, 3), nn.Linear(4, 5)
    def forward(self, x): return self.head(self.conv(x[:, None]).mean((2, 3, 4)))
class Dynamic(Plain):
    def __init__(self): super().__init__(); self.sometimes = nn.Conv2d(3, 3, 1)
    def forward(self, x): return self.logits(self.sometimes(x) if x.mean() > 100 else x)
class Never(Plain):
    def __init__(self): super().__init__(); self.unused = nn.Conv2d(4, 4, 1)
class Twice(Plain):
    def forward(self, x): return self.head(self.relu(self.conv(self.relu(self.conv(x))[:, :3])).mean((2, 3)))
class Tuple(Plain):
    def forward(self, x): return self.logits(x), x
class Dict(Plain):
    def forward(self, x): return {"out": self.logits(x)}
@dataclasses.dataclass
class Output: logits: torch.Tensor
class Data(Plain):
    def forward(self, x): return Output(self.logits(x))
Named = collections.namedtuple("Named", "logits aux")
class NamedTuple(Plain):
    def forward(self, x): return Named(self.logits(x), x)
class Nothing(Plain):
    def forward(self, x): self.logits(x)
class Maps(Plain):
    def forward(self, x): return self.relu(self.conv(x))
class Number(Plain):
    def forward(self, x): return self.logits(x).sum()
class Whole(Plain):
    def forward(self, x): return self.logits(x).long()
class Complex(Plain):
    def forward(self, x): return self.logits(x) + 1j
def no_classes(): return nn.Sequential(tail(nn.Conv2d(3, 4, 3)), nn.Linear(4, 5), Slice())
class Slice(nn.Module):
    def forward(self, x): return x[:, :0]
class Detached(Plain):
    def forward(self, x): return self.logits(x).detach()
class Nan(Plain):
    def forward(self, x): return self.logits(x) * float("nan")
class Inf(Plain):
    def forward(self, x): return self.logits(x) + float("inf")
class TrainingOnly(Plain):
    def forward(self, x):
        if not self.training: raise RuntimeError("for training only")
        return self.logits(x)
class Random(Plain):
    def forward(self, x): return self.logits(F.dropout(x, 0.9, training=True))
class Key(Plain):
    def forward(self, x): raise KeyError("oops")
class Attribute(Plain):
    def forward(self, x): return self.nothing(x)
class Zero(Plain):
    def forward(self, x): return 1 / 0
class OwnError(Plain):
    def forward(self, x): raise type("Mine", (Exception,), {})("of two\\nlines")
class Exits(Plain):
    def forward(self, x): sys.exit(3)
class Endless(Plain):
    def forward(self, x): return self.forward(x)
class Inner(nn.Module):
    def __init__(self): super().__init__(); self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, x): return self.conv(x), x
class TupleLayer(Plain):
    def __init__(self): super().__init__(); self.conv = Inner()
    def forward(self, x): return self.head(self.relu(self.conv(x)[0]).mean((2, 3)))

def wants(argument): return Plain()
def nothing(): return None
def prints(): print("HELLO"); return Plain()
def exits(): sys.exit(7)
def interrupts(): raise KeyboardInterrupt
def settings():
    torch.manual_seed(99); torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False); torch.set_num_threads(3)
    return Plain()
class Lock(Plain):
    def __init__(self): super().__init__(); self.lock = threading.Lock()
class NoCopies(Plain):
    def __deepcopy__(self, memo): raise KeyError("no copies")
class WrongCopies(Plain):
    def __deepcopy__(self, memo): return None
class Lambda(Plain):
    __slots__ = ("slot",)
    def __init__(self): super().__init__(); self.slot = self.double = lambda x: 2 * x
    def forward(self, x): return self.double(self.logits(x))
class ExtraState(Plain):
    def get_extra_state(self): return {"any": object()}
    def set_extra_state(self, state): pass
def lazy(): return nn.Sequential(nn.LazyConv2d(4, 3), tail(), nn.Linear(4, 5))
def on_meta():
    with torch.device("meta"): return Plain()
def quantized():
    return torch.ao.quantization.quantize_dynamic(Plain().eval(), {nn.Linear}, dtype=torch.qint8)
def scripted(): return torch.jit.script(Plain())
def compiled(): return torch.compile(Plain())
def one_logit(): return nn.Sequential(tail(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Linear(4, 1))
def one_number(): return nn.Sequential(one_logit(), nn.Flatten(0))
def no_parameters(): return tail(nn.ReLU())
def no_channels(): return tail(nn.Conv2d(3, 4, 3), Slice(), nn.Conv2d(4, 4, 1))
def complex_weights(): return tail(nn.Conv2d(3, 4, 3, dtype=torch.complex64))
def transformer():
    from torchvision.models import VisionTransformer
    made = VisionTransformer(32, 8, 1, 2, 16, 16, num_classes=10)
    nn.init.normal_(made.heads.head.weight)
    return made
def inception():
    from torchvision.models import GoogLeNet
    return GoogLeNet(num_classes=5, init_weights=False)
def segmentation():
    from torchvision.models.segmentation.fcn import FCN, FCNHead
    return FCN(Backbone(), FCNHead(8, 5))
class Backbone(nn.Module):
    def __init__(self): super().__init__(); self.conv = nn.Conv2d(3, 8, 3)
    def forward(self, x): return {"out": self.conv(x)}
"""
PICTURE = "picture.png"
ALL = ("layers", "featuremaps", "filters", "classimage", "saliency", "predict")
LOOKED_AT = ("layers", "featuremaps", "filters")  # what needs no logits


def words(command: str, layer: str) -> list[str]:
    return {
        "layers": [],
        "featuremaps": [PICTURE, "--layer", layer],
        "filters": ["--layer", layer, "--filters", "0", "--steps", "2"],
        "classimage": ["0", "--steps", "2"],
        "saliency": [PICTURE, "--method", "saliency"],
        "predict": [PICTURE],
    }[command]


@pytest.fixture
def do(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a command on one of the networks; whatever comes out is a result or a line."""
    from PIL import Image

    (tmp_path / "nets.py").write_text(NETS)
    Image.radial_gradient("L").resize((32, 32)).convert("RGB").save(tmp_path / PICTURE)
    monkeypatch.setattr("cnnviz.synthesis.settings.TRIES", 1)

    def call(command: str, net: str, layer: str = "conv", *more: str) -> Result:
        own = ["--model", f"nets.py:{net}", "--input-size", "32"]
        result = run(command, *words(command, layer), *own, *more)
        if result.exit_code:
            assert result.exit_code == 1
            assert faults(result).startswith("Error: ")
            assert faults(result).count("\n") == 1
        return result

    return call


# Of each network, the commands that work, and what the others say.
BROKEN: dict[str, tuple[tuple[str, ...], str]] = {
    "Tuple": (LOOKED_AT, "is no classifier of single images: it gives no single row of logits but a tuple"),
    "Dict": (LOOKED_AT, "but a dict; look at its layers and filters, or name a factory"),
    "Data": (LOOKED_AT, "but a Output"),
    "NamedTuple": (LOOKED_AT, "but a Named"),
    "Nothing": (LOOKED_AT, "but a NoneType"),
    "Maps": (LOOKED_AT, "but float32 of shape"),
    "Whole": (LOOKED_AT, "but int64 of shape"),
    "Complex": (LOOKED_AT, "but complex64 of shape"),
    "Nan": (LOOKED_AT, "not finite; look for NaN among its weights"),
    "Inf": (LOOKED_AT, "not finite; look for NaN among its weights"),
    "Detached": ((*LOOKED_AT, "predict"), "does not require grad"),
    "TrainingOnly": ((), "fails on images of 3 x 32 x 32 (for training only)"),
    "Key": ((), "fails on images of 3 x 32 x 32 (KeyError: 'oops')"),
    "Attribute": ((), "(AttributeError: 'Attribute' object has no attribute 'nothing')"),
    "Zero": ((), "(ZeroDivisionError: division by zero)"),
    "OwnError": ((), "(Mine: of two)"),
    "Exits": ((), "(SystemExit: 3)"),
    "Endless": ((), "recursion"),
    "wants": ((), "wants() missing 1 required positional argument: 'argument'."),
    "nothing": ((), "returned an object of type NoneType; it should return an nn.Module"),
    "exits": ((), "calling exits() raised SystemExit: 7 (nets.py, line "),
    "Lock": ((), "Lock holds something that cannot be copied: cannot pickle"),
    "NoCopies": ((), "NoCopies holds something that cannot be copied: 'no copies'"),
    "WrongCopies": ((), "its __deepcopy__ gives something else"),
    "lazy": ((), "has lazy layers that have no weights yet; let its factory show it some images first"),
    "on_meta": (("layers",), "is on the device 'meta', which keeps no numbers"),
    "quantized": ((), "is quantized and has no gradients; give the network as it was before"),
    "scripted": ((), "is TorchScript, whose layers cannot be looked into; give the module it was made of"),
    "complex_weights": ((), "fails on images of 3 x 32 x 32"),
    "no_channels": (("featuremaps", "filters"), "fails on images of 3 x 32 x 32"),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, about TorchScript and quantization
@pytest.mark.parametrize("net", BROKEN)
def test_a_broken_network_is_told_of_in_a_line_and_the_rest_works(do, net: str) -> None:
    works, message = BROKEN[net]
    layer = "0.0" if net == "lazy" else "0" if net in ("complex_weights", "no_channels") else "conv"
    for command in ALL:
        result = do(command, net, layer)
        if command in works:
            assert result.exit_code == 0, (command, result.stderr)
        else:
            assert message in result.stderr, command


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("net", ["Maps"])
def test_what_comes_instead_of_logits_is_told_in_the_numbers_that_were_computed(do, net: str) -> None:
    assert "but float32 of shape" in do("classimage", net).stderr
    assert "but float32 of shape" in do("predict", net).stderr


@pytest.mark.parametrize("net", ["Dynamic", "Never", "Twice", "Random", "Lambda", "ExtraState"])
def test_an_odd_network_works_with_all_commands(do, net: str) -> None:
    for command in ALL:
        assert do(command, net).exit_code == 0


def test_of_a_compiled_network_the_one_that_was_compiled_is_taken(do) -> None:
    assert "conv of nets.py:compiled" in do("featuremaps", "compiled").stdout


@pytest.mark.parametrize("net", ["Dynamic", "Never"])
def test_a_layer_that_does_not_run_is_named(do, net: str) -> None:
    layer = {"Dynamic": "sometimes", "Never": "unused"}[net]
    for command in ("featuremaps", "filters"):
        assert f"layer '{layer}' of nets.py:{net} does not run" in do(command, net, layer).stderr
    (row,) = [each for each in json.loads(do("layers", net, layer, "--json").stdout)["layers"] if each["name"] == layer]
    assert row["output"] == []


def test_a_network_that_draws_lots_is_not_made_again_the_same(do, run: Run) -> None:
    do("featuremaps", "Random", "conv", "-o", "a.png")
    result = run("rerun", "a.png", "--picture", PICTURE, "--model", "nets.py:Random")
    assert result.exit_code == 1
    assert result.stdout.startswith("a.png: not the same: numbers differ by ")


@pytest.mark.parametrize(("net", "layer"), [("mlp", "1"), ("Conv1d", "conv"), ("Conv3d", "conv")])
def test_without_a_convolution_in_two_dimensions(do, run: Run, net: str, layer: str) -> None:
    """How many colours it takes is tried, and there are no maps; classes and attributions work."""
    for command in ALL:
        result = do(command, net, layer, "--mean", "0.5,0.5,0.5")
        if command in ("featuremaps", "filters"):
            assert ("gives no feature maps" in result.stderr) or ("has no feature maps" in result.stderr), command
        else:
            assert result.exit_code == 0, result.stderr
    own = ["--model", f"nets.py:{net}", "--input-size", "32", "--mean", "0,0,0"]
    every = run("featuremaps", PICTURE, "--layers", "all", *own)
    assert every.exit_code == 1
    assert "runs no convolution of two dimensions" in every.stderr
    assert (
        "no layer with feature maps, which Grad-CAM needs"
        in do("saliency", net, layer, *own, "--method", "grad-cam").stderr
    )


def test_a_vision_transformer(do) -> None:
    """Its patches have maps, and its tokens become some; classes and gradients are like any network's."""
    assert do("layers", "transformer").exit_code == 0
    for command in ALL:
        assert do(command, "transformer", "conv_proj").exit_code == 0
    tokens = "encoder.layers.encoder_layer_0.mlp"
    (row,) = json.loads(do("featuremaps", "transformer", tokens, "--json").stdout)["maps"]
    assert row["shape"] == [16, 4, 4]
    assert do("filters", "transformer", tokens).exit_code == 0
    attention = "encoder.layers.encoder_layer_0.self_attention"
    assert "gives a tuple, not a tensor" in do("featuremaps", "transformer", attention).stderr


@pytest.mark.filterwarnings("ignore:.*init.*:FutureWarning")
def test_torchvisions_own_tuples_and_dicts(do) -> None:
    """GoogLeNet gives a tuple in training only; segmentation gives a dict."""
    assert do("predict", "inception").exit_code == 0
    assert "but a OrderedDict" in do("predict", "segmentation").stderr
    assert do("featuremaps", "segmentation", "backbone.conv").exit_code == 0


def test_a_layer_that_gives_several_tensors(do) -> None:
    for command in ("featuremaps", "filters"):
        assert "gives a tuple, not a tensor; choose a layer inside it" in do(command, "TupleLayer").stderr
    assert do("featuremaps", "TupleLayer", "conv.conv").exit_code == 0


def test_a_single_output_is_a_value_or_a_logit_if_one_says_so(do) -> None:
    (said,) = json.loads(do("predict", "one_logit", "", "--json").stdout)["predictions"]
    (row,) = said["classes"]
    assert row["probability"] is None
    value = row["score"]
    (said,) = json.loads(do("predict", "one_logit", "", "--json", "--outputs", "multilabel").stdout)["predictions"]
    (row,) = said["classes"]
    network = cnnviz.load("nets.py:one_logit", input_size=32)
    from cnnviz.networks.inputs import show

    expected = network(show(network, PICTURE, fit="crop").images)
    assert value == pytest.approx(expected.item())
    assert row["probability"] == pytest.approx(expected.sigmoid().item())
    assert "maximise that output alone (--plain-logit)" in do("classimage", "one_logit").stderr
    assert do("classimage", "one_logit", "", "--logit-alone").exit_code == 0
    assert do("saliency", "one_number").exit_code == 0
    assert do("classimage", "one_number", "", "--logit-alone").exit_code == 0


def test_a_network_without_weights(do) -> None:
    for command in ("layers", "featuremaps", "filters", "saliency", "predict"):
        assert do(command, "no_parameters", "0").exit_code == 0


def test_what_a_factory_prints_is_no_result(do) -> None:
    result = do("predict", "prints", "", "--json")
    assert len(json.loads(result.stdout)["predictions"]) == 1
    assert result.stderr.startswith("HELLO\n")


def test_what_a_factory_sets_for_all_of_pytorch_is_set_back(do) -> None:
    before = torch.random.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    for command in ("filters", "saliency"):
        assert do(command, "settings").exit_code == 0
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (torch.get_default_dtype(), torch.get_num_threads()) == before[1:]
    assert torch.is_grad_enabled()


def test_an_interruption_in_a_factory_is_one(run: Run, do) -> None:
    result = run("layers", "--model", "nets.py:interrupts", "--input-size", "32")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("size", "status", "message"),
    [("99999", 1, "4096"), ("0", 2, "is no size"), ("-1", 2, "is no size"), ("1e9", 2, "no size")],
)
def test_sizes_that_no_network_takes(run: Run, do, size: str, status: int, message: str) -> None:
    result = run("layers", "--model", "nets.py:Plain", "--input-size", size)
    assert result.exit_code == status
    assert message in result.stderr
