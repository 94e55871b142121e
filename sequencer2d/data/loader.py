"""Batches from a source: read and augmented by worker processes, in an order that can be continued anywhere."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sequencer2d.data.batch_loader import BatchLoader, build_sampler
from sequencer2d.data.batches import augment
from sequencer2d.data.cache import CachedSource
from sequencer2d.data.config import DataConfig
from sequencer2d.data.normalization import normalize
from sequencer2d.data.reader import Batch, BatchReader
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.data.samples import CLASS_NUMBERS, Samples
from sequencer2d.data.sources import Source, require_readable
from sequencer2d.data.workers import decoding_processes
from sequencer2d.errors import DataError
from sequencer2d.terminal import EVERY_PROCESS

logger = logging.getLogger(__name__)


class Loader(BatchLoader):
    """Iterates over (images, targets) on the CPU.

    Images are uint8 (B, 3, H, W), channels last in memory; targets are what the task collates, for classification int64
    (B,).

    Args:
        source: the images, with their class names.
        sampler: the order of the images.
        config: the configuration of the rest.
        train: whether epochs differ, broken images are replaced, and a batch policy runs.
        samples: how images and targets are transformed and collated.
        pin_memory: put batches into page-locked memory.
    """

    def __init__(
        self,
        source: Source,
        sampler: ResumableSampler,
        config: DataConfig,
        *,
        train: bool,
        samples: Samples = CLASS_NUMBERS,
        pin_memory: bool = False,
    ) -> None:
        reader = BatchReader(
            source,
            samples.train_transform(config) if train else samples.eval_transform(config),
            collate=samples.collate,
            seed=sampler.seed,
            replace_broken=train,
            max_broken=config.max_broken,
            policy=_policy(config) if train else None,
        )
        super().__init__(reader, source, sampler, config, train=train, pin_memory=pin_memory)

    def normalize(
        self, images: Tensor, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """uint8 (B, 3, H, W) → normalized `dtype` on `device`, with the mean and std of the configuration."""
        return normalize(images, self.config.mean, self.config.std, device=device, dtype=dtype)

    def _deliver(self, answer: Batch) -> tuple[Tensor, Any] | None:
        if answer.failure:
            raise DataError(answer.failure)
        for index, reason in answer.broken.items():
            name = self.source.describe(index)
            if name not in self.broken:
                self.broken[name] = reason
                logger.warning("skipped broken image %s (%s)", name, reason, extra=EVERY_PROCESS)
        require_readable(self.broken, len(self.source), self.config.max_broken)
        return (answer.images.permute(0, 3, 1, 2), answer.targets) if len(answer.images) else None


def build_loader(
    config: DataConfig,
    split: str | None = None,
    *,
    train: bool,
    samples: Samples = CLASS_NUMBERS,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    pin_memory: bool = False,
) -> Loader:
    """Open a split and build its loader.

    Args:
        config: what to read and how.
        split: its name; none: `config.train_split` or `config.val_split`.
        train: random order, augmentation and full batches only; otherwise every image exactly once over all processes.
        samples: how the task's images and targets are opened, transformed and collated.
        rank: this process, 0 to world_size - 1.
        world_size: processes, which share `config.batch_size`.
        seed: of order and augmentation.
        pin_memory: put batches into page-locked memory, for copies to a CUDA device that do not wait.

    Raises:
        DataError: the source cannot be used, has a single class, or holds less than one training batch.
        ConfigError: an augmentation that does not exist.
    """
    split = split if split is not None else (config.train_split if train else config.val_split)
    opened = (samples.open_training or samples.open) if train else samples.open
    source = opened(config, split)
    if config.cache:
        source = CachedSource(source, decoding_processes(config))
    sampler = build_sampler(config, source, train=train, rank=rank, world_size=world_size, seed=seed)
    return Loader(source, sampler, config, train=train, samples=samples, pin_memory=pin_memory)


def _policy(config: DataConfig) -> Callable[..., Tensor] | None:
    if not config.batch_policy:
        return None
    return functools.partial(augment, policy=config.batch_policy, draws=config.batch_policy_draws)
