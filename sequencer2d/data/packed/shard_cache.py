"""Fetched shards on a disk of this host, in bounded space, shared by all processes of all runs.

A file is named after its checksum, so data sets never mix. It is complete and right, because it gets its name only
then. Whoever lacks a file holds its lock while fetching it, and the others wait. A file that is removed while another
process reads it stays readable until that process closes it, so nobody needs to be asked.
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from sequencer2d.data.packed.fetching import Item
from sequencer2d.errors import DataError
from sequencer2d.terminal import EVERY_PROCESS

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_FRESH_S = 5.0
"""Age below which a file's time of last use is not written again."""
_POLL_S = 0.05
_PART = ".part"


class ShardCache:
    """Files that have been fetched, the least recently used of which make room for others.

    Args:
        folder: where they are kept; made if it is not there.
        limit: bytes that they take at most, those that are being fetched included.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._has_warned = False

    def __contains__(self, item: Item) -> bool:
        return (self.folder / item.sha256).is_file()

    def open(self, item: Item, fetch: Callable[[IO[bytes]], None]) -> IO[bytes]:
        """Open an item's file to read it.

        Args:
            item: which file.
            fetch: writes its content, if it is not there, to a file that is open to write.

        Raises:
            DataError: the folder cannot be written, its disk is full, or the file is larger than the limit. What
                `fetch` raises passes through.
        """
        try:
            if file := self._present(item):
                return file
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
            with _locked(self._lock(item.sha256)):
                return self._present(item) or self._add(item, fetch)
        except OSError as error:
            raise self._unusable(error) from error

    def _present(self, item: Item) -> IO[bytes] | None:
        path = self.folder / item.sha256
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        state = os.fstat(file.fileno())
        if state.st_size != item.bytes:  # somebody else's doing
            file.close()
            path.unlink(missing_ok=True)
            return None
        if time.time() - state.st_mtime > _FRESH_S:
            with contextlib.suppress(OSError):  # it may have been removed just now, which does not matter
                os.utime(path)
        return file

    def _add(self, item: Item, fetch: Callable[[IO[bytes]], None]) -> IO[bytes]:
        part = self.folder / (item.sha256 + _PART)
        try:
            with part.open("wb") as file:
                self._reserve(file, item.bytes)
                fetch(file)
                file.flush()
                os.fsync(file.fileno())  # the name promises the content, after a loss of power as well
            opened = part.open("rb")  # before others can see it, and remove it
            with self._room():  # whoever counts the space must not miss a file that is just being renamed
                part.replace(self.folder / item.sha256)
            return opened
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _room(self) -> contextlib.AbstractContextManager[bool]:
        """The lock under which files come and go."""
        return _locked(self.folder / "locks" / "room")

    def _reserve(self, file: IO[bytes], size: int) -> None:
        """Take the space of a file that is to be written, at the cost of the files that were not used for longest."""
        if size > self.limit:
            raise DataError(
                f"a shard of {size / 1e9:.3g} GB does not fit into data.shard_cache_gb={self.limit / 1e9:.3g}; raise it"
            )
        while not self._reserve_now(file, size):
            time.sleep(_POLL_S)  # all of the space is being filled by others, who end

    def _reserve_now(self, file: IO[bytes], size: int) -> bool:
        with self._room():
            while self._used() + size > self.limit:
                if not self._evict():
                    return False
            while True:
                try:
                    _allocate(file, size)
                    return True
                except OSError as error:
                    if not _is_full(error) or not self._evict():
                        raise
                    self._warn_of_full_disk()

    def _warn_of_full_disk(self) -> None:
        if not self._has_warned:
            limit = f"data.shard_cache_gb={self.limit / 1e9:.3g}"
            logger.warning(
                "the disk of the shard cache %s is full below %s: shards make room earlier", self.folder, limit,
                extra=EVERY_PROCESS,
            )  # fmt: skip
        self._has_warned = True

    def _used(self) -> int:
        """Bytes of all files; what processes that died have left is removed first."""
        total = 0
        for entry in self._entries():
            with contextlib.suppress(FileNotFoundError):
                if not entry.name.endswith(_PART) or not self._is_left_over(entry):
                    total += entry.stat().st_size
        return total

    def _is_left_over(self, part: "os.DirEntry[str]") -> bool:
        """Remove a file that a process was fetching when it died; whether it was such a file."""
        with _locked(self._lock(part.name.removesuffix(_PART)), wait=False) as is_mine:
            if is_mine:
                os.unlink(part.path)  # noqa: PTH108
            return is_mine

    def _evict(self) -> bool:
        """Remove the file that was not used for longest; whether there was one."""
        oldest: tuple[float, str] | None = None
        for entry in self._entries():
            if not entry.name.endswith(_PART):
                with contextlib.suppress(FileNotFoundError):
                    used = (entry.stat().st_mtime, entry.path)
                    oldest = min(oldest or used, used)
        if oldest is None:
            return False
        Path(oldest[1]).unlink(missing_ok=True)
        return True

    def _entries(self) -> Iterator["os.DirEntry[str]"]:
        with os.scandir(self.folder) as entries:
            yield from (entry for entry in entries if entry.is_file(follow_symlinks=False))

    def _lock(self, digest: str) -> Path:
        return self.folder / "locks" / digest

    def _unusable(self, error: OSError) -> DataError:
        if _is_full(error):
            return DataError(
                f"the disk of the shard cache {self.folder} is full: make room on it, or set data.shard_cache to a "
                "folder on another disk"
            )
        return DataError(
            f"the shard cache {self.folder} cannot be used: {error.strerror or error}; set data.shard_cache to a "
            "folder that can be written"
        )


def _is_full(error: OSError) -> bool:
    """Whether the disk has no space left, or the user's share of it none."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))


def _allocate(file: IO[bytes], size: int) -> None:
    """Give a file its size and, where the system can, its space on the disk."""
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    file.truncate(size)


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, made if it is not there; the system gives it back when the process dies.

    Yields whether it is held: without `wait` another process may have it. Where there are no locks, it never is.
    """
    with path.open("ab") as file:
        held = fcntl is not None
        if held:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                held = False
        try:
            yield held
        finally:
            if held:  # closing alone would leave it to a process that was forked meanwhile
                fcntl.flock(file.fileno(), fcntl.LOCK_UN)
