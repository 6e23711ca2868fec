"""Tiny ImageNet as tensors: 64 x 64 photographs of 200 classes, for training and measuring the embedded network.

Two layouts are read: the ordinary one of ``tiny-imagenet-200.zip`` (``train/WNID/images/*.JPEG``, ``val/images`` with
``val_annotations.txt``, ``words.txt``) and plain class folders (``train/WNID/*``, ``val/WNID/*``, ``classes.tsv``).
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnnviz.pictures.reading import picture_files

SIDE = 64


def class_names(data: Path) -> dict[str, str]:
    """WordNet ids, sorted, with their synonyms ("tabby, tabby cat") as the data set's own table gives them."""
    table = next(data / name for name in ("classes.tsv", "words.txt") if (data / name).exists())
    with table.open(encoding="utf-8") as file:
        words = dict(row[:2] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    wnids = sorted(folder.name for folder in (data / "train").iterdir() if folder.is_dir())
    return {wnid: words[wnid] for wnid in wnids}


def read_split(data: Path, split: str, progress: Callable[[int], None] | None = None) -> tuple[Tensor, Tensor]:
    """All images of a split ("train" or "val"), decoded.

    Args:
        progress: called now and then with how many images are read.

    Returns:
        Images (N, 3, 64, 64), uint8, and classes (N,), int64, which count the sorted WordNet ids.
    """
    index = {wnid: number for number, wnid in enumerate(class_names(data))}
    files = _validation_files(data) if (data / split / "val_annotations.txt").exists() else _class_files(data / split)
    pictures = np.empty((len(files), SIDE, SIDE, 3), dtype=np.uint8)
    for row, (path, _) in enumerate(files):
        with Image.open(path, formats=["JPEG", "PNG", "WEBP"]) as picture:
            pictures[row] = np.asarray(picture.convert("RGB"))
        if progress and row % 1000 == 999:
            progress(row + 1)
    classes = torch.tensor([index[wnid] for _, wnid in files])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), classes


def _class_files(folder: Path) -> list[tuple[Path, str]]:
    return [(path, path.relative_to(folder).parts[0]) for path in picture_files(folder)]


def _validation_files(data: Path) -> list[tuple[Path, str]]:
    folder = data / "val"
    rows = (line.split("\t") for line in (folder / "val_annotations.txt").read_text(encoding="utf-8").splitlines())
    return sorted((folder / "images" / row[0], row[1]) for row in rows)
