"""What a task's samples are: how a split is opened, how an image and its target are transformed, how a batch is made.

The loader reads images the same way for every task; what differs stands in one `Samples`. Targets are whatever the task
needs: numbers of classes, masks, lists of boxes. In a batch they are a tensor, or lists, tuples and dictionaries of
tensors; `map_tensors` and `split` are what the rest of the package does with them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import Transform, eval_transform
from sequencer2d.data.opening import open_split
from sequencer2d.data.sources import Source
from sequencer2d.data.transforms import train_transform
from sequencer2d.errors import ConfigError

SampleTransform = Callable[[Image.Image, Any], tuple[np.ndarray, Any]]
"""(RGB image, target) → (uint8 (H, W, 3), target); the target is None for an image without one."""


@dataclass(frozen=True)
class Samples:
    """How samples become batches. Transforms and `collate` run in worker processes, so they must be picklable.

    Attributes:
        open: (configuration, split) → source of (RGB image, target). Raises `DataError`.
        train_transform: configuration → random transform of training, which draws from the global generators of
            `random`, numpy and torch. Raises `ConfigError` for an augmentation that the targets cannot follow.
        eval_transform: configuration → fixed transform of evaluation and prediction.
        open_training: the same for a training split; None: `open`.
        collate: transformed samples, at least one → (uint8 (B, H, W, 3), targets of the batch).
    """

    open: Callable[[DataConfig, str], Source]
    train_transform: Callable[[DataConfig], SampleTransform]
    eval_transform: Callable[[DataConfig], SampleTransform]
    collate: Callable[[Sequence[tuple[np.ndarray, Any]]], tuple[Tensor, Any]]
    open_training: Callable[[DataConfig, str], Source] | None = None


def refuse(task: str, reason: str, *rules: tuple[str, object, str]) -> None:
    """Raise `ConfigError` for the first of `rules`, (field, whether it does not fit, remedy), that applies."""
    for name, wrong, instead in rules:
        if wrong:
            raise ConfigError(f"{name} does not fit task={task}, {reason}: set {instead}")


class ImageOnly:
    """A transform of the image that leaves the target as it is."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, image: Image.Image, target: Any) -> tuple[np.ndarray, Any]:
        return self.transform(image), target

    def __repr__(self) -> str:
        return repr(self.transform)


def class_numbers(samples: Sequence[tuple[np.ndarray, int]]) -> tuple[Tensor, Tensor]:
    """Stack images of one size: uint8 (B, H, W, 3), and numbers of classes: int64 (B,)."""
    images, targets = zip(*samples, strict=True)
    return torch.from_numpy(np.stack(images)), torch.tensor(targets, dtype=torch.int64)


CLASS_NUMBERS = Samples(
    open=open_split,
    train_transform=lambda config: ImageOnly(train_transform(config)),
    eval_transform=lambda config: ImageOnly(eval_transform(config)),
    collate=class_numbers,
)
"""Whole images, each of one class."""


def map_tensors(function: Callable[[Tensor], Tensor], targets: Any) -> Any:
    """Apply `function` to every tensor of a batch's targets; anything else stays as it is."""
    if isinstance(targets, Tensor):
        return function(targets)
    if isinstance(targets, dict):
        return {key: map_tensors(function, value) for key, value in targets.items()}
    if isinstance(targets, (list, tuple)):
        return type(targets)(map_tensors(function, value) for value in targets)
    return targets


def split(targets: Any, parts: int) -> list[Any]:
    """Cut the targets of a batch into those of `parts` micro-batches of one size.

    A tensor is cut along its first axis and a list into shorter ones, one entry an image; a dictionary is cut in each
    of its values.
    """
    if isinstance(targets, Tensor):
        return list(targets.chunk(parts))
    if isinstance(targets, dict):
        pieces = {key: split(value, parts) for key, value in targets.items()}
        return [{key: piece[index] for key, piece in pieces.items()} for index in range(parts)]
    size = len(targets) // parts
    return [targets[index * size : (index + 1) * size] for index in range(parts)]
