"""A file of annotations in COCO's format: read, and checked entry by entry."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sequencer2d.data.sources import shorten
from sequencer2d.errors import DataError


@dataclass(frozen=True)
class Kind:
    """What a value in a file of annotations may be: a test, and words for what it expects."""

    fits: Callable[[Any], bool]
    words: str


_MOST_PIXELS = 2**31
"""No side and no coordinate is larger."""
_MANY = 1 / 4
"""Share of boxes beyond their image from which on they may be of another kind than stated."""


def _whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _real(value: Any) -> bool:
    return type(value) in (int, float) and -_MOST_PIXELS <= value <= _MOST_PIXELS


def _inside(value: Any) -> bool:
    """Whether a text names a file in the folder of images or below."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    parts = PurePosixPath(value.replace("\\", "/"))
    return not parts.is_absolute() and ".." not in parts.parts


NUMBER = Kind(lambda value: _whole(value, -(2**63), 2**63 - 1), "a whole number")
SIDE = Kind(lambda value: _whole(value, 1, _MOST_PIXELS), "a whole number of pixels")
IMAGE = {"file_name": Kind(_inside, "the path of a file in the folder of images"), "width": SIDE, "height": SIDE}
CATEGORY = {"name": Kind(lambda value: isinstance(value, str) and bool(value.strip()), "a name")}
ANNOTATION = {
    "image_id": NUMBER,
    "category_id": NUMBER,
    "bbox": Kind(
        lambda value: isinstance(value, list) and len(value) == 4 and all(map(_real, value)),
        "left, top, width, height in pixels",
    ),
}
OPTIONAL = {
    "iscrowd": Kind(lambda value: value in (0, 1) and isinstance(value, int), "0 or 1"),
    "area": Kind(lambda value: type(value) in (int, float) and 0 <= value <= _MOST_PIXELS**2, "an area in pixels"),
}
NOT_GIVEN = {"iscrowd": 0, "area": 0}


def read_annotations(path: Path) -> dict[str, list[Any]]:
    """The lists of images, annotations and categories. Raises `DataError` for a file that holds something else."""
    try:
        content = json.loads(path.read_bytes())  # may be larger than what `files.read_json` reads
    except RecursionError:
        raise DataError(f"{path} is nested too deep to be annotations in COCO's format") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); export the annotations again") from error
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise DataError(f"{path} is not in COCO's format: expected lists of {', '.join(keys)}")
    return content


def categories_of(rows: list[Any], path: Path) -> dict[int, str]:
    """The names of the categories by their numbers, ascending."""
    found = {number: row["name"] for number, row in by_number(rows, "categories", CATEGORY, path).items()}
    twice = [name for name, count in Counter(found.values()).items() if count > 1]
    if twice or not found:
        said = f"names the categories {shorten(twice)} twice" if twice else "has no categories"
        raise DataError(f"{path} {said}; give each class one category")
    return dict(sorted(found.items()))


def by_number(rows: list[Any], what: str, keys: Mapping[str, Kind], path: Path) -> dict[int, Mapping[str, Any]]:
    """The entries of a list by their numbers. Raises `DataError` for what is missing, of another type, or twice."""
    found: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        check_entry(row, {"id": NUMBER, **keys}, f"an entry of {what}", path)
        if row["id"] in found:
            raise DataError(f"{path}: the number {row['id']} stands twice in {what}; number them anew")
        found[row["id"]] = row
    return found


def check_files(rows: Mapping[int, Mapping[str, Any]], path: Path) -> None:
    """Raise `DataError` if there are no images, or for a file of two of them.

    The boxes of one would be missing in the other.
    """
    if not rows:
        raise DataError(f"{path} lists no images")
    twice = [file for file, count in Counter(row["file_name"] for row in rows.values()).items() if count > 1]
    if twice:
        raise DataError(f"{path} lists the files {shorten(twice, 3)} twice in images; put all boxes of a file together")


def check_entry(row: Any, keys: Mapping[str, Kind], what: str, path: Path) -> None:
    """Raise `DataError` unless an entry has every key, with a value of its kind."""
    if not isinstance(row, dict):
        raise DataError(f"{path}: {what} is no object: {str(row)[:80]}")
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(f"{path}: {what} lacks {', '.join(missing)}: {str(row)[:80]}")
    for key, kind in keys.items():
        if not kind.fits(row[key]):
            raise DataError(f"{path}: {what} has {key}={repr(row[key])[:60]}; expected {kind.words}")


def check_units(annotations: list[Any], images: Mapping[int, Mapping[str, Any]], path: Path) -> None:
    """Raise `DataError` for boxes that are no left, top, width, height in pixels, as far as that can be told."""
    boxes = np.array([row["bbox"] for row in annotations], np.float64).reshape(-1, 4)
    if not len(boxes):
        return
    sizes = np.array([[images[row["image_id"]][key] for key in ("width", "height")] for row in annotations])
    corner, extent = boxes[:, :2], boxes[:, 2:]
    if (boxes >= 0).all() and (boxes <= 1).all() and (boxes % 1).any():
        raise DataError(f"{path}: all boxes lie between 0 and 1; multiply them by the width and height of their image")
    beyond = (corner + extent > sizes + 1).any(1)
    if beyond.mean() >= _MANY and ((extent > corner) & (extent <= sizes + 1)).all():
        raise DataError(
            f"{path}: {beyond.sum()} of {len(boxes)} boxes leave their image, and all would fit as left, top, right, "
            "bottom; expected left, top, width, height"
        )
