"""Going on with a run: is it the same run, and what of its checkpoint is taken over."""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sequencer2d.data.fingerprint import difference
from sequencer2d.data.opening import split_spec
from sequencer2d.errors import CheckpointError, ConfigError, DataError
from sequencer2d.tasks.task import Metric
from sequencer2d.training.checkpoint import Checkpoint
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import differences, value_at
from sequencer2d.training.history import fields_without_past, notices
from sequencer2d.training.optim import load_optimizer_state
from sequencer2d.training.runfiles import CONFIG, read_config, read_stored
from sequencer2d.training.state import RunState
from sequencer2d.training.step import TrainStep

logger = logging.getLogger(__name__)

FREE = (
    "run.",
    "distributed.",
    "data.source",
    "data.workers",
    "data.prefetch",
    "data.cache",
    "data.root",
    "data.shard_cache",
    "data.fetch_",
    "data.train_split",
    "data.val_split",
    "data.download",
    "data.max_broken",
    "model.checkpoint",
    "model.pretrained",
)
"""Fields that a resumed run may change. The place of the data is free: their fingerprint must be the same."""
RESULTS = ("run.epochs", "run.seed")
"""Fields of `FREE` that it may not change."""


def check_same_config(run_folder: Path, config: TrainConfig) -> None:
    """Raise `ConfigError` unless `config` agrees with the run's `config.json` in all that changes its results."""
    if not (run_folder / CONFIG).exists():
        return
    stored, then = read_stored(run_folder), read_config(run_folder)
    changed = set(differences(then, config)) - set(fields_without_past(stored))
    wrong = sorted(name for name in changed if name in RESULTS or not name.startswith(FREE))
    if split_spec(then.data.source)[0] != split_spec(config.data.source)[0]:
        wrong.append("data.source")
    if wrong:
        said = "; ".join(f"{name} was {value_at(then, name)}, now {value_at(config, name)}" for name in wrong)
        raise ConfigError(
            f"the run in {run_folder} was started with another {', '.join(wrong)} ({said}); resume it with the same, "
            "or give another run.output"
        )
    for notice in notices(stored, config):
        logger.warning("%s was started by an earlier version, which %s", run_folder, notice)


def check_same_data(last: Checkpoint, data: dict[str, Any], class_names: tuple[str, ...]) -> None:
    """Raise `DataError`, naming the difference, unless the run's data are those that its checkpoint was made with.

    Args:
        last: the checkpoint.
        data: the fingerprints of now, under `train` and `val`.
        class_names: the classes of now.
    """
    names = last.meta.get("class_names")
    if last.data is None and names and list(names) != list(class_names):
        raise DataError(_other_data(last.path, f"classes then: {_few(names)}; now: {_few(class_names)}"))
    if last.data is None:
        logger.warning(
            "%s is of an earlier version and does not say which images it was trained on: names of classes and steps "
            "of an epoch are all that can be compared",
            last.path,
        )
        return
    for split, now in data.items():
        if text := difference(last.data.get(split), now):
            raise DataError(_other_data(last.path, f"{split} data: {text}"))


def check_progress(last: Checkpoint, state: RunState, decides: Metric, folder: Path) -> None:
    """Raise `CheckpointError` unless a checkpoint's progress fits the run.

    Args:
        last: the checkpoint.
        state: the run at its beginning.
        decides: the metric that chooses the best epoch, which the stored entries must have.
        folder: of the run, for messages.
    """
    progress = last.progress
    if progress.steps_per_epoch != state.steps_per_epoch or progress.step > state.total_steps:
        raise CheckpointError(
            f"the run in {folder} had {progress.steps_per_epoch} steps per epoch and is at step {progress.step}, the "
            f"data now make {state.steps_per_epoch} per epoch and {state.total_steps} in all; resume with the data of "
            "the run"
        )
    if progress.best and not isinstance(progress.best.get(decides.key), (int, float)):
        raise CheckpointError(f"{last.path} lacks the {decides.label} of its best epoch; start again")
    if progress.step == state.total_steps and progress.final and decides.key not in progress.final:
        raise CheckpointError(f"{last.path} is of the run's end, but lacks its last {decides.label}; start again")


def load_states(last: Checkpoint, step: TrainStep) -> None:
    """Take over weights and states. Raises `CheckpointError` for those of another model or configuration."""
    try:
        step.model.load_state_dict(last.model)
        load_optimizer_state(step.optimizer, last.optimizer)
        _check_scaler(last.scaler)
        step.scaler.load_state_dict(last.scaler)
        if step.average is not None:
            if last.model_ema is None:
                raise ValueError("it lacks model_ema, the averaged weights")
            step.average.module.load_state_dict(last.model_ema)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{last.path} does not fit this run: {str(error)[:1000]}") from error


def _check_scaler(state: dict[str, Any]) -> None:
    for name, value in state.items():
        if isinstance(value, Tensor):
            value = value.item() if value.numel() == 1 else math.nan
        if not isinstance(value, (int, float)) or not 0 <= value < torch.finfo(torch.float32).max:
            raise ValueError(f"the gradient scaler's {str(name)[:50]} is no number that it can have")


def _other_data(path: Path, text: str) -> str:
    return (
        f"{path} was made with other data ({text}); resume with the data of the run, or start a new run from its "
        "weights: model.checkpoint=RUN and another run.output"
    )


def _few(names: Any) -> str:
    return ", ".join(str(name)[:50] for name in list(names)[:8]) + (" …" if len(names) > 8 else "")
