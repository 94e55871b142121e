"""The index of packed shards: `index.json` names classes, splits and shards, and a table a split says where images lie.

It may come from strangers: every number is checked against the sizes that it states itself.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sequencer2d.data.packed.fetching import Item, Patience, read_whole
from sequencer2d.data.packed.stores import Store
from sequencer2d.errors import DataError, first_line
from sequencer2d.files import JSON_LIMIT, parse_json

INDEX = "index.json"
FORMAT = "sequencer2d.packed.1"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Table(NamedTuple):
    """Where the images of a split lie.

    Attributes:
        places: int64 (N, 3): shard, offset and bytes.
        targets: int64 (N,), class numbers.
        names: bytes (N,), paths below the split's folder that was packed.
    """

    places: np.ndarray
    targets: np.ndarray
    names: np.ndarray


@dataclass(frozen=True)
class Split:
    """A split's files.

    Attributes:
        table: holds a `Table`.
        shards: tar files.
    """

    table: Item
    shards: tuple[Item, ...]


@dataclass(frozen=True)
class Index:
    """What `index.json` says.

    Attributes:
        class_names: name of each class, of all splits.
        splits: by their names.
    """

    class_names: tuple[str, ...]
    splits: dict[str, Split]


def to_json(index: Index) -> dict[str, Any]:
    """What stands in `index.json`."""
    return {
        "format": FORMAT,
        "classes": list(index.class_names),
        "splits": {
            name: {"table": _row(split.table), "shards": [_row(item) for item in split.shards]}
            for name, split in index.splits.items()
        },
    }


def _row(item: Item) -> list[Any]:
    return [item.name, item.bytes, item.sha256]


def read_index(store: Store, patience: Patience) -> Index:
    """The index of a store. Raises `DataError` if there is none, or it is no index of this format."""
    where = store.where(INDEX)
    try:
        value = parse_json(read_whole(store, INDEX, patience, JSON_LIMIT))
        if value["format"] != FORMAT:
            raise ValueError(f"its format is {value['format']!r:.60}, expected {FORMAT!r}")
        classes = value["classes"]
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise ValueError("it names no classes")
        if len(set(classes)) < len(classes):
            raise ValueError("two classes have one name")
        return Index(tuple(classes), {str(name): _split(split) for name, split in value["splits"].items()})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{where} is no index of packed shards: {first_line(error)}; pack the folder anew") from error


def _split(value: dict[str, Any]) -> Split:
    split = Split(_item(value["table"]), tuple(_item(row) for row in value["shards"]))
    if not split.shards:
        raise ValueError("a split has no shards")
    return split


def _item(row: Any) -> Item:
    name, size, digest = row
    whole = type(size) is int and 0 <= size < 2**50
    if not (whole and _NAME.fullmatch(str(name)) and _DIGEST.fullmatch(str(digest))):
        raise ValueError(f"{row!r:.80} is no file's name, size in bytes and SHA-256")
    return Item(name, size, digest)


def pack_table(table: Table) -> bytes:
    """A table as the content of a file."""
    names = np.ascontiguousarray(table.names)
    return save(
        {
            "places": np.ascontiguousarray(table.places),
            "targets": np.ascontiguousarray(table.targets),
            "names": names.view(np.uint8).reshape(len(names), -1),
        }
    )


def read_table(content: bytes, where: str, split: Split, classes: int) -> Table:
    """The table in a file's content. Raises `DataError` if it is none, or an image lies outside of its shard."""
    try:
        arrays = load(content)
        places, targets, letters = arrays["places"], arrays["targets"], arrays["names"]
        count = len(targets)
        if places.shape != (count, 3) or targets.shape != (count,) or letters.shape[:1] != (count,) or not letters.size:
            raise ValueError("its arrays do not fit together")
        if {places.dtype, targets.dtype} != {np.dtype(np.int64)} or letters.dtype != np.uint8 or letters.ndim != 2:
            raise ValueError("its arrays are of other types")
        sizes = np.array([item.bytes for item in split.shards], dtype=np.int64)
        shards, offsets, lengths = places.T
        if places.min() < 0 or shards.max() >= len(sizes) or (offsets > sizes[shards] - lengths).any():
            raise ValueError("images lie outside of their shards")
        if targets.min() < 0 or targets.max() >= classes:
            raise ValueError(f"it has classes outside of 0 to {classes - 1}")
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{where} is no table of packed shards: {first_line(error)}; pack the folder anew") from error
    return Table(places, targets, np.ascontiguousarray(letters).view(f"S{letters.shape[1]}").reshape(-1))
