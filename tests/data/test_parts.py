"""Images held out of a training split: a share of each class, the same ones every time."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sequencer2d.data.config import DataConfig
from sequencer2d.data.folders import FolderSource
from sequencer2d.data.opening import open_split
from sequencer2d.data.own_folder import copies, look_into, open_parts, refuse_shared_images
from sequencer2d.data.parts import hold_out
from sequencer2d.data.survey import splits_of
from sequencer2d.errors import ConfigError, DataError


def make_photos(folder: Path, counts: dict[str, int], size: tuple[int, int] = (12, 8)) -> Path:
    """A folder of classes; each image has the color of its class, with noise."""
    random = np.random.default_rng(0)
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
            pixels[..., number % 3] += 180
            Image.fromarray(pixels).save(folder / name / f"{index:03d}.png")
    return folder


def names(source) -> set[str]:
    return {source.describe(index) for index in range(len(source))}


def test_a_share_of_each_class_is_held_out(tmp_path: Path) -> None:
    source = FolderSource(make_photos(tmp_path, {"a": 20, "b": 10, "c": 2}), "")
    kept, held = hold_out(source, 0.2, seed=0)
    assert np.bincount(kept.identities()[1]).tolist() == [16, 8, 1]
    assert np.bincount(held.identities()[1]).tolist() == [4, 2, 1]
    assert names(kept) | names(held) == names(source)
    assert not names(kept) & names(held)
    assert held[0][1] == 0
    assert held.class_names == ("a", "b", "c")
    assert held.size_of(0) == Path(held.describe(0)).stat().st_size
    assert np.bincount(hold_out(source, 0.9, seed=0)[0].identities()[1]).tolist() == [2, 1, 1], "one is always kept"


def test_the_same_images_are_held_out_until_the_seed_changes(tmp_path: Path) -> None:
    folder = make_photos(tmp_path, {"a": 40, "b": 40})
    first = names(hold_out(FolderSource(folder, ""), 0.25, seed=0)[1])
    assert names(hold_out(FolderSource(folder, ""), 0.25, seed=0)[1]) == first
    assert names(hold_out(FolderSource(folder, ""), 0.25, seed=1)[1]) != first
    Image.new("RGB", (4, 4)).save(folder / "a" / "new.png")
    assert len(first ^ names(hold_out(FolderSource(folder, ""), 0.25, seed=0)[1])) <= 2


def test_a_class_of_one_image_is_refused(tmp_path: Path) -> None:
    source = FolderSource(make_photos(tmp_path, {"a": 3, "b": 1}), "")
    with pytest.raises(DataError, match=r"classes of a single image, .*: b; add images"):
        hold_out(source, 0.2, seed=0)


def test_splits_are_found_in_any_case(tmp_path: Path) -> None:
    for split, count in (("Train", 4), ("Valid", 2)):
        make_photos(tmp_path / split, {"red": count, "green": count})
    found = look_into(tmp_path)
    assert (found.train_split, found.val_split, found.counts) == ("Train", "Valid", (4, 4))
    assert splits_of(tmp_path) == ("Train", "Valid")
    assert len(FolderSource(tmp_path, "val")) == 4
    make_photos(tmp_path / "train", {"red": 5, "green": 5})
    assert look_into(tmp_path).train_split == "train"


def test_copies_across_splits_are_found_by_their_bytes(tmp_path: Path) -> None:
    train = make_photos(tmp_path / "train", {"red": 4, "green": 4})
    val = make_photos(tmp_path / "val", {"green": 2, "red": 2}, (10, 8))
    assert copies(*open_parts(tmp_path)) == []
    shutil.copy(train / "red" / "002.png", val / "green" / "other name.png")
    assert copies(*open_parts(tmp_path)) == [str(val / "green" / "other name.png")]


def test_both_splits_of_a_configuration_are_parts(tmp_path: Path) -> None:
    make_photos(tmp_path, {"a": 10, "b": 10})
    config = DataConfig(source=str(tmp_path), train_split="", val_fraction=0.2)
    train, val = open_split(config, ""), open_split(config, "val")
    assert (len(train), len(val)) == (16, 4)
    assert not names(train) & names(val)
    with pytest.raises(ConfigError, match="both are 'x'"):
        DataConfig(train_split="x", val_split="x", val_fraction=0.2)


def test_a_folder_is_understood(tmp_path: Path) -> None:
    plain = look_into(make_photos(tmp_path / "plain", {"a": 3, "b": 5}))
    assert (plain.train_split, plain.val_split, plain.counts) == ("", None, (3, 5))
    assert (plain.side, plain.pixels) == (8, 96)
    make_photos(tmp_path / "split" / "train", {"a": 3, "b": 5})
    make_photos(tmp_path / "split" / "test", {"a": 1, "b": 1})
    assert look_into(tmp_path / "split").val_split is None, "test images choose no weights"
    make_photos(tmp_path / "split" / "valid", {"a": 1, "b": 1})
    assert (look_into(tmp_path / "split").train_split, look_into(tmp_path / "split").val_split) == ("train", "valid")
    with pytest.raises(DataError, match="is missing; give a folder of class folders"):
        look_into(tmp_path / "nothing")


def test_images_of_both_splits_are_found_through_links(tmp_path: Path) -> None:
    train = FolderSource(make_photos(tmp_path / "a", {"a": 3, "b": 3}), "")
    refuse_shared_images(train, FolderSource(make_photos(tmp_path / "b", {"a": 3, "b": 3}), ""))
    (tmp_path / "c").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match="6 of the 6 images to validate on are trained on as well"):
        refuse_shared_images(train, FolderSource(tmp_path / "c", ""))


@pytest.mark.parametrize(
    ("images", "fraction", "held"),
    [(2, 0.01, 1), (2, 0.9, 1), (10, 0.24, 2), (10, 0.26, 3), (10, 0.99, 9), (3, 0.5, 2)],
)
def test_each_class_keeps_an_image_and_gives_one(tmp_path: Path, images: int, fraction: float, held: int) -> None:
    source = FolderSource(make_photos(tmp_path / "x", {"a": images, "b": 10}), "")
    train, val = hold_out(source, fraction, seed=1)
    assert sum(train[index][1] == 0 for index in range(len(train))) == images - held
    assert sum(val[index][1] == 0 for index in range(len(val))) == held
