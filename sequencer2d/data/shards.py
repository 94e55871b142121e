"""WebDataset shards: tar files that hold `<key>.<extension>` members, read with random access.

timm's and webdataset's own readers stream: their order depends on the number of workers and cannot be continued at any
image. A tar file is not compressed, so an index of its members makes each image one seek away.
"""

import glob
import math
import re
from pathlib import Path
from typing import IO

import numpy as np

from sequencer2d.data.finding import LeftOut
from sequencer2d.data.images import UPRIGHT, Decoding
from sequencer2d.data.shard_index import index_shard
from sequencer2d.data.sharded import ShardedImages
from sequencer2d.data.sources import SPLIT_ALIASES, shorten
from sequencer2d.errors import DataError

CLASS_FILES = ("classes.txt", "classnames.txt")
MOST_UNNAMED_CLASSES = 100_000
"""A class number from here on needs a file of names: a wrong one would otherwise make as many classes."""
_MOST_SHARDS = 1_000_000
_LARGEST_CLASS_FILE = 64 * 2**20


class TarSource(ShardedImages):
    """Images in the shards of one split.

    A sample is the members of one key: an image (`.jpg`, `.png`, …) and its class's number as text (`.cls`), or a
    `.json` with the number under `label`. Keys may hold dots. Names of the classes stand one a line in `classes.txt` or
    `classnames.txt` beside the shards; without it they are called by number.

    Args:
        pattern: a folder that holds <split>.tar, <split>-*.tar or <split>/*.tar; or the path of the shards, with
            `{split}` or the split's name in it, ranges such as `{0000..0146}`, and `*`.
        split: its name, or one of its aliases; "" for whatever the pattern names.
        decoding: how image files become pixels.

    Raises:
        DataError: no such shards, not tar files, samples without a class, or classes without bound.
    """

    def __init__(self, pattern: str, split: str = "train", decoding: Decoding = UPRIGHT) -> None:
        self.paths = find_shards(pattern, split)
        left_out = LeftOut()
        members = [index_shard(path, number, left_out) for number, path in enumerate(self.paths)]
        places, targets, keys = (np.concatenate(parts) for parts in zip(*members, strict=True))
        if not len(places):
            raise DataError(
                f"no images in {shorten([str(path) for path in self.paths], 3)}"
                + (f"; left out: {left_out}" if left_out else "")
            )
        left_out.report(self.paths[0].parent)
        self.class_names, self.classes_inferred = _classes(self.paths[0].parent, int(targets.max()) + 1)
        super().__init__(places, targets, keys, decoding)

    def _open(self, shard: int) -> IO[bytes]:
        return self.paths[shard].open("rb")

    def _where(self, shard: int) -> str:
        return str(self.paths[shard])


def find_shards(pattern: str, split: str) -> list[Path]:
    """The shards of a split, sorted. Raises `DataError` if there are none, or the pattern does not say which split."""
    folder = Path(pattern).is_dir()
    names = SPLIT_ALIASES.get(split, (split,))
    if not folder and "{split}" not in pattern and not any(_mentions(pattern, name) for name in names):
        raise DataError(
            f"wds:{pattern} does not say where the split {split!r} stands; put {{split}} into the path, as in "
            "wds:images-{split}-{0000..0146}.tar, or give the folder of the shards"
        )
    for name in names:
        expanded = _below(pattern, name) if folder else expand_ranges(pattern.replace("{split}", name))
        found = sorted({path for text in expanded for path in _matching(text)})
        missing = [text for text in expanded if not glob.has_magic(text) and not Path(text).exists()]
        if found and missing and not folder:
            raise DataError(f"{len(missing)} of {len(expanded)} shards are missing: {shorten(missing, 3)}")
        if found:
            return found
    raise DataError(f"no shards for the split {split!r} match wds:{pattern}")


def _matching(text: str) -> list[Path]:
    """The files of a pattern; a name that exists is meant as it is, brackets and all."""
    if Path(text).is_file():
        return [Path(text)]
    return [Path(match) for match in glob.glob(text) if Path(match).is_file()]  # noqa: PTH207 - absolute patterns


def _mentions(pattern: str, split: str) -> bool:
    """Whether the split's name is a word of the file's name, or the name of its folder."""
    path = Path(pattern)
    return split in ("", path.parent.name) or bool(re.search(rf"(?<![a-z]){re.escape(split)}(?![a-z])", path.name))


def _below(folder: str, split: str) -> list[str]:
    names = (f"{split}.tar", f"{split}-*.tar", f"{split}/*.tar") if split else ("*.tar",)
    return [f"{glob.escape(folder)}/{name}" for name in names]


def expand_ranges(pattern: str) -> list[str]:
    """`a-{00..02}.tar` → a-00.tar, a-01.tar, a-02.tar; several ranges multiply. Raises `DataError` for a million."""
    ranges = re.findall(r"\{(\d{1,18})\.\.(\d{1,18})\}", pattern)
    if math.prod(max(0, int(last) - int(first) + 1) for first, last in ranges) > _MOST_SHARDS:
        raise DataError(f"wds:{pattern} names more than {_MOST_SHARDS:,} shards; give the range that is there")
    expanded = [pattern]
    for first, last in ranges:
        numbers = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        whole = f"{{{first}..{last}}}"
        expanded = [text.replace(whole, number, 1) for text in expanded for number in numbers]
    return expanded


def _classes(folder: Path, count: int) -> tuple[tuple[str, ...], bool]:
    """The names of the classes, of which there are at least `count`, and whether they are but numbers."""
    for name in CLASS_FILES:
        if (folder / name).is_file():
            names = _read_names(folder / name)
            if count > len(names):
                raise DataError(f"class {count - 1} stands in the shards, but {folder} names only {len(names)} classes")
            return names, False
    if count > MOST_UNNAMED_CLASSES:
        raise DataError(
            f"class {count - 1} stands in the shards, which name no classes: at most {MOST_UNNAMED_CLASSES:,} are "
            f"taken without names; correct the number, or put the names into {folder / CLASS_FILES[0]}, one a line"
        )
    return tuple(str(number) for number in range(count)), True


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        if path.stat().st_size > _LARGEST_CLASS_FILE:
            raise DataError(f"{path} is larger than {_LARGEST_CLASS_FILE // 2**20} MiB; expected a class's name a line")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error
    # Not splitlines(), which also splits at characters that may stand in a name.
    return tuple(line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n"))
