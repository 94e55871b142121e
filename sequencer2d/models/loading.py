"""From checkpoints to models: rebuilt from what the file says, or loaded strictly into one that is there."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.models.checkpoints import Checkpoint, read_checkpoint
from sequencer2d.models.config import ModelConfig
from sequencer2d.models.describing import stored_overrides, take_over_input
from sequencer2d.models.fit import HEAD, STEM, check_shapes, fit_state, identify
from sequencer2d.models.variants import VARIANTS, model_config

if TYPE_CHECKING:
    from sequencer2d.models.sequencer2d import Sequencer2D

Model = TypeVar("Model", bound="Sequencer2D")


def load_weights(model: "Sequencer2D", source: str | os.PathLike[str], *, use_ema: bool = True) -> Checkpoint:
    """Load weights into `model`, strictly, in place; returns the checkpoint.

    A classifier for another number of classes is left out, a stem for 3 channels adapted, a position embedding
    resampled; the log says so.

    Raises:
        CheckpointError: as `read_checkpoint`, or anything else that does not fit, naming the parameters.
    """
    checkpoint = read_checkpoint(source, use_ema=use_ema)
    model.load_state_dict(fit_state(checkpoint.state_dict, model, str(checkpoint.path)), strict=True)
    return checkpoint


def restore(
    kind: Callable[[ModelConfig, str], Model],
    checkpoint: Checkpoint,
    *,
    name: str | None = None,
    **overrides: Any,
) -> Model:
    """Rebuild a model from its checkpoint, see `sequencer2d.models.load_model`.

    Args:
        kind: what builds the model from its configuration and its variant: `Sequencer2D` or a class that inherits it.
        checkpoint: what `read_checkpoint` read.
        name: as for `load_model`.
        **overrides: as for `load_model`.

    Raises:
        CheckpointError: as `load_model`, or the model is for another task than classification.
        ConfigError: as `load_model`.
    """
    state, meta = checkpoint.state_dict, checkpoint.meta
    if (task := meta.get("task", "classification")) != "classification":
        raise CheckpointError(
            f"{checkpoint.path} holds a model for {task}, not a classifier; sequencer2d eval and predict take it, and "
            "evaluation.subject.load_checkpoint does"
        )
    name = name or meta.get("model") or identify(state, kind)
    if name not in VARIANTS:
        problem = f"names the unknown model {name!r}" if name else "does not say which model it is"
        raise CheckpointError(f"{checkpoint.path} {problem}: give its variant as name=, one of {', '.join(VARIANTS)}")
    sizes = {
        "num_classes": state[HEAD[0]].shape[0] if HEAD[0] in state else 0,
        "in_chans": state[STEM].shape[1] if STEM in state else 3,
    }
    config = _config(name, stored_overrides(meta) | sizes, checkpoint.path).replace(**overrides)
    check_shapes(state, config, name, str(checkpoint.path), kind, free=overrides)
    model = kind(config, name)
    model.load_state_dict(fit_state(state, model, str(checkpoint.path)), strict=True)
    take_over_input(model, meta, sizes["num_classes"], checkpoint.path)
    return model.eval()


def _config(name: str, fields: Mapping[str, Any], path: Path) -> ModelConfig:
    try:
        return model_config(name, **fields)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its description is of no model: {error}") from error
