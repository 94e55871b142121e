"""What runs of earlier versions rely on: which images are held out, in which order they are read, how data are told."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from sequencer2d.data import fingerprint
from sequencer2d.data.parts import _key
from sequencer2d.data.sampler import ResumableSampler, order_by_shards


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
