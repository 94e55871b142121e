"""Where images come from: a specification such as `digits` or a folder's path → a `Source`."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from sequencer2d.data.config import DataConfig
from sequencer2d.data.finding import LINKED_TWICE, LeftOut, entries_of, id_of, ids_of_ancestors, images_below
from sequencer2d.data.images import UPRIGHT, Decoding, decode, readable_extensions
from sequencer2d.errors import DataError

logger = logging.getLogger(__name__)

SPLIT_ALIASES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "test"),
    "validation": ("validation", "val", "valid", "test"),
    "valid": ("valid", "val", "validation", "test"),
}
"""Names under which a split is looked for, in this order."""


_SPLIT_NAMES = frozenset({*SPLIT_ALIASES, *(name for names in SPLIT_ALIASES.values() for name in names)})
LOOSE = "files beside the class folders"


class Source(Protocol):
    """Labelled images with random access, so that a run can continue at any image."""

    class_names: tuple[str, ...]
    """Name of each class; a target is an index into it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """(8-bit RGB image, target). Raises `BrokenImageError` if the image cannot be decoded."""
        ...

    def describe(self, index: int) -> str:
        """The image's path or identity, for messages."""
        ...

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """Each image's name, the same wherever the data lie (empty where images have none), and targets int64 (N,)."""
        ...

    def size_of(self, index: int) -> object:
        """The image's size in bytes, or in pixels where no file holds it; -1 if it cannot be read."""
        ...


def open_source(
    spec: str, split: str = "train", *, root: str = "", download: bool = False, decoding: Decoding = UPRIGHT
) -> Source:
    """Open one split of a data set.

    Args:
        spec: one of
            `folder`: root/<split>/<class>/**/*, with `root` given, or the path of such a folder;
            `digits`: scikit-learn's 1,797 handwritten digits, 8×8 pixels, in splits train (80 %) and val = test (20 %);
            `wds:PATH`: WebDataset shards, see `shards.TarSource`;
            `hfds:NAME`: a data set of the Hugging Face hub or a folder in its layout, read by timm and `datasets`;
            `torch:NAME`: a data set of torchvision (cifar10, mnist, …) under `root`, read by timm; flowers102 and
            stanford_cars are read from the files of their authors, see `fine_grained`.
        split: its name; for a folder, "" means that the classes stand in the folder itself. Splits joined by "+" are
            read as one: "train+val".
        root: the folder that `folder`, `wds:` and `torch:` look in.
        download: let `hfds:` and `torch:` fetch what is missing.
        decoding: how image files become pixels.

    Raises:
        DataError: the source is unknown, missing or empty, or a class has no images.
    """
    if "+" in split:
        from sequencer2d.data.joined import JoinedSource

        parts = split.split("+")
        return JoinedSource(
            [open_source(spec, part, root=root, download=download, decoding=decoding) for part in parts]
        )
    kind, _, name = spec.partition(":")
    if kind == "digits" and not name:
        return DigitsSource(split)
    if kind == "wds" and name:
        from sequencer2d.data.shards import TarSource

        return TarSource(str(Path(root, name)), split, decoding)
    if kind in ("hfds", "torch") and name:
        from sequencer2d.data.external import open_external

        return open_external(kind, name, split, root=root, download=download, decoding=decoding)
    folder = root if spec == "folder" else spec
    if spec == "folder" and not root:
        raise DataError("no folder of images given; set data.root to one laid out as root/<split>/<class>/<images>")
    if spec != "folder" and not Path(spec).exists():
        raise DataError(
            f"unknown data source {spec!r}: neither a folder nor one of folder, digits, wds:<shards>.tar, hfds:<name>, "
            "torch:<name>"
        )
    return FolderSource(folder, split, decoding)


def open_split(config: DataConfig, split: str) -> Source:
    """The split of a configuration's source, to train or evaluate on. Raises `DataError`, for a single class too."""
    source = open_source(config.source, split, root=config.root, download=config.download, decoding=config.decoding)
    check_several_classes(source)
    return source


class FolderSource:
    """Images in folders named after their classes: root/<split>/<class>/**/*.

    Classes are numbered in the order of their sorted names, as torchvision's ImageFolder does. What `finding` leaves
    out is counted and logged.

    Args:
        root: the folder.
        split: sub-folder, or one of its aliases (`SPLIT_ALIASES`); "" if the classes stand in the root itself.
        decoding: how image files become pixels.

    Raises:
        DataError: no such folder or split, no classes, classes without images, or one folder under two classes' names.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "train", decoding: Decoding = UPRIGHT) -> None:
        self.folder, self.decoding = find_split(Path(root), split), decoding
        left_out = LeftOut()
        classes = _class_folders(self.folder, left_out)
        if not classes:
            raise DataError(
                f"{self.folder} holds no class folders; expected {self.folder}/<class>/<images>"
                + (f"; left out: {left_out}" if left_out else "")
            )
        around = ids_of_ancestors(self.folder)
        found = [
            [f"{name}{os.sep}{path}" for path in images_below(self.folder / name, left_out, around)] for name in classes
        ]
        empty = [name for name, paths in zip(classes, found, strict=True) if not paths]
        if empty:
            raise DataError(
                f"{len(empty)} of {len(classes)} classes in {self.folder} have no images: {shorten(empty)}; "
                f"add images ({', '.join(sorted(readable_extensions()))}) or remove the folders"
                + (f"; left out: {left_out}" if left_out else "")
            )
        left_out.report(self.folder)
        self.class_names = tuple(classes)
        # One array of bytes, not a million strings: forked workers would copy those page by page as they touch them.
        self._paths = np.array([os.fsencode(path) for paths in found for path in paths])
        self._targets = np.repeat(np.arange(len(classes)), [len(paths) for paths in found])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return decode(self.describe(index), self.decoding), int(self._targets[index])

    def paths(self) -> list[str]:
        """Every image's path below the split's folder, <class>/…, in order."""
        return [os.fsdecode(path) for path in self._paths]

    def describe(self, index: int) -> str:
        """The image's path."""
        return os.path.join(self.folder, os.fsdecode(self._paths[index]))  # noqa: PTH118 - called for every image

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """Paths below the split's folder, and targets."""
        return self._paths.tolist(), self._targets

    def size_of(self, index: int) -> int:
        """Bytes of the image's file; -1 if there is none."""
        try:
            return os.stat(self.describe(index)).st_size  # noqa: PTH116
        except OSError:
            return -1


class DigitsSource:
    """scikit-learn's handwritten digits: 1,797 greyscale images of 8×8 pixels in 10 classes, no download.

    Every fifth image of each class is a test image, so that both splits hold the same mix of classes.

    Raises:
        DataError: another split than train, val or test, or scikit-learn is not installed.
    """

    def __init__(self, split: str = "train") -> None:
        if split not in ("train", "val", "validation", "valid", "test"):
            raise DataError(f"digits has the splits train and val (also called test), not {split!r}")
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError("digits needs scikit-learn: pip install scikit-learn") from error
        data = load_digits()
        of_class = np.zeros(len(data.target), dtype=np.int64)
        for digit in range(10):
            of_class[data.target == digit] = np.arange(np.sum(data.target == digit))
        chosen = (of_class % 5 != 4) if split == "train" else (of_class % 5 == 4)
        self.class_names = tuple(str(digit) for digit in range(10))
        self.split = split
        self._images = np.rint(data.images[chosen] * (255 / 16)).astype(np.uint8)
        self._targets = data.target[chosen]

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self._images[index]).convert("RGB"), int(self._targets[index])

    def describe(self, index: int) -> str:
        """Which digit of which split."""
        return f"digits/{self.split}[{index}]"

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """The pixels, which are few, and targets."""
        return [image.tobytes() for image in self._images], self._targets

    def size_of(self, index: int) -> tuple[int, ...]:
        """Height and width."""
        return tuple(self._images[index].shape)


def find_split(root: Path, split: str) -> Path:
    """The folder of a split below `root`, under its name or an alias. Raises `DataError` if there is none."""
    if not root.is_dir():
        raise DataError(
            f"{root} is {'not a folder' if root.exists() else 'missing'}; expected a folder of images, "
            "root/<split>/<class>/<images>"
        )
    if not split:
        return root
    candidates = SPLIT_ALIASES.get(split, (split,))
    for name in candidates:
        if (root / name).is_dir():
            if name == "test" and split != "test":
                logger.warning("%s has no folder %s: its test images are taken", root, split)
            return root / name
    present = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    holds = f"it holds {shorten(present)}; name one, or '' if these are the classes" if present else "it is empty"
    raise DataError(f"{root} has no folder for the split {split!r} (looked for {', '.join(candidates)}); {holds}")


def check_same_classes(train: Source, val: Source, names: tuple[str, str] = ("training", "validation")) -> None:
    """Raise `DataError` naming the differences unless both splits, called by `names`, number the same classes.

    Shards without class names are compared by number: a split may lack the last classes of the other.
    """
    if train.class_names == val.class_names:
        return
    only_train = sorted(set(train.class_names) - set(val.class_names))
    only_val = sorted(set(val.class_names) - set(train.class_names))
    if getattr(val, "classes_inferred", False) and not only_val:
        return
    sides = zip(names, (only_train, only_val), strict=True)
    parts = [f"only in {where}: {shorten(classes)}" for where, classes in sides if classes]
    raise DataError(
        f"{names[0]} has {len(train.class_names)} classes and {names[1]} {len(val.class_names)}; "
        + ("; ".join(parts) if parts else "the names agree, their order does not")
        + ". Give both splits the same class folders"
    )


def check_several_classes(source: Source) -> None:
    """Raise `DataError` for a single class, of which any model is right; usually the folders stand a level off."""
    if len(source.class_names) != 1:
        return
    (name,) = source.class_names
    message = f"there is a single class, {name!r}: any model would be right about every image"
    if isinstance(source, FolderSource):
        below = sorted({Path(path).parts[1] for path in source.paths() if path.count(os.sep) > 1})
        inside = source.folder / name
        message += (
            f". If the classes are the folders in {inside} ({shorten(below)}), move them one level up, or take "
            f"{inside} itself as the split's folder"
            if below
            else f"; expected several folders, {source.folder}/<class>/<images>"
        )
    raise DataError(message)


def shorten(names: Sequence[str], limit: int = 8) -> str:
    """The first names, comma-separated, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _class_folders(folder: Path, left_out: LeftOut) -> list[str]:
    """Names of the class folders, sorted. Raises `DataError` for splits, and for one folder under two names."""
    names: dict[tuple[int, int], str] = {}
    around = ids_of_ancestors(folder)
    for entry, is_folder in entries_of(folder, left_out):
        if not is_folder:
            left_out.add(LOOSE, entry.name)
        elif (identity := id_of(entry.path)) in around:
            left_out.add(LINKED_TWICE, entry.name)
        elif identity in names:
            raise DataError(
                f"the classes {names[identity]!r} and {entry.name!r} in {folder} are one folder, through a link: "
                "its images can't be of both; remove the link"
            )
        else:
            names[identity] = entry.name
    classes = sorted(names.values())
    if classes and all(name in _SPLIT_NAMES for name in classes):
        raise DataError(
            f"the folders in {folder} ({', '.join(classes)}) are splits, not classes; name the split to use"
        )
    return classes
