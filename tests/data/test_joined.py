"""Several splits read as one: places, names and shards of the whole, and the work given to each part."""

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from sequencer2d.data.joined import JoinedSource
from sequencer2d.errors import DataError


class Part:
    """Images whose gray levels are `first`, `first` + 1, …; in shards if their numbers are given."""

    classes_inferred = False

    def __init__(self, first: int, count: int, shards: Sequence[int] | None = None, names: str = "ab") -> None:
        self.first, self.count, self.class_names = first, count, tuple(names)
        self.shards = None if shards is None else np.array(shards)
        self.prepared: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("L", (1, 1), self.first + index), index % 2

    def prepare(self, indices: np.ndarray) -> None:
        self.prepared = indices.tolist()

    def describe(self, index: int) -> str:
        return f"{self.first}/{index}"

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        return [b"%d" % (self.first + index) for index in range(self.count)], np.arange(self.count) % 2

    def size_of(self, index: int) -> object:
        return self.first * 1000 + index


def test_every_place_is_that_of_its_own_source() -> None:
    parts = [Part(10, 2), Part(20, 3), Part(30, 1)]
    joined = JoinedSource(parts)
    assert (len(joined), joined.class_names) == (6, ("a", "b"))
    assert [joined[index][0].getpixel((0, 0)) for index in range(6)] == [10, 11, 20, 21, 22, 30]
    assert [joined.describe(index) for index in (1, 2, 5)] == ["10/1", "20/0", "30/0"]
    assert [joined.size_of(index) for index in (0, 4)] == [10000, 20002]
    names, targets = joined.identities()
    assert names == [b"10", b"11", b"20", b"21", b"22", b"30"]
    assert targets.tolist() == [0, 1, 0, 1, 0, 0]
    for index in (-1, 6):
        with pytest.raises(IndexError, match=f"image {index} of 6"):
            joined[index]


def test_each_source_prepares_its_own_images() -> None:
    parts = [Part(10, 2), Part(20, 3), Part(30, 1)]
    JoinedSource(parts).prepare(np.array([4, 0, 2, 5]))
    assert [part.prepared for part in parts] == [[0], [2, 0], [0]]


def test_shards_are_numbered_on() -> None:
    joined = JoinedSource([Part(0, 3, [0, 0, 1]), Part(0, 2, [0, 1]), Part(0, 1, [0])])
    assert joined.shards is not None
    assert joined.shards.tolist() == [0, 0, 1, 2, 3, 4]
    assert JoinedSource([Part(0, 3, [0, 0, 1]), Part(0, 2)]).shards is None


def test_splits_of_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match="the first split"):
        JoinedSource([Part(0, 1), Part(0, 1, names="ac")])
