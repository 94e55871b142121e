"""A source whose images are decoded once and kept in memory."""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sequencer2d.data.images import BrokenImageError
from sequencer2d.data.sources import Source, prepare, shards_of
from sequencer2d.data.workers import core_count, start_worker, unchanged
from sequencer2d.errors import DataError

_PART = 256  # images a task: a task each would cost more than decoding a small one
_FEW = 8192
"""Images below which starting processes takes longer than decoding with threads."""


class CachedSource:
    """Every image of `source`, decoded: height · width · 3 bytes each, in one block that forked workers share.

    Broken images stay broken: they are met, reported and counted when they are read, as without a cache.

    Args:
        source: the images.
        processes: that decode many images. Threads hold each other up on small ones, of which half the work is
            Python's. 0: threads alone.

    Attributes:
        pixels: uint8, those of all images one after the other; a broken image has none.
        shapes: (N, 3), height, width and channels; zeros for a broken image.
        targets: int64 (N,), or a list where targets are no numbers; -1 for a broken image.
        broken: number of each unreadable image → the reason.
    """

    def __init__(self, source: Source, processes: int = 0) -> None:
        self.class_names = source.class_names
        self.classes_inferred = getattr(source, "classes_inferred", False)
        self.shards = shards_of(source)  # for the order, which is the same with and without the cache
        self._source = source
        work = _Work(source)
        parts = list(_by_processes(work, processes) if processes and len(source) >= _FEW else _by_threads(work))
        for part in parts:
            if part.failure:
                raise DataError(part.failure)
        self.broken = {
            number * _PART + place: reason for number, part in enumerate(parts) for place, reason in part.broken.items()
        }
        targets = [target for part in parts for target in part.targets]
        # One array of numbers, for the same reason as the pixels; masks and boxes stay objects.
        self.targets = np.array(targets) if all(isinstance(target, int) for target in targets) else targets
        self.shapes = np.concatenate([part.shapes for part in parts])
        self._ends = np.cumsum(self.shapes.prod(1))
        self.pixels = np.concatenate([part.pixels for part in parts])

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        if index in self.broken:
            raise BrokenImageError(self.broken[index])
        shape, end = self.shapes[index], self._ends[index]
        target = self.targets[index]
        image = Image.fromarray(self.pixels[end - shape.prod() : end].reshape(shape))
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


class _Part(NamedTuple):
    """Some images: pixels one after the other, shapes (n, 3), targets, and for broken ones the reason by place.

    `failure` as in `reader.Batch`.
    """

    pixels: np.ndarray
    shapes: np.ndarray
    targets: list[Any]
    broken: dict[int, str]
    failure: str = ""


class _Work(Dataset[_Part]):
    """A source in parts, each of which is decoded in one go."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return -(-len(self._source) // _PART)

    def __getitem__(self, number: int) -> _Part:
        try:
            return self._decode(number)
        except DataError as error:
            return _Part(np.zeros(0, np.uint8), np.zeros((0, 3), int), [], {}, str(error))

    def _decode(self, number: int) -> _Part:
        arrays: list[np.ndarray] = []
        targets: list[Any] = []
        broken: dict[int, str] = {}
        start = number * _PART
        indices = range(start, min(start + _PART, len(self._source)))
        prepare(self._source, np.array(indices))
        for place, index in enumerate(indices):
            try:
                image, target = self._source[index]
                arrays.append(np.asarray(image))
                targets.append(target)
            except BrokenImageError as error:
                broken[place] = str(error)
                arrays.append(np.zeros((0, 0, 3), np.uint8))
                targets.append(-1)
        shapes = np.array([array.shape for array in arrays]).reshape(-1, 3)
        return _Part(np.concatenate([array.reshape(-1) for array in arrays]), shapes, targets, broken)


def _by_threads(work: _Work) -> Iterator[_Part]:
    with ThreadPoolExecutor(core_count()) as pool:  # decoders release the interpreter's lock
        yield from pool.map(work.__getitem__, range(len(work)))


def _by_processes(work: _Work, processes: int) -> Iterator[_Part]:
    """The parts in their order. Arrays come through pipes, so that they take no shared memory."""
    workers: DataLoader[Any] = DataLoader(
        work,
        batch_size=None,
        num_workers=processes,
        collate_fn=unchanged,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # otherwise it draws a number from torch's global generator
    )
    with warnings.catch_warnings():
        # Python warns of threads that a fork leaves behind; workers only read images and need none of them.
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        decoded = iter(workers)
    yield from decoded
