"""The cache of shards: bounded, shared by processes, and clear about a disk that is full."""

import contextlib
import errno
import hashlib
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from sequencer2d.data.packed import shard_cache
from sequencer2d.data.packed.fetching import Item
from sequencer2d.data.packed.shard_cache import ShardCache, _is_full, _locked
from sequencer2d.errors import DataError

SIZE = 20_000


def content_of(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE)


def item(number: int) -> Item:
    return Item(f"{number}.tar", SIZE, hashlib.sha256(content_of(number)).hexdigest())


def read(cache: ShardCache, number: int, fetched: list[int] | None = None) -> bytes:
    def fetch(file: IO[bytes]) -> None:
        if fetched is not None:
            fetched.append(number)
        file.write(content_of(number))

    with cache.open(item(number), fetch) as file:
        return file.read()


def used(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    cache, fetched = ShardCache(tmp_path, 3 * SIZE), []
    for number in (0, 1, 2):
        assert read(cache, number, fetched) == content_of(number)
        os.utime(tmp_path / item(number).sha256, (0, 1000 + number))
    assert read(cache, 0, fetched) == content_of(0)
    assert fetched == [0, 1, 2]
    read(cache, 3, fetched)
    assert item(1) not in cache
    assert all(item(number) in cache for number in (0, 2, 3))
    assert used(tmp_path) == 3 * SIZE


def test_a_removed_file_stays_readable_where_it_is_open(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, SIZE)
    with cache.open(item(0), lambda file: file.write(content_of(0))) as file:  # type: ignore[arg-type, return-value]
        read(cache, 1)
        assert item(0) not in cache
        assert file.read() == content_of(0)


def test_what_is_not_whole_is_fetched_again(tmp_path: Path) -> None:
    cache, fetched = ShardCache(tmp_path, 3 * SIZE), []
    (tmp_path / item(0).sha256).write_bytes(b"short")
    assert read(cache, 0, fetched) == content_of(0)
    (tmp_path / f"{item(1).sha256}.part").write_bytes(bytes(2 * SIZE))  # of a process that was killed
    read(cache, 2, fetched)
    assert not list(tmp_path.glob("*.part"))
    assert item(0) in cache
    with pytest.raises(KeyError):
        cache.open(item(3), lambda _: {}["no such server"])
    assert item(3) not in cache
    assert not list(tmp_path.glob("*.part"))
    assert read(cache, 3, fetched) == content_of(3)


def _reader(folder: Path, seed: int, results: "multiprocessing.Queue[tuple[int, int]]") -> None:
    draw, fetched, wrong = random.Random(seed), [], 0
    cache = ShardCache(folder, 4 * SIZE)
    for _ in range(60):
        number = draw.randrange(10)

        def fetch(file: IO[bytes], number: int = number) -> None:
            fetched.append(number)
            file.write(content_of(number)[:1000])
            file.flush()
            time.sleep(0.001)
            file.write(content_of(number)[1000:])

        with cache.open(item(number), fetch) as file:
            wrong += file.read() != content_of(number)
    results.put((wrong, len(fetched)))


def test_processes_share_one_cache_within_its_bound(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    (tmp_path / "locks").mkdir()
    readers = [context.Process(target=_reader, args=(tmp_path, seed, results)) for seed in range(6)]
    for reader in readers:
        reader.start()
    most = 0
    while any(reader.is_alive() for reader in readers):
        with _locked(tmp_path / "locks" / "room"):  # space is taken and given back under this lock only
            most = max(most, used(tmp_path))
        time.sleep(0.002)
    outcomes = [results.get(timeout=10) for _ in readers]
    assert all(reader.exitcode == 0 for reader in readers)
    assert sum(wrong for wrong, _ in outcomes) == 0
    assert SIZE < most <= 4 * SIZE
    assert not list(tmp_path.glob("*.part"))


def test_processes_that_want_one_shard_fetch_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    fetched = context.Value("i", 0)

    def want() -> None:
        def fetch(file: IO[bytes]) -> None:
            time.sleep(0.2)
            with fetched.get_lock():
                fetched.value += 1
            file.write(content_of(0))

        with ShardCache(tmp_path, 4 * SIZE).open(item(0), fetch) as file:
            assert file.read() == content_of(0)

    readers = [context.Process(target=want) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert [reader.exitcode for reader in readers] == [0] * 4
    assert fetched.value == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", folder], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_makes_shards_give_way(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ShardCache(small_disk, 10**9)
    for number in range(12):
        assert read(cache, number) == content_of(number)
    assert 3 <= sum(item(number) in cache for number in range(12)) <= 5
    assert caplog.text.count("is full below data.shard_cache_gb=1: shards make room earlier") == 1


def test_a_disk_that_is_full_of_other_things_ends_in_one_line(small_disk: Path) -> None:
    (small_disk / "photos").write_bytes(bytes(90_000))
    cache = ShardCache(small_disk / "cache", 10**9)
    with pytest.raises(DataError, match=r"is full: make room on it, or set data\.shard_cache to a folder on another"):
        read(cache, 0)


def test_a_cache_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be used: Not a directory; set data\.shard_cache"):
        read(ShardCache(tmp_path / "file" / "cache", 10**9), 0)
    with pytest.raises(DataError, match=r"2e-05 GB does not fit into data\.shard_cache_gb=1e-05; raise it"):
        read(ShardCache(tmp_path / "cache", SIZE // 2), 0)


def test_a_file_in_use_is_marked_as_used_once_an_hour_or_so(tmp_path: Path) -> None:
    """Whether a file was used just now need not be written again and again."""
    cache = ShardCache(tmp_path, 3 * SIZE)
    read(cache, 0)
    path, now = tmp_path / item(0).sha256, time.time()
    os.utime(path, (now, now - shard_cache._FRESH_S + 5))
    read(cache, 0)
    assert path.stat().st_mtime == pytest.approx(now - shard_cache._FRESH_S + 5)
    os.utime(path, (now, now - shard_cache._FRESH_S - 5))
    read(cache, 0)
    assert path.stat().st_mtime == pytest.approx(now, abs=5)


def test_a_file_of_another_size_is_removed_and_a_shard_may_fill_the_cache(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "new" / "folder", SIZE)
    assert read(cache, 0) == content_of(0)
    with pytest.raises(DataError, match=r"a shard of 2e-05 GB does not fit into data\.shard_cache_gb=2e-05; raise it"):
        read(ShardCache(tmp_path, SIZE - 1), 0)
    with cache._present(item(0)) or contextlib.nullcontext() as file:
        assert file is not None
    (cache.folder / item(0).sha256).write_bytes(b"short")
    assert cache._present(item(0)) is None
    assert not (cache.folder / item(0).sha256).exists()


def test_the_space_of_others_counts_and_that_of_the_dead_is_taken_back(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 9 * SIZE)
    read(cache, 0)
    (tmp_path / "dead.part").write_bytes(bytes(SIZE))
    (tmp_path / "alive.part").write_bytes(bytes(2 * SIZE))
    (tmp_path / "link").symlink_to(tmp_path / "alive.part")
    with _locked(tmp_path / "locks" / "alive") as held:
        assert held
        assert cache._used() == 3 * SIZE
    assert not (tmp_path / "dead.part").exists()
    assert (tmp_path / "alive.part").exists()
    with _locked(tmp_path / "locks" / "x") as first, _locked(tmp_path / "locks" / "x", wait=False) as second:
        assert (first, second) == (True, False)


def test_the_oldest_file_goes_first_and_files_being_fetched_stay(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 9 * SIZE)
    for number, age in ((0, 20), (1, 30), (2, 10)):
        read(cache, number)
        os.utime(tmp_path / item(number).sha256, (0, 1000 - age))
    (tmp_path / "x.part").write_bytes(b"")
    os.utime(tmp_path / "x.part", (0, 1))
    gone = []
    while cache._evict():
        gone += [number for number in range(3) if item(number) not in cache and number not in gone]
    assert gone == [1, 0, 2]
    assert (tmp_path / "x.part").exists()


def test_a_full_disk_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ShardCache(tmp_path, 5_000_000_000)
    cache._warn_of_full_disk()
    cache._warn_of_full_disk()
    assert caplog.text.count("is full below data.shard_cache_gb=5: shards make room earlier") == 1
    for number in (errno.ENOSPC, errno.EDQUOT):
        assert _is_full(OSError(number, "full"))
    assert not _is_full(OSError(errno.EIO, "broken"))
