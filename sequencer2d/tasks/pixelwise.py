"""How a segmentation model runs over images: whole or in windows, at one scale or several, mirrored or not."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.tasks.task import Forward

_STEP = 2 / 3
"""Share of a window by which the next one is shifted, as in mmsegmentation (341 of 512 pixels)."""


@dataclass(frozen=True)
class Inference:
    """Images → logits of each pixel; the row's `infer`.

    With several scales or mirrored images, the probabilities of all passes are averaged, as in mmsegmentation, and
    these are returned in place of logits.

    Attributes:
        window: side in pixels of square windows, which overlap by a third and whose logits are averaged; None: whole
            images.
        scales: factors on the size of the images, each a pass.
        flip: a second pass of each with mirrored images.
    """

    window: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __call__(self, forward: Forward, images: Tensor, targets: Any) -> Any:
        """The logits (B, classes, H, W) of images (B, 3, H, W), or a list of (classes, h, w), one an image.

        It is a list where the targets are one: each image then takes `size`, (height, width), in its place of the
        batch, and goes through the model alone.
        """
        if not isinstance(targets, list):
            return self._passes(forward, images)
        sizes = [target["size"].tolist() for target in targets]
        return [
            self._passes(forward, image[None, :, :height, :width])[0]
            for image, (height, width) in zip(images, sizes, strict=True)
        ]

    def _passes(self, forward: Forward, images: Tensor) -> Tensor:
        if self.scales == (1.0,) and not self.flip:
            return self._one_pass(forward, images)
        total: Any = 0
        size = images.shape[2:]
        for scale, mirrored in itertools.product(self.scales, (False, True) if self.flip else (False,)):
            x = images if scale == 1 else _resized(images, [max(1, round(side * scale)) for side in size])
            logits = self._one_pass(forward, x.flip(-1) if mirrored else x).float()
            total = total + _resized(logits.flip(-1) if mirrored else logits, size).softmax(1)
        return total / (len(self.scales) * (1 + self.flip))

    def _one_pass(self, forward: Forward, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if self.window is None or max(height, width) <= self.window:
            return forward(images)
        rows, columns = min(self.window, height), min(self.window, width)
        total: Any = None
        for top, left in itertools.product(_starts(height, self.window), _starts(width, self.window)):
            logits = forward(images[..., top : top + rows, left : left + columns]).float()
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
                passes = logits.new_zeros(height, width)
            total[..., top : top + rows, left : left + columns] += logits
            passes[top : top + rows, left : left + columns] += 1
        return total / passes


def _starts(side: int, window: int) -> list[int]:
    """Where windows begin along a side, the last one at its end."""
    last = max(0, side - window)
    step = math.ceil(window * _STEP)
    return [*range(0, last, step), last]


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return x if x.shape[2:] == tuple(size) else F.interpolate(x, list(size), mode="bilinear")


def best_labels(logits: Tensor, size: Sequence[int]) -> Tensor:
    """uint8 (height, width): the class of the highest logit (classes, H, W) after resizing to `size`.

    It goes class by class: all classes of a photo at once would fill gigabytes.
    """
    resized = (_resized(one[None, None], size)[0, 0] for one in logits)
    highest = next(resized)
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for number, one in enumerate(resized, start=1):
        labels[one > highest] = number
        highest = torch.maximum(one, highest)
    return labels
