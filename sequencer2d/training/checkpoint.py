"""A run's checkpoints: `checkpoints/step-XXXXXXXX.pt` and `last.pt`, the newest of them.

Each is written whole or not at all and loads with `weights_only=True`. Entries: `meta` (what the model is), `model`,
`model_ema`, `optimizer`, `scaler`, `progress` (where the run stands). There is no random state to keep: every step
seeds its generators from (seed, step, rank), see `training.step.seed_step`.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.files import atomic_write
from sequencer2d.models.weight_files import read_torch_file

FOLDER = "checkpoints"
LAST = "last.pt"
_STEP_FILE = re.compile(r"step-(\d+)\.pt")
_SPARE_BYTES = 64 * 2**20


def save_checkpoint(run_folder: Path, step: int, entries: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of `step`, make it `last.pt`, and remove all but the `keep` newest. Returns its path.

    Raises `CheckpointError` if it cannot be written, which leaves those before it as they were.
    """
    folder = run_folder / FOLDER
    path = folder / f"step-{step:08d}.pt"
    try:
        with atomic_write(path) as file:
            torch.save(entries, file)
        _point_last(folder, path)
        prune(run_folder, keep)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its writer
        raise CheckpointError(
            f"{path} cannot be written ({error}); those before it are whole: make room, then go on with --resume"
        ) from error
    return path


def list_checkpoints(run_folder: Path) -> list[Path]:
    """The step checkpoints of a run, oldest first."""
    folder = run_folder / FOLDER
    return sorted(path for path in folder.glob("step-*.pt") if _STEP_FILE.fullmatch(path.name))


def prune(run_folder: Path, keep: int) -> None:
    """Remove all but the `keep` newest step checkpoints, and what a killed process left half-written."""
    for path in list_checkpoints(run_folder)[:-keep]:
        path.unlink()
    for path in (run_folder / FOLDER).glob(".*.part"):
        path.unlink(missing_ok=True)


def load_last(run_folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint's entries on the CPU; None if the run has none. Raises `CheckpointError` if damaged."""
    path = run_folder / FOLDER / LAST
    if not path.exists():
        return None
    try:
        entries: dict[str, Any] = read_torch_file(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {_other_way(run_folder)}") from error
    missing = {"meta", "model", "optimizer", "progress"} - set(entries)
    if missing:
        raise CheckpointError(f"{path} cannot be resumed: it lacks {', '.join(sorted(missing))}; is it of a run?")
    return entries


def prepare_folder(run_folder: Path, resume: bool) -> None:
    """Create the run folder; refuse one that holds another run unless resuming, or that cannot be written.

    Raises `ConfigError`.
    """
    holds_run = (run_folder / "log.jsonl").exists() or (run_folder / FOLDER / LAST).exists()
    if holds_run and not resume:
        raise ConfigError(
            f"run.output={run_folder} already holds a run; continue it with --resume (run.resume=true), "
            "or give another run.output"
        )
    try:
        (run_folder / FOLDER).mkdir(parents=True, exist_ok=True)
        for folder in (run_folder, run_folder / FOLDER):
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"\0" * 4096)
    except OSError as error:
        raise ConfigError(
            f"run.output={run_folder} cannot be written ({error.strerror or error}); "
            "give a folder on a disk with space where you may write"
        ) from error


def require_space(run_folder: Path, model: nn.Module, has_average: bool, keep: int) -> None:
    """Raise `ConfigError` if the disk cannot hold the run's checkpoints: `keep` and the one being written."""
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    one = weights * (4 if has_average else 3)
    needed = one * (keep + 1) + weights + _SPARE_BYTES
    free = shutil.disk_usage(run_folder).free
    if free < needed:
        raise ConfigError(
            f"run.output={run_folder} needs {needed / 2**20:.0f} MiB for {keep} + 1 checkpoints of "
            f"{one / 2**20:.0f} MiB, and its disk has {free / 2**20:.0f} MiB free; "
            "free some, lower run.keep, or give another run.output"
        )


def _point_last(folder: Path, path: Path) -> None:
    """Make `last.pt` the same file as `path` in one step; a copy where the file system has no hard links."""
    temporary = folder / f".{LAST}.part"
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, temporary)
    temporary.replace(folder / LAST)


def _other_way(run_folder: Path) -> str:
    others = [other.name for other in list_checkpoints(run_folder)]
    hint = f"copy another over it ({', '.join(others)}), or start again" if others else "start again"
    return f"{hint} in another run.output"
