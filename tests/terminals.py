"""A terminal of a certain width around a real process, and what a person sees in it."""

import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Callable
from fcntl import ioctl

from tests.processes import Call

_TOKEN = re.compile(r"\x1b\[(?P<numbers>[?\d;]*)(?P<command>[A-Za-z])|(?P<text>.)", re.DOTALL)


class Terminal:
    """A terminal of `columns` columns and the process in it; `shown` is all that it wrote.

    Args:
        start: starts the process in a terminal, whose path it gets.
        columns: the width.
    """

    def __init__(self, start: Callable[[str], Call], columns: int) -> None:
        self.screen = Screen(columns)
        self._terminal, self._there = pty.openpty()
        self._size(columns)
        self.process = start(os.ttyname(self._there))

    @property
    def shown(self) -> str:
        """All that the command wrote."""
        return self.screen.fed

    def wait_for(self, condition: Callable[[str], bool], timeout_s: float = 90.0) -> None:
        """Read until `condition(shown)` holds or the process has ended."""
        end = time.monotonic() + timeout_s
        while not condition(self.shown):
            assert time.monotonic() < end, f"timed out; shown: {self.shown[-2000:]}"
            if not self._read():
                break

    def type(self, keys: bytes) -> None:
        """Type into the terminal; b"\\x03" is Ctrl-C."""
        os.write(self._terminal, keys)

    def resize(self, columns: int) -> None:
        """Make the terminal narrower or wider; the command gets SIGWINCH."""
        while self._read(0.0):
            pass
        self.screen.resize(columns)
        self._size(columns)

    def finish(self) -> int:
        """Read what is left; the exit code."""
        self.wait_for(lambda _: False)
        os.close(self._there)
        os.close(self._terminal)
        return self.process.wait(60)

    def lines(self) -> list[str]:
        """The lines as they stand in the end."""
        return self.screen.lines()

    def _size(self, columns: int) -> None:
        ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def _read(self, wait_s: float = 0.2) -> bool:
        if not select.select([self._terminal], [], [], wait_s)[0]:
            return wait_s > 0 and self.process.poll() is None
        received = os.read(self._terminal, 65536)
        self.screen.feed(received.decode(errors="replace"))
        return bool(received)


class Screen:
    """What stands in the lines of a terminal: of text, line breaks, and the codes that rich writes.

    Like most terminals it breaks its lines anew when its width changes.
    """

    def __init__(self, columns: int) -> None:
        self.columns, self.fed = columns, ""
        self._lines, self._goes_on = [""], [False]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Show what a command writes."""
        self.fed += text
        for token in _TOKEN.finditer(text):
            self._show(token["text"], token["command"], token["numbers"])

    def resize(self, columns: int) -> None:
        """Break what stands there into lines of another width; the cursor stays behind the same letter."""
        wholes, row, goes_on = [], 0, False
        for number, line in enumerate(self._lines):
            if goes_on:
                wholes[-1] += line
            else:
                wholes.append(line)
            if number == self._row:
                row, behind = len(wholes) - 1, len(wholes[-1]) - len(line) + self._column
            goes_on = self._goes_on[number]
        self._lines, self._goes_on = [], []
        for number, whole in enumerate(wholes):
            parts = [whole[start : start + columns] for start in range(0, max(1, len(whole)), columns)]
            if number == row:
                down = min(behind // columns, len(parts) - 1)
                self._row, self._column = len(self._lines) + down, behind - down * columns
            self._lines += parts
            self._goes_on += [True] * (len(parts) - 1) + [False]
        self.columns = columns

    def lines(self) -> list[str]:
        """The lines as they stand."""
        return [line.rstrip() for line in self._lines]

    def _show(self, text: str | None, command: str | None, numbers: str | None) -> None:
        if command == "K":
            self._lines[self._row] = "" if numbers == "2" else self._lines[self._row][: self._column]
            self._goes_on[self._row] = False
        elif command == "A":
            self._row = max(0, self._row - int(numbers or 1))
        elif text == "\n":
            self._row += 1
        elif text == "\r":
            self._column = 0
        elif text:
            self._put(text)
        missing = self._row + 1 - len(self._lines)
        self._lines += [""] * missing
        self._goes_on += [False] * missing

    def _put(self, letter: str) -> None:
        if self._column >= self.columns:
            self._goes_on[self._row] = True
            self._row, self._column = self._row + 1, 0
            if self._row == len(self._lines):
                self._lines.append("")
                self._goes_on.append(False)
        line = self._lines[self._row].ljust(self._column)
        self._lines[self._row] = line[: self._column] + letter + line[self._column + 1 :]
        self._column += 1


def screen(shown: str, columns: int) -> list[str]:
    """What stands in the lines of a terminal of `columns` columns after `shown`."""
    made = Screen(columns)
    made.feed(shown)
    return made.lines()
