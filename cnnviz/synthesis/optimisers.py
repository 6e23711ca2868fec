"""What moves an image's parameters along their gradients.

Our own few lines: PyTorch's optimisers import its compiler, which takes longer than the ascent of a small image. To
add one, write an `Optimiser`.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

EPSILON = 1e-8


class Optimiser:
    """Goes down the gradients of parameters whose rows are images.

    Args:
        parameters: to be moved.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters by a step of size `rate`, and forget their gradients."""
        self.steps += 1
        for parameter in self.parameters:
            gradient, parameter.grad = parameter.grad, None
            if gradient is not None:
                self.move(parameter, gradient, rate)

    def move(self, parameter: nn.Parameter, gradient: Tensor, rate: float) -> None:
        """Move a parameter; this is step number `steps`, counted from 1."""
        raise NotImplementedError


class Adam(Optimiser):
    """Kingma and Ba (2015), *Adam: A Method for Stochastic Optimization*, with their constants."""

    mean_decay, square_decay = 0.9, 0.999

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters)
        self.means, self.squares = ({values: torch.zeros_like(values) for values in self.parameters} for _ in range(2))

    def move(self, parameter: nn.Parameter, gradient: Tensor, rate: float) -> None:
        mean, deviation = self._moments(parameter, gradient)
        parameter.addcdiv_(mean, deviation, value=-rate / (1 - self.mean_decay**self.steps))

    def _moments(self, parameter: nn.Parameter, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The running mean of the gradients, and their running root mean square without its bias."""
        mean, square = self.means[parameter], self.squares[parameter]
        mean.lerp_(gradient, 1 - self.mean_decay)
        square.mul_(self.square_decay).addcmul_(gradient, gradient, value=1 - self.square_decay)
        return mean, (square.sqrt() / math.sqrt(1 - self.square_decay**self.steps)).add_(EPSILON)


class AdamW(Adam):
    """Adam whose steps also shrink the parameters.

    Loshchilov and Hutter (2019), *Decoupled Weight Decay Regularization*.

    Args:
        weight_decay: the share of a parameter that a step of size 1 takes away. None grows beyond 1 / weight_decay.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        super().__init__(parameters)
        self.weight_decay = weight_decay

    def move(self, parameter: nn.Parameter, gradient: Tensor, rate: float) -> None:
        parameter.mul_(1 - rate * self.weight_decay)
        super().move(parameter, gradient, rate)


class NAdam(Adam):
    """Adam that looks ahead: Dozat (2016), *Incorporating Nesterov Momentum into Adam*."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters)
        self.product = 1.0

    def step(self, rate: float) -> None:
        self.product *= self._momentum(self.steps + 1)
        super().step(rate)

    def move(self, parameter: nn.Parameter, gradient: Tensor, rate: float) -> None:
        mean, deviation = self._moments(parameter, gradient)
        now, ahead = self._momentum(self.steps), self._momentum(self.steps + 1)
        parameter.addcdiv_(gradient, deviation, value=-rate * (1 - now) / (1 - self.product))
        parameter.addcdiv_(mean, deviation, value=-rate * ahead / (1 - self.product * ahead))

    def _momentum(self, step: int) -> float:
        return float(self.mean_decay * (1 - 0.5 * 0.96 ** (0.004 * step)))


class GradientAscent(Optimiser):
    """Plain gradient steps of root mean square `rate` for each image: gradients differ by orders of magnitude."""

    def move(self, parameter: nn.Parameter, gradient: Tensor, rate: float) -> None:
        size = gradient.square().flatten(1).mean(1).sqrt().clamp(min=torch.finfo(gradient.dtype).tiny)
        parameter.sub_(rate * gradient / size.view(-1, *(1,) * (gradient.ndim - 1)))
