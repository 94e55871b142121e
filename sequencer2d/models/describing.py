"""What a model says of itself in a checkpoint, and what a model takes over from there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.input_spec import InputSpec
from sequencer2d.models.config import ModelConfig
from sequencer2d.models.description import FORMAT
from sequencer2d.models.variants import VARIANTS, changed_options

if TYPE_CHECKING:
    from sequencer2d.models.sequencer2d import Sequencer2D


def describe_model(model: "Sequencer2D", class_names: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what a checkpoint says of its model, as plain JSON values: enough for `load_model` to rebuild it.

    Raises:
        ConfigError: another number of class names than of classes, a model without a variant, or one that was pruned.
    """
    if len(model.stages) < len(model.config.depths) or isinstance(model.norm, nn.Identity):
        raise ConfigError("a model that was pruned to its maps cannot be described: save model.state_dict() alone")
    if model.variant not in VARIANTS:
        raise ConfigError("a model without a variant's name cannot be described: create it with create_model")
    spec = InputSpec.from_timm(model.pretrained_cfg)
    if class_names is not None and tuple(class_names) != spec.class_names:
        spec = replace(spec, class_names=tuple(class_names), class_descriptions=None)
    if spec.class_names is not None and len(spec.class_names) != model.num_classes:
        raise ConfigError(f"{len(spec.class_names)} class names for a model of {model.num_classes} classes")
    return {
        "format": FORMAT,
        "model": model.variant,
        "overrides": changed_options(model.config, model.variant) | {"pad": model.config.pad},
        "num_classes": model.num_classes,
        **spec.to_description(),
        "in_chans": model.in_chans,
    }


def stored_overrides(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ModelConfig` that a description changes from its variant's.

    A file of ours, which states its format, without `pad` is from the time when all images were padded.
    """
    before = {"pad": "zeros"} if "format" in meta else {}
    return before | meta.get("overrides", {})


def take_over_input(model: "Sequencer2D", meta: Mapping[str, Any], classes: int, path: Path) -> None:
    """Write what the description says of images and classes into the model's `pretrained_cfg`."""
    names = meta.get("class_names")
    if names and len(names) != classes:
        raise CheckpointError(f"{path}: {len(names)} class names are given for a classifier of {classes} classes")
    spec = InputSpec.from_timm(model.pretrained_cfg).updated(meta)
    known = meta if names and len(names) == model.num_classes else {}
    model.pretrained_cfg = model.pretrained_cfg | spec.with_classes(known).to_timm()


def check_names(model: "Sequencer2D", kind: Callable[[ModelConfig, str], nn.Module], path: Path) -> None:
    """Raise `CheckpointError` unless `kind`, built from the model's description, has weights of the same names."""
    with torch.device("meta"):
        expected = kind(model.config, model.variant).state_dict().keys()
    if other := sorted(model.state_dict().keys() ^ expected):
        raise CheckpointError(
            f"cannot write {path}: the model's weights are computed from others ({len(other)} names differ, "
            f"{other[0]} first). Make them plain: adapters by merge_and_unload(), parametrizations and pruning by "
            "torch's functions that remove them"
        )
