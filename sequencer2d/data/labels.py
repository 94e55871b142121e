"""Masks: a PNG file → the class of each pixel.

Pillow's modes and bit depths hide what a file holds; a mask that would be read as other numbers is refused.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from sequencer2d.data.images import MOST_PIXELS, BrokenImageError
from sequencer2d.data.sources import shorten
from sequencer2d.errors import ConfigError, DataError

IGNORED = 255
"""The label of a pixel that counts neither in the loss nor in a metric, whatever stands for it in the file."""
MOST_CLASSES = IGNORED
SUFFIX = ".png"

_VALUES = 2**16
_UNKNOWN = -1
_NUMBERS = ("1", "L", "P", "I;16", "I")
"""Pillow's modes of one number a pixel: gray levels, or indices of a palette, whose colors do not matter."""
_GRAY = 0
"""PNG's color type of grayscale."""


@dataclass(frozen=True)
class LabelRules:
    """What the values in the files of masks stand for.

    Attributes:
        num_classes: at most 255.
        ignored: values of pixels that are not scored.
        reduce_zero: 0 is not scored either, and value v stands for class v − 1 (ADE20K).
        values: the value of each class, where they have gaps (Cityscapes' ids); empty: the numbers of the classes.
    """

    num_classes: int
    ignored: tuple[int, ...] = (IGNORED,)
    reduce_zero: bool = False
    values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= MOST_CLASSES:
            raise ConfigError(f"masks of {self.num_classes} classes; expected 1 to {MOST_CLASSES}")
        if self.values and (len(set(self.values)) != self.num_classes or self.reduce_zero):
            raise ConfigError(f"{self.num_classes} classes need as many different values, and no reduce_zero")
        strange = [value for value in (*self.ignored, *self.values) if not 0 <= value < _VALUES]
        if strange:
            raise ConfigError(f"masks cannot hold the value {strange[0]}; expected 0 to {_VALUES - 1}")
        both = [value for value in self.ignored if value in self._value_of_class]
        if both:
            raise ConfigError(f"the value {both[0]} of a mask cannot be both ignored and a class")

    @property
    def _value_of_class(self) -> Sequence[int]:
        first = int(self.reduce_zero)
        return self.values or range(first, first + self.num_classes)

    @cached_property
    def table(self) -> np.ndarray:
        """int16 (65536,): the label of each value; -1 for a value that stands for nothing."""
        labels = np.full(_VALUES, _UNKNOWN, np.int16)
        labels[: int(self.reduce_zero)] = IGNORED
        labels[list(self._value_of_class)] = np.arange(self.num_classes)
        labels[list(self.ignored)] = IGNORED
        return labels

    def __str__(self) -> str:
        """Which values are allowed, for messages."""
        ignored = sorted({*self.ignored, *range(int(self.reduce_zero))})
        values = self._value_of_class
        shown = shorten([str(value) for value in values], 40) if self.values else f"{values[0]} to {values[-1]}"
        classes = f"{self.num_classes} classes ({shown})"
        return classes + (f", ignored: {', '.join(map(str, ignored))}" if ignored else "")


def read_labels(file: Path | bytes, rules: LabelRules) -> np.ndarray:
    """The labels of a mask, uint8 (H, W): classes and `IGNORED`. The file is given by its path or as its content.

    Raises:
        BrokenImageError: the file cannot be read or is no PNG file.
        DataError: it holds colors instead of labels, or values that stand for nothing. The message does not name the
            file.
    """
    values = _values(file)
    labels = rules.table[values]
    strange = labels == _UNKNOWN
    if strange.any():
        found = shorten([str(value) for value in np.unique(values[strange])])
        raise DataError(f"holds the value{'s' * (',' in found)} {found}; expected {rules}")
    return labels.astype(np.uint8)


def _values(file: Path | bytes) -> np.ndarray:
    """The numbers in a mask's file, not negative, (H, W)."""
    try:
        content = file if isinstance(file, bytes) else file.read_bytes()
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            mode, size = image.mode, image.size
            pixels = np.asarray(image) if mode in _NUMBERS and size[0] * size[1] <= MOST_PIXELS else None
    except Exception as error:  # decoders raise anything
        raise BrokenImageError(f"{type(error).__name__}: {error}") from error
    if mode not in _NUMBERS:
        raise DataError(f"holds colors ({mode}); expected the number of a class for each pixel, as gray or palette PNG")
    if pixels is None:
        raise BrokenImageError(f"{size[0]}×{size[1]} pixels; at most {MOST_PIXELS:,} are decoded")
    depth, color_type = content[24], content[25]
    values = pixels.astype(np.int32)
    if color_type == _GRAY and 1 < depth < 8:  # Pillow stretches these to 0 to 255
        return values // (255 // (2**depth - 1))
    return values
