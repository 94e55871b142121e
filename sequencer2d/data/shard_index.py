"""The index of one shard: where its images lie in the file, and the class of each.

A shard may come from strangers. Nothing in it is believed beyond the file's own size, and every number has a bound.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sequencer2d.data.finding import LeftOut, why_left_out, why_no_image
from sequencer2d.data.sources import shorten
from sequencer2d.errors import DataError

LARGEST_CLASS = 2**31 - 1
_LARGEST_LABEL_FILE = 2**20
_LARGEST_IMAGE = 2**29
_LINK, _SPARSE, _HUGE, _SECOND = "links", "sparse members", "images above 512 MiB", "further images of a sample"
_NO_IMAGE = "classes without an image"
_NUMBER = re.compile(r"\s*\+?([0-9]{1,10})\s*")

Index = tuple[np.ndarray, np.ndarray, np.ndarray]
Place = tuple[int, int]


def index_shard(path: Path, shard: int, left_out: LeftOut) -> Index:
    """Index a shard, uncompressed tar.

    Args:
        path: of the shard.
        shard: its number, which stands in every place.
        left_out: counts members that are not taken.

    Returns:
        places: int64 (N, 3): shard, offset, bytes.
        targets: int64 (N,).
        keys: bytes (N,).

    Raises:
        DataError: no tar file, or cut short; an image without a class, or two of one sample; a class that is no number.
    """
    images: dict[str, Place] = {}
    targets: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in _members(archive, path):
                _take(archive, path, member, images, targets, left_out)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # tarfile lets through whatever damaged headers raise in the codecs and in arithmetic
        raise DataError(f"{path} is not an uncompressed tar file, or is damaged or cut short: {error}") from error
    return _labeled(path, shard, images, targets, left_out)


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The members, as long as they follow each other in the file: damaged sizes can lead back, and round for ever."""
    end, size = -1, path.stat().st_size
    for member in archive:
        if member.offset < end or member.offset_data < member.offset or member.size < 0:
            raise DataError(f"{path} is damaged: its members overlap at byte {member.offset}")
        if member.isreg() and not member.issparse() and member.offset_data + member.size > size:
            raise DataError(f"{path} is not an uncompressed tar file, or is cut short: {member.name} goes past its end")
        end = member.offset_data
        yield member


def _take(
    archive: tarfile.TarFile,
    path: Path,
    member: tarfile.TarInfo,
    images: dict[str, Place],
    targets: dict[str, int],
    left_out: LeftOut,
) -> None:
    name = member.name
    stem, _, extension = name.rpartition(".")
    if member.isdir():
        return
    is_label = extension.lower() in ("cls", "json")
    if reason := _why_not_taken(member, is_label):
        left_out.add(reason, name)
    elif is_label:
        _read_target(archive, path, member, stem, targets)
    elif name in images:
        raise DataError(f"{path} holds {name} twice; write the shard anew")
    else:
        images[name] = member.offset_data, member.size


def _why_not_taken(member: tarfile.TarInfo, is_label: bool) -> str | None:
    parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
    if not parts:
        return "without a name"
    for part in parts:
        if reason := why_left_out(part):
            return reason
    if not member.isreg():
        return _LINK
    if member.issparse():
        return _SPARSE
    if is_label:
        return None
    return why_no_image(parts[-1]) or (_HUGE if member.size > _LARGEST_IMAGE else None)


def _labeled(path: Path, shard: int, images: dict[str, Place], targets: dict[str, int], left_out: LeftOut) -> Index:
    """The images that have a class, each sample once."""
    taken: dict[str, str] = {}
    unlabeled = []
    for name in sorted(images, key=_dots_of_file):  # `a.png` before `a.mask.png`, which is a further image of sample a
        own = name.rpartition(".")[0]
        key = next((key for key in _keys_of(name) if key in targets), None)
        if key is None:
            unlabeled.append(own)
        elif key not in taken:
            taken[key] = name
        elif key == own:
            raise DataError(f"{path}: the sample {key} has two images, {taken[key]} and {name}; expected one")
        else:
            left_out.add(_SECOND, name)
    if unlabeled:
        raise DataError(
            f"{len(unlabeled)} images in {path} have no class (.cls, or label in .json): {shorten(sorted(unlabeled))}"
        )
    for key in targets.keys() - taken.keys():
        left_out.add(_NO_IMAGE, key)
    order = {name: place for place, name in enumerate(images)}
    keys = sorted(taken, key=lambda key: order[taken[key]])
    places = np.array([(shard, *images[taken[key]]) for key in keys], dtype=np.int64).reshape(-1, 3)
    names = np.array([os.fsencode(key) for key in keys], dtype=bytes)
    return places, np.array([targets[key] for key in keys], dtype=np.int64), names


def _keys_of(name: str) -> Iterator[str]:
    """Keys that a file may belong to, the longest first: `b/x.1.png` to `b/x.1`, then to webdataset's `b/x`."""
    folder, slash, file = name.rpartition("/")
    parts = file.split(".")
    for count in range(len(parts) - 1, 0, -1):
        yield folder + slash + ".".join(parts[:count])


def _dots_of_file(name: str) -> int:
    return name.rpartition("/")[2].count(".")


def _read_target(
    archive: tarfile.TarFile, path: Path, member: tarfile.TarInfo, key: str, targets: dict[str, int]
) -> None:
    if member.size > _LARGEST_LABEL_FILE:
        raise DataError(f"{path}: {member.name} has {member.size:,} bytes; expected a class's number in a small file")
    file = archive.extractfile(member)
    content = file.read() if file else b""
    try:
        if member.name.lower().endswith(".cls"):
            targets[key] = _class_number(content.decode("utf-8-sig"))
        else:
            fields = json.loads(content)
            if isinstance(fields, dict) and "label" in fields:
                targets.setdefault(key, _class_number(fields["label"]))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the class in {member.name} is not a number ({error})") from error
    if targets.get(key, 0) < 0 or targets.get(key, 0) > LARGEST_CLASS:
        raise DataError(f"{path}: the class in {member.name} is {targets[key]}; expected 0 to {LARGEST_CLASS}")


def _class_number(value: object) -> int:
    """A class as its number: an integer, a float that is one, or its digits. Raises `ValueError` for anything else."""
    if isinstance(value, bool):
        raise ValueError("true or false")
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (match := _NUMBER.fullmatch(value)):
        return int(match[1])
    if isinstance(value, str) and re.fullmatch(r"\s*-[0-9]{1,10}\s*", value):
        return int(value)
    raise ValueError(f"{value!r:.60}")
