"""The optimisers against PyTorch's."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from cnnviz.synthesis.optimisers import Adam, AdamW, GradientAscent, NAdam, Optimiser

DECAYING = partial(AdamW, weight_decay=0.04), partial(torch.optim.AdamW, weight_decay=0.04)


@pytest.mark.parametrize(("own", "theirs"), [(Adam, torch.optim.Adam), DECAYING, (NAdam, torch.optim.NAdam)])
def test_steps_are_pytorchs(own: Callable[..., Optimiser], theirs: Callable[..., torch.optim.Optimizer]) -> None:
    start = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    moved, expected = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimiser, oracle = own([moved]), theirs([expected], lr=0.3)
    for _ in range(20):
        for values in (moved, expected):
            (values.sin() * values).sum().backward()
        optimiser.step(0.3)
        oracle.step()
        oracle.zero_grad()
    assert not torch.equal(moved, start)
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-6)


def test_plain_steps_are_of_one_size_for_each_image() -> None:
    values = nn.Parameter(torch.zeros(2, 3, 4, 4))
    (values * torch.tensor([1e-6, 1e6]).view(2, 1, 1, 1)).sum().backward()
    GradientAscent([values]).step(0.25)
    torch.testing.assert_close(values.detach(), torch.full_like(values, -0.25))
