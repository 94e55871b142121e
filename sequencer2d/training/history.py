"""Runs of earlier versions: what their `config.json` lacks, and what that means for a run that goes on."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sequencer2d.data.opening import split_spec
from sequencer2d.errors import ConfigError
from sequencer2d.models.variants import VARIANTS, model_config
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import from_dict, with_overrides

VERSION = 2
"""Written into `config.json`; a new one is due when a field's meaning changes."""


class Change(NamedTuple):
    """Something that runs did otherwise before there was a certain field."""

    since: str
    """The field's path: a stored configuration without it was written before the change."""
    affects: Callable[[TrainConfig], bool]
    """Whether a run of this configuration notices."""
    before: Mapping[str, Any] = {}
    """Fields with which a run that goes on does what it did before."""
    notice: str = ""
    """The end of a sentence about the earlier version, where a run cannot go on as before."""


def _embeds_positions(config: TrainConfig) -> bool:
    name, overrides = config.model.name, config.model.overrides
    return bool(overrides.get("position_embedding", name in VARIANTS and VARIANTS[name].position_embedding))


def _does_not_fit_its_stride(config: TrainConfig) -> bool:
    """Whether convolutions would cut a part of the images off, or in other words whether `pad` matters."""
    if config.model.name not in VARIANTS:
        return False
    stride = model_config(config.model.name, **config.model.overrides).total_stride
    return any(side % stride for side in config.data.size)


def _decodes(config: TrainConfig) -> bool:
    return split_spec(config.data.source)[0] != "digits"


CHANGES = (
    Change(
        "data.mixup_group",
        lambda config: config.data.mixes,
        notice="erased images before it mixed them, and drew mixup and cutmix once for each process; from here on "
        "images are mixed first, as in the paper's runs, with one draw for each data.mixup_group images",
    ),
    Change("optimizer.no_decay", _embeds_positions, before={"optimizer.no_decay": ("pos_embed.weight",)}),
    # The model's `pad` came with it; a stored configuration need not state that one.
    Change("optimizer.no_decay", _does_not_fit_its_stride, before={"model.overrides.pad": "zeros"}),
    # Photos lay as they are in the file, and transparency was dropped.
    Change("data.orientation", _decodes, before={"data.orientation": "stored"}),
    Change("data.background", _decodes, before={"data.background": "none"}),
)


def read_config(stored: Mapping[str, Any]) -> TrainConfig:
    """The configuration that a run's `config.json` holds; what it says, and what it lacks, means what it meant then.

    Raises `ConfigError` as `from_dict` does, or for a version that is not known here.
    """
    config = from_dict(TrainConfig, _up_to_date(stored))
    before = {path: value for change in _since(stored, config) for path, value in change.before.items()}
    return with_overrides(config, before)


def notices(stored: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """What a run that goes on will do otherwise, for each change the end of a sentence about its earlier version."""
    return [change.notice for change in _since(stored, config) if change.notice]


def fields_without_past(stored: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields that a stored configuration lacks and for which nothing stands: any value may go on."""
    return tuple(change.since for change in CHANGES if not change.before and not _has(stored, change.since))


def _up_to_date(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a stored configuration with today's meaning."""
    version = stored.get("version", 1)
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ConfigError(f"its version is {version!r}, this version of sequencer2d reads 1 to {VERSION}: update it")
    current = {name: value for name, value in stored.items() if name != "version"}
    return _with_cooldown_counted(current) if version < 2 else current


def _with_cooldown_counted(values: dict[str, Any]) -> dict[str, Any]:
    """Version 1 counted the cool-down on top of `run.epochs`; since version 2 it counts every epoch of the run."""
    schedule, run = values.get("schedule"), values.get("run")
    cooldown = schedule.get("cooldown_epochs") if isinstance(schedule, Mapping) else None
    if isinstance(run, Mapping) and isinstance(run.get("epochs"), int) and isinstance(cooldown, int):
        return {**values, "run": {**run, "epochs": run["epochs"] + cooldown}}
    return values


def _since(stored: Mapping[str, Any], config: TrainConfig) -> list[Change]:
    return [change for change in CHANGES if not _has(stored, change.since) and change.affects(config)]


def _has(stored: Mapping[str, Any], path: str) -> bool:
    node: Any = stored
    for name in path.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True
