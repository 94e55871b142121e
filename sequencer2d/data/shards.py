"""WebDataset shards: tar files that hold `<key>.<extension>` members, read with random access.

timm's and webdataset's own readers stream: their order depends on the number of workers and cannot be continued at any
image. A tar file is not compressed, so an index of its members makes each image one seek away.
"""

import glob
import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sequencer2d.data.images import EXTENSIONS, UPRIGHT, BrokenImageError, Decoding, decode
from sequencer2d.data.sources import SPLIT_ALIASES, shorten
from sequencer2d.errors import DataError

CLASS_FILES = ("classes.txt", "classnames.txt")


class TarSource:
    """Images in the shards of one split.

    A sample is the members of one key: an image (`.jpg`, `.png`, …) and its class's number as text (`.cls`), or a
    `.json` with the number under `label`. Names of the classes stand one a line in `classes.txt` or `classnames.txt`
    beside the shards; without it they are called by number.

    Args:
        pattern: a folder that holds <split>.tar, <split>-*.tar or <split>/*.tar; or the path of the shards, with
            `{split}` or the split's name in it, ranges such as `{0000..0146}`, and `*`.
        split: its name, or one of its aliases; "" for whatever the pattern names.
        decoding: how image files become pixels.

    Raises:
        DataError: no such shards, not tar files, or samples without a class.
    """

    def __init__(self, pattern: str, split: str = "train", decoding: Decoding = UPRIGHT) -> None:
        self.decoding = decoding
        self.paths = find_shards(pattern, split)
        members = [_index(path, number) for number, path in enumerate(self.paths)]
        self._places = np.concatenate([places for places, _, _ in members])
        self._targets = np.concatenate([targets for _, targets, _ in members])
        self._keys = np.concatenate([keys for _, _, keys in members])
        if not len(self._places):
            raise DataError(f"no images in {shorten([str(path) for path in self.paths], 3)}")
        names = _class_names(self.paths[0].parent)
        self.classes_inferred = names is None
        count = int(self._targets.max()) + 1
        self.class_names = names if names is not None else tuple(str(number) for number in range(count))
        if count > len(self.class_names):
            raise DataError(
                f"class {count - 1} stands in the shards, but {self.paths[0].parent} names only "
                f"{len(self.class_names)} classes"
            )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        shard, offset, size = self._places[index].tolist()
        try:
            with self.paths[shard].open("rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise BrokenImageError(str(error)) from error
        return decode(content, self.decoding), int(self._targets[index])

    def describe(self, index: int) -> str:
        """Shard and key of the image."""
        return f"{self.paths[self._places[index][0]]}:{self._keys[index].decode()}"

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """Keys, and targets."""
        return self._keys.tolist(), self._targets

    def size_of(self, index: int) -> int:
        """Bytes of the image's member."""
        return int(self._places[index][2])


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
        found = sorted({Path(match) for text in expanded for match in glob.glob(text)})  # noqa: PTH207 - absolute patterns
        missing = [text for text in expanded if not glob.has_magic(text) and not Path(text).exists()]
        if found and missing and not folder:
            raise DataError(f"{len(missing)} of {len(expanded)} shards are missing: {shorten(missing, 3)}")
        if found:
            return found
    raise DataError(f"no shards for the split {split!r} match wds:{pattern}")


def _mentions(pattern: str, split: str) -> bool:
    """Whether the split's name is a word of the file's name, or the name of its folder."""
    path = Path(pattern)
    return split in ("", path.parent.name) or bool(re.search(rf"(?<![a-z]){re.escape(split)}(?![a-z])", path.name))


def _below(folder: str, split: str) -> list[str]:
    names = (f"{split}.tar", f"{split}-*.tar", f"{split}/*.tar") if split else ("*.tar",)
    return [f"{folder}/{name}" for name in names]


def expand_ranges(pattern: str) -> list[str]:
    """`a-{00..02}.tar` → a-00.tar, a-01.tar, a-02.tar; several ranges multiply."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not match:
        return [pattern]
    first, last = match.groups()
    numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return [
        rest for number in numbers for rest in expand_ranges(pattern[: match.start()] + number + pattern[match.end() :])
    ]


def _index(path: Path, shard: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (N, 3: shard, offset, bytes), targets (N,) and keys (N,) of one shard's images."""
    images: dict[str, tuple[int, int]] = {}
    targets: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if not member.isfile() or name.startswith("."):
                    continue
                if f".{extension.lower()}" in EXTENSIONS:
                    images[key] = member.offset_data, member.size
                elif extension in ("cls", "json"):
                    _read_target(archive, path, member, key, targets)
    except tarfile.TarError as error:
        raise DataError(f"{path} is not an uncompressed tar file, or is cut short: {error}") from error
    unlabelled = sorted(images.keys() - targets.keys())
    if unlabelled:
        raise DataError(
            f"{len(unlabelled)} images in {path} have no class (.cls, or label in .json): {shorten(unlabelled)}"
        )
    places = np.array([(shard, *place) for place in images.values()], dtype=np.int64).reshape(-1, 3)
    keys = np.array([key.encode() for key in images], dtype=bytes)
    return places, np.array([targets[key] for key in images], dtype=np.int64), keys


def _read_target(
    archive: tarfile.TarFile, path: Path, member: tarfile.TarInfo, key: str, targets: dict[str, int]
) -> None:
    file = archive.extractfile(member)
    text = file.read().decode() if file else ""
    try:
        if member.name.endswith(".cls"):
            targets[key] = int(text)
        elif "label" in (content := json.loads(text)):
            targets.setdefault(key, int(content["label"]))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: the class in {member.name} is not a number ({error})") from error
    if targets.get(key, 0) < 0:
        raise DataError(f"{path}: the class in {member.name} is {targets[key]}; expected 0 or more")


def _class_names(folder: Path) -> tuple[str, ...] | None:
    for name in CLASS_FILES:
        if (folder / name).is_file():
            return tuple((folder / name).read_text(encoding="utf-8").splitlines())
    return None
