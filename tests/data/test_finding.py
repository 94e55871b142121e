"""One rule for which files are images, whichever verb looks for them."""

import logging
import os
from pathlib import Path

import pytest

from sequencer2d.data import finding
from sequencer2d.data.finding import LeftOut, find_images, images_below
from sequencer2d.data.folders import FolderSource
from sequencer2d.data.opening import check_several_classes
from sequencer2d.errors import DataError
from tests.data.images import make_folder, picture


def save(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path, "PNG")


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """root/train/{cat,dog} with three images each and everything that people's folders hold besides."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    save(cat / "1.png", cat / "deep" / "2.JFIF", cat / "3.mpo", dog / "1.png", dog / "2.tif", outside / "3.png")
    (dog / "linked").symlink_to(outside)
    (cat / "self").symlink_to(cat)
    (cat / "up").symlink_to(root)
    (cat / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (cat / "loop.png").symlink_to(cat / "loop.png")
    (root / "train" / "everything").symlink_to(root)
    save(cat / "._1.png", cat / ".ipynb_checkpoints" / "1-checkpoint.png", dog / "__MACOSX" / "1.png")
    save(root / "train" / ".hidden" / "x.png", root / "train" / "loose.png")
    (dog / "notes.txt").write_text("no image")
    os.mkfifo(dog / "pipe.png")
    return root


FOUND = ["cat/1.png", "cat/3.mpo", "cat/deep/2.JFIF", "dog/1.png", "dog/2.tif", "dog/linked/3.png"]


def test_training_and_prediction_find_the_same_images(messy: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = FolderSource(messy)
    assert source.class_names == ("cat", "dog")
    assert source.paths() == FOUND
    assert [source[index][1] for index in range(6)] == [0, 0, 0, 1, 1, 1]
    found = [str(path.relative_to(messy)) for path in find_images([messy])]
    assert found == sorted([*(f"train/{path}" for path in FOUND), "train/loose.png"])
    assert [path.relative_to(messy / "train" / "cat") for path in find_images([messy / "train" / "cat"])] == [
        Path(path[4:]) for path in FOUND[:3]
    ]


def test_what_is_left_out_is_counted_and_said(messy: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        FolderSource(messy)
    (message,) = caplog.messages
    assert message.startswith(f"left out of {messy}/train: ")
    for part in (
        "3 hidden (.hidden, ._1.png, .ipynb_checkpoints)",
        "1 of the system (__MACOSX)",
        "1 no images by their suffix (notes.txt)",
        "3 folders linked twice (everything, self, up)",
        "2 links to nothing (dead.png, loop.png)",
        "1 no regular files (pipe.png)",
        "1 files beside the class folders (loose.png)",
    ):
        assert part in message
    caplog.clear()
    save(messy / "clean" / "a" / "1.png", messy / "clean" / "b" / "1.png")
    FolderSource(messy, "clean")
    assert not caplog.messages


def test_a_folder_counts_under_its_own_name_before_a_link(tmp_path: Path) -> None:
    save(tmp_path / "real" / "1.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    left_out = LeftOut()
    assert images_below(tmp_path, left_out) == ["real/1.png"]
    assert str(left_out) == "1 folders linked twice (link)"


def test_many_links_among_many_folders_take_no_longer(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(12)]
    for folder in folders:
        save(folder / "1.png")
    for folder in folders:
        for other in folders:
            (folder / f"to{other.name}").symlink_to(other)
    assert len(find_images([tmp_path])) == 12


def test_a_suffix_without_a_decoder_is_left_out_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "readable_extensions", lambda: frozenset({".png"}))
    monkeypatch.setattr(finding, "remedy", lambda suffix: "pip install pillow-heif")
    save(tmp_path / "1.png", tmp_path / "2.heic")
    left_out = LeftOut()
    assert images_below(tmp_path, left_out) == ["1.png"]
    assert str(left_out) == "1 need pip install pillow-heif (2.heic)"


def test_folders_without_images_say_what_they_hold(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a" / "1.png", tmp_path / "train" / "b" / ".1.png")
    with pytest.raises(DataError, match=r"classes without images \(1 of 2\): b; .*left out: 1 hidden \(\.1\.png\)"):
        FolderSource(tmp_path)
    with pytest.raises(DataError, match=r"no images in .*; left out: 1 hidden"):
        find_images([tmp_path / "train" / "b"])


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="neither a regular file nor a folder"):
        find_images([tmp_path / "pipe.png"])


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a" / "1.png", tmp_path / "b" / "1.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if os.fspath(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="b cannot be listed: Permission denied"):
        find_images([tmp_path])


def test_one_folder_cannot_be_two_classes(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": {"cat": 1, "dog": 1}})
    (tmp_path / "train" / "katze").symlink_to(tmp_path / "train" / "cat")
    with pytest.raises(DataError, match=r"'cat' and 'katze' .* are one folder"):
        FolderSource(tmp_path)


def test_splits_are_no_classes(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": {"cat": 1, "dog": 1}, "val": {"cat": 1, "dog": 1}})
    with pytest.raises(DataError, match=r"\(train, val\) are splits, not classes"):
        FolderSource(tmp_path, "")


def test_a_single_class_is_refused_with_the_folders_that_may_be_meant(tmp_path: Path) -> None:
    make_folder(tmp_path / "deep" / "train", {"images": {"cat": 1, "dog": 1}})
    with pytest.raises(DataError, match=r"single class, 'images'.*If the classes are the folders in .*\(cat, dog\)"):
        check_several_classes(FolderSource(tmp_path / "deep"))
    make_folder(tmp_path / "flat", {"train": {"cat": 2}})
    with pytest.raises(DataError, match=r"single class, 'cat'.*expected several folders"):
        check_several_classes(FolderSource(tmp_path / "flat"))
    make_folder(tmp_path / "two", {"train": {"cat": 1, "dog": 1}})
    check_several_classes(FolderSource(tmp_path / "two"))


def test_names_that_are_not_utf8_are_found_and_read(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": {"a": 1}})
    folder = os.fsencode(tmp_path) + b"/train/caf\xe9"
    save(Path(os.fsdecode(folder + b"/\xff.png")))
    source = FolderSource(tmp_path)
    assert os.fsencode(source.class_names[1]) == b"caf\xe9"
    assert source[1][0].size == (12, 10)
