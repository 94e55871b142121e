"""A run's folder: created, held by one run at a time, and watched while the run writes into it."""

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from torch import nn

from sequencer2d.errors import ConfigError, RunError
from sequencer2d.files import sweep_parts
from sequencer2d.training.checkpoint import FOLDER, LAST
from sequencer2d.training.logfile import LOG
from sequencer2d.training.runfiles import CONFIG

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_SPARE_BYTES = 64 * 2**20
_held: set[Path] = set()
"""Folders of this process's runs: the system's locks exclude other processes only."""


class RunFolder:
    """The folder `path`, from `open` to the end of the `with` block.

    The lock is one of POSIX: it ends with the process, however that ends, and worker processes do not inherit it. (A
    worker would hold an inherited lock for seconds after its training process was killed.)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._key: Path | None = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._key is not None:
            _held.discard(self._key)
            self._key = None

    def open(self, resume: bool | Literal["auto"]) -> None:
        """Create the folder, take its lock and remove what a killed run left half-written.

        Raises:
            RunError: a run to resume that is not there, or a folder that another run uses.
            ConfigError: a folder that holds a run which is not to be resumed, or that cannot be written.
        """
        if resume is True and not _holds_run(self.path, CONFIG, FOLDER):
            raise RunError(
                f"there is no run in {self.path} to go on with; give the folder of a run, start one without --resume, "
                "or set run.resume=auto, which goes on where there is a run and starts one where there is none"
            )
        self._create()
        self._take_lock()
        if not resume and _holds_run(self.path, LOG, f"{FOLDER}/{LAST}"):
            raise ConfigError(
                f"run.output={self.path} already holds a run; continue it with --resume (run.resume=true), "
                "or give another run.output"
            )
        for folder in (self.path, self.path / FOLDER):
            sweep_parts(folder)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Wrap what writes into the folder. Raises `RunError` if the folder was removed, or cannot be written."""
        self.require()
        try:
            yield
        except OSError as error:
            self.require()
            raise RunError(
                f"cannot write into {self.path} ({error.strerror or error}); the checkpoints there are whole: put "
                "this right, then go on with --resume"
            ) from error

    def require(self) -> None:
        """Raise `RunError` if the folder is no longer the one that was opened. Only where it was opened."""
        if self._lock is None:
            return
        try:
            there: Any = (self.path / LOCK).stat()
        except OSError:
            there = None
        own = os.fstat(self._lock)
        if there is None or (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            raise RunError(
                f"{self.path} was removed or replaced while the run wrote into it; what it held is lost: start again"
            )

    def require_space(self, model: nn.Module, has_average: bool, keep: int) -> None:
        """Raise `ConfigError` if the disk cannot hold the run's checkpoints: `keep` and the one being written."""
        weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
        one = weights * (4 if has_average else 3)
        needed = one * (keep + 1) + weights + _SPARE_BYTES
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise ConfigError(
                f"run.output={self.path} needs {needed / 2**20:.0f} MiB for {keep} + 1 checkpoints of "
                f"{one / 2**20:.0f} MiB, and its disk has {free / 2**20:.0f} MiB free; "
                "free some, lower run.keep, or give another run.output"
            )

    def _create(self) -> None:
        try:
            (self.path / FOLDER).mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.path / FOLDER):
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(b"\0" * 4096)
        except OSError as error:
            raise ConfigError(
                f"run.output={self.path} cannot be written ({error.strerror or error}); "
                "give a folder on a disk with space where you may write"
            ) from error

    def _take_lock(self) -> None:
        key = self.path.resolve()
        if key in _held:
            raise RunError(_in_use(self.path, "this process"))
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = _read_holder(descriptor)
            os.close(descriptor)
            raise RunError(_in_use(self.path, holder)) from None
        except OSError:
            pass  # A file system without locks: nothing can be known, and nothing is promised.
        _held.add(key)
        self._lock, self._key = descriptor, key
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode(), 0)


def _holds_run(folder: Path, *names: str) -> bool:
    return any((folder / name).exists() for name in names)


def _in_use(folder: Path, holder: str) -> str:
    return f"{folder} is in use by another run ({holder}); wait for it or stop it, or give another run.output"


def _read_holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {int(holder['process'])} on {str(holder['host'])[:100]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"
