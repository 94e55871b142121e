"""Where a command writes: a path that cannot be written to is a mistake, which names the path."""

import contextlib
import errno
import os
from collections.abc import Iterator

from sequencer2d.errors import InputError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a disk that is full, or read-only: nobody but the user can help, whatever was being written."""


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise `InputError` that names `path` where the block cannot write there."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror or error}; give another path") from error


def no_room(error: OSError) -> str:
    """What to say of an error of `NO_ROOM` where it is not known what the path was for."""
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"{error.strerror}{where}: make room, or write elsewhere; temporary files go where TMPDIR says, caches where "
        "XDG_CACHE_HOME, TORCHINDUCTOR_CACHE_DIR and HF_HOME say"
    )
