"""Training batches of photos: worker processes read, crop and flip, and the device runs RandAugment on whole batches.

Each image draws its own operations, in the worker, from the same random numbers as if the worker ran them, so the
pixels are those of `loader.Loader` with the same configuration.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment
from torch import Tensor

from sequencer2d.data.config import DataConfig
from sequencer2d.data.device_augment import apply_steps, fill_color
from sequencer2d.data.draws import Operation, PolicyDrawer
from sequencer2d.data.eval_transforms import Pipeline
from sequencer2d.data.loader import Loader
from sequencer2d.data.plans import Steps, make_steps
from sequencer2d.data.reader import Batch
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.data.samples import CLASS_NUMBERS, class_numbers
from sequencer2d.data.sources import Source
from sequencer2d.data.transforms import SMOOTH, train_transform
from sequencer2d.errors import ConfigError

Drawn = tuple[Any, list[Operation]]
"""An image's class, and the operations that it drew."""


class DrawnPolicy:
    """The training transform without its policy: (image, class) → (pixels, (class, drawn operations)).

    Raises:
        ConfigError: there is no policy, or one that the device does not have.
    """

    def __init__(self, config: DataConfig) -> None:
        if config.interpolation not in ("random", *SMOOTH):
            raise ConfigError(
                "data.augment_on=workers+device resamples bilinear or bicubic; set data.interpolation to one of them, "
                "or data.augment_on=workers"
            )
        pipeline = train_transform(config)
        assert isinstance(pipeline, Pipeline)
        *steps, policy = pipeline.steps
        if config.batch_policy or not isinstance(policy, RandAugment):
            raise ConfigError(
                "data.augment_on=workers+device runs data.auto_augment=rand-… on the device, without "
                "data.batch_policy; set them so, or data.augment_on=workers"
            )
        self._pipeline, self.draw = Pipeline(steps), PolicyDrawer(policy)

    def __call__(self, image: Image.Image, target: Any) -> tuple[np.ndarray, Drawn]:
        return self._pipeline(image), (target, self.draw())


class PolicyLoader(Loader):
    """Iterates over (images, targets) on the device: uint8 (B, 3, H, W), channels last in memory, and int64 (B,).

    Args:
        source: the images.
        sampler: their order.
        config: crop, flip, `auto_augment`, workers.
        device: where the policy runs.
    """

    def __init__(self, source: Source, sampler: ResumableSampler, config: DataConfig, device: torch.device) -> None:
        samples = dataclasses.replace(CLASS_NUMBERS, train_transform=DrawnPolicy, collate=_collate)
        super().__init__(source, sampler, config, train=True, samples=samples, pin_memory=device.type == "cuda")
        # Made once, as in `DeviceLoader`.
        self._fill = torch.tensor(fill_color(config), dtype=torch.uint8, device=device)

    @torch.no_grad()
    def _deliver(self, answer: Batch) -> tuple[Tensor, Tensor] | None:
        delivered = super()._deliver(answer)
        if delivered is None:
            return None
        images, (targets, steps) = delivered
        device = self._fill.device
        # The operations take the colors of an image one after the other.
        planar = images.to(device, non_blocking=True).contiguous()
        images = apply_steps(planar, steps.to(device), self._fill)
        return images.contiguous(memory_format=torch.channels_last), targets.to(device, non_blocking=True)


def drawn_steps(config: DataConfig, count: int, size: tuple[int, int]) -> Steps:
    """The operations that `count` images of (height, width) `size` draw, from the generators as they are."""
    draw = DrawnPolicy(config).draw
    return make_steps([draw() for _ in range(count)], size)


def _collate(samples: Sequence[tuple[np.ndarray, Drawn]]) -> tuple[Tensor, tuple[Tensor, Steps]]:
    images, targets = class_numbers([(pixels, target) for pixels, (target, _) in samples])
    operations = [drawn for _, (_, drawn) in samples]
    height, width = images.shape[1:3]
    return images, (targets, make_steps(operations, (height, width)))
