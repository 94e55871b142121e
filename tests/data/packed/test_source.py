"""Packed shards: what is written, what is read from a web server, and how a server's faults end."""

import dataclasses
import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from sequencer2d.data import cache
from sequencer2d.data.config import DataConfig
from sequencer2d.data.loader import build_loader
from sequencer2d.data.opening import open_source, split_spec
from sequencer2d.data.packed.fetching import Item
from sequencer2d.data.packed.index import Split, read_table
from sequencer2d.data.packed.source import PackedSource, Streaming
from sequencer2d.data.packed.writing import open_splits, pack
from sequencer2d.data.parts import hold_out
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.data.sources import Source, prepare
from sequencer2d.errors import DataError
from tests.data.packed.conftest import SHARD_BYTES
from tests.data.packed.server import Server

SLOW = ("stall", "trickle")
FINAL = ("forbidden", "expired", "range", "moved", "br")


def with_timeout(streaming: Streaming, timeout_s: float) -> Streaming:
    return dataclasses.replace(streaming, patience=dataclasses.replace(streaming.patience, timeout_s=timeout_s))


def contents(source: Source) -> dict[bytes, tuple[bytes, int]]:
    """Name of each image → its pixels and class."""
    names, _ = source.identities()
    return {name: (source[index][0].tobytes(), source[index][1]) for index, name in enumerate(names)}


def test_every_image_comes_back_from_every_place(
    pictures: Path, shards: Path, server: Server, streaming: Streaming
) -> None:
    for split in ("train", "val"):
        expected = contents(open_source(str(pictures), split))
        for address in (shards.as_uri(), server.address, f"{server.address}/?token=secret"):
            source = open_source(address, split, streaming=streaming)
            assert contents(source) == expected
            assert source.class_names == ("cat", "dog", "owl")
        assert set(contents(open_source(f"wds:{shards}", split)).values()) == set(expected.values())
    assert "secret" not in source.describe(0)
    assert max(server.requests.values()) <= 4, "each shard is fetched once; the index by every source"
    assert all(count == 1 for name, count in server.requests.items() if name.endswith(".tar"))


def test_shards_keep_to_their_size_and_mix_classes(shards: Path) -> None:
    files = sorted(shards.glob("train-*.tar"))
    assert len(files) == 5
    assert all(file.stat().st_size <= SHARD_BYTES for file in files)
    source = PackedSource(shards.as_uri())
    classes = {shard: {source[index][1] for index in np.flatnonzero(source.shards == shard)} for shard in range(5)}
    assert sum(len(found) > 1 for found in classes.values()) == 5


def test_packing_again_gives_the_same_bytes(pictures: Path, shards: Path, tmp_path: Path) -> None:
    pack(open_splits(pictures), tmp_path / "again", shard_bytes=SHARD_BYTES)
    for path in shards.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    index = json.loads((shards / "index.json").read_text())
    for name, size, digest in index["splits"]["train"]["shards"]:
        content = (shards / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, digest)
    with pytest.raises(DataError, match="is there and not empty; give a new folder"):
        pack(open_splits(pictures), tmp_path / "again", shard_bytes=SHARD_BYTES)


@pytest.mark.parametrize("fault", ["half", "stall", "trickle", "drop", "long", "half gzip", "not gzip"])
def test_an_index_that_does_not_arrive_whole_is_asked_for_again(
    server: Server, streaming: Streaming, fault: str
) -> None:
    server.faults = {"index.json": [fault]}
    PackedSource(server.address, streaming=with_timeout(streaming, 1.0))
    assert server.requests["index.json"] == 2


@pytest.mark.parametrize("fault", ["gzip", "moved"])
def test_what_servers_may_do_is_no_fault(
    shards: Path, server: Server, streaming: Streaming, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Files stand compressed on the server, or somewhere else."""
    server.faults = {path.name: [fault] for path in shards.iterdir()}
    assert contents(PackedSource(server.address, streaming=streaming)) == contents(PackedSource(shards.as_uri()))
    assert "trying again" not in caplog.text


def test_an_address_may_hold_any_letters(shards: Path, server: Server, streaming: Streaming) -> None:
    source = PackedSource(f"{server.address}/my pictures/größe%20x?key=a%2Fb", streaming=streaming)
    assert contents(source) == contents(PackedSource(shards.as_uri()))


@pytest.mark.parametrize("fault", ["busy", "half", "stall", "trickle", "changed", "drop", "long", "half gzip"])
def test_a_fault_that_passes_is_waited_for(
    shards: Path, server: Server, streaming: Streaming, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    if fault in SLOW:
        streaming = with_timeout(streaming, 1.0)
    name = "train-000002.tar"
    server.faults = {name: [fault, fault], "index.json": ["busy"]}
    source = PackedSource(server.address, streaming=streaming)
    assert contents(source) == contents(PackedSource(shards.as_uri()))
    assert server.requests[name] == 3
    assert caplog.text.count("trying again in") == 3


@pytest.mark.parametrize(
    "fault, says",
    [
        ("busy", "the server answers 503 Service Unavailable"),
        ("half", "ends after"),
        ("stall", "stalls: nothing has arrived for 1 s"),
        ("trickle", " bytes in 1 s"),
        ("changed", "has another checksum than its index states"),
        ("drop", "cannot be reached"),
        ("forbidden", "is refused (403 Forbidden)"),
        ("expired", "is refused (401 Unauthorized)"),
        ("range", "the server answers 416"),
        ("moved", "the server answers 302 The HTTP server returned a redirect error"),
        ("long", "ends after"),
        ("half gzip", "ends in the middle of its gzip encoding"),
        ("not gzip", "is said to be gzip and is not"),
        ("br", "is sent as 'br'"),
    ],
)
def test_a_fault_that_stays_ends_in_one_line(server: Server, streaming: Streaming, fault: str, says: str) -> None:
    if fault in SLOW:
        streaming = with_timeout(streaming, 1.0)
    source = PackedSource(server.address, streaming=streaming)
    server.faults = {"train-000001.tar": [fault] * 99}
    with pytest.raises(DataError) as error:
        contents(source)
    message = str(error.value)
    assert says in message
    assert message.startswith(f"{server.address}/train-000001.tar")
    assert "\n" not in message
    assert ("put the server or the network right" in message) == (fault not in FINAL)
    assert fault == "moved" or server.requests["train-000001.tar"] == (1 if fault in FINAL else 3)
    assert not list(Path(streaming.cache).glob("*.part"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_ends_in_the_same_line_from_worker_processes(server: Server, tmp_path: Path, workers: int) -> None:
    config = DataConfig(
        source=server.address, image_size=16, batch_size=6, workers=workers, fetch_retries=0,
        shard_cache=str(tmp_path / "cache"), mixup=0, cutmix=0,
    )  # fmt: skip
    loader = build_loader(config, train=True)
    server.faults = {"train-000003.tar": ["half"] * 9}
    with pytest.raises(DataError, match=r"ends after [\d,]+ of [\d,]+ bytes \(attempt 1, the last\)") as error:
        list(loader)
    assert "\n" not in str(error.value)
    loader.close()


@pytest.mark.parametrize("processes", [0, 2])
def test_images_that_are_kept_in_memory_fail_in_the_same_line(
    server: Server, streaming: Streaming, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_FEW", 1)
    source = open_source(server.address, streaming=streaming)
    server.faults = {"train-000003.tar": ["forbidden"] * 9}
    with pytest.raises(DataError, match=r"train-000003\.tar is refused") as error:
        cache.CachedSource(source, processes)
    assert "\n" not in str(error.value)
    server.faults = {}
    kept = cache.CachedSource(source, processes)
    assert contents(kept) == contents(source)
    assert np.array_equal(kept.shards, source.shards)


def test_parts_and_joined_splits_keep_their_shards(shards: Path, server: Server, streaming: Streaming) -> None:
    whole = open_source(server.address, "train+val", streaming=streaming)
    train, val = (open_source(server.address, split, streaming=streaming) for split in ("train", "val"))
    assert np.array_equal(whole.shards, np.concatenate([train.shards, val.shards + 5]))
    kept, held = hold_out(whole, 0.25, seed=0)
    assert np.array_equal(held.shards, whole.shards[held.indices])
    for part in (kept, held):
        prepare(part, np.arange(2))
        for index in range(2):
            shard = part.describe(index).removeprefix(f"{server.address}/").partition(":")[0]
            assert server.requests[shard] == 1
    assert contents(pickle.loads(pickle.dumps(whole))) == contents(whole)


def test_mistakes_are_named(shards: Path, server: Server, streaming: Streaming, tmp_path: Path) -> None:
    def mistake(address: str, split: str = "train", **changes: object) -> str:
        with pytest.raises(DataError) as error:
            open_source(address, split, streaming=dataclasses.replace(streaming, **changes))  # type: ignore[arg-type]
        return str(error.value)

    assert "upload every file that sequencer2d pack wrote" in mistake(tmp_path.as_uri())
    assert "expected file://, http://, https://, s3://" in mistake("gs://bucket/shards")
    assert "has no split 'extra'; it holds train, val" in mistake(server.address, "extra")
    assert "data.shard_cache_gb=0.0001 holds fewer shards than data.shuffle_shards=16 mixes: set it to" in mistake(
        server.address, cache_bytes=100_000
    )
    assert "Connection refused" in mistake("http://127.0.0.1:9/shards")
    assert "cannot be reached" in mistake("http://host:port/shards")
    said = mistake("https://me:secret@host/shards")
    assert "with a user and a password, which are not sent" in said
    assert "secret" not in said
    assert split_spec("https://a/b") == ("packed", "https://a/b")


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda index: index.update(format="other"), "its format is 'other'"),
        (lambda index: index.update(classes=[]), "it names no classes"),
        (lambda index: index.update(classes="abc"), "it names no classes"),
        (lambda index: index.update(classes=["cat", "dog", "dog"]), "two classes have one name"),
        (lambda index: index.update(classes=["cat"]), "it has classes outside of 0 to 0"),
        (lambda index: index["splits"]["train"].update(shards=[]), "a split has no shards"),
        (lambda index: index["splits"]["train"]["shards"][0].__setitem__(0, "../x"), "is no file's name"),
        (lambda index: index["splits"]["train"]["shards"][0].__setitem__(1, -1), "is no file's name"),
        (lambda index: index["splits"]["train"]["shards"].pop(), "images lie outside of their shards"),
        (lambda index: index["splits"]["train"].update(table=index["splits"]["train"]["shards"][0]), "is no table"),
        (lambda index: index.pop("splits"), "is no index of packed shards"),
    ],
)
def test_a_damaged_index_is_refused(shards: Path, tmp_path: Path, change, says: str) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(shards, tmp_path / "copy")
    index = json.loads((shards / "index.json").read_text())
    change(index)
    (tmp_path / "copy" / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError) as error:
        PackedSource((tmp_path / "copy").as_uri())
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_without_letters_is_refused() -> None:
    split = Split(Item("t", 0, ""), (Item("s", 1024, ""),))
    table = {
        "places": np.zeros((2, 3), np.int64),
        "targets": np.zeros(2, np.int64),
        "names": np.zeros((2, 0), np.uint8),
    }
    with pytest.raises(DataError, match="its arrays do not fit together"):
        read_table(save(table), "t", split, 3)


def test_an_order_reads_few_shards_at_a_time() -> None:
    shards = np.repeat(np.arange(40), 50)
    sampler = ResumableSampler(2000, batch_size=20, seed=3, shards=shards, mixed=4)
    order = np.concatenate(list(sampler))
    assert sorted(order.tolist()) == list(range(2000))
    first, last = np.full(40, 2000), np.zeros(40, int)
    for place, shard in enumerate(shards[order]):
        first[shard], last[shard] = min(first[shard], place), place
    open_shards = [int(((first <= place) & (place <= last)).sum()) for place in range(2000)]
    assert 4 <= max(open_shards) <= 5
    assert len({*shards[order][1000:1100].tolist()}) >= 4
    sampler.seek(1)
    assert np.concatenate(list(sampler)).tolist() != order.tolist()
    plain = ResumableSampler(2000, batch_size=20, seed=3)
    few = ResumableSampler(2000, batch_size=20, seed=3, shards=shards, mixed=40)
    assert all(np.array_equal(a, b) for a, b in zip(plain, few, strict=True))
