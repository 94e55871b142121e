"""A source whose images are decoded once and kept in memory."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Any

import numpy as np
from PIL import Image

from sequencer2d.data.images import BrokenImageError
from sequencer2d.data.sources import Source

_PART = 256  # images a task: a task each would cost more than decoding a small one


class CachedSource:
    """Every image of `source`, decoded: height · width · 3 bytes each, in one block that forked workers share.

    Broken images stay broken: they are met, reported and counted when they are read, as without a cache.
    """

    def __init__(self, source: Source) -> None:
        self.class_names = source.class_names
        self.classes_inferred = getattr(source, "classes_inferred", False)
        self._source = source
        with ThreadPoolExecutor(cpu_count()) as pool:  # decoders release the interpreter's lock
            parts = pool.map(self._decode_part, range(0, len(source), _PART))
            samples = [sample for part in parts for sample in part]
        self._broken = {index: sample for index, sample in enumerate(samples) if isinstance(sample, str)}
        images = [np.zeros((0, 0, 3), np.uint8) if isinstance(sample, str) else sample[0] for sample in samples]
        targets = [-1 if isinstance(sample, str) else sample[1] for sample in samples]
        # One array of numbers, for the same reason as the pixels; masks and boxes stay objects.
        self._targets = np.array(targets) if all(isinstance(target, int) for target in targets) else targets
        self._shapes = np.array([image.shape for image in images]).reshape(-1, 3)
        self._ends = np.cumsum(self._shapes.prod(1))
        self._pixels = np.concatenate([image.reshape(-1) for image in images])

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        if index in self._broken:
            raise BrokenImageError(self._broken[index])
        shape, end = self._shapes[index], self._ends[index]
        target = self._targets[index]
        image = Image.fromarray(self._pixels[end - shape.prod() : end].reshape(shape))
        return image, int(target) if isinstance(target, np.integer) else target

    def describe(self, index: int) -> str:
        """As the source's."""
        return self._source.describe(index)

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """As the source's."""
        return self._source.identities()

    def size_of(self, index: int) -> object:
        """As the source's."""
        return self._source.size_of(index)

    def _decode_part(self, start: int) -> list[tuple[np.ndarray, Any] | str]:
        return [self._decode(index) for index in range(start, min(start + _PART, len(self)))]

    def _decode(self, index: int) -> tuple[np.ndarray, Any] | str:
        try:
            image, target = self._source[index]
            return np.asarray(image), target
        except BrokenImageError as error:
            return str(error)
