"""What happens to one image on its way to the model: crops, flips, policies. Batches are in `batches`.

A transform turns an RGB image into a `uint8` array of shape (height, width, 3); normalization waits for the device. All
randomness comes from the global generators of `random`, numpy and torch, which the loader seeds for each image.
"""

import math
import random
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, RandAugment
from timm.data.transforms import RandomResizedCropAndInterpolation

from sequencer2d.data.config import DataConfig
from sequencer2d.errors import ConfigError

_MOST_RESIZED = 2**24
"""Pixels of a resized image, at most, where its crop has fewer than an eighth of them: 50 MB."""

_LEAST_BOX = 1 / 64  # of a pixel: Pillow takes boxes in single precision

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
        if not {"bilinear", "bicubic"}.issuperset(names):
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


class CentralCrop:
    """timm's resize and central crop, without ever making a resized image that is much larger than the crop.

    A strip of 1 × 20,000 pixels, resized so that its short side fits, would be 256 × 5 million. Where the resized image
    would be out of proportion, the crop alone is resized, from the same part of the image.

    Args:
        resize: timm's step: the whole image, its sides in proportion.
        crop: timm's step: the middle of it.
        scaled: (height, width) that the resized image just covers.
        size: (height, width) of the crop.
        interpolation: of the crop that is resized alone.
    """

    def __init__(
        self,
        resize: Callable[[Image.Image], Image.Image],
        crop: Callable[[Image.Image], Image.Image],
        scaled: tuple[int, int],
        size: tuple[int, int],
        interpolation: str,
    ) -> None:
        self.resize, self.crop, self.scaled, self.size = resize, crop, scaled, size
        self.interpolation = Image.Resampling[interpolation.upper()]
        self.most_resized = max(_MOST_RESIZED, 8 * size[0] * size[1])

    def __call__(self, image: Image.Image) -> Image.Image:
        shrink = min(image.height / self.scaled[0], image.width / self.scaled[1])
        height, width = (int(side / shrink + 1e-6) for side in (image.height, image.width))
        if height * width <= self.most_resized:
            return self.crop(self.resize(image))
        top, bottom = _middle(image.height, height, self.size[0])
        left, right = _middle(image.width, width, self.size[1])
        return image.resize(self.size[::-1], self.interpolation, (left, top, right, bottom))

    def __repr__(self) -> str:
        return f"{self.resize!r}\n{self.crop!r}"


def _middle(side: int, resized: int, crop: int) -> tuple[float, float]:
    """The part of a side of `side` pixels that becomes the central `crop` of `resized` pixels: begin and end."""
    scale = side / resized
    begin = min(max(0, round((resized - crop) / 2)) * scale, side - _LEAST_BOX)
    return begin, min(begin + max(crop * scale, _LEAST_BOX), side)


class NoThinnerThanAPixel:
    """Widen a strip of which the resize to `scaled` = (height, width), sides in proportion, would leave nothing."""

    def __init__(self, scaled: tuple[int, int]) -> None:
        self.scaled = scaled

    def __call__(self, image: Image.Image) -> Image.Image:
        shrink = max(image.height / self.scaled[0], image.width / self.scaled[1])
        if min(image.size) >= shrink:
            return image
        width, height = (max(1, round(side / shrink)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BOX)


def train_transform(config: DataConfig) -> Transform:
    """The random transform of training: crop, flip, policy or color jitter.

    Raises:
        ConfigError: `auto_augment` is not in timm's notation, or `resampler` cannot do what the others ask for.
    """
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


def eval_transform(config: DataConfig) -> Transform:
    """The fixed transform of evaluation: resize to size / `crop_pct`, then crop (`eval_crop`: the middle)."""
    steps = _without_tensor(
        create_transform(
            config.size,
            is_training=False,
            interpolation=config.eval_interpolation,
            crop_pct=config.crop_pct,
            crop_mode=config.eval_crop,
            mean=config.mean,  # what a crop with a border is filled with
            std=config.std,
            use_prefetcher=True,
        ).transforms
    )
    scaled = math.floor(config.size[0] / config.crop_pct), math.floor(config.size[1] / config.crop_pct)
    if config.eval_crop == "center":
        resize, crop = steps
        return Pipeline([CentralCrop(resize, crop, scaled, config.size, config.eval_interpolation)])
    return Pipeline([NoThinnerThanAPixel(scaled), *steps] if config.eval_crop == "border" else steps)


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
