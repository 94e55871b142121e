"""What tests of verbs ask of lines and of functions that read arguments."""

import argparse
from collections.abc import Callable
from typing import Any

import pytest


def words(line: str) -> list[str]:
    """The cells of a table's line."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def refused(read: Callable[[str], Any], *texts: str) -> None:
    """Each of the texts is no argument."""
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)
