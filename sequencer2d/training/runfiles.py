"""`config.json` of a run: written with the version of its meaning, checked and brought up to date when read."""

import dataclasses
from pathlib import Path
from typing import Any

from sequencer2d.errors import ConfigError, RunError
from sequencer2d.files import read_json, write_json
from sequencer2d.training import history
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import to_dict
from sequencer2d.training.history import VERSION

CONFIG = "config.json"
_MOST_BYTES = 2**20
_SECTIONS = {"run", "schedule", "optimizer"}


def write_config(run_folder: Path, config: TrainConfig) -> None:
    """Write `config.json`, without the limits of this call, which are no part of the run."""
    write_json(run_folder / CONFIG, {"version": VERSION, **to_dict(without_limits(config))})


def read_config(run_folder: Path) -> TrainConfig:
    """The configuration that a run was started with. Raises `RunError` if there is none or it is damaged."""
    try:
        return history.read_config(read_stored(run_folder))
    except ConfigError as error:
        raise RunError(f"{run_folder / CONFIG} cannot be used: {error}") from error


def read_stored(run_folder: Path) -> dict[str, Any]:
    """`config.json` as it stands there. Raises `RunError` if there is none or it holds no dictionary."""
    path = run_folder / CONFIG
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RunError(f"{path} is no configuration: {path.stat().st_size:,} bytes, expected a few thousand")
        values = read_json(path)
    except FileNotFoundError:
        raise RunError(f"{run_folder} is no run's folder: it holds no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); restore it, or name the recipe to go on") from error
    if not isinstance(values, dict):
        raise RunError(f"{path} holds a {type(values).__name__}; expected the configuration of a run")
    return values


def find_config(folder: Path) -> TrainConfig | None:
    """The configuration of the run in `folder`; None if it holds none, or only another program's `config.json`.

    Raises `RunError` if it is damaged.
    """
    if not (folder / CONFIG).is_file():
        return None
    ours = "version" in (stored := read_stored(folder)) or not _SECTIONS.isdisjoint(stored)
    return read_config(folder) if ours else None


def without_limits(config: TrainConfig) -> TrainConfig:
    """`config` without what ends a call before the run's end."""
    return dataclasses.replace(config, run=dataclasses.replace(config.run, max_steps=None, time_limit_s=None))
