"""Rates of the input: what a step costs is found where it is spent, and the loader is timed with all its processes."""

import time

import numpy as np
import pytest
import torch
from PIL import Image

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
