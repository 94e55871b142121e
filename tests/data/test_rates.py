"""Rates of the input: what a step costs is found where it is spent, and the loader is timed with all its processes."""

import os
import random
import time

import numpy as np
import pytest
import torch
from PIL import Image

from sequencer2d.data import rates
from sequencer2d.data.batch_loader import build_sampler
from sequencer2d.data.config import DataConfig
from sequencer2d.data.images import Decoding
from sequencer2d.data.loader import Loader
from sequencer2d.data.photos import PhotoSource, RepeatedSource
from sequencer2d.data.rates import device_rows, loader_row, worker_rows
from sequencer2d.data.samples import CLASS_NUMBERS

CONFIG = DataConfig(image_size=16, batch_size=8, workers=2, auto_augment="rand-m9-mstd0.5-inc1")
BUSY_MS = 4.0


class Busy(PhotoSource):
    """Photos of which each takes `BUSY_MS` more of CPU time."""

    def __getitem__(self, index):
        end = time.process_time() + BUSY_MS / 1e3
        while time.process_time() < end:
            pass
        return super().__getitem__(index)


def loader_of(source):
    return Loader(source, build_sampler(CONFIG, source, train=True), CONFIG, train=True)


def by_part(rows):
    return {row["part"]: row for row in rows}


def test_time_is_found_where_it_is_spent():
    found = {}
    for kind in (PhotoSource, Busy):
        source = kind((40, 30))
        found[kind] = by_part(worker_rows(CONFIG, source, CLASS_NUMBERS, loader_of(source).reader, 0.05))
        assert list(found[kind]) == ["decode", "crop", "flip", "policy", "worker"]
    quick, busy = found[PhotoSource], found[Busy]
    for part in ("decode", "worker"):
        assert busy[part]["ms_per_image"] - quick[part]["ms_per_image"] == pytest.approx(BUSY_MS, rel=0.25)
    assert busy["policy"]["ms_per_image"] < BUSY_MS / 4
    assert busy["decode"]["images_per_s"] == pytest.approx(1e3 / busy["decode"]["ms_per_image"], rel=0.01)


def test_the_loader_is_timed_with_all_its_processes():
    row = loader_row(loader_of, Busy((40, 30)), 8, workers=2, ms=BUSY_MS, seconds=0.2)
    assert row["workers"] == 2
    assert BUSY_MS * 0.95 < row["ms_per_image"] < 8 * BUSY_MS
    assert 0 < row["images_per_s"] < 2 * 1e3 / BUSY_MS * 1.1


def test_the_device_has_a_row_for_what_is_on():
    rows = by_part(device_rows(CONFIG, 4, torch.device("cpu"), 0.01))
    assert set(rows) == {"normalize", "mixup", "erase"}
    quiet = DataConfig(image_size=16, mixup=0, cutmix=0, erasing=0)
    assert set(by_part(device_rows(quiet, 4, torch.device("cpu"), 0.01))) == {"normalize"}


def test_photos_are_jpeg_files_of_one_size_that_differ():
    source = PhotoSource((50, 37), count=6)
    images = [source[index][0] for index in range(6)]
    assert {image.size for image in images} == {(50, 37)}
    assert {source.identities()[0][index][:2] for index in range(6)} == {b"\xff\xd8"}
    assert len({np.asarray(image).tobytes() for image in images}) == 6
    assert [source[index][1] for index in range(6)] == source.identities()[1].tolist() == [0, 1, 0, 1, 0, 1]
    assert Image.Image.tobytes(PhotoSource((50, 37), 6, Decoding("stored", None))[3][0]) == images[3].tobytes()


def test_a_repeated_source_begins_again():
    source = PhotoSource((8, 6), count=3)
    longer = RepeatedSource(source, 8)
    assert len(longer) == 8
    assert longer[7][0].tobytes() == source[1][0].tobytes()
    assert longer.identities()[1].tolist() == [0, 1, 0, 0, 1, 0, 0, 1]
    assert longer.describe(4) == source.describe(1)
    assert longer.size_of(5) == source.size_of(2)


class Clock:
    """Time that passes only where the test says so, in seconds of the clock and of the processor."""

    def __init__(self) -> None:
        self.now = 50.0

    def process_time(self) -> float:
        return self.now

    perf_counter = process_time


@pytest.mark.parametrize("measure", ["_core_ms", "_device_ms"])
def test_a_call_is_timed_in_milliseconds_after_calls_that_warm_up(measure, monkeypatch):
    """Each call takes 8 ms, the first ones 1 s; rounds go on until 0.3 s are over, and there is one at least."""
    clock, calls, waited = Clock(), [], []
    monkeypatch.setattr(rates, "time", clock)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(len(calls)))
    slow = 2 if measure == "_core_ms" else 3

    def work(index):
        calls.append(index)
        clock.now += 1.0 if len(calls) <= slow else 0.008

    assert getattr(rates, measure)(work, 2, 0.3) == pytest.approx(8.0)
    rounds, rest = divmod(len(calls) - slow, 2 if measure == "_core_ms" else 20)
    assert (rounds, rest) == ((19, 0) if measure == "_core_ms" else (2, 0))
    assert waited == ([] if measure == "_core_ms" else [3, 23, 43])
    before = len(calls)
    assert getattr(rates, measure)(work, 2, 0.0) == pytest.approx(8.0)
    assert len(calls) - before == (4 if measure == "_core_ms" else 23)


def test_a_row_says_milliseconds_and_their_rate():
    assert rates._row("decode", 2.5) == {
        "part": "decode", "where": "core", "ms_per_image": 2.5, "images_per_s": 400.0,
    }  # fmt: skip
    assert rates._row("x", 0.123456789, "cuda")["ms_per_image"] == 0.12346


def test_timing_has_one_thread_and_gives_the_others_back():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with rates._one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_processor_time_is_that_of_this_process_and_its_children(monkeypatch):
    times = os.times_result((1.0, 20.0, 300.0, 4000.0, 9.0))
    monkeypatch.setattr(rates.os, "times", lambda: times)
    assert rates._cpu_s() == 4321.0


def test_every_round_draws_anew_and_every_timing_alike():
    def drawn():
        work = rates._seeded(lambda image: (image, random.random()), ["a", "b"])
        return [work(index) for index in (0, 1, 0, 1)]

    first = drawn()
    assert [image for image, _ in first] == ["a", "b", "a", "b"]
    assert len({number for _, number in first}) == 4
    assert drawn() == first


class Batches:
    """A loader whose batches each take 0.25 s by the clock and 0.5 s of the processors."""

    def __init__(self, source, batch, clock):
        self.batches, self.clock, self.closed = len(source) // batch, clock, False

    def __iter__(self):
        for number in range(self.batches):
            self.clock.now += 0.25
            yield number

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("workers", "seconds", "batches"), [(0, 2.0, 1 + 4), (2, 8.0, 2 + 16), (6, 0.1, 6 + 6)])
def test_the_loaders_rate_leaves_the_first_batches_out(workers, seconds, batches, monkeypatch):
    """Its processor time counts them: processes are started for them, too."""
    clock, made = Clock(), []
    monkeypatch.setattr(rates, "time", clock)
    monkeypatch.setattr(rates, "_cpu_s", lambda: 2 * clock.now)

    def make(source):
        made.append(Batches(source, 10, clock))
        return made[0]

    row = rates.loader_row(make, PhotoSource((8, 8)), 10, workers=workers, ms=100.0, seconds=seconds)
    assert (made[0].batches, made[0].closed) == (batches, True)
    assert row == {
        "part": "loader", "where": "processes", "ms_per_image": 50.0, "images_per_s": 40.0, "workers": workers,
    }  # fmt: skip
