"""Packing a folder of images: shards of a given size, each a random sample of the images, and their index.

The shards are WebDataset tar files, `<number>.<suffix>` and `<number>.cls`. Files are copied as they are. The same
folder and seed give the same bytes.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from sequencer2d.data.folders import FolderSource
from sequencer2d.data.packed.fetching import Item
from sequencer2d.data.packed.index import INDEX, Index, Split, Table, pack_table, to_json
from sequencer2d.data.sources import check_same_classes
from sequencer2d.data.survey import splits_of
from sequencer2d.errors import DataError
from sequencer2d.files import atomic_write, write_json

_BLOCK = tarfile.BLOCKSIZE
_AROUND = 3 * _BLOCK
"""Bytes that a sample takes beside its image: two headers, and the class."""
_END = 2 * _BLOCK + tarfile.RECORDSIZE
"""Bytes that the end of a shard takes at most."""


@dataclass(frozen=True)
class Packed:
    """What was written of a split.

    Attributes:
        split: its name.
        images: how many.
        shards: how many.
        bytes: of the shards.
    """

    split: str
    images: int
    shards: int
    bytes: int


def open_splits(folder: Path) -> dict[str, FolderSource]:
    """The splits of a folder by their names; classes without a split are training images.

    Raises `DataError` as `FolderSource` does, and if the splits have different classes.
    """
    splits = {name or "train": FolderSource(folder, name) for name in splits_of(folder)}
    first, *others = splits
    for name in others:
        check_same_classes(splits[first], splits[name], names=(first, name))
    return splits


def pack(
    splits: dict[str, FolderSource],
    output: Path,
    *,
    shard_bytes: int,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> list[Packed]:
    """Write the shards and the index of several splits.

    Args:
        splits: the images, by the names of their splits; all have the same classes.
        output: the folder to write, new or empty. `index.json` is written last.
        shard_bytes: of a shard, at most; a larger image has a shard of its own.
        seed: of the order of the images.
        advance: called after each image.

    Raises:
        DataError: the folder holds something, cannot be written, or an image's file cannot be read.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} is there and not empty; give a new folder, or remove it")
    try:
        output.mkdir(parents=True, exist_ok=True)
        written = {
            name: _write_split(name, source, output, shard_bytes, seed, advance) for name, source in splits.items()
        }
        class_names = next(iter(splits.values())).class_names
        with atomic_write(output / "classes.txt", "w") as file:  # for other readers of WebDataset
            file.writelines(f"{name}\n" for name in class_names)
        write_json(output / INDEX, to_json(Index(class_names, written)))
    except OSError as error:
        raise DataError(f"cannot pack into {output}: {error.strerror or error}; give another folder") from error
    return [
        Packed(name, len(splits[name]), len(split.shards), sum(item.bytes for item in split.shards))
        for name, split in written.items()
    ]


def _write_split(
    name: str, source: FolderSource, output: Path, shard_bytes: int, seed: int, advance: Callable[[], None]
) -> Split:
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(source))
    names, targets = source.identities()
    places: list[tuple[int, int, int]] = []
    shards: list[Item] = []
    for members in _cut(source, order, shard_bytes):
        path = output / f"{name}-{len(shards):06d}.tar"
        with path.open("wb") as file:
            shard = _Shard(file)
            for index in members:
                image = Path(source.describe(index))
                offset, size = shard.add(f"{len(places):09d}", image, int(targets[index]))
                places.append((len(shards), offset, size))
                advance()
            shards.append(shard.finish(path.name))
    table = Table(np.array(places, dtype=np.int64), targets[order], np.array(names)[order])
    content = pack_table(table)
    path = output / f"{name}.safetensors"
    with atomic_write(path) as file:
        file.write(content)
    return Split(Item(path.name, len(content), hashlib.sha256(content).hexdigest()), tuple(shards))


def _cut(source: FolderSource, order: np.ndarray, shard_bytes: int) -> Iterator[list[int]]:
    """The images of each shard."""
    members: list[int] = []
    total = _END
    for index in order.tolist():
        size = source.size_of(index)
        if size < 0:
            raise DataError(f"{source.describe(index)} cannot be read; repair or remove it")
        size += _AROUND + -size % _BLOCK
        if members and total + size > shard_bytes:
            yield members
            members, total = [], _END
        members.append(index)
        total += size
    yield members


class _Shard:
    """A tar file that is written, with the checksum of its bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._bytes = file, hashlib.sha256(), 0
        self._archive = tarfile.TarFile.open(fileobj=self, mode="w|", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload]

    def write(self, content: bytes) -> int:
        """What the archive calls."""
        self._digest.update(content)
        self._bytes += len(content)
        return self._file.write(content)

    def add(self, key: str, image: Path, target: int) -> tuple[int, int]:
        """Add an image and its class; where the image lies: offset and bytes."""
        content = image.read_bytes()
        place = self._add(f"{key}{image.suffix.lower()}", content)
        self._add(f"{key}.cls", str(target).encode())
        return place

    def _add(self, name: str, content: bytes) -> tuple[int, int]:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        offset = self._archive.offset + _BLOCK  # a short name takes one header
        self._archive.addfile(member, io.BytesIO(content))
        return offset, len(content)

    def finish(self, name: str) -> Item:
        """Write the end, and say what was written."""
        self._archive.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        return Item(name, self._bytes, self._digest.hexdigest())
