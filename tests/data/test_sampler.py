import numpy as np
import pytest

from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.errors import ConfigError


def indices(sampler: ResumableSampler) -> list[int]:
    return [int(index) for batch in sampler for index in batch]


@pytest.mark.parametrize("length", [0, 1, 7, 24, 25, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_evaluation_sees_every_image_exactly_once(length: int, world_size: int, shuffle: bool) -> None:
    samplers = [
        ResumableSampler(length, batch_size=4, shuffle=shuffle, rank=rank, world_size=world_size, drop_last=False)
        for rank in range(world_size)
    ]
    seen = [indices(sampler) for sampler in samplers]
    assert sorted(index for part in seen for index in part) == list(range(length))
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]
    assert max(map(len, seen)) - min(map(len, seen)) <= 1


def test_training_gives_every_process_full_batches_without_overlap() -> None:
    samplers = [ResumableSampler(103, batch_size=8, seed=5, rank=rank, world_size=3) for rank in range(3)]
    batches = [list(sampler) for sampler in samplers]
    assert [len(b) for b in batches] == [103 // 24] * 3
    assert all(len(batch) == 8 for process in batches for batch in process)
    seen = np.concatenate([batch for process in batches for batch in process])
    assert len(set(seen.tolist())) == len(seen) == 96


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first, second = (ResumableSampler(50, batch_size=5, seed=3) for _ in range(2))
    assert indices(first) == indices(second) == indices(first)
    second.seek(1)
    assert indices(first) != indices(second)
    assert sorted(indices(second)) == list(range(50))
    assert indices(ResumableSampler(50, batch_size=5, seed=4)) != indices(first)


def test_iteration_starts_at_the_batch_that_was_sought() -> None:
    sampler = ResumableSampler(50, batch_size=5, seed=3)
    sampler.seek(7)
    whole = [batch.tolist() for batch in sampler]
    resumed = ResumableSampler(50, batch_size=5, seed=3)
    resumed.seek(7, 4)
    for _ in range(2):
        assert [batch.tolist() for batch in resumed] == whole[4:]


def test_a_batch_is_the_same_for_any_number_of_processes() -> None:
    alone = ResumableSampler(64, batch_size=8, seed=1)
    both = [ResumableSampler(64, batch_size=4, seed=1, rank=rank, world_size=2) for rank in range(2)]
    for sampler in (alone, *both):
        sampler.seek(2, 3)
    rest = [sorted([*a.tolist(), *b.tolist()]) for a, b in zip(*both, strict=True)]
    assert rest == [sorted(batch.tolist()) for batch in alone]
    assert len(rest) == 5


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="rank=2"):
        ResumableSampler(10, batch_size=2, rank=2, world_size=2)
