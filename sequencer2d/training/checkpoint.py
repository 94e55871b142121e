"""A run's checkpoints: `checkpoints/step-XXXXXXXX.pt` and `last.pt`, the newest of them.

Each is written whole or not at all and loads with `weights_only=True`. Entries: `meta` (what the model is), `model`,
`model_ema`, `optimizer`, `scaler`, `progress` (where the run stands), `data` (fingerprints of the images). There is no
random state to keep: every step seeds its generators from (seed, step, rank), see `seeds.seed_step`.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.files import atomic_write, sweep_parts
from sequencer2d.models.weight_files import check_weights, read_torch_file
from sequencer2d.training.progress import Progress, read_progress

FOLDER = "checkpoints"
LAST = "last.pt"
_STEP_FILE = re.compile(r"step-(\d+)\.pt")


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
    sweep_parts(run_folder / FOLDER)


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from; weights and states on the CPU, not yet compared with the run's model."""

    path: Path
    meta: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    progress: Progress
    model_ema: dict[str, Tensor] | None
    data: dict[str, Any] | None
    """Fingerprints of the data under `train` and `val`; None in checkpoints of earlier versions."""


def load_last(run_folder: Path) -> Checkpoint | None:
    """The newest checkpoint; None if the run has none. Raises `CheckpointError` if it is damaged or not of a run."""
    path = run_folder / FOLDER / LAST
    if not path.exists():
        return None
    try:
        return _checked(path, read_torch_file(path))
    except (CheckpointError, ConfigError) as error:
        reason = error if isinstance(error, CheckpointError) else f"{path} cannot be resumed: {error}"
        raise CheckpointError(f"{reason}; {_other_way(run_folder)}") from error


def _checked(path: Path, content: Any) -> Checkpoint:
    if not isinstance(content, dict):
        raise ConfigError(f"it holds a {type(content).__name__}; is it of a run?")
    missing = [name for name in ("meta", "model", "optimizer", "progress") if name not in content]
    if missing:
        raise ConfigError(f"it lacks {', '.join(missing)}; is it of a run?")
    for name in ("meta", "model", "optimizer", "scaler", "model_ema", "data"):
        if name in content and not isinstance(content[name], dict):
            raise ConfigError(f"its {name} is a {type(content[name]).__name__}, not a dictionary")
    for name in ("model", "model_ema"):
        state = content.get(name, {})
        if not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ConfigError(f"its {name} holds more than tensors")
        check_weights(state, path)
    return Checkpoint(
        path=path,
        meta=content["meta"],
        model=content["model"],
        optimizer=content["optimizer"],
        scaler=content.get("scaler", {}),
        progress=read_progress(content["progress"]),
        model_ema=content.get("model_ema"),
        data=content.get("data"),
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
