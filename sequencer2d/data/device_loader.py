"""Training batches from a data set that lies on the device: nothing but random draws is made on the CPU.

For small images, where decoding and augmenting one by one takes longer than a training step. The pixels are those of
`loader.Loader` with the same configuration.
"""

import warnings
import weakref
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sequencer2d.data.cache import CachedSource
from sequencer2d.data.config import DataConfig
from sequencer2d.data.device_augment import Drawer, Draws, apply_crops, apply_operations, fill_color
from sequencer2d.data.images import BrokenImageError
from sequencer2d.data.loader import (
    BatchKeys,
    Key,
    as_it_is,
    check_batches,
    keep_random_state,
    seed_everything,
    start_worker,
    worker_count,
)
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.data.sources import Source, open_split, shorten
from sequencer2d.errors import ConfigError, DataError


class DeviceImages:
    """Every image of a source in one tensor on a device.

    A broken image is replaced by the next readable one, as in training from files.

    Attributes:
        pixels: uint8 (N, H, W, 3).
        targets: int64 (N,).
        broken: description of each unreadable image → the reason.

    Raises:
        DataError: the images have several sizes, or more than `max_broken` are broken.
        ConfigError: they do not fit into the device's free memory.
    """

    def __init__(self, source: Source, device: torch.device, max_broken: int) -> None:
        self.broken: dict[str, str] = {}
        arrays: list[np.ndarray | None] = []
        targets = np.zeros(len(source), np.int64)
        cached = CachedSource(source)
        for index in range(len(source)):
            try:
                image, targets[index] = cached[index]
                arrays.append(np.asarray(image))
            except BrokenImageError as error:
                self.broken[source.describe(index)] = str(error)
                arrays.append(None)
        if len(self.broken) > min(max_broken, len(source) - 1):
            raise DataError(
                f"{len(self.broken)} images cannot be read, more than data.max_broken={max_broken}: "
                f"{shorten(list(self.broken), 5)}; repair or remove them, or raise the limit"
            )
        _replace_broken(arrays, targets)
        self.pixels = _stack(arrays, source, device)
        self.targets = torch.from_numpy(targets).to(device)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]


class DrawReader(Dataset[tuple[np.ndarray, Draws]]):
    """What a worker answers to a key: the batch's indices, and what is to happen to each image."""

    def __init__(self, config: DataConfig, size: tuple[int, int], seed: int) -> None:
        self._drawer, self._seed = Drawer(config, size), seed

    def __getitem__(self, key: Key) -> tuple[np.ndarray, Draws]:
        with keep_random_state():
            draws = self._drawer.draw(
                len(key.indices), lambda place: seed_everything(self._seed, key.epoch, int(key.indices[place]))
            )
        return key.indices, draws


class DeviceLoader:
    """Iterates over (images, targets) on the device: uint8 (B, 3, H, W), channels last in memory, and int64 (B,).

    It stands in for a training `Loader`: one iteration is the rest of an epoch, from the sampler's position on.

    Args:
        source: the images, all of one size.
        sampler: their order.
        config: crop, flip, `auto_augment`, workers.
        device: where the images lie and the batches are made.
    """

    def __init__(self, source: Source, sampler: ResumableSampler, config: DataConfig, device: torch.device) -> None:
        self.source, self.sampler, self.config = source, sampler, config
        self.images = DeviceImages(source, device, config.max_broken)
        self.broken = self.images.broken
        workers = min(worker_count(config), len(sampler))
        self._batches: list[DataLoader] = [
            DataLoader(
                DrawReader(config, self.images.size, sampler.seed),
                batch_size=None,
                sampler=BatchKeys(sampler),  # type: ignore[arg-type]
                num_workers=workers,
                prefetch_factor=config.prefetch if workers else None,
                persistent_workers=workers > 0,
                collate_fn=as_it_is,
                worker_init_fn=start_worker,
                generator=torch.Generator(),
            )
        ]
        self._finalizer = weakref.finalize(self, self._batches.clear)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.source.class_names

    def __len__(self) -> int:
        """Batches of a whole epoch in this process."""
        return len(self.sampler)

    def close(self) -> None:
        """Stop the workers and free the device's memory; the loader cannot be used any more."""
        self._finalizer()
        del self.images

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
            batches = iter(self._batches[0])
        for indices, draws in batches:
            self.sampler.position += 1
            yield self._make(indices, draws)
        self.sampler.set_epoch(self.sampler.epoch + 1)

    @torch.no_grad()
    def _make(self, indices: np.ndarray, draws: Draws) -> tuple[Tensor, Tensor]:
        images = self.images
        chosen = torch.from_numpy(indices)
        if images.pixels.device.type == "cuda":
            chosen = chosen.pin_memory().to(images.pixels.device, non_blocking=True)
        batch = apply_crops(images.pixels[chosen].permute(0, 3, 1, 2).contiguous(), draws, self.config.size)
        batch = apply_operations(batch, draws.operations, fill_color(self.config))
        return batch.contiguous(memory_format=torch.channels_last), images.targets[chosen]


def _replace_broken(arrays: list[np.ndarray | None], targets: np.ndarray) -> None:
    count = len(arrays)
    for index in [place for place, array in enumerate(arrays) if array is None]:
        readable = next(place % count for place in range(index, index + count) if arrays[place % count] is not None)
        arrays[index], targets[index] = arrays[readable], targets[readable]


def _stack(arrays: list[np.ndarray | None], source: Source, device: torch.device) -> Tensor:
    shapes = [array.shape for array in arrays if array is not None]
    other = next((index for index, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None:
        (height, width, _), (first_height, first_width, _) = shapes[other], shapes[0]
        raise DataError(
            f"data.augment_on=device needs images of one size: {source.describe(0)} has {first_width}×{first_height} "
            f"pixels, {source.describe(other)} has {width}×{height}; set data.augment_on=workers"
        )
    needed = len(arrays) * int(np.prod(shapes[0]))
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if needed > free // 2:
            raise ConfigError(
                f"the images take {needed >> 20} MiB and {device} has {free >> 20} MiB free, of which half is kept for "
                "training; set data.augment_on=workers"
            )
    return torch.from_numpy(np.stack([array for array in arrays if array is not None])).to(device)


def build_device_loader(
    config: DataConfig, *, device: torch.device, rank: int = 0, world_size: int = 1, seed: int = 0
) -> DeviceLoader:
    """Open the training split, put its images on `device` and build its loader; see `loader.build_loader`.

    Raises:
        DataError: the images have several sizes, too many are broken, or they make less than one batch.
        ConfigError: an augmentation that the device does not have, or too little memory.
    """
    source = open_split(config, config.train_split)
    sampler = ResumableSampler(
        len(source),
        batch_size=-(-config.batch_size // world_size),
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
    check_batches(config, sampler)
    return DeviceLoader(source, sampler, config, device)
