"""What reaches a terminal: text without control characters, and consoles that write nothing else.

Class names come from checkpoints and file names from disks of others. A name can hold escape sequences that recolor,
overwrite or retitle a terminal, marks that turn the reading direction round, and bytes that are no UTF-8.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# C0 and C1 controls, line separators, marks of direction, the byte order mark, and halves of surrogate pairs, as which
# Python keeps bytes that are no UTF-8. Joiners stay: Persian, Hindi and emoji need them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: object) -> str:
    """The text with every character that acts on a terminal as its escape: `\\x1b`, `\\n`, `\\u202e`."""
    return _UNSAFE.sub(lambda match: _escaped(match[0]), str(text))


def printable_lines(text: object) -> str:
    """As `printable`, for text of several lines of our own making: line breaks stay."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def to_json(value: Any, *, indent: int | None = 2, ascii_only: bool = False, allow_nan: bool = True) -> str:
    """JSON that any terminal shows as it is, and any reader of JSON reads back as `value`.

    Raises `ValueError` for NaN and infinities unless they are allowed.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=allow_nan)
    return "\n".join(_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line) for line in text.split("\n"))


def write(text: object, *, error: bool = False) -> None:
    """Print text to standard output, or to standard error."""
    print(_encodable(printable_lines(text), error), file=sys.stderr if error else sys.stdout, flush=True)


def write_json(value: Any) -> None:
    """Print a value as JSON to standard output, in ASCII where the terminal has no UTF-8."""
    print(to_json(value, ascii_only=not _is_utf8(sys.stdout)))  # noqa: T201


def console(*, error: bool = False, **options: Any) -> Console:
    """A console of rich's that escapes whatever is printed on it. Options as `rich.console.Console`."""
    made: Console = _console_class()(stderr=error, **options)
    return made


def plain_table(*columns: str, **options: Any) -> Table:
    """A table without lines or margins, with bold headings. Columns and options as `rich.table.Table`.

    A cell that is wider than there is room goes on in the next line: nothing of it is lost.
    """
    from rich.table import Column, Table

    look: dict[str, Any] = {"box": None, "pad_edge": False, "header_style": "bold"}
    folded = (Column(name, overflow="fold") for name in columns)
    return Table(*folded, **look, title_justify="left", title_style="bold", **options)


EVERY_PROCESS = {"every_process": True}
"""As `extra` of a log message: what it says differs between the processes of a run, so each of them shows it."""


class LogHandler(logging.Handler):
    """Writes log messages to standard error, each as one line of printable text.

    Args:
        level: the least severe messages that are written.
        first: whether this is the first of the processes that run together; the others write only messages that are
            marked with `EVERY_PROCESS`, since all else is the same in each of them.
    """

    def __init__(self, level: int = logging.WARNING, *, first: bool = True) -> None:
        super().__init__(level)
        self.addFilter(lambda record: first or getattr(record, "every_process", False))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        write(printable(self.format(record)), error=True)


def install_log_handler(*, first: bool = True) -> None:
    """Give the package's logger a `LogHandler`, once, so that its warnings reach the terminal escaped."""
    logger = logging.getLogger("sequencer2d")
    if not any(isinstance(handler, LogHandler) for handler in logger.handlers):
        logger.addHandler(LogHandler(first=first))


@functools.cache
def _console_class() -> type[Console]:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PrintableConsole(Console):
        def on_broken_pipe(self) -> None:
            # rich would end the process with code 1. The command line has a code for it.
            raise

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                # rich's own cursor movements are control segments; its colors are styles, not text.
                if segment.control or not _UNSAFE.search(segment.text):
                    yield segment
                else:
                    yield Segment(printable_lines(segment.text), segment.style)

    return PrintableConsole


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _encodable(text: str, error: bool) -> str:
    encoding = getattr(sys.stderr if error else sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _is_utf8(stream: Any) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") in ("utf8", "utf_8")
