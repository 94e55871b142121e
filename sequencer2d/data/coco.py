"""Images with boxes in COCO's format: a JSON file of annotations for each split, and a folder of images."""

import os
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image

from sequencer2d.data.coco_json import (
    ANNOTATION,
    IMAGE,
    NOT_GIVEN,
    OPTIONAL,
    by_number,
    categories_of,
    check_entry,
    check_files,
    check_units,
    read_annotations,
)
from sequencer2d.data.finding import LeftOut
from sequencer2d.data.image_files import ImageFiles
from sequencer2d.data.images import UPRIGHT, BrokenImageError, Decoding, decode, size_of
from sequencer2d.data.sources import SPLIT_ALIASES, require_readable, shorten
from sequencer2d.errors import DataError

LAYOUTS = (
    ("annotations/instances_{split}2017.json", "{split}2017"),
    ("annotations/instances_{split}.json", "{split}"),
    ("annotations/{split}.json", "{split}"),
    ("{split}/_annotations.coco.json", "{split}"),
)
"""Where the annotations and the images of a split are looked for, in this order: COCO's own layout first."""


Boxes = dict[str, Any]
"""The target of an image: float32 (N, 4) `boxes` (left, top, right, bottom in pixels of the file), int64 (N,)
`labels`, bool (N,) `crowd`, float32 (N,) `area` in pixels, and the image's number `id`."""


class CocoBoxes(ImageFiles):
    """Images with boxes. A sample is (RGB image, `Boxes`).

    Classes are the file's categories in the order of their numbers, which may have gaps. What is left out is counted in
    one warning: boxes outside of their image or without area, and for training crowd boxes and images without boxes.

    Args:
        root: the folder of the data set, in one of `LAYOUTS`.
        split: its name, or one of its aliases (`SPLIT_ALIASES`).
        train: leave out crowd boxes and images without boxes. In evaluation crowds are regions that count for nothing.
        decoding: how image files become pixels.
        max_missing: images whose file may be missing, at most; they are left out.

    Raises:
        DataError: no such files, a damaged file of annotations, a value of the wrong type, an image outside of the
            folder or of another size than stated, a category or an image that is not listed, a number that stands
            twice, or nothing left.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        train: bool = False,
        decoding: Decoding = UPRIGHT,
        max_missing: int = 0,
    ) -> None:
        self.annotations, folder = find_layout(Path(root), split)
        content = read_annotations(self.annotations)
        self.categories = categories_of(content["categories"], self.annotations)
        rows = by_number(content["images"], "images", IMAGE, self.annotations)
        check_files(rows, self.annotations)
        left_out = LeftOut()
        missing = {str(folder / row["file_name"]): "no such file" for row in rows.values()
                   if not (folder / row["file_name"]).is_file()}  # fmt: skip
        require_readable(missing, len(rows), max_missing)
        for name in missing:
            left_out.add("images without a file", Path(name).name)
        boxes = _boxes(content["annotations"], rows, list(self.categories), self.annotations, left_out, train)
        chosen = []
        for number, row in rows.items():
            if str(folder / row["file_name"]) in missing:
                continue
            if train and not boxes[number]:
                left_out.add("images without boxes", row["file_name"])
                continue
            chosen.append(number)
        left_out.report(self.annotations)
        if not chosen or not any(boxes[number] for number in chosen):
            raise DataError(
                f"{self.annotations} has no image with a box{f'; left out: {left_out}' if left_out else ''}"
            )
        files = [rows[number]["file_name"] for number in chosen]
        names = list(self.categories.values())
        super().__init__(folder, files, np.zeros(len(files), np.int64), names, decoding)
        self._targets_of = [_target(number, boxes[number]) for number in chosen]
        self._sizes = [(rows[number]["width"], rows[number]["height"]) for number in chosen]
        self._check_sizes()

    def __getitem__(self, index: int) -> tuple[Image.Image, Boxes]:  # type: ignore[override]
        return decode(self.describe(index), self.decoding), self._targets_of[index]

    def size_of(self, index: int) -> tuple[int, int]:  # type: ignore[override]
        """Bytes of the image's file, -1 if there is none, and a checksum of its boxes."""
        target = self._targets_of[index]
        return super().size_of(index), crc32(target["boxes"].tobytes() + target["labels"].tobytes())

    def _check_sizes(self) -> None:
        with ThreadPoolExecutor() as threads:
            found = list(threads.map(self._size, range(len(self))))
        wrong = [i for i, size in enumerate(found) if size not in (None, self._sizes[i])]
        if wrong:
            i, more = wrong[0], f" ({len(wrong) - 1} more images differ)" if len(wrong) > 1 else ""
            (width, height), size = self._sizes[i], found[i]
            assert size is not None
            raise DataError(
                f"{self.describe(i)} has {size[0]}×{size[1]} pixels, but its annotations say {width}×{height}{more}: "
                "correct it, or set data.orientation=stored if boxes were drawn on photos that were not turned"
            )

    def _size(self, index: int) -> tuple[int, int] | None:
        try:
            return size_of(self.describe(index), self.decoding)
        except BrokenImageError:  # the loader skips and counts it
            return None


def find_layout(root: Path, split: str) -> tuple[Path, Path]:
    """The file of annotations and the folder of images of a split. Raises `DataError`, which lists where it looked."""
    tried = []
    for name in SPLIT_ALIASES.get(split, (split,)):
        for annotations, images in LAYOUTS:
            file, folder = root / annotations.format(split=name), root / images.format(split=name)
            if file.is_file():
                if folder.is_dir():
                    return file, folder
                raise DataError(f"{file} is there, but the folder of its images, {folder}, is missing")
            tried.append(annotations.format(split=name))
    raise DataError(f"no annotations of the split {split} in {root}; looked for {', '.join(tried[: len(LAYOUTS)])}")


def _boxes(
    annotations: list[Any],
    images: Mapping[int, Mapping[str, Any]],
    categories: list[int],
    path: Path,
    left_out: LeftOut,
    train: bool,
) -> defaultdict[int, list[tuple[Any, ...]]]:
    """The boxes that count of each image: (left, top, right, bottom, class, crowd, area)."""
    place = {number: index for index, number in enumerate(categories)}
    for row in annotations:
        what = f"annotation {str(row.get('id'))[:40]}" if isinstance(row, dict) else "an annotation"
        check_entry(row, ANNOTATION, what, path)
        check_entry({**NOT_GIVEN, **row}, OPTIONAL, what, path)
    for key, what, known in (("category_id", "categories", place), ("image_id", "images", images)):
        strange = sorted({row[key] for row in annotations} - set(known))
        if strange:
            listed = shorten([str(number) for number in strange], 5)
            raise DataError(f"{path}: annotations name the {what} {listed}, which it does not list")
    check_units(annotations, images, path)
    boxes: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    seen: set[tuple[Any, ...]] = set()
    for row in annotations:
        image = images[row["image_id"]]
        left, top, width, height = row["bbox"]
        right, bottom = left + width, top + height
        inside = min(right, image["width"]) > max(left, 0) and min(bottom, image["height"]) > max(top, 0)
        crowd = bool(row.get("iscrowd", 0))
        if width <= 0 or height <= 0:
            left_out.add("boxes without area", str(row.get("id")))
        elif not inside:
            left_out.add("boxes outside of their image", str(row.get("id")))
        elif crowd and train:
            left_out.add("crowd boxes", str(row.get("id")))
        elif train and (same := (row["image_id"], row["category_id"], *row["bbox"])) in seen:
            left_out.add("boxes that stand twice", str(row.get("id")))
        else:
            if train:
                seen.add(same)
            area = float(row.get("area", width * height))
            boxes[row["image_id"]].append((left, top, right, bottom, place[row["category_id"]], crowd, area))
    return boxes


def _target(number: int, rows: list[tuple[Any, ...]]) -> Boxes:
    return {
        "id": number,
        "boxes": np.array([row[:4] for row in rows], np.float32).reshape(-1, 4),
        "labels": np.array([row[4] for row in rows], np.int64),
        "crowd": np.array([row[5] for row in rows], bool),
        "area": np.array([row[6] for row in rows], np.float32),
    }
