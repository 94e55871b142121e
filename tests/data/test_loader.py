import dataclasses
import logging
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch

from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.data.loader import Loader, build_loader
from sequencer2d.data.workers import Key
from sequencer2d.errors import ConfigError, DataError
from tests.data.images import break_image, make_folder

DIGITS = DataConfig(source="digits", image_size=16, batch_size=128, workers=0, crop="pad", crop_pct=1.0)


def images_of(loader: Loader) -> list[torch.Tensor]:
    return [images for images, _ in loader]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.fixture
def folder(tmp_path: Path) -> DataConfig:
    make_folder(tmp_path, {"train": {"a": 7, "b": 6}, "val": {"a": 6, "b": 5}})
    return DataConfig(root=str(tmp_path), image_size=8, batch_size=4, workers=0)


def test_batches_are_bytes_in_channels_last() -> None:
    loader = build_loader(DIGITS, train=True)
    assert len(loader) == 1442 // 128
    images, targets = next(iter(loader))
    assert (images.shape, images.dtype) == ((128, 3, 16, 16), torch.uint8)
    assert (targets.shape, targets.dtype) == ((128,), torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert loader.normalize(images).abs().max() < 3


def test_evaluation_gives_every_image_once_and_again(folder: DataConfig) -> None:
    loader = build_loader(folder, train=False)
    transform = eval_transform(folder)
    for _ in range(2):
        batches = list(loader)
        assert [len(targets) for _, targets in batches] == [4, 4, 3]
        found = torch.cat([images for images, _ in batches])
        for index in range(11):
            image, _ = loader.source[index]
            assert torch.equal(found[index].permute(1, 2, 0), torch.from_numpy(transform(image).copy()))
    halves = [build_loader(folder, train=False, rank=rank, world_size=2) for rank in range(2)]
    assert sum(len(targets) for half in halves for _, targets in half) == 11


def test_resumed_epoch_is_bitwise_the_tail_of_the_whole_one() -> None:
    loader = build_loader(DIGITS, train=True, seed=11)
    loader.seek(3)
    whole, next_epoch = images_of(loader), images_of(loader)
    assert loader.sampler.epoch == 5

    for workers in (0, 2):
        resumed = build_loader(dataclasses.replace(DIGITS, workers=workers), train=True, seed=11)
        resumed.seek(3, 6)
        assert equal(images_of(resumed), whole[6:])
        assert equal(images_of(resumed), next_epoch)
        resumed.close()
    assert not equal(whole, next_epoch)
    assert not equal(whole[:3], images_of(build_loader(DIGITS, train=True, seed=12))[:3])


def test_a_batch_policy_is_drawn_anew_in_training_alone_whatever_the_workers() -> None:
    plain = dataclasses.replace(DIGITS, auto_augment="", hflip=0.0, crop_padding=0)
    with_policy = dataclasses.replace(plain, batch_policy="trivial")
    here = build_loader(with_policy, train=True)
    first, second = images_of(here), images_of(here)
    assert not equal(first, images_of(build_loader(plain, train=True)))
    assert not equal(first, second)
    assert equal(first, images_of(build_loader(dataclasses.replace(with_policy, workers=2), train=True)))
    evaluated = images_of(build_loader(with_policy, train=False))
    assert equal(evaluated, images_of(build_loader(plain, train=False)))


def test_an_epoch_left_early_is_read_again_or_continued_where_seek_says() -> None:
    config = dataclasses.replace(DIGITS, workers=2)
    loader, whole = build_loader(config, train=True, seed=1), images_of(build_loader(DIGITS, train=True, seed=1))
    next(iter(loader))
    assert equal(images_of(loader), whole)
    loader.seek(0, 3)
    next(iter(loader))
    assert equal(images_of(loader), whole[3:])
    loader.close()


def test_a_closed_loader_says_so() -> None:
    loader = build_loader(DIGITS, train=False)
    loader.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(loader))


def test_processes_together_read_the_batches_of_one() -> None:
    config = dataclasses.replace(DIGITS, batch_size=256)
    alone = build_loader(config, train=True, seed=2)
    both = [build_loader(config, train=True, seed=2, rank=rank, world_size=2) for rank in range(2)]
    for one, *parts in zip(images_of(alone), *map(images_of, both), strict=True):
        assert torch.equal(one, torch.stack(parts, 1).flatten(0, 1))


def test_reading_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    next(iter(build_loader(DIGITS, train=True)))
    assert torch.equal(torch.rand(3), expected)


def test_workers_may_be_started_afresh(folder: DataConfig) -> None:
    for config in (DIGITS, folder, dataclasses.replace(folder, cache=True)):
        loader = build_loader(config, train=True)
        reader = pickle.loads(pickle.dumps(loader._workers[0].dataset))
        key = Key(0, next(iter(loader.sampler)))
        assert torch.equal(reader[key].images.permute(0, 3, 1, 2), next(iter(loader))[0])


def test_cache_changes_nothing(folder: DataConfig) -> None:
    plain, cached = (build_loader(dataclasses.replace(folder, cache=c), train=True) for c in (False, True))
    assert equal(images_of(plain), images_of(cached))


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_named_skipped_and_counted(
    folder: DataConfig, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(folder, workers=workers)
    broken = [Path(folder.root) / "train" / "a" / "002.png", Path(folder.root) / "val" / "b" / "001.png"]
    for path in broken:
        break_image(path)
    train, val = build_loader(config, train=True), build_loader(config, train=False)
    with caplog.at_level(logging.WARNING):
        assert [len(targets) for _, targets in train] == [4, 4, 4]
        first = [images_of(train) for _ in range(3)]
        assert [len(targets) for _, targets in val] == [4, 3, 3]
    assert all(caplog.text.count(str(path)) == 1 for path in broken), "each is reported once"
    assert list(train.broken) == [str(broken[0])]
    assert list(val.broken) == [str(broken[1])]
    again = build_loader(config, train=True)
    again.seek(1)
    assert all(equal(images_of(again), epoch) for epoch in first), "replacements are the same in every run"
    for loader in (train, val, again):
        loader.close()


@pytest.mark.parametrize("train", [True, False])
def test_too_many_broken_images_stop_the_run(folder: DataConfig, train: bool) -> None:
    for split in ("train", "val"):
        for number in range(3):
            break_image(Path(folder.root) / split / "a" / f"{number:03d}.png")
    with pytest.raises(DataError, match=r"images that cannot be read: 3, more than data\.max_broken=2: .*a.00\d\.png"):
        list(build_loader(dataclasses.replace(folder, max_broken=2), train=train))


@pytest.mark.parametrize("train", [True, False])
def test_a_split_of_broken_images_only_is_an_error(folder: DataConfig, train: bool) -> None:
    for path in Path(folder.root).rglob("*.png"):
        break_image(path)
    with pytest.raises(DataError, match=r"none of the 1. images can be read"):
        list(build_loader(folder, train=train))


def test_batches_that_cannot_be_are_refused(folder: DataConfig) -> None:
    with pytest.raises(DataError, match="13 images, less than one batch of 14"):
        build_loader(dataclasses.replace(folder, batch_size=14), train=True)
    with pytest.raises(ConfigError, match="even number"):
        build_loader(dataclasses.replace(folder, batch_size=5), train=True)


def test_workers_outlive_a_signal_to_the_whole_group() -> None:
    config = dataclasses.replace(DIGITS, workers=2, batch_size=32, prefetch=1)
    loader = build_loader(config, train=True)
    batches = iter(loader)
    for _ in range(2):  # one of each worker: a signal may meet one that has not begun
        next(batches)
    workers = [worker.pid for worker in loader._workers[0]._iterator._workers]  # type: ignore[union-attr]
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    rest = [images for images, _ in batches]
    assert len(rest) == len(loader) - 2
    loader.close()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
