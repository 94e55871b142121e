"""`log.jsonl`, the log of a run: written line by line, read again by resuming, curves and evaluation.

`log.jsonl` holds one JSON object per line. Kinds:

* `"step"`: `step` (optimizer steps done), `epoch` (fraction), `loss` (mean since the last such line, over all
  processes), `lr`, `images_per_s`, `memory_mib`, `time_s` (of the run's calls so far), `grad_norm` with clipping.
* `"epoch"`: `step`, `epoch` (epochs done), `train_loss`, `time_s`, and after an evaluation the task's metrics, null if
  not finite; for classification `top1` and `top5` (%) and `val_loss`.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from sequencer2d.errors import ConfigError
from sequencer2d.files import atomic_write, parse_json

logger = logging.getLogger(__name__)

LOG = "log.jsonl"
NUMBERS: dict[str, tuple[str, ...]] = {
    "step": ("step", "epoch", "loss", "lr"),
    "epoch": ("step", "epoch", "train_loss"),
}
"""Kinds of entries, and the finite numbers that each must have. Every other entry is a number, or null."""
_LONGEST_LINE = 2**16


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's `log.jsonl`. Lines that are no entries are left out, and a warning counts them.

    The last line is not counted: a killed process may have left it unfinished.
    """
    path = folder / LOG
    if not path.exists():
        return []
    entries, bad = _parse(path)
    if bad:
        logger.warning("%s: %d lines are no entries of a log and are left out, line %d first", path, len(bad), bad[0])
    return entries


def check_entry(kind: str, entry: dict[str, Any], name: str, required: tuple[str, ...] = ()) -> None:
    """Raise `ConfigError` unless `entry` holds the numbers of an entry of the log of this kind."""
    for key in (*NUMBERS[kind], *required):
        if not _is_number(entry.get(key)):
            raise ConfigError(f"{name}: {key} must be a finite number, got {str(entry.get(key))[:50]!r}")
    for key, value in entry.items():
        if key != "kind" and value is not None and not _is_number(value):
            raise ConfigError(f"{name}: {str(key)[:50]} must be a finite number or null, got {str(value)[:50]!r}")
    if not 0 <= entry["step"] == int(entry["step"]):
        raise ConfigError(f"{name}: step must be a whole number, got {entry['step']}")


def _parse(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The entries, and the numbers of the lines that are none, less the last line."""
    entries: list[dict[str, Any]] = []
    bad: list[int] = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_json(line) if len(line) < _LONGEST_LINE else None
            if not isinstance(entry, dict) or entry.get("kind") not in NUMBERS:
                raise ValueError
            check_entry(entry["kind"], entry, LOG)
            entries.append(entry)
        except (ValueError, TypeError):
            if line.strip() and number < len(lines):
                bad.append(number)
    return entries, bad


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def keep_until(path: Path, step: int, done_epochs: int | None) -> list[dict[str, Any]]:
    """Drop what the run will write again: the lines after `step`, and epochs that are not done. What stays.

    A log with damaged lines is kept beside the new one.
    """
    if not path.exists():
        return []
    entries, bad = _parse(path)
    if bad:
        copy = path.with_suffix(".damaged.jsonl")
        shutil.copyfile(path, copy)
        logger.warning("%s had %d damaged lines, line %d first; a copy is %s", path, len(bad), bad[0], copy.name)
    kept = [
        entry
        for entry in entries
        if entry["step"] <= step and (entry["kind"] != "epoch" or done_epochs is None or entry["epoch"] <= done_epochs)
    ]
    with atomic_write(path, "w") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in kept)
    return kept
