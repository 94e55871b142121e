"""The source of packed shards at an address, and the cache that it reads them through."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from sequencer2d.data.images import UPRIGHT, Decoding
from sequencer2d.data.packed.fetching import Item, Patience, fetch
from sequencer2d.data.packed.index import Index, Split, read_index, read_table
from sequencer2d.data.packed.shard_cache import ShardCache
from sequencer2d.data.packed.stores import Store, open_store
from sequencer2d.data.sharded import ShardedImages
from sequencer2d.data.sources import SPLIT_ALIASES, shorten
from sequencer2d.errors import DataError

_AT_ONCE = 4
"""Shards that a process fetches at the same time."""


@dataclass(frozen=True)
class Streaming:
    """How packed shards are read; fields of `DataConfig` say the same.

    Attributes:
        cache: folder of fetched shards; "" for the user's cache folder.
        cache_bytes: that they take at most.
        mixed: shards whose images are shuffled among each other, which the cache must hold.
        patience: with the server.
    """

    cache: str = ""
    cache_bytes: int = 64 * 10**9
    mixed: int = 16
    patience: Patience = field(default_factory=Patience)

    @property
    def cache_folder(self) -> Path:
        """Where fetched shards are kept."""
        return Path(self.cache) if self.cache else _user_cache() / "sequencer2d" / "shards"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


class PackedSource(ShardedImages):
    """Images in the shards that `sequencer2d pack` wrote, at an address.

    Shards of a `file://` address are read where they are, others through a cache: a shard is fetched whole when the
    first of its images is read.

    Args:
        address: of the folder, `https://…`, `s3://…` or `file://…`.
        split: its name, or one of its aliases.
        decoding: how image files become pixels.
        streaming: how shards are fetched and kept.

    Attributes:
        shards: int64 (N,), the shard of each image, by which a training order keeps to few shards at a time.

    Raises:
        DataError: the address has no index, the index no such split, or the cache is too small.
    """

    def __init__(
        self,
        address: str,
        split: str = "train",
        decoding: Decoding = UPRIGHT,
        streaming: Streaming | None = None,
    ) -> None:
        self._store, self._streaming = open_store(address), streaming or Streaming()
        self._cache = ShardCache(self._streaming.cache_folder, self._streaming.cache_bytes)
        index = read_index(self._store, self._streaming.patience)
        self._split = _find_split(index, split, self._store)
        self.class_names, self.classes_inferred = index.class_names, False
        with self._open_item(self._split.table) as file:
            content = file.read()
        where = self._store.where(self._split.table.name)
        table = read_table(content, where, self._split, len(index.class_names))
        super().__init__(table.places, table.targets, table.names, decoding)
        self.shards = np.ascontiguousarray(table.places[:, 0])
        if self._store.folder is None:
            _check_cache(self._split, self._streaming)

    def prepare(self, indices: np.ndarray) -> None:
        """Fetch the shards of these images, several at once. Raises `DataError` as reading an image would."""
        if self._store.folder is not None:
            return
        wanted = [self._split.shards[shard] for shard in np.unique(self.shards[indices])]
        missing = [item for item in wanted if item not in self._cache]
        if missing:
            with ThreadPoolExecutor(min(_AT_ONCE, len(missing))) as pool:
                list(pool.map(self._fetch, missing))

    def _fetch(self, item: Item) -> None:
        self._open_item(item).close()

    def _open(self, shard: int) -> IO[bytes]:
        return self._open_item(self._split.shards[shard])

    def _where(self, shard: int) -> str:
        return self._store.where(self._split.shards[shard].name)

    def _open_item(self, item: Item) -> IO[bytes]:
        if self._store.folder is not None:
            return _open_in_place(self._store.folder / item.name, item)
        # An `OSError` of the cache is a `DataError` already, so that images do not count as broken for it.
        return self._cache.open(
            item,
            functools.partial(fetch, self._store, item, patience=self._streaming.patience),  # type: ignore[arg-type]
        )


def _open_in_place(path: Path, item: Item) -> IO[bytes]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; pack the folder anew") from error
    size = os.fstat(file.fileno()).st_size
    if size != item.bytes:
        file.close()
        raise DataError(f"{path} has {size:,} bytes, its index states {item.bytes:,}; pack the folder anew")
    return file


def _find_split(index: Index, split: str, store: Store) -> Split:
    for name in SPLIT_ALIASES.get(split, (split,)):
        if name in index.splits:
            return index.splits[name]
    raise DataError(
        f"{store.where('')} has no split {split!r}; it holds {shorten(sorted(index.splits))}: set data.train_split and "
        "data.val_split"
    )


def _check_cache(split: Split, streaming: Streaming) -> None:
    """Raise `DataError` unless the cache holds the shards that are mixed, and the next one."""
    sizes = sorted((item.bytes for item in split.shards), reverse=True)
    needed = sum(sizes[: streaming.mixed + 1])
    if streaming.cache_bytes < needed:
        raise DataError(
            f"data.shard_cache_gb={streaming.cache_bytes / 1e9:.3g} holds fewer shards than data.shuffle_shards="
            f"{streaming.mixed} mixes: set it to {needed / 1e9:.3g} or more, or mix fewer shards"
        )
