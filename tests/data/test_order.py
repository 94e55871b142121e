"""Folders are read in the order of their names, whatever the order in which the file system lists them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sequencer2d.data.finding import find_images
from sequencer2d.data.folders import FolderSource
from sequencer2d.data.survey import splits_of
from tests.data.images import make_folder


@pytest.fixture(params=["as they come", "reversed"])
def listing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to list a folder, sorted or reversed."""
    backwards = request.param == "reversed"

    def ordered(found: Iterator[Any], key: Any = str) -> Iterator[Any]:
        return iter(sorted(found, key=key, reverse=backwards))

    iterdir, rglob, listdir, walk = Path.iterdir, Path.rglob, os.listdir, os.walk
    monkeypatch.setattr(Path, "iterdir", lambda self: ordered(iterdir(self)))
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: ordered(rglob(self, pattern)))
    monkeypatch.setattr(os, "listdir", lambda path=".": list(ordered(iter(listdir(path)))))

    def walked(top: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        for folder, folders, files in walk(top, *arguments, **options):
            folders.sort(reverse=backwards)
            yield folder, folders, sorted(files, reverse=backwards)

    monkeypatch.setattr(os, "walk", walked)


def test_images_come_in_the_order_of_their_names(listing: None, tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"val": {"b": 2, "a": 3}, "train": {"b": 1, "a": 1}})
    source = FolderSource(root, "val")
    expected = [f"a/{number:03d}.png" for number in range(3)] + [f"b/{number:03d}.png" for number in range(2)]
    assert source.class_names == ("a", "b")
    assert [str(Path(source.describe(i)).relative_to(root / "val")) for i in range(len(source))] == expected
    assert [str(path.relative_to(root / "val")) for path in find_images([root / "val"])] == expected
    assert splits_of(root) == ("train", "val")
