"""Processes that share one device: they build and compile side by side, and one alone is timed.

Compiling takes most of a benchmark's time and keeps one core busy. Several processes use all cores. While one of them
is timed, the others are stopped by a signal, so they start no work on the device and take no core.
"""

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from sequencer2d.errors import ConfigError

SETTLE_S = 0.2  # what the others have sent to the device runs out meanwhile
Stop = Callable[[int, int], None]


class Turns:
    """Who does what, agreed upon in a folder that the processes share.

    Args:
        folder: of the processes that run together. What earlier ones left there is removed. None: this process has
            the device for itself.
        kill: sends a signal (process, signal).

    Raises:
        ConfigError: a folder on Windows, which cannot stop a process.
    """

    def __init__(self, folder: Path | None = None, *, kill: Stop = os.kill) -> None:
        self.folder = folder
        self._kill = kill
        if folder is not None:
            if os.name != "posix":
                raise ConfigError("processes take turns on Linux and macOS only; leave --turns out")
            folder.mkdir(parents=True, exist_ok=True)
            with self._lock():  # not while another one is timed, who would not know of this process
                if not self._others():
                    for left in folder.glob("*.claim"):
                        left.unlink()
                _sign_on(folder / f"{os.getpid()}.process")

    @property
    def shared(self) -> bool:
        """Whether there may be others."""
        return self.folder is not None

    def claim(self, what: object) -> bool:
        """Whether this process is the first to ask for `what`, and so the one that does it."""
        if self.folder is None:
            return True
        name = hashlib.sha256(str(what).encode()).hexdigest()[:16]
        try:
            (self.folder / f"{name}.claim").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    @contextlib.contextmanager
    def beside_others(self) -> Iterator[None]:
        """For preparing. Where there are others, cuDNN times no algorithms: it would time the others' work too."""
        before = torch.backends.cudnn.benchmark
        if self.shared:
            torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """For timing. Waits until no other process is timed, and stops the others until the end."""
        if self.folder is None:
            yield
            return
        with self._lock():
            others = [process for process in self._others() if self._send(process, signal.SIGSTOP)]
            try:
                if others:
                    time.sleep(SETTLE_S)
                yield
            finally:
                for process in others:
                    self._send(process, signal.SIGCONT)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        import fcntl  # which Windows lacks

        assert self.folder is not None
        with (self.folder / "turn.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _others(self) -> list[int]:
        """The other processes that have signed on and live."""
        import fcntl

        assert self.folder is not None
        found = []
        for path in self.folder.glob("*.process"):
            with path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    found.append(int(path.stem))
                else:
                    path.unlink()
        return sorted({*found} - {os.getpid()})

    def _send(self, process: int, number: int) -> bool:
        try:
            self._kill(process, number)
        except ProcessLookupError:
            return False
        return True


def _sign_on(path: Path) -> None:
    """Lock a file as long as this process lives: its number alone may later be another program's."""
    import fcntl

    file = os.open(path, os.O_RDWR | os.O_CREAT)  # left open: closing it would unlock it
    with contextlib.suppress(BlockingIOError):  # this process has signed on before
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
