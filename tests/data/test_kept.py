"""Data by hand: what earlier runs rely on (held-out images, orders, fingerprints), shares of cores, lists, boxes."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sequencer2d.data import fingerprint
from sequencer2d.data.config import DataConfig
from sequencer2d.data.detection import _moved
from sequencer2d.data.parts import _key
from sequencer2d.data.sampler import ResumableSampler, order_by_shards
from sequencer2d.data.sources import require_readable, shorten
from sequencer2d.data.workers import core_count, decoding_processes, worker_count
from sequencer2d.errors import DataError


class Numbered:
    """As much of a source as its fingerprint needs: `count` images, of two classes in turn."""

    class_names = ("a", "b")

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        return [b"%d" % index for index in range(self.count)], np.arange(self.count) % 2

    def size_of(self, index: int) -> object:
        self.asked.append(index)
        return 10 * index


def hashed(*parts: bytes) -> str:
    return hashlib.blake2b(b"".join(part + b"\0" for part in parts), digest_size=8).hexdigest()


def test_the_images_that_are_held_out_have_the_least_hashes_of_their_names() -> None:
    assert _key(3, b"a") == hashlib.blake2b(b"a", digest_size=8, salt=b"\x03" + bytes(7)).digest()


def test_a_fingerprint_by_hand() -> None:
    found = fingerprint.fingerprint(Numbered(3))  # type: ignore[arg-type]
    assert found == {
        "images": 3,
        "classes": {"a": [2, hashed(b"0", b"2")], "b": [1, hashed(b"1")]},
        "order": hashed(np.array([0, 1, 0], "<i8").tobytes()),
        "sizes": hashed(b"0", b"10", b"20"),
    }


@pytest.mark.parametrize("count, sampled", [(255, 255), (256, 256), (1000, 256)])
def test_sizes_of_at_most_256_images_are_looked_up_the_first_and_the_last_among_them(count: int, sampled: int) -> None:
    source = Numbered(count)
    fingerprint.fingerprint(source)  # type: ignore[arg-type]
    assert (len(source.asked), source.asked[0], source.asked[-1]) == (sampled, 0, count - 1)


def test_the_order_of_an_epoch_is_numpys_permutation_of_its_seed() -> None:
    sampler = ResumableSampler(7, batch_size=7, seed=3)
    for epoch in (0, 2):
        sampler.seek(epoch)
        (order,) = sampler
        expected = np.random.Generator(np.random.PCG64([3, epoch])).permutation(7)
        assert order.tolist() == expected.tolist()
    assert sampler.position == 0
    assert sampler.global_batch == 7


def test_an_image_lies_at_most_some_shards_behind_its_own() -> None:
    shards = np.repeat(np.arange(50), 4)
    order = order_by_shards(shards, 3, np.random.default_rng(0))
    places = np.random.default_rng(0).permutation(50)
    drawn = places[shards[order]]
    behind = np.arange(200) / 4 - drawn
    assert sorted(order.tolist()) == list(range(200))
    assert -3 < behind.min() < behind.max() < 4
    few = order_by_shards(shards[:12], 3, np.random.default_rng(0))
    assert few.tolist() == np.random.default_rng(0).permutation(12).tolist(), "three shards are shuffled as one"
    assert order_by_shards(shards[:16], 3, np.random.default_rng(0)).tolist() != (
        np.random.default_rng(0).permutation(16).tolist()
    )


@pytest.mark.parametrize("rank, batches, evaluated", [(0, 2, 3), (1, 2, 3), (2, 2, 2)])
def test_a_last_batch_that_is_not_full_is_dealt_out_in_evaluation(rank: int, batches: int, evaluated: int) -> None:
    """Twenty images in global batches of nine: two are left, for the first two of three processes."""
    options = {"batch_size": 3, "rank": rank, "world_size": 3, "shuffle": False}
    assert len(ResumableSampler(20, **options)) == batches
    sampler = ResumableSampler(20, drop_last=False, **options)
    assert len(sampler) == evaluated
    assert [part.tolist() for part in sampler][2:] == [[18 + rank]] * (evaluated - 2)


@pytest.mark.parametrize("cores, processes, workers", [(64, 1, 16), (16, 1, 16), (9, 2, 4), (1, 1, 1), (2, 8, 1)])
def test_each_training_process_has_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert core_count() == workers
    assert (worker_count(DataConfig()), worker_count(DataConfig(workers=3))) == (workers, 3)
    assert worker_count(DataConfig(workers=0)) == 0
    assert [decoding_processes(DataConfig(workers=number)) for number in (0, 1, None)] == [0, workers, workers]


def test_lists_of_names_are_shortened_beyond_their_limit() -> None:
    assert [shorten("abc", limit) for limit in (4, 3, 2)] == ["a, b, c", "a, b, c", "a, b and 1 more"]
    assert shorten("abcdefghi") == "a, b, c, d, e, f, g, h and 1 more"


def test_as_many_images_as_the_limit_may_be_broken_but_not_all() -> None:
    require_readable({}, 1, 0)
    require_readable({"a": "cut", "b": "cut"}, 3, 2)
    with pytest.raises(DataError, match=r"cannot be read: 3, more than data.max_broken=2: a, b, c; repair"):
        require_readable(dict.fromkeys("abc", "cut"), 9, 2)
    with pytest.raises(DataError, match=r"none of the 2 images can be read, e.g. a, b"):
        require_readable(dict.fromkeys("ab", "cut"), 2, 2)


def test_boxes_that_end_in_a_line_are_left_out_of_training() -> None:
    """An image of 10 × 20 pixels in double size: the second box leaves it, the third touches its right side."""
    boxes = np.array([[1, 2, 3, 4], [18, 8, 30, 12], [20, 0, 25, 5]], np.float32)
    target: Any = {"id": 3, "boxes": boxes, "labels": np.arange(3), "crowd": np.zeros(3, bool), "area": np.ones(3)}
    trained = _moved(target, (10, 20), (20, 40), False, True)
    assert trained["boxes"].tolist() == [[2, 4, 6, 8], [36, 16, 40, 20]]
    assert (trained["labels"].tolist(), trained["size"].tolist()) == ([0, 1], [20, 40])
    assert "file_boxes" not in trained
    judged = _moved(target, (10, 20), (20, 40), True, False)
    assert judged["boxes"].tolist() == [[34, 4, 38, 8], [-20, 16, 4, 24], [-10, 0, 0, 10]]
    assert (judged["file_boxes"].tolist(), judged["file_size"].tolist()) == (boxes.tolist(), [10, 20])
    assert judged["boxes"].dtype == np.float32
