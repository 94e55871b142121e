"""SIGTERM, Ctrl-C and SIGUSR1: noted, so that the loop can save before it stops.

torchrun ends its processes with SIGTERM or SIGINT, also to start them again with more or fewer of them. SIGUSR1, which
schedulers send before a job's time is over, comes from outside and stops the run.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_BY_LAUNCHER = (signal.SIGTERM, signal.SIGINT)
_STOPS = (*_BY_LAUNCHER, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))  # Windows has none


class StopSignals:
    """While entered, the first of the signals only sets `received`; a second one does what it did before.

    Python delivers signals to the main thread; entered in another thread, this changes nothing.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def by_launcher(self) -> bool:
        """Whether the signal is one with which torchrun ends its processes."""
        return self.received in [number.name for number in _BY_LAUNCHER]

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in _STOPS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)
