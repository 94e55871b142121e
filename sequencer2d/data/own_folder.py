"""What training must know about a folder of photos: splits, classes and sizes."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequencer2d.data.folders import FolderSource, first_named
from sequencer2d.data.images import BrokenImageError, size_of
from sequencer2d.data.opening import check_several_classes
from sequencer2d.data.parts import hold_out
from sequencer2d.data.sources import SPLIT_ALIASES, Source, check_same_classes, shorten
from sequencer2d.errors import DataError

_SAMPLED = 200
"""Most images whose sizes are read."""
_VALIDATION = ("val", "validation", "valid")


@dataclass(frozen=True)
class OwnFolder:
    """A folder of photos.

    Attributes:
        path: the folder.
        train_split: its training split; "" if the classes stand in the folder itself.
        val_split: its validation split; None if it has none. A split called test is none: what chooses the best
            weights must not be what they are tested on.
        train: the training images.
        counts: of the training images of each class.
        side: median of the images' shorter sides, in pixels.
        pixels: median of the images' numbers of pixels.
    """

    path: Path
    train_split: str
    val_split: str | None
    train: FolderSource
    counts: tuple[int, ...]
    side: int
    pixels: int


def look_into(path: Path) -> OwnFolder:
    """Find the splits, count the classes and look up sizes.

    Raises:
        DataError: no such folder, no classes, a single class, classes without images, or no image that can be read.
    """
    if not path.is_dir():
        raise DataError(f"{path} is {'not a folder' if path.exists() else 'missing'}; give a folder of class folders")
    splits = [entry.name for entry in path.iterdir() if entry.is_dir()]
    train_split = first_named(SPLIT_ALIASES["train"], splits)
    val_split = (first_named(_VALIDATION, splits) or None) if train_split else None
    source = FolderSource(path, train_split)
    check_several_classes(source)
    _, targets = source.identities()
    sizes = _sizes(source)
    return OwnFolder(
        path,
        train_split,
        val_split,
        source,
        tuple(np.bincount(targets, minlength=len(source.class_names)).tolist()),
        int(np.median([min(size) for size in sizes])),
        int(np.median([width * height for width, height in sizes])),
    )


def open_parts(path: Path, fraction: float = 0.2) -> tuple[Source, Source]:
    """The training and the validation images of a folder; without a split to validate on, a part of each class.

    Raises:
        DataError: as `look_into`; other classes in one split than in the other; images that stand in both splits.
    """
    return parts_of(look_into(path), fraction)


def parts_of(found: OwnFolder, fraction: float = 0.2) -> tuple[Source, Source]:
    """As `open_parts`, of a folder that was looked into."""
    if found.val_split is None:
        return hold_out(found.train, fraction, seed=0)
    val = FolderSource(found.path, found.val_split)
    check_same_classes(found.train, val)
    refuse_shared_images(found.train, val)
    return found.train, val


def copies(train: Source, val: Source) -> list[str]:
    """Files to validate on that hold the same bytes as one that is trained on. Reads only files of equal sizes."""
    of_size: dict[int, list[str]] = defaultdict(list)
    for path in map(train.describe, range(len(train))):
        of_size[Path(path).stat().st_size].append(path)
    known: dict[int, set[bytes]] = {}
    found = []
    for path in map(val.describe, range(len(val))):
        size = Path(path).stat().st_size
        if size in of_size:
            if size not in known:
                known[size] = set(map(_digest, of_size[size]))
            if _digest(path) in known[size]:
                found.append(path)
    return found


def _digest(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


def refuse_shared_images(train: Source, val: Source) -> None:
    """Raise `DataError` if images stand in both splits, under the same path or through links."""
    paths = [{str(Path(source.describe(index)).resolve()) for index in range(len(source))} for source in (train, val)]
    if shared := sorted(paths[0] & paths[1]):
        raise DataError(
            f"{len(shared)} of the {len(paths[1])} images to validate on are trained on as well "
            f"({shorten(shared, 3)}): the accuracy would say nothing. Leave data.val_split out, and images are held "
            "out; or say --validate-on-training if you mean it"
        )


def _sizes(source: FolderSource) -> list[tuple[int, int]]:
    found = []
    for index in np.unique(np.linspace(0, len(source) - 1, min(_SAMPLED, len(source))).astype(int)):
        try:
            found.append(size_of(source.describe(int(index))))
        except BrokenImageError:
            continue
    if not found:
        raise DataError(f"none of the images in {source.folder} that were looked at can be read")
    return found
