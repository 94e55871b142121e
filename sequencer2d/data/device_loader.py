"""Training batches from a data set that lies on the device: the CPU makes the random draws and nothing else.

For small images, where decoding and augmenting one by one takes longer than a training step. The pixels are those of
`loader.Loader` with the same configuration.
"""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sequencer2d.data.batch_loader import BatchLoader, build_sampler
from sequencer2d.data.config import DataConfig
from sequencer2d.data.device_augment import augment_batch, fill_color
from sequencer2d.data.device_images import DeviceImages
from sequencer2d.data.draws import Drawer
from sequencer2d.data.opening import open_split
from sequencer2d.data.plans import Plan, make_plan
from sequencer2d.data.policy_loader import PolicyLoader
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.data.sources import Source
from sequencer2d.data.workers import Key, decoding_processes
from sequencer2d.seeds import keep_random_state, seed_image


class PlanReader(Dataset[Plan]):
    """What a worker answers to a key: which images the batch holds, and what happens to each.

    Args:
        config: crop, flip and `auto_augment`.
        size: (height, width) of the source images in pixels.
        seed: of the draws.
    """

    def __init__(self, config: DataConfig, size: tuple[int, int], seed: int) -> None:
        self._drawer, self._size, self._seed = Drawer(config, size), config.size, seed

    def __getitem__(self, key: Key) -> Plan:
        indices = key.indices.tolist()
        with keep_random_state():
            draws = self._drawer.draw(len(indices), lambda place: seed_image(self._seed, key.epoch, indices[place]))
        return make_plan(key.indices, draws, self._size)


class DeviceLoader(BatchLoader):
    """Iterates over (images, targets) on the device: uint8 (B, 3, H, W), channels last in memory, and int64 (B,).

    Args:
        source: the images, all of one size.
        sampler: their order.
        config: crop, flip, `auto_augment`, workers.
        device: where the images lie and the batches are made.
    """

    def __init__(self, source: Source, sampler: ResumableSampler, config: DataConfig, device: torch.device) -> None:
        self.images = DeviceImages(source, device, config.max_broken, decoding_processes(config))
        reader = PlanReader(config, self.images.size, sampler.seed)
        super().__init__(reader, source, sampler, config, train=True, pin_memory=device.type == "cuda")
        self.broken = self.images.broken
        # Made once: a tensor that is made on the CPU for every batch would make the CPU wait for the device each time.
        self._fill = torch.tensor(fill_color(config), dtype=torch.uint8, device=device)

    def close(self) -> None:
        """Stop the workers and free the device's memory; the loader cannot be used any more."""
        super().close()
        del self.images

    @torch.no_grad()
    def _deliver(self, answer: Plan) -> tuple[Tensor, Tensor]:
        plan = answer.to(self.images.pixels.device)
        batch = augment_batch(self.images.pixels, plan, self.config.size, self._fill)
        return batch, self.images.targets[plan.rows.indices]


def build_device_loader(
    config: DataConfig, *, device: torch.device, rank: int = 0, world_size: int = 1, seed: int = 0
) -> DeviceLoader | PolicyLoader:
    """Open the training split and build the loader that augments on `device`; see `loader.build_loader`.

    Raises:
        DataError: the images make less than one batch, or all are to lie on the device and differ in size.
        ConfigError: an augmentation that the device does not have, or too little memory.
    """
    source = open_split(config, config.train_split)
    sampler = build_sampler(config, source, train=True, rank=rank, world_size=world_size, seed=seed)
    return device_loader(source, sampler, config, device)


def device_loader(
    source: Source, sampler: ResumableSampler, config: DataConfig, device: torch.device
) -> DeviceLoader | PolicyLoader:
    """The loader of `config.augment_on`: "workers+device", otherwise "device"."""
    kind = PolicyLoader if config.augment_on == "workers+device" else DeviceLoader
    return kind(source, sampler, config, device)
