"""Which files are images: one rule for every verb, and a count of what it leaves out.

Folders are searched to any depth, through links as well. Left out are hidden names, folders that operating systems and
tools make, files that are no images by their suffix, and links that lead back to a folder that is searched already.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from sequencer2d.data.images import EXTENSIONS, readable_extensions, remedy
from sequencer2d.errors import DataError

logger = logging.getLogger(__name__)

SYSTEM_NAMES = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that no user made: of macOS's archives, Synology's thumbnails, Windows and Linux file systems."""

HIDDEN, SYSTEM, OTHER = "hidden", "of the system", "no images by their suffix"
LINKED_TWICE, DEAD, IRREGULAR = "folders linked twice", "links to nothing", "no regular files"

FolderId = tuple[int, int]
"""Device and inode of a folder, the same through every link."""


class LeftOut:
    """What a search left out, by reason: a number and the first few names."""

    def __init__(self) -> None:
        self._names: defaultdict[str, list[str]] = defaultdict(list)
        self._counts: defaultdict[str, int] = defaultdict(int)

    def add(self, reason: str, name: str) -> None:
        """Count one file or folder."""
        self._counts[reason] += 1
        if len(self._names[reason]) < 3:
            self._names[reason].append(name)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        """ "2 hidden (.a.png, .cache), 1 no images by their suffix (notes.txt)"."""
        parts = []
        for reason, count in self._counts.items():
            more = ", …" if count > len(self._names[reason]) else ""
            parts.append(f"{count:,} {reason} ({', '.join(self._names[reason])}{more})")
        return "; ".join(parts)

    def report(self, where: str | os.PathLike[str]) -> None:
        """Log a warning if anything was left out."""
        if self:
            logger.warning("left out of %s: %s", os.fspath(where), self)


def why_left_out(name: str) -> str | None:
    """Why a file or folder of this name is not looked at; None for one that is."""
    if name.startswith("."):
        return HIDDEN
    return SYSTEM if name in SYSTEM_NAMES else None


def why_no_image(name: str) -> str | None:
    """Why a file of this name is not read as an image; None for one that is."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million names
    if suffix in readable_extensions():
        return None
    return f"need {remedy(suffix)}" if suffix in EXTENSIONS else OTHER


def find_images(paths: Iterable[str | os.PathLike[str]], *, quiet: bool = False) -> list[Path]:
    """Files as they are, and for each folder the images anywhere below it, sorted.

    Args:
        paths: of files and folders.
        quiet: do not log what is left out, for a look ahead of the search whose result counts.

    Raises:
        DataError: a path that does not exist or is no regular file, a folder without images, or one that can't be read.
    """
    found: list[Path] = []
    for path in map(_given, paths):
        if path.is_dir():
            found += _find_below(path, quiet=quiet)
        elif path.is_file():
            found.append(path)
        elif path.exists():
            raise DataError(f"{path} is neither a regular file nor a folder; copy it into a file first")
        else:
            raise DataError(f"no such file or folder: {path}")
    return found


def _given(path: str | os.PathLike[str]) -> Path:
    """A path that somebody gave; an empty one would be the current folder. Raises `DataError`."""
    if not os.fspath(path):
        raise DataError("a path of images is empty; give a file or a folder ('.' for the current one)")
    refuse_url(path)
    return Path(path)


def refuse_url(path: str | os.PathLike[str]) -> None:
    """Raise `DataError` for a URL: files are read, and nothing is fetched from the network."""
    text = os.fspath(path)
    if text.startswith(("http://", "https://", "ftp://", "s3://", "gs://")):
        fetch = f"curl -LO '{text}'" if text.startswith(("http", "ftp")) else "the client of its storage"
        raise DataError(f"{text} is a URL, and only files are read; download it first ({fetch}) and name the file")


def _find_below(folder: Path, *, quiet: bool) -> list[Path]:
    left_out = LeftOut()
    below = [folder / name for name in images_below(folder, left_out)]
    if not below:
        suffixes = ", ".join(sorted(readable_extensions()))
        raise DataError(
            f"no images in {folder}; looked for {suffixes}, in folders below too"
            + (f"; left out: {left_out}" if left_out else "")
        )
    if not quiet:
        left_out.report(folder)
    return below


def images_below(folder: str | os.PathLike[str], left_out: LeftOut, known: Iterable[FolderId] = ()) -> list[str]:
    """Paths of the images anywhere below a folder, relative to it, sorted as text.

    Args:
        folder: where to look.
        left_out: counts what is not taken.
        known: folders that a link may not lead to, beside this one and those that hold it.

    Raises:
        DataError: a folder that can't be listed.
    """
    return sorted(_walk(os.fspath(folder), left_out, {*known, *ids_of_ancestors(folder)}))


def entries_of(folder: str | os.PathLike[str], left_out: LeftOut) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """The entries of a folder that are looked at, and whether each is a folder, sorted by name.

    Raises:
        DataError: the folder can't be listed.
    """
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{os.fspath(folder)} cannot be listed: {error.strerror}") from error
    for entry in entries:
        if reason := why_left_out(entry.name) or _why_unusable(entry):
            left_out.add(reason, entry.name)
        else:
            yield entry, entry.is_dir()


def id_of(folder: str | os.PathLike[str]) -> FolderId:
    """Which folder a path leads to, whatever links it goes through."""
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def ids_of_ancestors(folder: str | os.PathLike[str]) -> set[FolderId]:
    """The folder itself and all that hold it."""
    real = Path(folder).resolve()
    return {id_of(path) for path in (real, *real.parents)}


def _walk(top: str, left_out: LeftOut, known: set[FolderId]) -> Iterator[str]:
    pending = [""]
    while pending:
        relative = pending.pop()
        links: list[str] = []
        folders: list[str] = []
        for entry, is_folder in entries_of(os.path.join(top, relative), left_out):  # noqa: PTH118 - a million names
            path = f"{relative}{os.sep}{entry.name}" if relative else entry.name
            if is_folder:
                (links if entry.is_symlink() else folders).append(path)
            elif reason := why_no_image(entry.name):
                left_out.add(reason, entry.name)
            else:
                yield path
        for path in folders + links:  # a folder counts under its own name, not under a link's
            identity = id_of(os.path.join(top, path))  # noqa: PTH118
            if identity in known:
                left_out.add(LINKED_TWICE, path)
            else:
                known.add(identity)
                pending.append(path)


def _why_unusable(entry: os.DirEntry[str]) -> str | None:
    try:
        if entry.is_dir() or entry.is_file():
            return None
    except OSError:  # a link to itself
        return DEAD
    return DEAD if entry.is_symlink() else IRREGULAR
