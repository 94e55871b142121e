"""Images in folders named after their classes."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sequencer2d.data.finding import LINKED_TWICE, LeftOut, entries_of, id_of, ids_of_ancestors, images_below
from sequencer2d.data.image_files import ImageFiles
from sequencer2d.data.images import UPRIGHT, Decoding, readable_extensions
from sequencer2d.data.sources import SPLIT_ALIASES, shorten
from sequencer2d.errors import DataError

logger = logging.getLogger(__name__)

LOOSE = "files beside the class folders"
SPLIT_NAMES = tuple(dict.fromkeys((*SPLIT_ALIASES["train"], *SPLIT_ALIASES["val"])))
"""Folders of these names are splits, in this order, not classes."""


class FolderSource(ImageFiles):
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
        folder = find_split(Path(root), split)
        left_out = LeftOut()
        classes = _class_folders(folder, left_out)
        if not classes:
            raise DataError(
                f"{folder} holds no class folders; expected {folder}/<class>/<images>"
                + (f"; left out: {left_out}" if left_out else "")
            )
        around = ids_of_ancestors(folder)
        found = [
            [f"{name}{os.sep}{path}" for path in images_below(folder / name, left_out, around)] for name in classes
        ]
        empty = [name for name, paths in zip(classes, found, strict=True) if not paths]
        if empty:
            raise DataError(
                f"{folder} has classes without images ({len(empty)} of {len(classes)}): {shorten(empty)}; "
                f"add images ({', '.join(sorted(readable_extensions()))}) or remove the folders"
                + (f"; left out: {left_out}" if left_out else "")
            )
        left_out.report(folder)
        files = [path for paths in found for path in paths]
        targets = np.repeat(np.arange(len(classes)), [len(paths) for paths in found])
        super().__init__(folder, files, targets, classes, decoding)


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
    present = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if found := first_named(candidates, present):
        if found.lower() == "test" and split.lower() != "test":
            logger.warning("%s has no folder %s: its test images are taken", root, split)
        return root / found
    holds = f"it holds {shorten(present)}; name one of them as the split, or '' for {root} itself" if present else ""
    holds = holds or "it holds no folders"
    raise DataError(f"{root} has no folder for the split {split!r} (looked for {', '.join(candidates)}); {holds}")


def first_named(names: Iterable[str], present: Iterable[str]) -> str:
    """The first of `names` among the folders that are there, as it is written there; in any case, such as Train."""
    present = sorted(present)
    for name in names:
        alike = [folder for folder in present if folder.lower() == name.lower()]
        if alike:
            return name if name in alike else alike[0]
    return ""


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
    if classes and all(name.lower() in SPLIT_NAMES for name in classes):
        raise DataError(
            f"the folders in {folder} ({', '.join(classes)}) are splits, not classes; name the split to use"
        )
    return classes
