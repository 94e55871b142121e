"""Images that lie in shards, each at a known place: what sources of tar files share."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import IO

import numpy as np
from PIL import Image

from sequencer2d.data.images import BrokenImageError, Decoding, decode


class ShardedImages(ABC):
    """A `Source` of images in shards.

    Args:
        places: int64 (N, 3): shard, offset and bytes of each image.
        targets: int64 (N,), class indices.
        names: bytes (N,), what each image is called.
        decoding: how image files become pixels.
    """

    def __init__(self, places: np.ndarray, targets: np.ndarray, names: np.ndarray, decoding: Decoding) -> None:
        self._places, self._targets, self._names, self.decoding = places, targets, names, decoding

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        shard, offset, size = self._places[index].tolist()
        try:
            with self._open(shard) as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise BrokenImageError(str(error)) from error
        return decode(content, self.decoding), int(self._targets[index])

    def describe(self, index: int) -> str:
        """Shard and name of the image."""
        return f"{self._where(int(self._places[index][0]))}:{os.fsdecode(self._names[index])}"

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """Names, and targets."""
        return self._names.tolist(), self._targets

    def size_of(self, index: int) -> int:
        """Bytes of the image's member."""
        return int(self._places[index][2])

    @abstractmethod
    def _open(self, shard: int) -> IO[bytes]:
        """Open a shard to read it. An `OSError` makes the image a broken one."""

    @abstractmethod
    def _where(self, shard: int) -> str:
        """The shard's path or address."""
