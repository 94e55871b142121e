"""Images with a mask each, in files: the class of every pixel. `mask_layouts` says where they lie."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sequencer2d.data import mask_layouts
from sequencer2d.data.image_files import ImageFiles
from sequencer2d.data.images import UPRIGHT, BrokenImageError, Decoding, decode, size_of
from sequencer2d.data.labels import IGNORED, MOST_CLASSES, LabelRules, read_labels
from sequencer2d.data.mask_layouts import Layout
from sequencer2d.data.sources import shorten
from sequencer2d.errors import DataError

CLASSES = "classes.txt"
_LOG = logging.getLogger(__name__)
CHECKED = 512
"""Masks of a split that are read when it is opened, by default: a second, or a few where they are large."""


class Inspected(NamedTuple):
    """What a mask holds."""

    fault: str = ""
    """What is wrong with it; empty for a good one."""
    classes: frozenset[int] = frozenset()
    ignored: bool = False
    """Whether it has ignored pixels."""
    readable: bool = True


class MaskFolder(ImageFiles):
    """Images with a mask each. A sample is (RGB image, mode L image of labels): classes, and `labels.IGNORED`.

    A mask belongs to the image as `decoding` turns it. All names are paired here, and `checked` masks, evenly spread
    over the split, are read and checked, so that a wrong class list or a wrong kind of mask stops no run later. A mask
    beyond these that does not fit is met as an image that cannot be read: the loader skips and counts it.

    Args:
        root: the folder that `layout` looks in.
        split: of the data set, or one of its aliases (`SPLIT_ALIASES`).
        class_names: in the order of their numbers; at least 2.
        rules: what the values of the masks stand for; None: value k is class k, and 255 is ignored.
        decoding: how image files become pixels.
        layout: where images and masks lie.
        checked: masks to check now, at most.

    Raises:
        DataError: no such folder or split, no images, an image without a mask, two images for one mask, a mask of
            another size than its image, with colors, or with values that stand for nothing.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        class_names: Sequence[str],
        rules: LabelRules | None = None,
        decoding: Decoding = UPRIGHT,
        *,
        layout: Layout = mask_layouts.plain,
        checked: int = CHECKED,
    ) -> None:
        self.rules = rules_for(class_names, rules)
        pairs = layout(Path(root), split)
        super().__init__(pairs.images, pairs.files, np.zeros(len(pairs.files), np.int64), class_names, decoding)
        self.mask_folder = pairs.masks
        self._masks = np.array([os.fsencode(file) for file in pairs.mask_files])
        check_masks(len(self), checked, self._inspect, lambda index: str(self.mask_path(index)), class_names)

    def __getitem__(self, index: int) -> tuple[Image.Image, Image.Image]:  # type: ignore[override]
        image = decode(self.describe(index), self.decoding)
        return image, fitting_mask(image, self.mask_path(index), self.rules)

    def mask_path(self, index: int) -> Path:
        """The file of an image's mask."""
        return self.mask_folder / os.fsdecode(self._masks[index])

    def size_of(self, index: int) -> tuple[int, int]:  # type: ignore[override]
        """Bytes of the image's file and of its mask's; -1 for a file that is not there."""
        mask = self.mask_path(index)
        return super().size_of(index), mask.stat().st_size if mask.exists() else -1

    def _inspect(self, index: int) -> Inspected:
        return inspect(lambda: size_of(self.describe(index), self.decoding), lambda: self.mask_path(index), self.rules)


def rules_for(class_names: Sequence[str], rules: LabelRules | None) -> LabelRules:
    """The rules, by default those of as many classes. Raises `DataError` for other numbers of names than classes."""
    rules = LabelRules(len(class_names)) if rules is None else rules
    if len(class_names) != rules.num_classes or len(class_names) < 2:
        raise DataError(f"{len(class_names)} class names for {rules}; give at least two, a name for each class")
    return rules


def fitting_mask(image: Image.Image, mask: Path | bytes, rules: LabelRules) -> Image.Image:
    """The mask of an image, mode L. Raises `BrokenImageError` for one that does not fit, whatever is wrong with it."""
    try:
        labels = Image.fromarray(read_labels(mask, rules))
    except DataError as error:
        raise BrokenImageError(f"its mask {error}") from error
    if labels.size != image.size:
        raise BrokenImageError(f"its mask {_sizes(labels.size, image.size)}")
    return labels


def inspect(
    image_size: Callable[[], tuple[int, int]], mask: Callable[[], Path | bytes], rules: LabelRules
) -> Inspected:
    """What a mask holds. `image_size` gives the width and height of its image, `mask` its file."""
    try:
        labels = read_labels(mask(), rules)
        height, width = labels.shape
        size = image_size()
    except BrokenImageError:
        return Inspected(readable=False)
    except DataError as error:
        return Inspected(str(error))
    if size != (width, height):
        return Inspected(_sizes((width, height), size))
    held = np.flatnonzero(np.bincount(labels.ravel(), minlength=IGNORED + 1)).tolist()
    return Inspected("", frozenset(held) - {IGNORED}, IGNORED in held)


def check_masks(
    count: int, checked: int, inspect: Callable[[int], Inspected], name: Callable[[int], str], names: Sequence[str]
) -> None:
    """Check `checked` of `count` masks, evenly spread, and warn of classes that none of them holds.

    Args:
        count: masks of the split.
        checked: masks to check, at most.
        inspect: what the mask of a number holds.
        name: what it is called.
        names: of the classes.

    Raises:
        DataError: it names the first mask that does not fit, or says why nothing can be learned from all of them.
    """
    chosen = np.unique(np.linspace(0, count - 1, min(count, checked)).astype(int)).tolist()
    with ThreadPoolExecutor() as threads:  # decoders release the interpreter's lock
        found = list(threads.map(inspect, chosen))
    faults = [f"{name(index)} {one.fault}" for index, one in zip(chosen, found, strict=True) if one.fault]
    if faults:
        more = f" ({len(faults) - 1} more masks do not fit)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}; correct the masks, or name all classes and ignored values")
    if not found:
        return
    every = f"{name(chosen[0])} and all other masks that were checked"
    held = frozenset[int]().union(*(one.classes for one in found))
    if not any(one.readable for one in found):
        raise DataError(f"{every} cannot be read, or their images cannot: save masks as gray or palette PNG")
    if not held:
        raise DataError(
            f"{every} have ignored pixels alone: there is nothing to learn; correct the masks, or the values that are "
            "ignored"
        )
    if len(held) == 1 and any(one.ignored for one in found):
        raise DataError(
            f"{every} hold the class {names[min(held)]!r} and ignored pixels alone: there is nothing to tell apart; "
            "number the classes 0, 1 and so on, or correct the values that are ignored"
        )
    absent = [names[k] for k in range(len(names)) if k not in held]
    if absent:
        _LOG.warning("no pixel of %s in the %d masks that were checked", shorten(absent), len(found))


def _sizes(mask: tuple[int, int], image: tuple[int, int]) -> str:
    turned = " (or set data.orientation=stored: masks of photos that were not turned)" if mask == image[::-1] else ""
    return f"has {mask[0]}×{mask[1]} pixels and its image {image[0]}×{image[1]}{turned}"


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a text file, one a line, in the order of their numbers. Raises `DataError`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); write the name of each class into it, one a line") from error
    names = [line.strip() for line in lines]
    if "" in names:
        raise DataError(f"line {names.index('') + 1} of {path} is empty; write the name of each class, one a line")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} names the classes {shorten(twice)} twice; give each class its own name")
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DataError(f"{path} names {len(names)} classes; expected 2 to {MOST_CLASSES}")
    return tuple(names)
