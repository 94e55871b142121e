"""What happens to one image on its way to the model: crops, flips, policies. Batches are in `batches`.

A transform turns an RGB image into a `uint8` array of shape (height, width, 3); normalisation waits for the device. All
randomness comes from the global generators of `random`, numpy and torch, which the loader seeds for each image.
"""

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, RandAugment

from sequencer2d.data.batches import Mixer, mixup, normalize
from sequencer2d.data.config import DataConfig
from sequencer2d.errors import ConfigError

__all__ = ["Mixer", "Transform", "eval_transform", "mixup", "normalize", "train_transform"]

Transform = Callable[[Image.Image], np.ndarray]


class Pipeline:
    """Steps from image to image, then the pixels: RGB image → uint8 (height, width, 3)."""

    def __init__(self, steps: list[Callable[[Image.Image], Image.Image]]) -> None:
        self.steps = steps

    def __call__(self, image: Image.Image) -> np.ndarray:
        for step in self.steps:
            image = step(image)
        return np.asarray(image)

    def __repr__(self) -> str:
        return "\n".join(repr(step) for step in self.steps)


class PadCrop:
    """Shift an image at random by up to `padding` pixels, black where nothing was: the usual crop of small images.

    An image of another size is first resized so that it covers `size` = (height, width), then cut in the middle.
    """

    def __init__(self, size: tuple[int, int], padding: int, interpolation: str) -> None:
        self.size, self.padding, self.interpolation = size, padding, interpolation

    def __call__(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), method=self._resampling())
        left, top = random.randint(-self.padding, self.padding), random.randint(-self.padding, self.padding)
        return image.crop((left, top, left + width, top + height))

    def _resampling(self) -> Image.Resampling:
        name = random.choice(("bilinear", "bicubic")) if self.interpolation == "random" else self.interpolation
        return Image.Resampling[name.upper()]

    def __repr__(self) -> str:
        return f"PadCrop(size={self.size}, padding={self.padding}, interpolation={self.interpolation})"


def train_transform(config: DataConfig) -> Transform:
    """The random transform of training: crop, flip, policy or colour jitter.

    Raises:
        ConfigError: `auto_augment` is not in timm's notation.
    """
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
    for step in steps:
        if isinstance(step, RandAugment):
            _allow_black(step.ops)
    return Pipeline(steps)


def eval_transform(config: DataConfig) -> Transform:
    """The fixed transform of evaluation: resize to size / `crop_pct`, then crop (`eval_crop`: the middle)."""
    steps = create_transform(
        config.size,
        is_training=False,
        interpolation=config.eval_interpolation,
        crop_pct=config.crop_pct,
        crop_mode=config.eval_crop,
        use_prefetcher=True,
    ).transforms
    return Pipeline(_without_tensor(steps))


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
