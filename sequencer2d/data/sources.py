"""What a data source is, and what all sources share. `opening` opens them by name or path."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from sequencer2d.errors import DataError

SPLIT_ALIASES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "test"),
    "validation": ("validation", "val", "valid", "test"),
    "valid": ("valid", "val", "validation", "test"),
}
"""Names under which a split is looked for, in this order."""


class Source(Protocol):
    """Labeled images with random access, so that a run can continue at any image."""

    class_names: tuple[str, ...]
    """Name of each class; the target of a classified image is an index into it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        """(8-bit RGB image, target). Raises `BrokenImageError` if the image or its target cannot be decoded."""
        ...

    def describe(self, index: int) -> str:
        """The image's path or identity, for messages."""
        ...

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """Each image's name, the same wherever the data lie (empty where images have none), and classes int64 (N,).

        Where an image is not of one class, its class counts as 0: a fingerprint then goes by names and sizes.
        """
        ...

    def size_of(self, index: int) -> object:
        """The image's size in bytes, or in pixels where no file holds it; -1 if it cannot be read."""
        ...


def shards_of(source: Source) -> np.ndarray | None:
    """The shard of each image, int64 (N,), where reading few shards at a time matters; None where it does not."""
    return getattr(source, "shards", None)


def prepare(source: Source, indices: np.ndarray) -> None:
    """Tell a source which images will be read next, so that it can fetch what they need all at once."""
    if hasattr(source, "prepare"):
        source.prepare(indices)


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


def require_readable(broken: Mapping[str, str], images: int, limit: int) -> None:
    """Raise `DataError` if more than `limit` images, or all of them, cannot be read.

    Args:
        broken: description of each unreadable image → the reason.
        images: how many there are in all.
        limit: `data.max_broken`.
    """
    if len(broken) > limit:
        raise DataError(
            f"images that cannot be read: {len(broken)}, more than data.max_broken={limit}: "
            f"{shorten(list(broken), 5)}; repair or remove them, or raise the limit"
        )
    if len(broken) >= images:
        raise DataError(f"none of the {images} images can be read, e.g. {shorten(list(broken), 3)}")


def shorten(names: Sequence[str], limit: int = 8) -> str:
    """The first names, comma-separated, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
