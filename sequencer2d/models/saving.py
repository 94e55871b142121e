"""From models to checkpoints."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sequencer2d.models.checkpoints import write_checkpoint
from sequencer2d.models.describing import check_names, describe_model
from sequencer2d.models.sequencer2d import Sequencer2D


def save_weights(model: nn.Module, path: str | os.PathLike[str], meta: Mapping[str, Any] | None = None) -> None:
    """Write the weights and what describes them, atomically.

    Args:
        model: the model. A `Sequencer2D` is described by `describe_model`, any other one by `meta` alone.
        path: `.safetensors`, `.pt` or `.pth`.
        meta: entries that are added to the description or replace its own, plain JSON values.

    Raises:
        CheckpointError: another suffix, a file that cannot be written, or weights that `load_model` could not read
            back: quantized, sharded, or computed from others (adapters, parametrizations, pruning).
    """
    # timm's models and those of dense tasks cannot describe themselves: the run that trains them does.
    own = {}
    if isinstance(model, Sequencer2D):
        own = describe_model(model)
        check_names(model, Sequencer2D, Path(path))
    write_checkpoint(model.state_dict(), own | dict(meta or {}), path)
