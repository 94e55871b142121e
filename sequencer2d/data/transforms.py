"""What happens to one image in training: crops, flips, policies. Batches are in `batches`.

All randomness comes from the global generators of `random`, numpy and torch, which the loader seeds for each image.
timm's steps are imported when they are made: prediction needs none of them, and timm and torchvision take seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import Pipeline, Transform
from sequencer2d.errors import ConfigError

if TYPE_CHECKING:
    from timm.data.auto_augment import AugmentOp
    from timm.data.transforms import RandomResizedCropAndInterpolation


SMOOTH = ("bilinear", "bicubic")
"""What `data.interpolation=random` draws from, and what resizes in tensors."""


def draw_filter(interpolation: str) -> Image.Resampling:
    """Pillow's filter of that name; "random" draws one of `SMOOTH` at each call."""
    name = random.choice(SMOOTH) if interpolation == "random" else interpolation
    return Image.Resampling[name.upper()]


class PadCrop:
    """Shift an image at random by up to `padding` pixels, black where nothing was: the usual crop of small images.

    An image of another size is first resized so that it covers `size` = (height, width), then cut in the middle.
    """

    def __init__(self, size: tuple[int, int], padding: int, interpolation: str) -> None:
        self.size, self.padding, self.interpolation = size, padding, interpolation

    def __call__(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), method=draw_filter(self.interpolation))
        left, top = random.randint(-self.padding, self.padding), random.randint(-self.padding, self.padding)
        return image.crop((left, top, left + width, top + height))

    def __repr__(self) -> str:
        return f"PadCrop(size={self.size}, padding={self.padding}, interpolation={self.interpolation})"


class TorchResizedCrop:
    """timm's random resized crop with the same draws, resized by torch's antialiased uint8 kernels, columns first.

    Args:
        crop: timm's step: size, share of the area, ratio of the sides, interpolation.

    Raises:
        ConfigError: the step resamples in another way than bilinear or bicubic.
    """

    def __init__(self, crop: RandomResizedCropAndInterpolation) -> None:
        modes = crop.interpolation if isinstance(crop.interpolation, (tuple, list)) else (crop.interpolation,)
        names = [mode.value for mode in modes]
        if not set(names) <= set(SMOOTH):
            raise ConfigError("data.resampler=torch resamples bilinear or bicubic; set data.interpolation accordingly")
        self.crop, self.modes = crop, names

    def __call__(self, image: Image.Image) -> Image.Image:
        top, left, height, width = self.crop.get_params(image, self.crop.scale, self.crop.ratio)
        mode = random.choice(self.modes) if len(self.modes) > 1 else self.modes[0]
        part = torch.from_numpy(np.array(image.crop((left, top, left + width, top + height))))
        # A view in channels-last order: torch resizes that without sorting the colors apart.
        batch = part.permute(2, 0, 1).unsqueeze(0)
        resized = F.interpolate(batch, self.crop.size, mode=mode, antialias=True, align_corners=False)
        return Image.fromarray(resized[0].permute(1, 2, 0).contiguous().numpy())

    def __repr__(self) -> str:
        return f"TorchResizedCrop({self.crop!r})"


def train_transform(config: DataConfig) -> Transform:
    """The random transform of training: crop, flip, policy or color jitter.

    Raises:
        ConfigError: `auto_augment` is not in timm's notation, or `resampler` cannot do what the others ask for.
    """
    from timm.data import create_transform
    from timm.data.auto_augment import RandAugment

    if config.crop == "pad" and config.resampler != "pillow":
        raise ConfigError("data.resampler=torch is for data.crop=random-resized; set data.resampler=pillow")
    try:
        steps = create_transform(
            config.size,
            is_training=True,
            scale=config.crop_scale,
            ratio=config.crop_ratio,
            hflip=config.hflip,
            color_jitter=config.color_jitter or None,
            auto_augment=config.auto_augment or None,
            interpolation=config.interpolation,
            mean=config.mean,
            std=config.std,
            use_prefetcher=True,
        ).transforms
    except (AssertionError, ValueError, KeyError) as error:
        raise ConfigError(
            f"data.auto_augment is {config.auto_augment!r}, which timm does not take ({error}); "
            "expected for example rand-m9-mstd0.5-inc1"
        ) from error
    steps = _without_tensor(steps)
    if config.crop == "pad":
        steps[0] = PadCrop(config.size, config.crop_padding, config.interpolation)
    elif config.resampler == "torch":
        steps[0] = TorchResizedCrop(steps[0])
    for step in steps:
        if isinstance(step, RandAugment):
            _allow_black(step.ops)
    return Pipeline(steps)


def color_jitter(strength: float) -> Callable[[Image.Image], Image.Image]:
    """Random changes of brightness, contrast and saturation, each of up to `strength`."""
    from torchvision.transforms import ColorJitter

    return ColorJitter(strength, strength, strength)  # type: ignore[no-any-return]


def _without_tensor(steps: list) -> list:
    """timm's steps less the last one, which makes a tensor of the image: an array is cheaper and makes the batch."""
    return list(steps[:-1])


def _allow_black(ops: list[AugmentOp]) -> None:
    """Let a policy keep no bits: at magnitude 10 timm asks for that. Pillow 8.4 gave black; newer ones refuse."""
    for op in ops:
        if op.name.startswith("Posterize"):
            op.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    if bits < 1:
        return Image.new(image.mode, image.size)
    return image if bits >= 8 else ImageOps.posterize(image, bits)
