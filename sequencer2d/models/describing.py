"""What a model says of itself in a checkpoint, and what a model takes over from there."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sequencer2d.errors import CheckpointError, ConfigError
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
    if class_names is None:
        class_names = model.pretrained_cfg.get("label_names")
    if class_names is not None and len(class_names) != model.num_classes:
        raise ConfigError(f"{len(class_names)} class names for a model of {model.num_classes} classes")
    cfg = model.pretrained_cfg
    return {
        "format": FORMAT,
        "model": model.variant,
        "overrides": changed_options(model.config, model.variant) | {"pad": model.config.pad},
        "num_classes": model.num_classes,
        "in_chans": model.in_chans,
        "class_names": list(class_names) if class_names is not None else None,
        "input": {
            "size": list(cfg["input_size"][1:]),
            "mean": list(cfg["mean"]),
            "std": list(cfg["std"]),
            "interpolation": cfg["interpolation"],
            "crop_pct": cfg["crop_pct"],
            **({"crop_mode": cfg["crop_mode"]} if cfg.get("crop_mode", "center") != "center" else {}),
        },
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
    cfg: dict[str, Any] = {"label_names": list(names) if names and len(names) == model.num_classes else None}
    said = meta.get("input", {})
    cfg |= {key: said[key] for key in ("interpolation", "crop_pct", "crop_mode") if key in said}
    cfg |= {"input_size": (model.in_chans, *said["size"])} if "size" in said else {}
    cfg |= {key: tuple(said[key]) for key in ("mean", "std") if len(said.get(key, ())) == model.in_chans}
    model.pretrained_cfg = model.pretrained_cfg | cfg


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
