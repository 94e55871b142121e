"""A survey of a folder of images: classes, sizes, modes, and what is wrong. Every image is decoded once."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from sequencer2d.data.folders import SPLIT_NAMES, FolderSource, first_named
from sequencer2d.data.images import FORMATS, BrokenImageError, decode
from sequencer2d.errors import DataError

LONG = 3.0
"""Longer side per shorter side, above which an image is odd."""
FAR = 4.0
"""An image is odd if its shorter side differs from the median by more than this factor."""
UNIFORM = 2.0
"""Standard deviation of the gray levels, 0 to 255, below which an image shows nothing."""


@dataclass(frozen=True)
class ImageFacts:
    """What one file holds.

    Attributes:
        path: the file.
        split: its split; "" if the classes stand in the folder itself.
        class_name: the folder of its class.
        error: why it cannot be read; the fields below are then empty.
        size: (width, height) in pixels, upright.
        mode: Pillow's name of what the file stores: RGB, L, P, RGBA, CMYK, ….
        format: Pillow's name of the file's format.
        digest: hash of the decoded pixels; copies share it, whatever their names and metadata.
        spread: standard deviation of the gray levels, 0 to 127.5.
    """

    path: str
    split: str
    class_name: str
    error: str | None = None
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    format: str = ""
    digest: bytes = b""
    spread: float = 0.0

    @property
    def side(self) -> int:
        """The shorter side in pixels."""
        return min(self.size)


@dataclass(frozen=True)
class Survey:
    """The images of a folder.

    Attributes:
        folder: the folder.
        splits: names of its splits; ("",) if the classes stand in the folder itself.
        images: all of them, split by split and class by class.
    """

    folder: Path
    splits: tuple[str, ...]
    images: tuple[ImageFacts, ...]

    @cached_property
    def readable(self) -> tuple[ImageFacts, ...]:
        """The images that can be decoded."""
        return tuple(image for image in self.images if image.error is None)

    @cached_property
    def broken(self) -> tuple[ImageFacts, ...]:
        """The images that cannot be decoded."""
        return tuple(image for image in self.images if image.error is not None)

    @cached_property
    def duplicates(self) -> tuple[tuple[ImageFacts, ...], ...]:
        """Groups of images with the same pixels, in the order of the images."""
        groups: dict[bytes, list[ImageFacts]] = defaultdict(list)
        for image in self.readable:
            groups[image.digest].append(image)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    @cached_property
    def odd(self) -> tuple[tuple[ImageFacts, str], ...]:
        """Images that differ from the others, each with the reason. They may well be right."""
        if not self.readable:
            return ()
        usual = median(image.side for image in self.readable)
        return tuple((image, reason) for image in self.readable for reason in _oddities(image, usual))

    def counts(self, split: str) -> dict[str, int]:
        """Images of each class of a split, unreadable ones included."""
        return dict(Counter(image.class_name for image in self.images if image.split == split))

    def missing_classes(self) -> dict[str, list[str]]:
        """For each split, the classes of other splits that it lacks."""
        every = {image.class_name for image in self.images}
        return {split: sorted(every - set(self.counts(split))) for split in self.splits}

    @property
    def untrainable(self) -> list[str]:
        """What a classifier cannot be trained on: a single class, or without another split a class of one image."""
        counts = self.counts(self.splits[0])
        if len(counts) == 1:
            return [f"{name}: the only class, and nothing to tell it from" for name in counts]
        alone = sorted(name for name, count in counts.items() if count == 1) if len(self.splits) == 1 else []
        return [f"{name}: one image, which cannot be both trained and validated on" for name in alone]

    @property
    def is_clean(self) -> bool:
        """Whether there are no broken files, no duplicates, no classes that a split lacks, and enough to train on."""
        wrong = self.broken or self.duplicates or any(self.missing_classes().values()) or self.untrainable
        return not wrong


def kind_of(group: Sequence[ImageFacts]) -> str:
    """How bad a group of duplicates is: across "classes", across "splits", or "within" one class of one split."""
    if len({image.class_name for image in group}) > 1:
        return "classes"
    return "splits" if len({image.split for image in group}) > 1 else "within"


def survey(folder: str | os.PathLike[str]) -> tuple[int, Iterator[ImageFacts], tuple[str, ...]]:
    """Find the images of a folder, and look at each.

    Args:
        folder: `<class>/<images>`, or folders of splits (train, val, test and their aliases) with those.

    Returns:
        Number of images, an iterator that reads them one after the other (threads decode ahead), and the splits.
        `Survey(folder, splits, tuple(images))` holds the result.

    Raises:
        DataError: no such folder, no classes, or classes without images.
    """
    root = Path(folder)
    splits = splits_of(root)
    sources = [FolderSource(root, split) for split in splits]

    def look() -> Iterator[ImageFacts]:
        found = [
            (source.describe(index), split, source.class_names[target])
            for split, source in zip(splits, sources, strict=True)
            for index, target in enumerate(source.identities()[1])
        ]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            yield from pool.map(lambda one: facts_of(*one), found)

    return sum(map(len, sources)), look(), splits


def splits_of(root: Path) -> tuple[str, ...]:
    """The splits of a folder in a fixed order; ("",) if it has none. Raises `DataError` if there is no such folder."""
    if not root.is_dir():
        raise DataError(f"{root} is {'not a folder' if root.exists() else 'missing'}; give a folder of class folders")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    known = list(filter(None, (first_named([name], names) for name in SPLIT_NAMES)))
    # A class may be called "test". Folders are splits if one of them is to train on, or if all have names of splits.
    has_splits = known and (len(known) == len(names) or any(name.lower().startswith("train") for name in known))
    return tuple(known) if has_splits else ("",)


def facts_of(path: str, split: str = "", class_name: str = "") -> ImageFacts:
    """Decode one image file and describe it."""
    try:
        image = decode(path)
        with Image.open(path) as opened:
            mode, kind = opened.mode, opened.format or ""
    except (BrokenImageError, OSError) as error:
        return ImageFacts(path, split, class_name, error=str(error))
    pixels = np.asarray(image)
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=image.size[0].to_bytes(8, "little")).digest()
    gray = np.asarray(image.convert("L"), dtype=np.float32)
    return ImageFacts(path, split, class_name, None, image.size, mode, kind, digest, float(gray.std()))


def summary(found: Survey) -> dict[str, Any]:
    """Plain values for JSON: everything that was found, files by their paths."""
    return {
        "folder": str(found.folder),
        "splits": {split: found.counts(split) for split in found.splits},
        "images": len(found.images),
        "sizes_px": {
            "median": [int(median(image.size[axis] for image in found.readable)) for axis in (0, 1)],
            "shortest_side": min(image.side for image in found.readable),
            "longest_side": max(max(image.size) for image in found.readable),
        }
        if found.readable
        else None,
        "modes": dict(Counter(image.mode for image in found.readable).most_common()),
        "formats": dict(Counter(image.format for image in found.readable).most_common()),
        "missing_classes": {split: names for split, names in found.missing_classes().items() if names},
        "broken": [{"path": image.path, "error": image.error} for image in found.broken],
        "duplicates": [
            {"across": kind_of(group), "paths": [image.path for image in group]} for group in found.duplicates
        ],
        "untrainable": found.untrainable,
        "odd": [{"path": image.path, "reason": reason} for image, reason in found.odd],
        "clean": found.is_clean,
    }


def _oddities(image: ImageFacts, usual: float) -> Iterator[str]:
    if max(image.size) > LONG * image.side:
        yield f"{image.size[0]}×{image.size[1]} pixels: over {LONG:g} times as long as wide"
    if not usual / FAR <= image.side <= usual * FAR:
        yield f"shorter side of {image.side} pixels, the median is {usual:g}"
    if image.spread < UNIFORM:
        yield "a single color"
    suffix = Path(image.path).suffix.lower()
    if suffix not in FORMATS.get(image.format, (suffix,)) and image.format != "MPO":
        yield f"named {suffix}, but holds {image.format}"
