"""Files: written whole or not at all."""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sequencer2d.terminal import to_json

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

JSON_LIMIT = 64 * 2**20
JSON_DEPTH = 64
_TOO_DEEP = f"it is nested deeper than {JSON_DEPTH} levels"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it over `path` when the block ends without an error.

    A reader sees the old content or the new one, also after a crash. `mode` is "wb" or "w" (UTF-8).
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_parts(target.parent, target.name)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            _lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~_umask())
            Path(temporary).replace(target)  # while it is locked, so that nobody takes it for a leftover
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def sweep_parts(folder: Path, name: str = "") -> None:
    """Remove the temporary files of `atomic_write` that killed writers left in `folder`.

    A writer holds a lock on its file, which the system releases when it dies; the files of living writers stay. With
    `name`, only what was to become the file of this name.
    """
    with os.scandir(folder) as entries:
        parts = [entry.path for entry in entries if entry.name.startswith(f".{name}") and entry.name.endswith(".part")]
    for part in parts:
        with contextlib.suppress(OSError), open(part, "rb") as file:  # noqa: PTH123 - a path as text
            if _lock(file.fileno()):
                os.unlink(part)  # noqa: PTH108


def _lock(descriptor: int) -> bool:
    """Lock an open file; whether nobody else holds it. False where the file system or Python has no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. NaN and infinities are refused: they are not JSON."""
    with atomic_write(path, "w") as file:
        file.write(to_json(value, allow_nan=False) + "\n")  # bytes of a name that are no UTF-8 come back, too


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a UTF-8 JSON file. Raises `OSError`, or `ValueError` as `parse_json`."""
    return parse_json(Path(path).read_bytes())


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that somebody else wrote.

    Raises:
        ValueError: no JSON (NaN and infinities are none), longer than 64 MiB, or nested deeper than 64 levels.
    """
    if len(text) > JSON_LIMIT:
        raise ValueError(f"{len(text):,} bytes of JSON are too many; at most {JSON_LIMIT:,} are read")
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite_float)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(value)
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large a number")
    return value


def _check_depth(value: Any) -> None:
    """Raise `ValueError` where what uses the value could run out of stack."""
    level = [value]
    for _ in range(JSON_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
