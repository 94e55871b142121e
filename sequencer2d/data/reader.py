"""What a worker process does for a batch: read its images, transform each, and stack them.

A batch is `uint8`: a quarter of the traffic of floats. What an image looks like depends on (seed, epoch, index) only,
neither on the number of workers nor on what was read before. A batch policy adds the batch's first index and the
image's place in it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sequencer2d.data.images import BrokenImageError
from sequencer2d.data.samples import SampleTransform
from sequencer2d.data.sources import Source, prepare
from sequencer2d.data.workers import Key
from sequencer2d.errors import DataError
from sequencer2d.seeds import image_seed, keep_random_state, mix, seed_image


class Batch(NamedTuple):
    """What a worker answers: images uint8 (B, H, W, 3), their targets, and who was broken, with the reason.

    `failure` is why the whole source failed, such as a server; an exception would lose its one line between processes.
    """

    images: Tensor
    targets: Any
    broken: dict[int, str]
    failure: str = ""


class BatchReader(Dataset[Batch]):
    """Reads, transforms and stacks the images of a key.

    Args:
        source: the images.
        transform: (RGB image, target) → (uint8 (H, W, 3), target).
        collate: transformed samples → (uint8 (B, H, W, 3), targets of the batch).
        seed: of the augmentation.
        replace_broken: take the next readable image in place of a broken one (training) or leave it out (evaluation).
        max_broken: how far to look for a replacement.
        policy: uint8 (B, 3, H, W) and the keyword `seed` → the same, for whole batches.
    """

    def __init__(
        self,
        source: Source,
        transform: SampleTransform,
        *,
        collate: Callable[..., tuple[Tensor, Any]],
        seed: int,
        replace_broken: bool,
        max_broken: int,
        policy: Callable[..., Tensor] | None = None,
    ) -> None:
        self.source, self.transform, self.collate = source, transform, collate
        self.seed, self.policy = seed, policy
        self.replace_broken, self.max_broken = replace_broken, max_broken

    def __getitem__(self, key: Key) -> Batch:
        broken: dict[int, str] = {}
        try:
            samples = self._samples(key, broken)
        except DataError as error:
            return _without_images(broken, str(error))
        if not samples:
            return _without_images(broken)
        images, targets = self.collate(samples)
        if self.policy is not None:
            images = self._with_policy(images, key)
        return Batch(images, targets, broken)

    def _samples(self, key: Key, broken: dict[int, str]) -> list[tuple[np.ndarray, Any]]:
        samples = []
        prepare(self.source, key.indices)
        with keep_random_state():
            for index in key.indices.tolist():
                sample = self._read(index, broken)
                if sample is not None:
                    seed_image(self.seed, key.epoch, index)
                    samples.append(self.transform(*sample))
        return samples

    def _with_policy(self, images: Tensor, key: Key) -> Tensor:
        assert self.policy is not None
        seed = mix(image_seed(self.seed, key.epoch, int(key.indices[0])))
        # Planar in memory: the policy's operations take 1.3 times as long on interleaved colors.
        augmented = self.policy(images.permute(0, 3, 1, 2).contiguous(), seed=seed >> 1)
        return augmented.permute(0, 2, 3, 1).contiguous()

    def _read(self, index: int, broken: dict[int, str]) -> tuple[Any, Any] | None:
        for offset in range(min(self.max_broken + 1, len(self.source)) if self.replace_broken else 1):
            candidate = (index + offset) % len(self.source)
            try:
                return self.source[candidate]
            except BrokenImageError as error:
                broken[candidate] = str(error)
        return None


def _without_images(broken: dict[int, str], failure: str = "") -> Batch:
    return Batch(torch.empty(0, 1, 1, 3, dtype=torch.uint8), None, broken, failure)
