import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from sequencer2d.data import cache
from sequencer2d.data.cache import CachedSource
from sequencer2d.data.digits import DigitsSource
from sequencer2d.data.folders import FolderSource
from sequencer2d.data.images import BrokenImageError
from sequencer2d.data.opening import open_source
from sequencer2d.data.sources import check_same_classes
from sequencer2d.errors import DataError
from tests.data.images import break_image, make_folder, picture


def test_folder_numbers_sorted_classes_and_finds_nested_images(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": {"dog": 3, "cat": 2}})
    nested = tmp_path / "train" / "cat" / "images" / "deep"
    nested.mkdir(parents=True)
    picture(9).save(nested / "x.JPEG")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "dog" / ".thumbnail.png").write_bytes(b"")
    source = open_source("folder", "train", root=str(tmp_path))
    assert source.class_names == ("cat", "dog")
    assert [source[i][1] for i in range(len(source))] == [0, 0, 0, 1, 1, 1]
    assert source.describe(2) == str(nested / "x.JPEG")
    assert source[3][0].size == (12, 10)
    assert np.array_equal(np.asarray(source[3][0]), np.asarray(picture(0)))


def test_path_is_a_source_and_classes_may_stand_in_it(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": {"a": 1, "b": 1}})
    assert len(open_source(str(tmp_path), "train")) == 2
    assert len(open_source(str(tmp_path / "train"), "")) == 2


@pytest.mark.parametrize("folder, warned", [("val", False), ("validation", False), ("valid", False), ("test", True)])
def test_validation_goes_by_several_names(
    tmp_path: Path, folder: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    make_folder(tmp_path, {folder: {"a": 1}})
    with caplog.at_level(logging.WARNING):
        assert len(FolderSource(tmp_path, "val")) == 1
    assert ("test images" in caplog.text) == warned


def test_test_split_is_never_another_one(tmp_path: Path) -> None:
    make_folder(tmp_path, {"val": {"a": 1}})
    with pytest.raises(DataError, match=r"no folder for the split 'test'.*holds val"):
        FolderSource(tmp_path, "test")


def test_mistakes_in_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        open_source("folder", root=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"data\.root"):
        open_source("folder")
    with pytest.raises(DataError, match="unknown data source 'imagenet'"):
        open_source("imagenet")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        FolderSource(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        FolderSource(tmp_path / "file")


def test_classes_without_images_are_named(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": {"full": 1, "hollow": 0, "vacant": 0}})
    with pytest.raises(DataError, match=r"classes without images \(2 of 3\): hollow, vacant"):
        FolderSource(tmp_path)


def test_unequal_classes_of_the_splits_are_named(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": {"a": 1, "b": 1, "c": 1}, "val": {"a": 1, "b": 1, "d": 1}})
    train, val = FolderSource(tmp_path, "train"), FolderSource(tmp_path, "val")
    check_same_classes(train, train)
    with pytest.raises(DataError, match="only in training: c; only in validation: d"):
        check_same_classes(train, val)


def test_digits_are_split_once_and_for_all() -> None:
    train, test = DigitsSource("train"), DigitsSource("test")
    assert len(train) + len(test) == 1797
    assert len(test) == pytest.approx(1797 / 5, rel=0.02)
    assert train.class_names == test.class_names == tuple("0123456789")
    counts = [np.bincount([source[i][1] for i in range(len(source))], minlength=10) for source in (train, test)]
    assert counts[1] == pytest.approx(counts[0] / 4, abs=1)
    image, _ = train[0]
    assert (image.mode, image.size) == ("RGB", (8, 8))
    assert np.asarray(image).max() == 255 * 15 // 16
    assert np.array_equal(np.asarray(image), np.asarray(DigitsSource("train")[0][0]))
    with pytest.raises(DataError, match="train and val"):
        DigitsSource("dev")


@pytest.mark.parametrize("processes", [0, 2])
def test_cache_gives_what_the_source_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(cache, "_FEW", 4)
    monkeypatch.setattr(cache, "_PART", 2)
    make_folder(tmp_path, {"train": {"a": 3, "b": 2}})
    picture(5, (30, 7)).save(tmp_path / "train" / "b" / "other-size.png")
    break_image(tmp_path / "train" / "a" / "001.png")
    source = FolderSource(tmp_path)
    state = torch.get_rng_state()
    cached = CachedSource(source, processes)
    assert torch.equal(torch.get_rng_state(), state), "no number is drawn"
    assert (len(cached), cached.class_names, cached.describe(4)) == (6, ("a", "b"), source.describe(4))
    for index in (0, 2, 3, 4, 5):
        assert np.array_equal(np.asarray(cached[index][0]), np.asarray(source[index][0]))
        assert cached[index][1] == source[index][1]
    with pytest.raises(BrokenImageError):
        cached[1]
