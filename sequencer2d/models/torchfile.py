"""The one reader of torch's files: weights of others and checkpoints of our runs alike."""

import argparse
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from sequencer2d.errors import CheckpointError


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """What `torch.save` wrote, on the CPU. Nothing of the file is executed (`weights_only=True`).

    The check sums of a zip archive, the format of every torch since 1.6, are compared first: `torch.load` alone ignores
    them and returns damaged weights.

    Raises:
        CheckpointError: damaged, truncated, or holding more than tensors and plain values.
    """
    path = Path(path)
    try:
        _check_sums(path)
        # timm's and the authors' training scripts store their argparse.Namespace, which holds plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged file fails anywhere between zip, pickle and tensor, with as many types of error.
        raise CheckpointError(damaged(path, error)) from error


def damaged(path: Path, error: Exception) -> str:
    """The message for a file of weights that cannot be read."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    size = path.stat().st_size if path.exists() else 0
    return (
        f"cannot read {path} ({size} bytes): damaged, truncated or not a file of weights alone. "
        f"Copy or download it again. Reason: {reason[:200]}"
    )


def _check_sums(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (entry := archive.testzip()) is not None:
                raise ValueError(f"its entry {entry} does not match its check sum")
