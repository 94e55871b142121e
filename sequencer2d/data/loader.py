"""Batches from a source: read and augmented by worker processes, in an order that can be continued anywhere.

A worker makes a whole batch, in `uint8`: a quarter of the traffic of floats. What an image looks like depends on (seed,
epoch, index) only, neither on the number of workers nor on what was read before; a batch policy adds the batch's first
index and the image's place in it.
"""

import functools
import logging
import os
import random
import signal
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sequencer2d.data.batches import augment, normalize
from sequencer2d.data.config import DataConfig
from sequencer2d.data.images import BrokenImageError
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.data.sources import Source, open_split, shorten
from sequencer2d.data.transforms import Transform, eval_transform, train_transform
from sequencer2d.environment import launch
from sequencer2d.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_TERMINATION_GRACE_S = 30


class Key(NamedTuple):
    """What the main process asks a worker for."""

    epoch: int
    indices: np.ndarray


class Batch(NamedTuple):
    """What a worker answers: images uint8 (B, H, W, 3), targets int64 (B,), and who was broken, with the reason."""

    images: Tensor
    targets: Tensor
    broken: dict[int, str]


class BatchReader(Dataset[Batch]):
    """Reads, transforms and stacks the images of a key.

    Args:
        source: the images.
        transform: RGB image → uint8 (H, W, 3).
        seed: of the augmentation.
        replace_broken: take the next readable image in place of a broken one (training) or leave it out (evaluation).
        max_broken: how far to look for a replacement.
        policy: uint8 (B, 3, H, W) and the keyword `seed` → the same, for whole batches.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform,
        *,
        seed: int,
        replace_broken: bool,
        max_broken: int,
        policy: Callable[..., Tensor] | None = None,
    ) -> None:
        self.source, self.transform, self.seed, self.policy = source, transform, seed, policy
        self.replace_broken, self.max_broken = replace_broken, max_broken

    def __getitem__(self, key: Key) -> Batch:
        images: list[np.ndarray] = []
        targets: list[int] = []
        broken: dict[int, str] = {}
        with keep_random_state():
            for index in key.indices.tolist():
                sample = self._read(index, broken)
                if sample is not None:
                    seed_everything(self.seed, key.epoch, index)
                    images.append(self.transform(sample[0]))
                    targets.append(sample[1])
        stacked = torch.from_numpy(np.stack(images)) if images else torch.empty(0, 1, 1, 3, dtype=torch.uint8)
        if self.policy is not None and images:
            stacked = self._with_policy(stacked, key)
        return Batch(stacked, torch.tensor(targets, dtype=torch.int64), broken)

    def _with_policy(self, images: Tensor, key: Key) -> Tensor:
        assert self.policy is not None
        seed = _mix(mixed_seed(self.seed, key.epoch, int(key.indices[0])))
        # Planar in memory: the policy's operations take 1.3 times as long on interleaved colours.
        augmented = self.policy(images.permute(0, 3, 1, 2).contiguous(), seed=seed >> 1)
        return augmented.permute(0, 2, 3, 1).contiguous()

    def _read(self, index: int, broken: dict[int, str]) -> tuple[Any, int] | None:
        for offset in range(min(self.max_broken + 1, len(self.source)) if self.replace_broken else 1):
            candidate = (index + offset) % len(self.source)
            try:
                return self.source[candidate]
            except BrokenImageError as error:
                broken[candidate] = str(error)
        return None


class Loader:
    """Iterates over (images, targets): uint8 (B, 3, H, W), channels last in memory, and int64 (B,), on the CPU.

    One iteration is the rest of an epoch. A training loader then goes on to the next epoch by itself; `state_dict`,
    taken at any batch, counts that batch as done. An evaluation loader always starts at the beginning.

    Attributes:
        source: the images, with their class names.
        sampler: the order of the images.
        config: the configuration it was built from.
        broken: description of each unreadable image met so far → the reason.
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
        self.source, self.sampler, self.config, self.train = source, sampler, config, train
        self.broken: dict[str, str] = {}
        reader = BatchReader(
            source,
            transform,
            seed=sampler.seed,
            replace_broken=train,
            max_broken=config.max_broken,
            policy=_policy(config) if train else None,
        )
        workers = min(worker_count(config), len(sampler))
        self._batches: list[DataLoader] = [
            DataLoader(
                reader,
                batch_size=None,
                sampler=BatchKeys(sampler),  # type: ignore[arg-type]
                num_workers=workers,
                prefetch_factor=config.prefetch if workers else None,
                persistent_workers=workers > 0,
                pin_memory=pin_memory,
                collate_fn=as_it_is,
                worker_init_fn=start_worker,
                generator=torch.Generator(),  # else each epoch draws a number from torch's global generator
            )
        ]
        # Workers outlive SIGTERM for a while (see start_worker), so they must be gone before the interpreter ends.
        self._finalizer = weakref.finalize(self, self._batches.clear)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.source.class_names

    def __len__(self) -> int:
        """Batches of a whole epoch in this process."""
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`; in the current epoch, stay where we are."""
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands, in plain numbers; the batch yielded last counts as done."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved place. Raises `CheckpointError` if it belongs to other data."""
        self.sampler.load_state_dict(state)

    def normalize(
        self, images: Tensor, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """uint8 (B, 3, H, W) → normalised `dtype` on `device`, with the mean and std of the configuration."""
        return normalize(images, self.config.mean, self.config.std, device=device, dtype=dtype)

    def close(self) -> None:
        """Stop the workers; the loader cannot be used any more."""
        self._finalizer()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self._batches:
            raise RuntimeError("this loader is closed")
        with warnings.catch_warnings():
            # Python warns of threads that a fork leaves behind; workers only read images and need none of them.
            warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
            batches = iter(self._batches[0])
        for images, targets, broken in batches:
            self._note(broken)
            if self.train:
                self.sampler.position += 1
            if len(targets):
                yield images.permute(0, 3, 1, 2), targets
        if self.train:
            self.sampler.set_epoch(self.sampler.epoch + 1)

    def _note(self, broken: dict[int, str]) -> None:
        for index, reason in broken.items():
            name = self.source.describe(index)
            if name not in self.broken:
                self.broken[name] = reason
                logger.warning("skipped broken image %s (%s)", name, reason)
        if len(self.broken) > self.config.max_broken:
            raise DataError(
                f"{len(self.broken)} images cannot be read, more than data.max_broken={self.config.max_broken}: "
                f"{shorten(list(self.broken), 5)}; repair or remove them, or raise the limit"
            )
        if len(self.broken) >= len(self.source):
            raise DataError(f"none of the {len(self.source)} images can be read, e.g. {shorten(list(self.broken), 3)}")


def build_loader(
    config: DataConfig,
    split: str | None = None,
    *,
    train: bool,
    rank: int = 0,
    world_size: int = 1,
    batch_size: int | None = None,
    seed: int = 0,
    pin_memory: bool = False,
) -> Loader:
    """Open a split and build its loader.

    Args:
        config: what to read and how.
        split: its name; none: `config.train_split` or `config.val_split`.
        train: random order, augmentation and full batches only; otherwise every image exactly once over all processes.
        rank: this process, 0 to world_size - 1.
        world_size: processes.
        batch_size: images a batch in this process; none: `config.batch_size` divided by the processes, rounded up.
        seed: of order and augmentation.
        pin_memory: put batches into page-locked memory, for copies to a CUDA device that do not wait.

    Raises:
        DataError: the source cannot be used, has a single class, or holds less than one training batch.
        ConfigError: an augmentation that does not exist.
    """
    split = split if split is not None else (config.train_split if train else config.val_split)
    source = open_split(config, split)
    if config.cache:
        from sequencer2d.data.cache import CachedSource

        source = CachedSource(source)
    sampler = ResumableSampler(
        len(source),
        batch_size=batch_size or -(-config.batch_size // world_size),
        seed=seed,
        shuffle=train,
        rank=rank,
        world_size=world_size,
        drop_last=train,
    )
    if train:
        check_batches(config, sampler)
    transform = train_transform(config) if train else eval_transform(config)
    return Loader(source, transform, sampler, config, train=train, pin_memory=pin_memory)


def check_batches(config: DataConfig, sampler: ResumableSampler) -> None:
    """Raise `DataError` if a training split holds less than a batch, `ConfigError` if its batches cannot be mixed."""
    if not len(sampler):
        raise DataError(
            f"the training split holds {sampler.length} images, less than one batch of {sampler.global_batch}; "
            "choose a smaller data.batch_size"
        )
    if config.mixes and sampler.batch_size % 2:
        raise ConfigError(
            f"mixup and cutmix pair the images of a batch, which has {sampler.batch_size} of them in each process; "
            "choose an even number, or set data.mixup=0 data.cutmix=0"
        )


def seed_everything(seed: int, epoch: int, index: int) -> None:
    """Seed `random`, numpy and torch (CPU) from (seed, epoch, index), as cheaply as it goes: ≈10 µs."""
    mixed = mixed_seed(seed, epoch, index)
    random.seed(mixed)
    np.random.seed(mixed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(mixed)


def mixed_seed(seed: int, epoch: int, index: int) -> int:
    """64 well-mixed bits of (seed, epoch, index)."""
    return _mix(_mix(_mix(seed) ^ epoch) ^ index)


def _policy(config: DataConfig) -> Callable[..., Tensor] | None:
    if not config.batch_policy:
        return None
    return functools.partial(augment, policy=config.batch_policy, draws=config.batch_policy_draws)


def worker_count(config: DataConfig) -> int:
    if config.workers is not None:
        return config.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, max(1, cores // launch().local_world_size))


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


class keep_random_state:  # noqa: N801 - a context manager reads as a function
    """Restore the generators of `random`, numpy and torch: reading images must not change what dropout draws."""

    def __enter__(self) -> None:
        self._states = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def __exit__(self, *_: object) -> None:
        random.setstate(self._states[0])
        np.random.set_state(self._states[1])
        torch.set_rng_state(self._states[2])


def start_worker(_: int) -> None:
    """Let the main process decide when to stop.

    Ctrl-C and torchrun's SIGTERM reach every process of the group. A worker that died of them would kill the main
    process before it has saved; so Ctrl-C is ignored here and SIGTERM acts only after a while.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):  # not on Windows
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_TERMINATION_GRACE_S))


def as_it_is(batch: Any) -> Any:
    return batch


def _mix(value: int) -> int:
    """One step of splitmix64: close numbers become unrelated ones."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
