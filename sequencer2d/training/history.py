"""Runs of earlier versions: what their `config.json` lacks, and what that means for a run that goes on."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sequencer2d.training.config import TrainConfig


class Change(NamedTuple):
    """Something that runs did otherwise before they had a certain field."""

    affects: Callable[[TrainConfig], bool]
    """Whether a run of this configuration notices."""
    notice: str
    """What it did before, and what it does now."""


CHANGES: dict[str, Change] = {
    "data.mixup_group": Change(
        lambda config: config.data.mixes,
        "erased images before it mixed them, and drew mixup and cutmix once for each process; from here on images are "
        "mixed first, as in the paper's runs, with one draw for each data.mixup_group images",
    ),
}
"""The field that came with each change → the change."""


def added_since(stored: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of `CHANGES` that a stored configuration lacks: it was written before they existed."""
    return tuple(path for path in CHANGES if not _has(stored, path))


def notices(stored: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """What will be otherwise in a run that goes on, for each change the end of a sentence about its earlier version."""
    return [CHANGES[path].notice for path in added_since(stored) if CHANGES[path].affects(config)]


def _has(stored: Mapping[str, Any], path: str) -> bool:
    node: Any = stored
    for name in path.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True
