"""What is found in a folder of images: counts, and everything that is wrong with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sequencer2d.data.survey import ImageFacts, Survey, _oddities, facts_of, kind_of, splits_of, summary, survey
from sequencer2d.errors import DataError
from tests.data.test_parts import make_photos


def look(folder: Path) -> Survey:
    total, images, splits = survey(folder)
    found = Survey(folder, splits, tuple(images))
    assert len(found.images) == total
    return found


def test_a_folder_without_faults_is_clean(tmp_path: Path) -> None:
    found = look(make_photos(tmp_path / "photos", {"a": 3, "b": 5}))
    assert (found.splits, found.counts("")) == (("",), {"a": 3, "b": 5})
    assert found.is_clean
    assert not found.odd
    said = summary(found)
    assert said["sizes_px"] == {"median": [12, 8], "shortest_side": 8, "longest_side": 12}
    assert (said["modes"], said["formats"], said["clean"]) == ({"RGB": 8}, {"PNG": 8}, True)


def test_copies_are_found_by_their_pixels_and_told_apart_by_where_they_stand(tmp_path: Path) -> None:
    train = make_photos(tmp_path / "train", {"a": 4, "b": 4})
    (tmp_path / "val").mkdir()
    for name in ("a", "b"):
        (tmp_path / "val" / name).mkdir()
        Image.effect_noise((12, 8), 90 if name == "a" else 40).convert("RGB").save(tmp_path / "val" / name / "new.png")
    Image.open(train / "a" / "000.png").save(tmp_path / "val" / "a" / "renamed.bmp")
    shutil.copy(train / "a" / "001.png", train / "b" / "other.png")
    shutil.copy(train / "b" / "002.png", train / "b" / "twice.png")
    found = look(tmp_path)
    assert found.splits == ("train", "val")
    kinds = {kind_of(group): [Path(image.path).name for image in group] for group in found.duplicates}
    assert kinds == {
        "splits": ["000.png", "renamed.bmp"],
        "classes": ["001.png", "other.png"],
        "within": ["002.png", "twice.png"],
    }
    assert not found.is_clean


def test_a_turned_array_of_the_same_bytes_is_no_copy(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels.reshape(8, 4, 3)).save(tmp_path / "high.png")
    wide, high = (facts_of(str(tmp_path / name)) for name in ("wide.png", "high.png"))
    assert wide.digest != high.digest


def test_broken_and_odd_images_are_told_with_the_reason(tmp_path: Path) -> None:
    folder = make_photos(tmp_path, {"a": 9, "b": 9}, (40, 30))
    whole = (folder / "a" / "000.png").read_bytes()
    (folder / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "a" / "not.jpg").write_bytes(whole)
    Image.effect_noise((200, 40), 90).save(folder / "b" / "long.png")
    Image.effect_noise((6, 6), 90).save(folder / "b" / "small.png")
    Image.new("RGB", (40, 30), "navy").save(folder / "b" / "blank.png")
    found = look(folder)
    assert [Path(image.path).name for image in found.broken] == ["cut.png"]
    odd = {Path(image.path).name: reason for image, reason in found.odd}
    assert odd == {
        "not.jpg": "named .jpg, but holds PNG",
        "long.png": "200×40 pixels: over 3 times as long as wide",
        "small.png": "shorter side of 6 pixels, the median is 30",
        "blank.png": "a single color",
    }
    assert summary(found)["modes"] == {"RGB": 20, "L": 2}


def test_everything_that_is_found_is_written_down(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "photos", {"a": 3, "b": 3}, (40, 30))
    (folder / "b" / "cut.png").write_bytes(b"no image")
    shutil.copy(folder / "a" / "000.png", folder / "a" / "again.png")
    Image.new("RGB", (40, 30), "navy").save(folder / "b" / "blank.PNG")
    found = look(folder)
    assert json.loads(json.dumps(summary(found))) == {
        "folder": str(folder),
        "splits": {"": {"a": 4, "b": 5}},
        "images": 9,
        "sizes_px": {"median": [40, 30], "shortest_side": 30, "longest_side": 40},
        "modes": {"RGB": 8},
        "formats": {"PNG": 8},
        "missing_classes": {},
        "untrainable": [],
        "broken": [{"path": str(folder / "b" / "cut.png"), "error": found.broken[0].error}],
        "duplicates": [{"across": "within", "paths": [str(folder / "a" / "000.png"), str(folder / "a" / "again.png")]}],
        "odd": [{"path": str(folder / "b" / "blank.PNG"), "reason": "a single color"}],
        "clean": False,
    }


@pytest.mark.parametrize(
    ("size", "usual", "gray", "odd"),
    [
        ((90, 30), 30, 2.0, 0), ((91, 30), 30, 2.0, 1), ((30, 30), 120, 2.0, 0), ((30, 30), 121, 2.0, 1),
        ((120, 120), 30, 2.0, 0), ((121, 121), 30, 2.0, 1), ((30, 30), 30, 1.9, 1),
    ],
)  # fmt: skip
def test_images_are_odd_beyond_the_limits_and_not_at_them(
    size: tuple[int, int], usual: float, gray: float, odd: int
) -> None:
    image = ImageFacts("x.PNG", "", "a", None, size, "RGB", "PNG", b"", gray)
    assert len(list(_oddities(image, usual))) == odd


def test_classes_that_a_split_lacks(tmp_path: Path) -> None:
    make_photos(tmp_path / "train", {"a": 2, "b": 2})
    (tmp_path / "test" / "a").mkdir(parents=True)
    Image.effect_noise((12, 8), 50).save(tmp_path / "test" / "a" / "x.png")
    assert look(tmp_path).missing_classes() == {"train": [], "test": ["b"]}


def test_classes_may_have_the_names_of_splits(tmp_path: Path) -> None:
    make_photos(tmp_path, {"test": 2, "cat": 2})
    assert splits_of(tmp_path) == ("",)
    (tmp_path / "train").mkdir()
    assert splits_of(tmp_path) == ("train", "test")
    with pytest.raises(DataError, match="is missing; give a folder"):
        splits_of(tmp_path / "none")
