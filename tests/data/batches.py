"""Folders of smooth photos, and the batches of two loaders side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def smooth_folder(root: Path, count: int, size: Callable[[int], tuple[int, int]], suffix: str) -> Path:
    """root/<train or val>/<a or b>/<index><suffix>: `count` photos a class, `size(index)` pixels wide and high."""
    random = np.random.default_rng(0)
    options = {"quality": 95} if suffix == ".jpg" else {}
    for split in ("train", "val"):
        for name in ("a", "b"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                coarse = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
                coarse.resize(size(index), Image.Resampling.BICUBIC).save(folder / f"{index}{suffix}", **options)
    return root


def read_batches(loader: Any, epochs: int = 1) -> Batches:
    """All batches of some epochs; closes the loader."""
    read = [batch for _ in range(epochs) for batch in loader]
    loader.close()
    return read


def assert_same_batches(here: Batches, there: Batches) -> None:
    """The same images, in channels last, and the same targets."""
    assert len(here) == len(there)
    for (images, targets), (wanted_images, wanted_targets) in zip(here, there, strict=True):
        assert torch.equal(targets, wanted_targets)
        assert torch.equal(images, wanted_images)
        assert images.is_contiguous(memory_format=torch.channels_last)
