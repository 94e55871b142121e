"""Which files are exported artifacts. Needs no torch, so that a path is checked before torch is loaded."""

import os
from pathlib import Path

from sequencer2d.errors import CheckpointError

SUFFIXES = (".pt2", ".onnx", ".xml", ".html")


def is_artifact(source: str | os.PathLike[str]) -> bool:
    """Whether a path is named like an exported artifact."""
    return Path(source).suffix in SUFFIXES


def check_artifact(path: str | os.PathLike[str]) -> None:
    """Raise `CheckpointError` if there is no file at the path of an artifact."""
    if not Path(path).is_file():
        raise CheckpointError(f"no artifact at {os.fspath(path)!r}: expected a file, one of {', '.join(SUFFIXES)}")
