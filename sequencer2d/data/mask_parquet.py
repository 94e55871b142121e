"""Images with masks in Parquet files, as the Hugging Face hub stores them: ADE20K (zhoubolei/scene_parse_150)."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from sequencer2d.data.images import UPRIGHT, BrokenImageError, Decoding, decode
from sequencer2d.data.labels import LabelRules
from sequencer2d.data.mask_folders import CHECKED, Inspected, check_masks, fitting_mask, inspect, rules_for
from sequencer2d.data.sources import SPLIT_ALIASES, shorten
from sequencer2d.errors import DataError, how_to_install

_IMAGE, _MASK = ("image",), ("annotation", "label", "mask", "segmentation")
"""Names of the two columns, the first of them that is there."""
_OTHER_SUBSET = "instance_segmentation"
"""Of scene_parse_150: the same images with masks of another kind."""


class MaskParquet:
    """Rows of Parquet files with an image and a mask each, through the package `datasets`; a `Source`.

    Args:
        root: folder of the files; those of a split lie in a folder of its name or are called <split>-*.parquet.
        split: of the data set, or one of its aliases.
        class_names: in the order of their numbers.
        rules: what the values of the masks stand for; None: value k is class k, and 255 is ignored.
        decoding: how images become pixels.
        checked: masks to check now, at most.

    Raises:
        DataError: `datasets` is missing, no files of the split, no such columns, or a mask that does not fit.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        class_names: Sequence[str],
        rules: LabelRules | None = None,
        decoding: Decoding = UPRIGHT,
        *,
        checked: int = CHECKED,
    ) -> None:
        self.rules, self.class_names, self.decoding = rules_for(class_names, rules), tuple(class_names), decoding
        files = split_files(Path(root), split)
        self._name = f"{root}[{split}]"
        self._rows = _load(files)
        self._image, self._mask = (_column(self._rows.column_names, names, root) for names in (_IMAGE, _MASK))
        check_masks(len(self), checked, self._inspect, lambda index: f"the mask of {self.describe(index)}", class_names)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, Image.Image]:
        image = decode(self._content(index, self._image), self.decoding)
        return image, fitting_mask(image, self._content(index, self._mask), self.rules)

    def describe(self, index: int) -> str:
        """Name of the data set and number of the row."""
        return f"{self._name}[{index}]"

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """No names, and 0 for each class."""
        return [b""] * len(self), np.zeros(len(self), np.int64)

    def size_of(self, index: int) -> tuple[int, int]:
        """Bytes of the image and of its mask."""
        return len(self._content(index, self._image)), len(self._content(index, self._mask))

    def _content(self, index: int, column: str) -> bytes:
        cell = self._rows[index][column]
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise BrokenImageError(f"its column {column} holds no file")
        return content

    def _inspect(self, index: int) -> Inspected:
        def size() -> tuple[int, int]:
            return decode(self._content(index, self._image), self.decoding).size

        return inspect(size, lambda: self._content(index, self._mask), self.rules)


def has_parquet(root: Path) -> bool:
    """Whether a folder holds Parquet files, at any depth."""
    return next(root.rglob("*.parquet"), None) is not None


def split_files(root: Path, split: str) -> list[Path]:
    """The files of a split, sorted. Raises `DataError` if there are none."""
    every = [path for path in sorted(root.rglob("*.parquet")) if _OTHER_SUBSET not in path.parts]
    for name in SPLIT_ALIASES.get(split, (split,)):
        found = [path for path in every if path.parent.name == name or path.stem.split("-")[0] == name]
        if found:
            return found
    there = shorten([str(path.relative_to(root)) for path in every], 4)
    raise DataError(f"no Parquet files of the split {split!r} in {root}, which holds {there}")


def _load(files: Sequence[Path]) -> Any:
    """The rows, mapped into memory, with images as they are in the files."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"Parquet files need the package datasets: {how_to_install('data')}") from error
    try:
        rows = datasets.load_dataset("parquet", data_files=[str(PurePath(path)) for path in files], split="train")
    except Exception as error:  # pyarrow and datasets raise anything
        raise DataError(f"{files[0]} cannot be read: {type(error).__name__}: {error}") from error
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows


def _column(present: Sequence[str], names: Sequence[str], root: str | os.PathLike[str]) -> str:
    for name in names:
        if name in present:
            return name
    raise DataError(
        f"the Parquet files in {root} have the columns {shorten(list(present))}; expected {' or '.join(names)}"
    )
