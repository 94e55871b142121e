"""Folders of images and masks: root/images/<split>/**/* and root/masks/<split>/**/*.png, of the same names."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from sequencer2d.data.finding import LeftOut, images_below
from sequencer2d.data.folders import find_split
from sequencer2d.data.image_files import ImageFiles
from sequencer2d.data.images import UPRIGHT, BrokenImageError, Decoding, decode, size_of
from sequencer2d.data.labels import MOST_CLASSES, SUFFIX, LabelRules, read_labels
from sequencer2d.data.sources import shorten
from sequencer2d.errors import DataError

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"
LAYOUT = f"{IMAGES}/<split>/<images> and {MASKS}/<split>/<masks>{SUFFIX}"


@dataclass(frozen=True)
class MaskSet:
    """A known data set in this layout: names of its classes in the order of their numbers, and its label rules."""

    class_names: tuple[str, ...]
    rules: LabelRules


_CAMVID = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
MASK_SETS: dict[str, MaskSet] = {
    "camvid": MaskSet(tuple(_CAMVID.split()), LabelRules(num_classes=11, ignored=(11,))),
}
"""CamVid: 11 classes; what SegNet's split calls void has the value 11."""


class MaskFolder(ImageFiles):
    """Images with a mask each. A sample is (RGB image, mode L image of labels): classes, and `labels.IGNORED`.

    A mask is a PNG file of its image's path below the split, but for the suffix. It belongs to the image as `decoding`
    turns it. All masks are read and checked here, so that none stops a run later; images and masks that cannot be
    decoded at all are left to the loader, which skips and counts them.

    Args:
        root: holds the folders `images` and `masks`.
        split: sub-folder of both, or one of its aliases (`SPLIT_ALIASES`); "" if the images stand in `images` itself.
        class_names: in the order of their numbers; at least 2.
        rules: what the values of the masks stand for; None: value k is class k, and 255 is ignored.
        decoding: how image files become pixels.

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
    ) -> None:
        self.rules = LabelRules(len(class_names)) if rules is None else rules
        if len(class_names) != self.rules.num_classes or len(class_names) < 2:
            raise DataError(
                f"{len(class_names)} class names for {self.rules}; give at least two, a name for each class"
            )
        images, masks = _folders(Path(root), split)
        files, mask_files = _pairs(images, masks)
        super().__init__(images, files, np.zeros(len(files), np.int64), class_names, decoding)
        self.mask_folder = masks
        self._masks = np.array([os.fsencode(file) for file in mask_files])
        self._check()

    def __getitem__(self, index: int) -> tuple[Image.Image, Image.Image]:  # type: ignore[override]
        image = decode(self.describe(index), self.decoding)
        return image, Image.fromarray(read_labels(self.mask_path(index), self.rules))

    def mask_path(self, index: int) -> Path:
        """The file of an image's mask."""
        return self.mask_folder / os.fsdecode(self._masks[index])

    def size_of(self, index: int) -> tuple[int, int]:  # type: ignore[override]
        """Bytes of the image's file and of its mask's; -1 for a file that is not there."""
        mask = self.mask_path(index)
        return super().size_of(index), mask.stat().st_size if mask.exists() else -1

    def _check(self) -> None:
        with ThreadPoolExecutor() as threads:
            found = list(threads.map(self._fault, range(len(self))))
        faults = [f"{self.mask_path(index)} {fault}" for index, fault in enumerate(found) if fault]
        if faults:
            more = f" ({len(faults) - 1} more masks do not fit)" if len(faults) > 1 else ""
            raise DataError(f"{faults[0]}{more}; correct the masks, or name all classes and ignored values")

    def _fault(self, index: int) -> str | None:
        """What is wrong with a mask; None if nothing is, or if it or its image cannot be decoded."""
        try:
            height, width = read_labels(self.mask_path(index), self.rules).shape
            size = size_of(self.describe(index), self.decoding)
        except BrokenImageError:
            return None
        except DataError as error:
            return str(error)
        if size != (width, height):
            return f"has {width}×{height} pixels and its image {size[0]}×{size[1]}"
        return None


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


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    """The folders of a split's images and masks."""
    for name in (IMAGES, MASKS):
        if not (root / name).is_dir():
            raise DataError(f"{root} has no folder {name}; expected {LAYOUT} in it")
    images = find_split(root / IMAGES, split)
    masks = root / MASKS / images.relative_to(root / IMAGES)
    if not masks.is_dir():
        raise DataError(f"{images} has no masks: {masks} is missing; expected {LAYOUT} in {root}")
    return images, masks


def _pairs(images: Path, masks: Path) -> tuple[list[str], list[str]]:
    """Paths of all images and of their masks, relative to the two folders, in the order of the images."""
    left_out = LeftOut()
    files = images_below(images, left_out)
    if not files:
        raise DataError(f"no images in {images}" + (f"; left out: {left_out}" if left_out else ""))
    of_stem = dict(_stems(path for path in images_below(masks, left_out) if path.lower().endswith(SUFFIX)))
    stems = [stem for stem, _ in _stems(files)]
    missing = [file for file, stem in zip(files, stems, strict=True) if stem not in of_stem]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(files)} images in {images} have no mask in {masks}: {shorten(missing, 3)}; "
            f"expected a file of the same name with the suffix {SUFFIX}"
        )
    if len(set(stems)) < len(stems):
        count = Counter(stems)
        twice = [file for file, stem in zip(files, stems, strict=True) if count[stem] > 1]
        raise DataError(f"images in {images} share a mask: {shorten(twice, 4)}; give each image a name of its own")
    for stem in sorted(of_stem.keys() - set(stems)):
        left_out.add("masks without an image", of_stem[stem])
    left_out.report(images)
    return files, [of_stem[stem] for stem in stems]


def _stems(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(path without its suffix, path) of each path."""
    return ((str(PurePath(path).with_suffix("")), path) for path in paths)
