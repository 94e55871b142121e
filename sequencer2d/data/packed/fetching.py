"""Files from a store, whole and right: attempts are counted, and content must have its size and checksum."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TypeVar

from sequencer2d.data.packed.stores import CHUNK, Store, StoreError
from sequencer2d.terminal import EVERY_PROCESS

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_LEAST_PROGRESS = CHUNK
"""Bytes that must arrive within each time limit: a server may send a byte now and then, and never end."""


@dataclass(frozen=True)
class Item:
    """A file of a store.

    Attributes:
        name: below the store's address.
        bytes: of its content.
        sha256: of its content, as hexadecimal digits.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Patience:
    """How long a store is waited for: `data.fetch_timeout_s` and `data.fetch_retries`."""

    timeout_s: float = 30.0
    retries: int = 5


def read_whole(store: Store, name: str, patience: Patience, limit: int) -> bytes:
    """A small file of unknown content, at most `limit` bytes. Raises `StoreError`."""

    def attempt() -> bytes:
        content = bytearray()
        for chunk in _arriving(store, name, patience.timeout_s):
            content += chunk
            if len(content) > limit:
                raise StoreError(f"{store.where(name)} is longer than {limit:,} bytes", final=True)
        return bytes(content)

    return _insist(attempt, patience)


def fetch(store: Store, item: Item, file: IO[bytes], patience: Patience) -> None:
    """Write an item's content to `file`, from its beginning.

    Raises:
        StoreError: the store does not deliver it, or delivers something else, in every attempt.
        OSError: `file` cannot be written.
    """
    _insist(lambda: _copy(store, item, file, patience.timeout_s), patience)


def _copy(store: Store, item: Item, file: IO[bytes], timeout_s: float) -> None:
    file.seek(0)
    digest, done = hashlib.sha256(), 0
    for chunk in _arriving(store, item.name, timeout_s):
        digest.update(chunk)
        done += len(chunk)
        if done > item.bytes:
            break
        file.write(chunk)
    if done != item.bytes:
        some = f"ends after {done:,}" if done < item.bytes else "goes on after all"
        raise StoreError(f"{store.where(item.name)} {some} of {item.bytes:,} bytes", final=False)
    if digest.hexdigest() != item.sha256:
        raise StoreError(
            f"{store.where(item.name)} has another checksum than its index states; upload the shards and "
            "index.json of one packing",
            final=False,
        )


def _arriving(store: Store, name: str, timeout_s: float) -> Iterator[bytes]:
    """A file's content. Raises `StoreError` as well if so little arrives that it would never end."""
    mark_s, arrived = time.monotonic(), 0
    for chunk in store.chunks(name, timeout_s):
        yield chunk
        arrived += len(chunk)
        if (now_s := time.monotonic()) - mark_s > timeout_s:
            if arrived < _LEAST_PROGRESS:
                raise StoreError(f"{store.where(name)} stalls: {arrived} bytes in {timeout_s:g} s", final=False)
            mark_s, arrived = now_s, 0


def _insist(attempt: Callable[[], Result], patience: Patience) -> Result:
    """The answer of the first attempt that succeeds. Raises the last `StoreError`."""
    wait_s = _FIRST_WAIT_S
    for left in range(patience.retries, -1, -1):
        try:
            return attempt()
        except StoreError as error:
            if error.final:
                raise
            if not left:
                raise StoreError(
                    f"{error} (attempt {patience.retries + 1}, the last); put the server or the network right and go "
                    "on, or raise data.fetch_retries or data.fetch_timeout_s",
                    final=True,
                ) from error
            logger.warning("%s; trying again in %g s", error, wait_s, extra=EVERY_PROCESS)
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
    raise AssertionError("unreachable")
