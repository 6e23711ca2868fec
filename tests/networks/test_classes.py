"""Classes are found by number, WordNet id, any synonym, and unambiguous beginnings."""

import pytest
from torch import nn

import cnnviz
from cnnviz.errors import ShapeError, UnknownNameError
from cnnviz.networks.network import Network
from cnnviz.networks.predictions import class_index


@pytest.mark.parametrize("name", [30, "30", "tabby", "Tabby Cat", " tabby cat ", "n02123045", "N02123045", "tabb"])
def test_every_name_of_the_tabby(mini: Network, name: str | int) -> None:
    assert class_index(mini, name) == 30


def test_every_synonym_of_every_class_finds_it_or_says_what_else_it_means(mini: Network) -> None:
    for index, label in enumerate(mini.labels):
        assert class_index(mini, mini.wnids[index]) == index
        for synonym in label.split(", "):
            shared = [other for other, names in enumerate(mini.labels) if synonym in names.split(", ")]
            if shared == [index]:
                assert class_index(mini, synonym) == index
            else:
                with pytest.raises(UnknownNameError, match="may be"):
                    class_index(mini, synonym)


def test_what_may_be_several_lists_them() -> None:
    labels = ["crane, bird", "crane, machine", *(f"crate {number}" for number in range(9))]
    network = cnnviz.wrap(nn.Conv2d(3, 11, 1), name="net", input_size=8, labels=labels)
    with pytest.raises(UnknownNameError, match=r"'Crane' may be crane \(0\), crane \(1\); give the number"):
        class_index(network, "Crane")
    with pytest.raises(UnknownNameError, match=r"'cra' may be crane .*crate 5 \(7\) and 3 more"):
        class_index(network, "cra")
    assert class_index(network, "mach") == 1


def test_a_word_of_a_name_comes_before_the_beginning_of_another() -> None:
    labels = ["catamaran", "Persian cat", "Egyptian cat", "tiger shark"]
    network = cnnviz.wrap(nn.Conv2d(3, 4, 1), name="net", input_size=8, labels=labels)
    with pytest.raises(UnknownNameError, match=r"'cat' may be Persian cat \(1\), Egyptian cat \(2\); give"):
        class_index(network, "cat")
    assert class_index(network, "shark") == 3
    assert class_index(network, "cata") == 0


def test_unknown_classes_name_close_ones(mini: Network) -> None:
    with pytest.raises(UnknownNameError, match=r"no class 'tubby cat'; did you mean 'tabby cat'"):
        class_index(mini, "tubby cat")
    for number in ("200", -1):
        with pytest.raises(ShapeError, match="its 200 classes are 0 to 199"):
            class_index(mini, number)
    bare = cnnviz.wrap(nn.Conv2d(3, 2, 1), name="net", input_size=8)
    assert class_index(bare, "7") == 7
    with pytest.raises(UnknownNameError, match="no class names"):
        class_index(bare, "cat")


def test_only_close_spellings_of_a_class_are_suggested(mini: Network) -> None:
    lists = "`cnnviz classes` for the same --model lists its 200 classes"
    with pytest.raises(UnknownNameError, match=rf"no class 'volcano'. {lists}.$"):
        class_index(mini, "volcano")
    with pytest.raises(UnknownNameError, match=r"no class 'tiger'. `cnnviz classes`"):
        class_index(mini, "tiger")
    with pytest.raises(UnknownNameError, match=r"no class 'taby'; did you mean 'tabby'\?"):
        class_index(mini, "taby")
