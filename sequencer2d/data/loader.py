"""Batches from a source: read and augmented by worker processes, in an order that can be continued anywhere."""

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from sequencer2d.data.batch_loader import BatchLoader, build_sampler
from sequencer2d.data.batches import augment, normalize
from sequencer2d.data.cache import CachedSource
from sequencer2d.data.config import DataConfig
from sequencer2d.data.opening import open_split
from sequencer2d.data.reader import Batch, BatchReader
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.data.sources import Source, require_readable
from sequencer2d.data.transforms import Transform, eval_transform, train_transform

logger = logging.getLogger(__name__)


class Loader(BatchLoader):
    """Iterates over (images, targets): uint8 (B, 3, H, W), channels last in memory, and int64 (B,), on the CPU.

    Args:
        source: the images, with their class names.
        transform: RGB image → uint8 (H, W, 3).
        sampler: the order of the images.
        config: the configuration of the rest.
        train: whether epochs differ, broken images are replaced, and a batch policy runs.
        pin_memory: put batches into page-locked memory.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform,
        sampler: ResumableSampler,
        config: DataConfig,
        *,
        train: bool,
        pin_memory: bool = False,
    ) -> None:
        reader = BatchReader(
            source,
            transform,
            seed=sampler.seed,
            replace_broken=train,
            max_broken=config.max_broken,
            policy=_policy(config) if train else None,
        )
        super().__init__(reader, source, sampler, config, train=train, pin_memory=pin_memory)

    def normalize(
        self, images: Tensor, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """uint8 (B, 3, H, W) → normalised `dtype` on `device`, with the mean and std of the configuration."""
        return normalize(images, self.config.mean, self.config.std, device=device, dtype=dtype)

    def _deliver(self, answer: Batch) -> tuple[Tensor, Tensor] | None:
        for index, reason in answer.broken.items():
            name = self.source.describe(index)
            if name not in self.broken:
                self.broken[name] = reason
                logger.warning("skipped broken image %s (%s)", name, reason)
        require_readable(self.broken, len(self.source), self.config.max_broken)
        return (answer.images.permute(0, 3, 1, 2), answer.targets) if len(answer.targets) else None


def build_loader(
    config: DataConfig,
    split: str | None = None,
    *,
    train: bool,
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
        rank: this process, 0 to world_size - 1.
        world_size: processes, which share `config.batch_size`.
        seed: of order and augmentation.
        pin_memory: put batches into page-locked memory, for copies to a CUDA device that do not wait.

    Raises:
        DataError: the source cannot be used, has a single class, or holds less than one training batch.
        ConfigError: an augmentation that does not exist.
    """
    split = split if split is not None else (config.train_split if train else config.val_split)
    source = open_split(config, split)
    if config.cache:
        source = CachedSource(source)
    sampler = build_sampler(config, source, train=train, rank=rank, world_size=world_size, seed=seed)
    transform = train_transform(config) if train else eval_transform(config)
    return Loader(source, transform, sampler, config, train=train, pin_memory=pin_memory)


def _policy(config: DataConfig) -> Callable[..., Tensor] | None:
    if not config.batch_policy:
        return None
    return functools.partial(augment, policy=config.batch_policy, draws=config.batch_policy_draws)
