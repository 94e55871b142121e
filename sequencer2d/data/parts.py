"""A data set without a validation split is cut into two parts: one to train on, one held out."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from sequencer2d.data.sources import Source, prepare, shards_of, shorten
from sequencer2d.errors import DataError


class PartOfSource:
    """Some images of a source, with all of its classes.

    Args:
        source: the images.
        indices: int64 (N,), those of this part.
    """

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source, self.indices = source, indices
        self.class_names = source.class_names
        shards = shards_of(source)
        self.shards = None if shards is None else shards[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        return self.source[int(self.indices[index])]

    def prepare(self, indices: np.ndarray) -> None:
        """As the source's."""
        prepare(self.source, self.indices[indices])

    def describe(self, index: int) -> str:
        """As the source's."""
        return self.source.describe(int(self.indices[index]))

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """As the source's, of this part."""
        names, targets = self.source.identities()
        return [names[index] for index in self.indices], targets[self.indices]

    def size_of(self, index: int) -> object:
        """As the source's."""
        return self.source.size_of(int(self.indices[index]))


def hold_out(source: Source, fraction: float, seed: int) -> tuple[PartOfSource, PartOfSource]:
    """Cut a source into (training part, held-out part): `fraction` of each class, rounded, but one image at least.

    Which images are held out depends on their names and the seed, not on their order: an image that was added later
    moves only few others from one part to the other.

    Args:
        source: the images; each is of one class.
        fraction: of each class, above 0 and below 1.
        seed: another seed holds out other images.

    Raises:
        DataError: a class of a single image, which cannot be in both parts.
    """
    names, targets = source.identities()
    keys = [_key(seed, name or str(index).encode()) for index, name in enumerate(names)]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    held = np.zeros(len(keys), dtype=bool)
    single = []
    for number, class_name in enumerate(source.class_names):
        members = order[targets[order] == number]
        if len(members) == 1:
            single.append(class_name)
        held[members[: min(len(members) - 1, max(1, round(len(members) * fraction)))]] = len(members) > 1
    if single:
        raise DataError(
            "classes of a single image, which cannot be both trained and validated on: "
            f"{shorten(single)}; add images, or remove the classes"
        )
    return PartOfSource(source, np.flatnonzero(~held)), PartOfSource(source, np.flatnonzero(held))


def _key(seed: int, name: bytes) -> bytes:
    return hashlib.blake2b(name, digest_size=8, salt=seed.to_bytes(8, "little")).digest()
