"""What random augmentation does to the images of a batch, drawn without touching a pixel.

timm's own transforms make the draws, image by image, from the seed that each image has anyway. `plans` packs them for
the device, and `device_augment` computes the pixels there. An image therefore looks as it would from a worker process.
"""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import InterpolationMode, RandomHorizontalFlip

from sequencer2d.data import pixel_ops
from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import Pipeline
from sequencer2d.data.operations import AFFINE, MATRICES, OPERATIONS, kind_of
from sequencer2d.data.transforms import train_transform
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


@dataclass
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
        self._crop, flip, policy = _known_steps(config)
        self._policy = None if policy is None else PolicyDrawer(policy)
        # torch compares its single-precision draws with the probability in single precision.
        self._flip_below = None if flip is None else float(np.float32(flip.p))
        self._blank = Image.new("L", (size[1], size[0]))

    def draw(self, count: int, seed: Callable[[int], None]) -> Draws:
        """Draws for `count` images; `seed(i)` seeds all generators for the i-th."""
        crops, filters, flips, operations = [], [], [], []
        for index in range(count):
            seed(index)
            crops.append(self._crop.get_params(self._blank, self._crop.scale, self._crop.ratio))
            filters.append(_FILTERS[_one_of(self._crop.interpolation)])
            flips.append(self._flip_below is not None and torch.rand(1).item() < self._flip_below)
            operations.append([] if self._policy is None else self._policy())
        return Draws(np.array(crops), np.array(filters), np.array(flips), operations)


class PolicyDrawer:
    """Draws the operations of one image as timm's `RandAugment` draws them, without running them.

    Args:
        policy: timm's step. Its operations only record from now on.

    Raises:
        ConfigError: it has an operation that the device does not have.
    """

    def __init__(self, policy: RandAugment) -> None:
        if unknown := _unknown_operations(policy):
            raise ConfigError(
                f"the device has no {', '.join(unknown)} of data.auto_augment; set data.augment_on=workers"
            )
        self._ops, self._weights, self._layers = policy.ops, policy.choice_weights, policy.num_layers
        for op in self._ops:
            op.aug_fn = functools.partial(_record, op.name)

    def __call__(self) -> list[Operation]:
        """The operations of an image, in order.

        timm lets NumPy choose from the list of operations, which NumPy copies into an array for every image. Drawing
        their numbers takes half the time. Without weights, `choice` is `randint`.
        """
        if self._weights is None:
            numbers = np.random.randint(0, len(self._ops), self._layers)
        else:
            numbers = np.random.choice(len(self._ops), self._layers, replace=False, p=self._weights)
        recorded: list[Operation] = []
        for number in numbers:
            self._ops[number](recorded)
        return recorded


def _unknown_operations(policy: RandAugment) -> list[str]:
    return sorted({op.name for op in policy.ops if kind_of(op.name) not in (AFFINE, *OPERATIONS)})


def _known_steps(config: DataConfig) -> tuple[RandomResizedCropAndInterpolation, Any, Any]:
    pipeline = train_transform(config)
    assert isinstance(pipeline, Pipeline)
    by_type: dict[type, Any] = {type(step): step for step in pipeline.steps}
    crop = by_type.pop(RandomResizedCropAndInterpolation, None)
    flip, policy = by_type.pop(RandomHorizontalFlip, None), by_type.pop(RandAugment, None)
    unknown = sorted({type(step).__name__ for step in pipeline.steps if type(step) in by_type})
    unknown += [] if policy is None else _unknown_operations(policy)
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
    return crop, flip, policy


def _record(name: str, recorded: list[Operation], *arguments: float, **options: Any) -> list[Operation]:
    """Stand in for one of timm's operations: note what it would do, and draw what it would draw."""
    resample = int(_one_of(options["resample"])) if name in MATRICES else 0
    recorded.append(Operation(name, float(arguments[0]) if arguments else 0.0, resample))
    return recorded


def _one_of(choices: Any) -> Any:
    return random.choice(choices) if isinstance(choices, tuple | list) else choices
