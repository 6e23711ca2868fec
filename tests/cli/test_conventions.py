"""What all commands share: names of layers and files, defaults, help, JSON."""

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from PIL import Image

import cnnviz
from cnnviz.attribution.methods import METHODS, method_named
from cnnviz.cli import cli
from cnnviz.networks.layers import last_convolutions, middle_convolution
from cnnviz.networks.network import Network
from cnnviz.pictures.records import read_record
from tests.support.commands import COMMANDS, Run
from tests.support.paths import CAT, NETWORKS

MINI = ("--model", "vgg16-mini")
SHORT = ("--channels", "0", "--steps", "1", "--size", "16", *MINI)
MAPS = ("featuremaps", CAT, "--layer", "block1_conv1", "--size", "32", *MINI)


def sheets() -> list[str]:
    return sorted(path.name for path in Path().rglob("*.png"))


@pytest.mark.parametrize(
    "layers",
    [
        ("--layer", "block1_conv1", "--layer", "conv2_1"),
        ("--layers", "block1_conv1,Block2-Conv1"),
    ],
)
def test_filters_draws_every_layer_that_is_named(run: Run, layers: tuple[str, ...]) -> None:
    assert run("filters", *layers, *SHORT).exit_code == 0
    assert sheets() == [f"vgg16-mini_filters_block{block}_conv1.png" for block in (1, 2)]
    assert "2 sheets do not fit into one file" in run("filters", *layers, *SHORT, "-o", "a.png").stderr
    result = json.loads(run("filters", *layers, *SHORT, "--json").stdout)
    assert [Path(sheet["file"]).exists() for sheet in result["sheets"]] == [True, True]


def test_channels_and_filters_are_one_option(run: Run) -> None:
    assert run(*MAPS, "--filters", "3,1", "-o", "a.png").exit_code == 0
    assert read_record("a.png")["settings"]["channels"] == [3, 1]


def test_without_a_layer_there_are_defaults(run: Run, mini: Network) -> None:
    blocks = ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]
    assert last_convolutions(mini) == blocks
    assert middle_convolution(mini) == "block3_conv3"
    assert run("featuremaps", CAT, "--size", "32", *MINI).exit_code == 0
    assert sheets() == [f"cat_vgg16-mini_featuremaps_{layer}.png" for layer in blocks]
    for command in (("filters", "--channels", "0"), ("dream", CAT), ("invert", CAT)):
        result = run(*command, "--steps", "1", "--size", "48", *MINI)
        assert result.exit_code == 0, result.stderr
        assert "block3_conv3" in result.stdout.partition(": ")[2]


def test_without_blocks_the_last_convolution_of_each_size() -> None:
    network = cnnviz.load("resnet18", weights="random")
    assert last_convolutions(network) == ["conv1", *(f"layer{stage}.1.conv2" for stage in range(1, 5))]


@pytest.mark.parametrize("name", ["conv4_2", "Block4_Conv2", "block4-conv2", "BLOCK4_CONV2"])
def test_layers_in_other_spellings(mini: Network, name: str) -> None:
    assert mini.qualified(name) == mini.qualified("block4_conv2")
    assert mini.listed(name) == "block4_conv2"
    assert mini.listed(f"{name}:pre") == "block4_conv2:pre"
    assert mini.filters_of(f"{name}:pre") == mini.filters_of("block4_conv2:pre")


def test_methods_in_other_spellings() -> None:
    for name in METHODS:
        letters = name.replace("-", "")
        assert {method_named(spelling) for spelling in (name, letters, letters.upper(), name.title())} == {name}


COMMAS = "Separate {} with commas, without blanks: {}."


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (
            ("featuremaps", CAT, "--layers", "block1_conv1", "block2_conv1"),
            COMMAS.format("layers", "--layers block1_conv1,block2_conv1"),
        ),
        (
            ("filters", "--layers", "block1_conv1,", "block2_conv1"),
            COMMAS.format("layers", "--layers block1_conv1,block2_conv1"),
        ),
        (
            ("saliency", CAT, "--method", "grad-cam", "occlusion"),
            COMMAS.format("methods", "--method grad-cam,occlusion"),
        ),
        (("featuremaps", CAT, "block4_conv2"), "A layer is named by --layer block4_conv2."),
        (("filters", "--layer", "block4_conv3", "12"), "Filters are named by --filters 12."),
        (("filters", "0-15,41"), "Filters are named by --filters 0-15,41."),
        (("layers", "vgg16"), "The network is named by --model vgg16."),
        (("kernels", "AlexNet"), "The network is named by --model alexnet."),
        (("saliency", CAT, "gradcam"), "A method is named by --method grad-cam."),
        (
            ("saliency", CAT, "--versus", "Egyptian", "cat"),
            'Put a name of several words into quotation marks: --versus "Egyptian cat".',
        ),
        (("gradcam", CAT), "It is a method of attribution: cnnviz saliency IMAGE --method grad-cam."),
        (("heatmap", CAT), "Heatmaps come from `cnnviz saliency IMAGE`."),
        (("filters", "--filter", "12"), "Did you mean '--filters'?"),
        (("featuremaps", CAT, "--channel", "5"), "Did you mean '--channels'?"),
    ],
)
def test_what_was_probably_meant_is_told(run: Run, command: tuple[object, ...], advice: str) -> None:
    result = run(*command)
    assert result.exit_code == 2
    assert result.stderr.endswith(f". {advice}\n")


def test_layers_may_be_listed_behind_either_option(run: Run) -> None:
    for option in ("--layer", "--layers"):
        asked = (option, "block1_conv1,block2_conv1", "--top", "1", *MINI)
        result = run("featuremaps", CAT, *asked, "--json", "-o", "out")
        assert [row["layer"] for row in json.loads(result.stdout)["maps"]] == ["block1_conv1", "block2_conv1"]


def test_a_missing_image_is_no_forgotten_comma(run: Run) -> None:
    assert "comma" not in run("featuremaps", "--layer", "block1_conv1", "cat2.jpg").stderr


def test_files_named_without_what_makes_a_network(run: Run) -> None:
    Path("net.py").write_text("print('ran')\ndef make(): ...\nclass Net: ...\ndef _own(): ...\n")
    result = run("layers", "--model", "net.py")
    assert "name a function or class of it: net.py:make, net.py:Net." in result.stderr
    assert "ran" not in result.output
    Path("net.py").write_text("def (")
    assert "is not Python that can be read" in run("layers", "--model", "net.py").stderr
    assert "--model file.py:factory and the file with --weights" in run("predict", CAT, "--model", "whole.pth").stderr


def test_what_is_forgotten_of_a_network_of_ones_own(run: Run) -> None:
    own = ("featuremaps", CAT, "--layer", "conv1", "--model", f"{NETWORKS}:LeNet", "--input-size", "28", "--quiet")
    warning = run(*own).stderr
    assert warning.startswith("warning: networks.py:LeNet: no --weights, so it is untrained (random weights)")
    assert "not normalised" in warning
    assert warning.count("\n") == 1
    assert "not normalised" not in run(*own, "--mean", "0", "--std", "1").stderr


def test_help_is_in_groups_and_in_full(run: Run) -> None:
    text = run("--help").stdout
    assert [line for line in text.splitlines() if line in ("Look:", "Explain:", "Browse:", "Networks:")] != []
    assert "..." not in text.partition("Look:")[2]
    for words in COMMANDS:
        text = run(*words, "-h").stdout
        texts = [line for line in text.splitlines() if " TEXT" in line]
        assert all(line.split()[0] in ("--objective", "--title") for line in texts)
        assert " PATH " not in text
        own, network, options = text.partition("\nOptions:")[2].partition("Network options:")
        assert ("--input-size" in options) == bool(network)
        assert "--input-size" not in own
    assert "--method METHOD" in run("saliency", "-h").stdout
    assert "--layer LAYER" in run("filters", "-h").stdout


def test_the_old_name_of_plain_logit_works_and_is_hidden(run: Run) -> None:
    assert (
        run("classimage", "tabby", "--logit-alone", "--steps", "1", "--size", "48", *MINI, "-o", "a.png").exit_code == 0
    )
    assert read_record("a.png")["settings"]["alone"] is True
    assert "--logit-alone" not in run("classimage", "-h").stdout


def test_files_that_are_there_are_kept(run: Run) -> None:
    name = "cat_vgg16-mini_featuremaps_block1_conv1"
    for _ in range(2):
        assert f"{name}.png: " in run(*MAPS).stdout
    assert f"{name}-2.png: " in run(*MAPS, "--channels", "3").stdout
    assert f"{name}-2.png: " in run(*MAPS, "--channels", "3").stdout
    assert f"{name}.png: " in run(*MAPS, "--channels", "3", "--force").stdout
    assert sheets() == [f"{name}-2.png", f"{name}.png"]
    Image.new("RGB", (8, 8)).save("mine.png")
    before = Path("mine.png").read_bytes()
    assert run(*MAPS, "-o", "mine.png").stdout.startswith("mine-2.png: ")
    assert Path("mine.png").read_bytes() == before
    assert run(*MAPS, "-o", "mine.png", "--force").stdout.startswith("mine.png: ")


@pytest.mark.parametrize(
    "command",
    [
        MAPS,
        ("filters", "--layer", "block1_conv1", *SHORT),
        ("kernels", *MINI),
        ("saliency", CAT, "--method", "saliency", "--size", "32", *MINI),
        ("dream", CAT, "--steps", "1", "--size", "48", *MINI),
    ],
)
@pytest.mark.parametrize("folder", ["new/", "there", "plain"])
def test_every_sheet_may_go_into_a_folder(run: Run, command: tuple[object, ...], folder: str) -> None:
    Path("there").mkdir()
    assert run(*command, "-o", folder).exit_code == 0
    assert len(list(Path(folder).glob(f"*_{command[0]}*.png"))) == 1


def test_the_environment_and_a_file_give_defaults(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("cnnviz.toml").write_text('model = "vgg16-mini"\nsize = 40\n')
    assert run("featuremaps", CAT, "--layer", "block1_conv1", "-o", "a.png").exit_code == 0
    record = read_record("a.png")
    assert (record["network"]["name"], record["settings"]["size"]) == ("vgg16-mini", 40)
    Path("cnnviz.toml").unlink()
    monkeypatch.setenv("CNNVIZ_MODEL", "vgg16-mini")
    assert "vgg16-mini at" in run("layers").stdout
    monkeypatch.setenv("CNNVIZ_MODEL", "resnet18")
    assert "identical" in run("rerun", "a.png", "--image", CAT).stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('model = "net.py:make"', "names code that would be executed"),
        ('modle = "vgg16"', "no command has the option --modle; did you mean 'model'"),
        ("model = ", "is not valid TOML"),
        ('device = "gpu"', "'gpu' is not one of"),
        ("[salience]\ntop = 2", "no command named 'salience'; did you mean 'saliency'"),
        ("[kernels]\nstep = 2", "kernels has not the option --step"),
        ('[gallery.build]\nmodel = "net.py:make"', "names code that would be executed"),
    ],
)
def test_a_file_of_defaults_that_is_wrong(run: Run, text: str, message: str) -> None:
    Path("cnnviz.toml").write_text(text)
    Path("net.py").write_text("raise SystemExit('ran')")
    result = run("layers")
    assert result.exit_code in (1, 2)
    assert message in result.stderr


def test_a_table_holds_the_defaults_of_one_command(run: Run) -> None:
    tables = '[predict]\ntop = 2\n[gallery.plan]\nlayers = "block1_conv1"\n'
    Path("cnnviz.toml").write_text('model = "vgg16-mini"\n' + tables)
    (row,) = json.loads(run("predict", CAT, "--json").stdout)["predictions"]
    assert len(row["classes"]) == 2
    maps = json.loads(run("featuremaps", CAT, "--layer", "block1_conv1", "--size", "32", "--json").stdout)["maps"]
    assert len(maps[0]["channels"]) == 16
    assert "block2" not in run("gallery", "plan").stdout


def completed(*words: str) -> list[str]:
    return [item.value for item in ShellComplete(cli, {}, "cnnviz", "_X").get_completions(list(words[:-1]), words[-1])]


def test_names_are_completed() -> None:
    assert completed("saliency", "--method", "grad-cam,occ") == ["grad-cam,occlusion"]
    assert "vgg16-mini" in completed("layers", "--model", "vgg16")
    assert "block4_conv2" in completed("featuremaps", *MINI, "--layer", "block4_")
    assert completed("featuremaps", "--model", "net.py:make", "--layer", "b") == []


@pytest.mark.parametrize(
    "command",
    [
        MAPS,
        ("predict", CAT, *MINI),
        ("saliency", CAT, "--method", "saliency", "--size", "32", *MINI),
        ("classes", "cat", *MINI),
        ("models", "vgg"),
    ],
)
def test_json_is_one_object(run: Run, command: tuple[object, ...]) -> None:
    result = json.loads(run(*command, "--json").stdout)
    assert isinstance(result, dict)
    if CAT not in command:
        return
    assert (result["network"]["name"], result["fit"]) == ("vgg16-mini", "crop")
    (row,) = result.get("maps") or result.get("predictions") or [result]
    assert row["image"]["file"] == str(CAT)
    assert len(row["image"]["sha256"]) == 64
