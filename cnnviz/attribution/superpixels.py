"""Superpixels: patches of an image that are alike in colour and lie together.

After SLIC (Achanta et al. 2012): k-means over places and colours, begun on a grid.
"""

from threading import Lock

import numpy as np
import torch
from torch import Tensor

ROUNDS = 8
COLOUR_WEIGHT = 2.0  # of the full range of a colour, against the distance between two neighbouring patches' centres
_alone = Lock()  # scikit-learn sets the whole process's threads of BLAS to one, and later to what it found


def superpixels(image: Tensor, count: int) -> Tensor:
    """Patch numbers (H, W), int64, from 0 on, for an image (C, H, W) in [0, 1]; about `count` of them."""
    from sklearn.cluster import KMeans

    height, width = image.shape[1:]
    columns = max(1, min(width, round((count * width / height) ** 0.5)))
    rows = max(1, min(height, round(count / columns)))
    side = (height * width / (rows * columns)) ** 0.5
    places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")) / side
    points = torch.cat([places, COLOUR_WEIGHT * image.detach().cpu().float()]).flatten(1).T.numpy()
    y, x = (
        ((torch.arange(number) + 0.5) / number * length).long() for number, length in ((rows, height), (columns, width))
    )
    start = (y[:, None] * width + x).flatten()
    with _alone:
        means = KMeans(len(start), init=points[start], n_init=1, max_iter=ROUNDS, tol=0).fit(points)
    labels = np.unique(means.labels_, return_inverse=True)[1]
    return torch.from_numpy(labels.astype(np.int64)).view(height, width)
