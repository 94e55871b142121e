"""A terminal of a certain width around a real process, and what a person sees in it."""

import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

_TOKEN = re.compile(r"\x1b\[(?P<numbers>[?\d;]*)(?P<command>[A-Za-z])|(?P<text>.)", re.DOTALL)


class Terminal:
    """Runs a command in a terminal of `columns` columns; `shown` is all that it wrote."""

    def __init__(self, command: list[str], columns: int, folder: Path, environment: dict[str, str]) -> None:
        self.columns, self.shown = columns, ""
        self._screen, there = pty.openpty()
        ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", **environment}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, cwd=folder, env=environment,
            preexec_fn=lambda: _own_terminal(there),
        )  # fmt: skip
        os.close(there)

    def wait_for(self, condition: Callable[[str], bool], timeout_s: float = 90.0) -> None:
        """Read until `condition(shown)` holds or the process has ended."""
        end = time.monotonic() + timeout_s
        while not condition(self.shown):
            assert time.monotonic() < end, f"timed out; shown: {self.shown[-2000:]}"
            if not self._read():
                break

    def type(self, keys: bytes) -> None:
        """Type into the terminal; b"\\x03" is Ctrl-C."""
        os.write(self._screen, keys)

    def finish(self) -> int:
        """Read what is left; the exit code."""
        self.wait_for(lambda _: False)
        os.close(self._screen)
        return self.process.wait(60)

    def lines(self) -> list[str]:
        """The lines as they stand in the end."""
        return screen(self.shown, self.columns)

    def _read(self) -> bool:
        if not select.select([self._screen], [], [], 0.2)[0]:
            return self.process.poll() is None
        try:
            received = os.read(self._screen, 65536)
        except OSError:  # nobody holds the other end any more
            return False
        self.shown += received.decode(errors="replace")
        return bool(received)


def screen(shown: str, columns: int) -> list[str]:
    """What stands in the lines of a terminal after `shown`: text, line breaks, and the codes that rich writes."""
    lines, row, column = [""], 0, 0
    for token in _TOKEN.finditer(shown):
        text, command = token["text"], token["command"]
        if command == "K":
            lines[row] = "" if token["numbers"] == "2" else lines[row][:column]
        elif command == "A":
            row = max(0, row - int(token["numbers"] or 1))
        elif text == "\n":
            row += 1
        elif text == "\r":
            column = 0
        elif text:
            if column == columns:
                row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + 1 :]
            column += 1
        lines += [""] * (row + 1 - len(lines))
    return [line.rstrip() for line in lines]


def _own_terminal(there: int) -> None:
    os.setsid()
    ioctl(there, termios.TIOCSCTTY, 0)
