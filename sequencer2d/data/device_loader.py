"""Training batches from a data set that lies on the device: nothing but random draws is made on the CPU.

For small images, where decoding and augmenting one by one takes longer than a training step. The pixels are those of
`loader.Loader` with the same configuration.
"""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sequencer2d.data.batch_loader import BatchLoader, build_sampler
from sequencer2d.data.config import DataConfig
from sequencer2d.data.device_augment import Drawer, Draws, apply_crops, apply_operations, fill_color
from sequencer2d.data.device_images import DeviceImages
from sequencer2d.data.opening import open_split
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.data.sources import Source
from sequencer2d.data.workers import Key
from sequencer2d.seeds import keep_random_state, seed_image


class DrawReader(Dataset[tuple[np.ndarray, Draws]]):
    """What a worker answers to a key: the batch's indices, and what is to happen to each image."""

    def __init__(self, config: DataConfig, size: tuple[int, int], seed: int) -> None:
        self._drawer, self._seed = Drawer(config, size), seed

    def __getitem__(self, key: Key) -> tuple[np.ndarray, Draws]:
        with keep_random_state():
            draws = self._drawer.draw(
                len(key.indices), lambda place: seed_image(self._seed, key.epoch, int(key.indices[place]))
            )
        return key.indices, draws


class DeviceLoader(BatchLoader):
    """Iterates over (images, targets) on the device: uint8 (B, 3, H, W), channels last in memory, and int64 (B,).

    Args:
        source: the images, all of one size.
        sampler: their order.
        config: crop, flip, `auto_augment`, workers.
        device: where the images lie and the batches are made.
    """

    def __init__(self, source: Source, sampler: ResumableSampler, config: DataConfig, device: torch.device) -> None:
        self.images = DeviceImages(source, device, config.max_broken)
        super().__init__(DrawReader(config, self.images.size, sampler.seed), source, sampler, config, train=True)
        self.broken = self.images.broken

    def close(self) -> None:
        """Stop the workers and free the device's memory; the loader cannot be used any more."""
        super().close()
        del self.images

    @torch.no_grad()
    def _deliver(self, answer: tuple[np.ndarray, Draws]) -> tuple[Tensor, Tensor]:
        indices, draws = answer
        images = self.images
        chosen = torch.from_numpy(indices)
        if images.pixels.device.type == "cuda":
            chosen = chosen.pin_memory().to(images.pixels.device, non_blocking=True)
        batch = apply_crops(images.pixels[chosen].permute(0, 3, 1, 2).contiguous(), draws, self.config.size)
        batch = apply_operations(batch, draws.operations, fill_color(self.config))
        return batch.contiguous(memory_format=torch.channels_last), images.targets[chosen]


def build_device_loader(
    config: DataConfig, *, device: torch.device, rank: int = 0, world_size: int = 1, seed: int = 0
) -> DeviceLoader:
    """Open the training split, put its images on `device` and build its loader; see `loader.build_loader`.

    Raises:
        DataError: the images have several sizes, too many are broken, or they make less than one batch.
        ConfigError: an augmentation that the device does not have, or too little memory.
    """
    source = open_split(config, config.train_split)
    sampler = build_sampler(config, source, train=True, rank=rank, world_size=world_size, seed=seed)
    return DeviceLoader(source, sampler, config, device)
