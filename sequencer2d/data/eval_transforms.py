"""What happens to one image in evaluation and prediction: resize and crop, with timm's sizes and Pillow's pixels.

A transform turns an RGB image into a `uint8` array of shape (height, width, 3); normalization waits for the device.
These few steps are our own so that a prediction need not import timm and torchvision, which takes longer than torch
does; a test compares them with timm's, pixel by pixel.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from sequencer2d.data.config import DataConfig

_MOST_RESIZED = 2**24
"""Pixels of a resized image, at most, where its crop has fewer than an eighth of them: 50 MB."""

_LEAST_BOX = 1 / 64  # of a pixel: Pillow takes boxes in single precision

Size = tuple[int, int]
"""(height, width) in pixels."""
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


class ResizeAndCrop:
    """Resize an image, then take the middle; what the crop has beyond the resized image is filled.

    The image's resized size is that of timm's evaluation (`crop_mode`):

    * "center": the image, its sides in proportion, just covers `scaled`.
    * "border": it just fits into `scaled`, and is at least a pixel thin.
    * "squash": it is `scaled`, out of proportion.

    "center" never makes a resized image that is much larger than the crop. A strip of 1 × 20,000 pixels, resized so
    that its short side fits, would be 256 × 5 million; there the crop alone is resized, from the same part of it.

    Args:
        mode: as `DataConfig.eval_crop`.
        scaled: (height, width) that the whole image is resized for.
        size: (height, width) of the crop.
        interpolation: a name of Pillow's filters, in small letters.
        fill: color of what lies beyond the image, red, green, blue, 0 to 255.
    """

    def __init__(self, mode: str, scaled: Size, size: Size, interpolation: str, fill: tuple[int, int, int]) -> None:
        self.mode, self.scaled, self.size, self.fill = mode, scaled, size, fill
        self.interpolation = Image.Resampling[interpolation.upper()]
        self.most_resized = max(_MOST_RESIZED, 8 * size[0] * size[1])

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.mode == "border":
            image = no_thinner_than_a_pixel(image, self.scaled)
        resized = self._resized_size((image.height, image.width))
        if self.mode == "center" and resized[0] * resized[1] > self.most_resized:
            return self._crop_alone(image)
        return middle(image.resize(resized[::-1], self.interpolation), self.size, self.fill)

    def _resized_size(self, size: Size) -> Size:
        if self.mode == "squash":
            return self.scaled
        ratios = [side / target for side, target in zip(size, self.scaled, strict=True)]
        if self.mode == "border":
            return _rounded(size, max(ratios))
        if self.scaled[0] != self.scaled[1]:
            return _rounded(size, min(ratios))
        short, long = min(size), int(self.scaled[0] * max(size) / min(size))
        return (self.scaled[0], long) if size[0] == short else (long, self.scaled[0])

    def _crop_alone(self, image: Image.Image) -> Image.Image:
        shrink = min(image.height / self.scaled[0], image.width / self.scaled[1])
        height, width = (int(side / shrink + 1e-6) for side in (image.height, image.width))
        top, bottom = _middle_part(image.height, height, self.size[0])
        left, right = _middle_part(image.width, width, self.size[1])
        return image.resize(self.size[::-1], self.interpolation, (left, top, right, bottom))

    def __repr__(self) -> str:
        return (
            f"ResizeAndCrop(mode={self.mode}, scaled={self.scaled}, size={self.size}, "
            f"interpolation={self.interpolation.name.lower()}, fill={self.fill})"
        )


def eval_transform(config: DataConfig) -> Transform:
    """The fixed transform of evaluation: resize to size / `crop_pct`, then crop (`eval_crop`: the middle)."""
    scaled = math.floor(config.size[0] / config.crop_pct), math.floor(config.size[1] / config.crop_pct)
    red, green, blue = (round(255 * value) for value in config.mean) if config.eval_crop == "border" else (0, 0, 0)
    return Pipeline(
        [ResizeAndCrop(config.eval_crop, scaled, config.size, config.eval_interpolation, (red, green, blue))]
    )


def middle(image: Image.Image, size: Size, fill: tuple[int, int, int]) -> Image.Image:
    """The middle of an image, (height, width) = `size`, with `fill` where the image is smaller."""
    top, left = (_begin(side, crop) for side, crop in zip((image.height, image.width), size, strict=True))
    if image.height >= size[0] and image.width >= size[1]:
        return image.crop((left, top, left + size[1], top + size[0]))
    filled = Image.new(image.mode, size[::-1], fill)
    filled.paste(image, (-left, -top))
    return filled


def no_thinner_than_a_pixel(image: Image.Image, scaled: Size) -> Image.Image:
    """Widen a strip of which the resize to fit into `scaled`, sides in proportion, would leave nothing."""
    shrink = max(image.height / scaled[0], image.width / scaled[1])
    if min(image.size) >= shrink:
        return image
    width, height = (max(1, round(side / shrink)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def _begin(side: int, crop: int) -> int:
    """Where the middle `crop` of `side` pixels begins; below 0 where the crop is the larger one."""
    return -((crop - side) // 2) if crop > side else round((side - crop) / 2)


def _rounded(size: Size, shrink: float) -> Size:
    return round(size[0] / shrink), round(size[1] / shrink)


def _middle_part(side: int, resized: int, crop: int) -> tuple[float, float]:
    """The part of a side of `side` pixels that becomes the central `crop` of `resized` pixels: begin and end."""
    scale = side / resized
    begin = min(max(0, round((resized - crop) / 2)) * scale, side - _LEAST_BOX)
    return begin, min(begin + max(crop * scale, _LEAST_BOX), side)
