"""Several splits read as one: `train+val`."""

import bisect
import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sequencer2d.data.sources import Source, check_same_classes, prepare, shards_of


class JoinedSource:
    """The images of several sources, one after another.

    Raises:
        DataError: the sources have different classes.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        for source in sources[1:]:
            check_same_classes(sources[0], source, names=("the first split", "the other"))
        self.sources = tuple(sources)
        self.class_names = sources[0].class_names
        self._ends = list(itertools.accumulate(len(source) for source in sources))
        self.shards = _join([shards_of(source) for source in sources])

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        source, inside = self._locate(index)
        return source[inside]

    def prepare(self, indices: np.ndarray) -> None:
        """As the images' own sources."""
        for source, end in zip(self.sources, self._ends, strict=True):
            inside = indices - (end - len(source))
            prepare(source, inside[(inside >= 0) & (inside < len(source))])

    def describe(self, index: int) -> str:
        """What the image's own source says."""
        source, inside = self._locate(index)
        return source.describe(inside)

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """Names and targets of the images of all sources."""
        found = [source.identities() for source in self.sources]
        names = [name for own, _ in found for name in own]
        return names, np.concatenate([targets for _, targets in found])

    def size_of(self, index: int) -> object:
        """What the image's own source says."""
        source, inside = self._locate(index)
        return source.size_of(inside)

    def _locate(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        return self.sources[number], index - (self._ends[number - 1] if number else 0)


def _join(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The shards of all images, numbered on from source to source; None unless all of them lie in shards."""
    joined: list[np.ndarray] = []
    for part in parts:
        if part is None:
            return None
        joined.append(part + (joined[-1].max() + 1 if joined else 0))
    return np.concatenate(joined)
