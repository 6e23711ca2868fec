"""What outputs are, against networks whose last function is known."""

import math

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.errors import UnknownNameError
from cnnviz.networks.outputs import Outputs, probabilities_of


class Headed(nn.Module):
    """A small classifier and what ends it."""

    def __init__(self, outputs: int, end: nn.Module, scale: float = 30) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.linear, self.end = nn.Conv2d(3, 8, 3), nn.Linear(8, outputs), end
        self.linear.weight.data *= scale

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.end(self.linear(self.features(images).relu().mean((2, 3))))
        return output


class Function(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, values: Tensor) -> Tensor:
        functions = {
            "functional softmax": lambda: torch.softmax(values, 1),
            "softmax by hand": lambda: values.exp() / values.exp().sum(1, keepdim=True),
            "functional sigmoid": lambda: torch.sigmoid(values),
            "sigmoid, squeezed": lambda: values.sigmoid().squeeze(),
            "softmax as maps": lambda: values.softmax(1)[:, :, None, None],
        }
        output: Tensor = functions[self.name]()
        return output


PROBABLE = [nn.Softmax(1), nn.Sigmoid(), *map(Function, ("functional softmax", "softmax by hand"))]
PROBABLE += [*map(Function, ("functional sigmoid", "sigmoid, squeezed", "softmax as maps"))]


@pytest.mark.parametrize("end", PROBABLE, ids=lambda end: getattr(end, "name", type(end).__name__))
@pytest.mark.parametrize("classes", [4, 5])
def test_probabilities_are_noticed_and_told_as_they_are(end: nn.Module, classes: int) -> None:
    module, image = Headed(classes, end).eval(), torch.rand(3, 32, 32)
    network = cnnviz.wrap(module, name="net", input_size=32)
    assert network.outputs == "probabilities"
    expected = module(image[None]).reshape(-1)
    for prediction in cnnviz.predict(network, image):
        assert prediction.probability == pytest.approx(expected[prediction.index].item(), rel=1e-5)
        assert prediction.score == prediction.probability


def test_a_single_sigmoid_is_a_probability_and_a_bare_number_a_value() -> None:
    image = torch.rand(3, 32, 32)
    for end, outputs in ((nn.Sigmoid(), "probabilities"), (nn.Identity(), "value"), (nn.ReLU(), "value")):
        network = cnnviz.wrap(Headed(1, end), name="net", input_size=32)
        (prediction,) = cnnviz.predict(network, image)
        assert network.outputs == outputs
        assert (prediction.probability is None) == (outputs == "value")
        assert prediction.text == (f"{prediction.score:.4g}" if outputs == "value" else f"{prediction.score:.1%}")


@pytest.mark.parametrize("outputs", ["logits", "multilabel", "value", "probabilities"])
def test_outputs_are_what_one_is_told(outputs: Outputs) -> None:
    module, image = Headed(4, nn.Identity(), scale=1), torch.rand(3, 32, 32)
    network = cnnviz.wrap(module, name="net", input_size=32, outputs=outputs)
    logits = module(image[None])[0]
    expected = {"logits": logits.softmax(0), "multilabel": logits.sigmoid()}.get(outputs, logits)
    for prediction in cnnviz.predict(network, image):
        share = prediction.score if prediction.probability is None else prediction.probability
        assert share == pytest.approx(expected[prediction.index].item(), rel=1e-5)
    assert cnnviz.wrap(module, name="net", input_size=32).outputs == "logits"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'logits'"):
        cnnviz.wrap(Headed(2, nn.Identity()), name="net", input_size=32, outputs="logit")


@pytest.mark.parametrize("shape", [(1, 1), (1,), ()])
@pytest.mark.parametrize("count", [1, 3])
def test_rows_are_found_whatever_shape_they_come_in(shape: tuple[int, ...], count: int) -> None:
    class Shaped(Headed):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).reshape(len(images), -1, *shape)

    module = Shaped(5, nn.Identity())
    network, images = cnnviz.wrap(module, name="net", input_size=32), torch.rand(count, 3, 32, 32)
    torch.testing.assert_close(network(images), module(images).detach().reshape(count, 5))
    explained = cnnviz.attribute(network, images, 2, method="saliency")
    given = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(given).reshape(count, 5)[:, 2].sum(), given)
    torch.testing.assert_close(explained, gradient)


def test_a_class_is_climbed_by_the_logarithm_of_its_probability() -> None:
    network = cnnviz.wrap(Headed(4, nn.Softmax(1), scale=3), name="net", input_size=32)
    synthesis = cnnviz.class_images(network, [1], alone=True, steps=20, tries=1)
    (image,) = synthesis.synthesized
    probability = network(image.image[None])[0, 1].item()
    assert image.judgement.score == pytest.approx(math.log(probability), rel=1e-4)
    assert image.judgement.mean == pytest.approx(probability, rel=1e-4)
    assert image.judgement.score > image.start


def test_probabilities_of_one_logit() -> None:
    assert torch.equal(probabilities_of(torch.zeros(2, 1), "logits"), torch.full((2, 1), 0.5))
