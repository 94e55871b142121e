"""What a table is made of: columns, how values are written, and which rows of which result it shows."""

from collections.abc import Callable
from typing import Any, NamedTuple

Row = dict[str, Any]


class Column(NamedTuple):
    """A column: the row's key, the title in the table, and how a value is written."""

    key: str
    title: str
    write: Callable[[Any], str] = str


class View(NamedTuple):
    """A table that shows part of a result file: the file's name, the columns, and what makes rows of the file's.

    `script` writes the file, given with its arguments; by default it is named like the file. With `leave_out_empty`,
    columns without any value are left out.
    """

    result: str
    columns: tuple[Column, ...]
    rows: Callable[[list[Row]], list[Row]]
    script: str | None = None
    leave_out_empty: bool = False


def fixed(digits: int) -> Callable[[float], str]:
    """A number with `digits` decimals and thousands separated: 12,345.6."""
    return lambda value: f"{value:,.{digits}f}"


def measured(write: Callable[[Any], str]) -> Callable[[Any], str]:
    """A value, or a dash for None, which stands for what was not measured."""
    return lambda value: "–" if value is None else write(value)


def millions(value: int) -> str:
    return f"{value / 1e6:.1f} M"


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def percent(value: float) -> str:
    """A share from 0 to 1."""
    return f"{100 * value:.1f} %"
