"""Images per second of training, without evaluation and start-up."""

import time
from typing import Any


class Speedometer:
    """Counts optimizer steps while it runs. `batch`: images per step, over all processes."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._steps, self._seconds = 0, 0.0
        self._running_since: float | None = None
        self._mark: tuple[float, int] = (0.0, 0)

    def start(self) -> None:
        """Let the clock run."""
        self._running_since = time.monotonic()
        self._mark = (self._elapsed(), self._steps)

    def pause(self) -> None:
        """Stop the clock."""
        self._seconds, self._running_since = self._elapsed(), None

    def count(self) -> None:
        """One step is done."""
        self._steps += 1

    def recent(self) -> float:
        """Images/s since the last call or start."""
        (seconds, steps), self._mark = self._mark, (self._elapsed(), self._steps)
        return (self._steps - steps) * self._batch / max(self._elapsed() - seconds, 1e-9)

    def overall(self) -> float | None:
        """Images/s of the whole run; None before the first step."""
        return self._steps * self._batch / max(self._elapsed(), 1e-9) if self._steps else None

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"steps": self._steps, "seconds": self._elapsed()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._steps, self._seconds = state["steps"], state["seconds"]

    def _elapsed(self) -> float:
        running = 0.0 if self._running_since is None else time.monotonic() - self._running_since
        return self._seconds + running
