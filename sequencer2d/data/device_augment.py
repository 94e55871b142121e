"""Random crop, flip and RandAugment for whole batches on the device: timm's draws, Pillow's pixels.

timm's own transforms make the draws on the CPU, image by image, from the seed that each image has anyway. Only the
pixels are computed in batches. An image therefore looks as it would from a worker process.
"""

import dataclasses
import functools
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomHorizontalFlip

from sequencer2d.data import pixel_ops
from sequencer2d.data.config import DataConfig
from sequencer2d.data.transforms import Pipeline, train_transform
from sequencer2d.errors import ConfigError

_FILTERS = {InterpolationMode.BILINEAR: pixel_ops.BILINEAR, InterpolationMode.BICUBIC: pixel_ops.BICUBIC}


class Operation(NamedTuple):
    """One step of a policy for one image."""

    name: str
    """timm's name, as ShearX."""
    value: float
    """The operation's argument; 0 where it has none."""
    resample: int
    """Pillow's filter for operations that move pixels; 0 for the others."""


@dataclasses.dataclass
class Draws:
    """What happens to each image of a batch.

    Attributes:
        crops: int64 (B, 4): top, left, height and width in pixels.
        filters: int64 (B,): `pixel_ops.BILINEAR` or `BICUBIC`.
        flips: bool (B,): mirrored or not.
        operations: for each image, its operations in order.
    """

    crops: np.ndarray
    filters: np.ndarray
    flips: np.ndarray
    operations: list[list[Operation]]


class Drawer:
    """Draws for one image at a time, in the order in which timm's transform of the same configuration draws.

    Args:
        config: crop, flip and `auto_augment`.
        size: (height, width) of the source images in pixels.

    Raises:
        ConfigError: the configuration asks for a step that the device does not have.
    """

    def __init__(self, config: DataConfig, size: tuple[int, int]) -> None:
        steps = _known_steps(config)
        self._crop, self._flip, self._policy = steps
        self._blank = Image.new("L", (size[1], size[0]))

    def draw(self, count: int, seed: Callable[[int], None]) -> Draws:
        """Draws for `count` images; `seed(i)` seeds all generators for the i-th."""
        crops, filters, flips, operations = [], [], [], []
        for index in range(count):
            seed(index)
            crops.append(self._crop.get_params(self._blank, self._crop.scale, self._crop.ratio))
            filters.append(_FILTERS[_one_of(self._crop.interpolation)])
            flips.append(self._flip is not None and bool(torch.rand(1) < self._flip.p))
            recorded: list[Operation] = []
            if self._policy is not None:
                self._policy(recorded)
            operations.append(recorded)
        return Draws(np.array(crops), np.array(filters), np.array(flips), operations)


def apply_crops(images: Tensor, draws: Draws, size: tuple[int, int]) -> Tensor:
    """Crop, resize to `size` = (height, width) and flip: uint8 (B, C, H, W) → uint8 (B, C, *size)."""
    top, left, height, width = _to(draws.crops.T.copy(), images.device)
    filters, flips = _to(draws.filters, images.device), _to(draws.flips, images.device)
    rows = pixel_ops.resample_matrices(top, height, images.shape[2], size[0], filters)
    columns = pixel_ops.resample_matrices(left, width, images.shape[3], size[1], filters, flip=flips)
    return pixel_ops.resize(images, rows, columns)


def apply_operations(images: Tensor, operations: Sequence[Sequence[Operation]], fill: Sequence[int]) -> Tensor:
    """Run each image's operations, all images that need the same operation at a time.

    Args:
        images: uint8 (B, C, H, W); overwritten.
        operations: of each image, in order; see `OPERATIONS` for the names.
        fill: color of pixels that come from outside the image, 0 to 255.
    """
    for layer in range(max(map(len, operations), default=0)):
        groups: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
        for index, steps in enumerate(operations):
            if layer < len(steps):
                step = steps[layer]
                groups[_group(step.name), step.resample].append((index, _argument(step, images.shape)))
        for (name, resample), members in groups.items():
            chosen = _to(np.array([index for index, _ in members]), images.device)
            values = _to(np.array([value for _, value in members]), images.device)
            part = images[chosen]
            if name == "affine":
                part = pixel_ops.affine(part, values, fill, resample)
            else:
                part = OPERATIONS[name](part, values)
            images[chosen] = part
    return images


def fill_color(config: DataConfig) -> tuple[int, ...]:
    """The mean color, 0 to 255, with which timm fills what comes from outside an image."""
    return tuple(min(255, round(255 * mean)) for mean in config.mean)


def _translation(axis: int) -> Callable[[float, int, int], tuple[float, ...]]:
    def matrix(share: float, height: int, width: int) -> tuple[float, ...]:
        pixels = share * (width, height)[axis]
        return (1, 0, pixels, 0, 1, 0) if axis == 0 else (1, 0, 0, 0, 1, pixels)

    return matrix


def _rotation(degrees: float, height: int, width: int) -> tuple[float, ...]:
    """The matrix of `Image.rotate`, about the image's center."""
    angle = -math.radians(degrees % 360)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return (cosine, sine, -cosine * x - sine * y + x, -sine, cosine, sine * x - cosine * y + y)


MATRICES: dict[str, Callable[[float, int, int], tuple[float, ...]]] = {
    "Rotate": _rotation,
    "ShearX": lambda factor, height, width: (1, factor, 0, 0, 1, 0),
    "ShearY": lambda factor, height, width: (1, 0, 0, factor, 1, 0),
    "TranslateXRel": _translation(0),
    "TranslateYRel": _translation(1),
}
"""Operations that move pixels: (value, height, width) → Pillow's affine matrix."""

OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "AutoContrast": lambda images, _: pixel_ops.autocontrast(images),
    "Equalize": lambda images, _: pixel_ops.equalize(images),
    "Invert": lambda images, _: pixel_ops.invert(images),
    "Posterize": lambda images, bits: pixel_ops.posterize(images, bits.int()),
    "Solarize": pixel_ops.solarize,
    "SolarizeAdd": lambda images, added: pixel_ops.solarize_add(images, added.int()),
    "Color": pixel_ops.color,
    "Contrast": pixel_ops.contrast,
    "Brightness": pixel_ops.brightness,
    "Sharpness": pixel_ops.sharpness,
}
"""Operations that change values: (images, one argument for each) → images. timm's …Increasing are among them."""


def _known_steps(config: DataConfig) -> tuple[RandomResizedCropAndInterpolation, Any, Any]:
    pipeline = train_transform(config)
    assert isinstance(pipeline, Pipeline)
    by_type: dict[type, Any] = {type(step): step for step in pipeline.steps}
    crop = by_type.pop(RandomResizedCropAndInterpolation, None)
    flip, policy = by_type.pop(RandomHorizontalFlip, None), by_type.pop(RandAugment, None)
    names = [op.name for op in policy.ops] if policy is not None else []
    unknown = sorted({type(step).__name__ for step in pipeline.steps if type(step) in by_type})
    unknown += [name for name in names if _group(name) != "affine" and _group(name) not in OPERATIONS]
    if crop is None or unknown or config.batch_policy:
        reason = (
            "data.batch_policy is set" if config.batch_policy else f"not {', '.join(unknown) or f'crop={config.crop}'}"
        )
        raise ConfigError(
            "data.augment_on=device takes data.crop=random-resized, flips and data.auto_augment=rand-…, "
            f"{reason}; set data.augment_on=workers for the rest"
        )
    modes = crop.interpolation if isinstance(crop.interpolation, tuple | list) else (crop.interpolation,)
    if not set(modes) <= set(_FILTERS):
        raise ConfigError("data.augment_on=device resamples bilinear or bicubic; set data.interpolation to one of them")
    if policy is not None:
        for op in policy.ops:
            op.aug_fn = functools.partial(_record, op.name)
    return crop, flip, policy


def _record(name: str, recorded: list[Operation], *arguments: float, **options: Any) -> list[Operation]:
    """Stand in for one of timm's operations: note what it would do, and draw what it would draw."""
    resample = int(_one_of(options["resample"])) if name in MATRICES else 0
    recorded.append(Operation(name, float(arguments[0]) if arguments else 0.0, resample))
    return recorded


def _group(name: str) -> str:
    return "affine" if name in MATRICES else name.removesuffix("Increasing").removesuffix("Original")


def _argument(step: Operation, shape: torch.Size) -> Any:
    return MATRICES[step.name](step.value, shape[2], shape[3]) if step.name in MATRICES else step.value


def _one_of(choices: Any) -> Any:
    return random.choice(choices) if isinstance(choices, tuple | list) else choices


def _to(values: np.ndarray, device: torch.device) -> Tensor:
    """To the device; on CUDA without making the CPU wait."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
