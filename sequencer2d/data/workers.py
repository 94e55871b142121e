"""The processes that make batches: how many there are, what they are asked for, and how they end."""

import os
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from sequencer2d.data.config import DataConfig
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.environment import launch

_TERMINATION_GRACE_S = 30


class Key(NamedTuple):
    """A request of the main process to a worker: the images of one batch."""

    epoch: int
    indices: np.ndarray


class BatchKeys:
    """The sampler's batches with their epoch, as the workers need them."""

    def __init__(self, sampler: ResumableSampler) -> None:
        self._sampler = sampler

    def __iter__(self) -> Iterator[Key]:
        epoch = self._sampler.epoch
        for indices in self._sampler:
            yield Key(epoch, indices)

    def __len__(self) -> int:
        return len(self._sampler)


def worker_count(config: DataConfig) -> int:
    """Worker processes of this training process: `data.workers`, or its share of the CPU cores, 16 at most."""
    return core_count() if config.workers is None else config.workers


def decoding_processes(config: DataConfig) -> int:
    """Processes that decode a data set before training begins: one a core, or none if `data.workers` is 0."""
    return 0 if config.workers == 0 else core_count()


def core_count() -> int:
    """This training process's share of the CPU cores, 16 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, max(1, cores // launch().local_world_size))


def start_worker(_: int) -> None:
    """Let the main process decide when a worker stops.

    Ctrl-C, torchrun's SIGTERM and a scheduler's SIGUSR1 reach every process of the group. If a worker died of them, it
    would kill the main process before that has saved. So a worker ignores Ctrl-C and SIGUSR1, and SIGTERM ends it only
    after a while.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):  # not on Windows
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_TERMINATION_GRACE_S))


def unchanged(batch: Any) -> Any:
    """The collate function: a worker's answer is a batch already."""
    return batch
