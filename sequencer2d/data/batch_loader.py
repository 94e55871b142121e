"""What all loaders of batches share: the worker processes, the order of the images, and where an epoch starts."""

import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sequencer2d.data.config import DataConfig, require_pairs
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.data.sources import Source, shards_of
from sequencer2d.data.workers import BatchKeys, start_worker, unchanged, worker_count
from sequencer2d.errors import DataError


class BatchLoader(ABC):
    """Iterates over the batches (images, targets) that worker processes prepare.

    One iteration gives the sampler's epoch from the batch that `seek` went to. A training loader then moves to the
    start of the next epoch; an evaluation loader always starts at the beginning.

    Args:
        reader: answers a worker's `Key` with what `_deliver` makes a batch of.
        source: the images, with their class names.
        sampler: their order.
        config: worker processes and how far they read ahead.
        train: whether the epochs differ.
        pin_memory: put the workers' answers into page-locked memory, for copies to a CUDA device that do not wait.

    Attributes:
        reader: as given.
        broken: description of each unreadable image met so far → the reason.
    """

    def __init__(
        self,
        reader: Dataset[Any],
        source: Source,
        sampler: ResumableSampler,
        config: DataConfig,
        *,
        train: bool,
        pin_memory: bool = False,
    ) -> None:
        self.reader, self.source, self.sampler, self.config, self.train = reader, source, sampler, config, train
        self.broken: dict[str, str] = {}
        workers = min(worker_count(config), len(sampler))
        self._workers: list[DataLoader] = [
            DataLoader(
                reader,
                batch_size=None,
                sampler=BatchKeys(sampler),  # type: ignore[arg-type]
                num_workers=workers,
                prefetch_factor=config.prefetch if workers else None,
                persistent_workers=workers > 0,
                pin_memory=pin_memory,
                collate_fn=unchanged,
                worker_init_fn=start_worker,
                generator=torch.Generator(),  # otherwise each epoch draws a number from torch's global generator
            )
        ]
        # Workers outlive SIGTERM for a while (see start_worker), so they must be gone before the interpreter ends.
        self._finalizer = weakref.finalize(self, self._workers.clear)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.source.class_names

    def __len__(self) -> int:
        """Batches of a whole epoch in this process."""
        return len(self.sampler)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Let the next iteration start at `batch` of `epoch`, both counted from 0."""
        self.sampler.seek(epoch, batch)

    def close(self) -> None:
        """Stop the workers; the loader cannot be used any more."""
        self._finalizer()

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        if not self._workers:
            raise RuntimeError("this loader is closed")
        with warnings.catch_warnings():
            # Python warns of threads that a fork leaves behind; workers only read images and need none of them.
            warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
            answers = iter(self._workers[0])
        for answer in answers:
            batch = self._deliver(answer)
            if batch is not None:
                yield batch
        if self.train:
            self.seek(self.sampler.epoch + 1)

    @abstractmethod
    def _deliver(self, answer: Any) -> tuple[Tensor, Any] | None:
        """The batch of a worker's answer; None if none of its images can be read."""


def build_sampler(
    config: DataConfig,
    source: Source,
    *,
    train: bool,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
) -> ResumableSampler:
    """The order in which a process reads `source`; see `loader.build_loader` for the arguments.

    Raises:
        DataError: a training split that holds less than one batch.
        ConfigError: a training batch that cannot be paired for mixup.
    """
    sampler = ResumableSampler(
        len(source),
        batch_size=-(-config.batch_size // world_size),
        seed=seed,
        shuffle=train,
        rank=rank,
        world_size=world_size,
        drop_last=train,
        shards=shards_of(source),
        mixed=config.shuffle_shards,
    )
    if train and not len(sampler):
        raise DataError(
            f"the training split holds {sampler.length} images, less than one batch of {sampler.global_batch}; "
            "choose a smaller data.batch_size"
        )
    if train and config.mixes:
        require_pairs(sampler.batch_size)
    return sampler
