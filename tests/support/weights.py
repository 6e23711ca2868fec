"""Files of weights in the place of published ones."""

from pathlib import Path

import torch

from cnnviz.models import zoo

SMALL = "squeezenet1_1"  # the published weights of this one are small, and so is its stand-in here


def stand_in(cache: Path, name: str, value: float = 0.01) -> Path:
    """A file of the right name, keys and shapes where torch hub looks for published weights; it holds one number."""
    cache.mkdir(parents=True, exist_ok=True)
    state = {
        key: torch.full((), value, dtype=tensor.dtype).expand(tensor.shape)
        for key, tensor in zoo.skeleton(name).state_dict().items()
    }
    torch.save(state, zoo.cache_file(name))
    return zoo.cache_file(name)
