"""The live bar of a run: one line at the bottom of a terminal, at any width."""

import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text
from torch import Tensor

from sequencer2d.training.messages import duration_text

_SECONDS_BETWEEN_READINGS = 0.5
_STEPS_OF_A_RATE = 32
_ECHO = 3
"""Columns that stay free for the ^C that a terminal prints for Ctrl-C, which must not break the line."""
_GAP = "  "
_BAR = " " * 8
"""What is left of the bar in a very narrow terminal."""
_WIDEST = 40


class _Line(Live):
    """A live line that is taken off whole after its terminal was made narrower.

    Nearly all terminals then break the line that stands there into several, with the cursor behind the last one; rich
    would take off that one alone. Xterm and the console of Linux cut lines off instead: there is nothing to do.
    """

    drawn = 0
    """Columns of the line that stands in the terminal."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What is printed instead of `renderables`: first what takes the line off."""
        processed = super().process_renderables(renderables)
        above = _broken_into(self.drawn, self.console.width) - 1
        if above < 1:
            return processed
        return [Control(*(((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)) * above)), *processed]


def _broken_into(columns: int, width: int) -> int:
    """The lines of a terminal into which it breaks a line of `columns` columns when it becomes `width` wide."""
    cuts = "XTERM_VERSION" in os.environ or os.environ.get("TERM") == "linux"
    return 1 if cuts else max(1, -(-columns // max(1, width)))


class LiveBar:
    """Where the run stands: epoch, loss, learning rate, images/s, memory, time left, or what it does beside training.

    What does not fit the terminal's width is left out, the least important first, so the bar is always one line. The
    loss is that of the latest step in this process, read twice a second, so that the device hardly ever waits for it.

    Args:
        console: the terminal.
        total_steps: of the run.
        first_step: steps done where the run goes on.
        steps_per_epoch: optimizer steps of an epoch.
        batch: images of a step over all processes.
        memory: MiB held so far.
        stopping: whether the run was told to stop.
    """

    def __init__(
        self,
        console: Console,
        *,
        total_steps: int,
        first_step: int,
        steps_per_epoch: int,
        batch: int,
        memory: Callable[[], float],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._total, self._step, self._steps_per_epoch, self._batch = total_steps, first_step, steps_per_epoch, batch
        self._memory, self._stopping = memory, stopping
        self._doing = "first step"
        self._lr: float | None = None
        self._loss: float | None = None
        self._read_at = -math.inf
        self._recent: deque[tuple[float, int]] = deque(maxlen=_STEPS_OF_A_RATE)
        self._first: tuple[float, int] | None = None
        self._live = _Line(self, console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def advance(self, step: int, loss: Tensor, lr: float) -> None:
        """Show step `step` as done. Its loss is a 0-d tensor on the device."""
        now = time.monotonic()
        self._step, self._lr, self._doing = step, lr, ""
        self._recent.append((now, step))
        self._first = self._first or (now, step)  # the first step warms up: it does not count for the time that is left
        if now - self._read_at >= _SECONDS_BETWEEN_READINGS:
            self._loss, self._read_at = loss.item(), now

    def show(self, doing: str) -> None:
        """Say what the run does until the next step."""
        self._doing = doing
        self._recent.clear()

    def stop(self) -> None:
        """Remove the bar from the terminal."""
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = self._line(max(1, options.max_width - _ECHO), ascii_only=options.ascii_only)
        self._live.drawn = len(line)
        yield line

    def _line(self, width: int, *, ascii_only: bool) -> Text:
        parts = _fitting(self._parts(), width)
        room = width - sum(map(len, parts)) - len(_GAP) * (len(parts) - 1)
        line = Text(no_wrap=True, overflow="crop", end="")
        for number, text in enumerate(parts):
            line.append(_GAP if number else "")
            if text == _BAR:
                _append_bar(line, min(len(_BAR) + room, _WIDEST), self._step / self._total, ascii_only)
            else:
                line.append(text)
        return line

    def _parts(self) -> list[tuple[int, str]]:
        """What may be shown, from left to right, each with its rank: 0 is left out last."""
        doing = "stopping after this step" if self._stopping() else self._doing
        epoch = f"epoch {min(self._step, self._total - 1) // self._steps_per_epoch + 1}"
        parts: list[tuple[int, str | None]] = [
            (0, f"{epoch}/{self._total // self._steps_per_epoch}"),
            (4, _BAR),
            (1, doing),
            (6, f"step {self._step}/{self._total}"),
            (2, None if self._loss is None else f"loss {self._loss:.4f}"),
            (7, None if self._lr is None else f"lr {self._lr:.2e}"),
            (5, self._rate_text()),
            (8, f"{self._memory():,.0f} MiB"),
            (3, self._time_text()),
        ]
        return [(rank, text) for rank, text in parts if text]

    def _rate_text(self) -> str | None:
        if len(self._recent) < 2:
            return None
        (then, first), (now, last) = self._recent[0], self._recent[-1]
        return f"{(last - first) * self._batch / max(now - then, 1e-9):,.0f} images/s"

    def _time_text(self) -> str | None:
        """The time left, evaluations included."""
        if self._first is None or self._step <= self._first[1]:
            return None
        then, first = self._first
        seconds = (time.monotonic() - then) / (self._step - first) * (self._total - self._step)
        return f"{duration_text(seconds)} left"


def _fitting(parts: list[tuple[int, str]], width: int) -> list[str]:
    """The texts that fit into `width` with gaps between them, in their order. Those of the lowest ranks are kept."""
    kept: set[int] = set()
    used = -len(_GAP)
    for rank, text in sorted(parts):
        used += len(text) + len(_GAP)
        if used > width and kept:
            break
        kept.add(rank)
    return [text[:width] for rank, text in parts if rank in kept]


def _append_bar(line: Text, width: int, share: float, ascii_only: bool) -> None:
    full, empty = ("#", ".") if ascii_only else ("━", "━")
    done = round(width * min(share, 1.0))
    line.append(full * done, style="bar.complete")
    line.append(empty * (width - done), style="bar.back")


def bar_of(**facts: Any) -> Callable[[Console], LiveBar]:
    """Makes the bar once its console is known; `facts` as for `LiveBar`."""
    return lambda console: LiveBar(console, **facts)
