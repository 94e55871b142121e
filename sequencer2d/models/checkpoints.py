"""Checkpoints: read, written and loaded strictly, in our format, timm's and the authors'.

What a file of ours says of itself (`meta`) is described in docs/design.md.
"""

import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.files import atomic_write
from sequencer2d.models.config import ModelConfig
from sequencer2d.models.description import FORMAT, check_description
from sequencer2d.models.fit import HEAD, STEM, check_shapes, fit_state, identify
from sequencer2d.models.hub_config import merge_descriptions
from sequencer2d.models.locate import locate
from sequencer2d.models.names import (
    StateDict,
    from_authors,
    from_timm,
    is_authors,
    strip_wrappers,
    to_authors,
    to_timm,
)
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.models.variants import VARIANTS, changed_options, model_config
from sequencer2d.models.weight_files import (
    HEADER_KEY,
    check_plain,
    check_weights,
    read_safetensors_file,
    read_torch_file,
)

__all__ = [
    "Checkpoint",
    "describe_model",
    "from_authors",
    "from_timm",
    "load_model",
    "load_weights",
    "read_checkpoint",
    "save_weights",
    "to_authors",
    "to_timm",
]

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".tar", ".ckpt")
EMA_KEYS = ("model_ema", "state_dict_ema")
MODEL_KEYS = ("model", "state_dict")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights under our names, what the file says of itself ({} if nothing), and the file."""

    state_dict: StateDict
    meta: dict[str, Any]
    path: Path


def read_checkpoint(
    source: str | os.PathLike[str], *, use_ema: bool = True, hub_options: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Read weights on the CPU; nothing of the file is executed (`weights_only=True`).

    Args:
        source: `.safetensors`, `.pt`/`.pth` (ours, timm's or the authors', wrapped or not), a run folder, a folder as
            the Hugging Face hub holds them, or `hf-hub:owner/name`. A `config.json` of timm's beside the weights has
            precedence over what the file says.
        use_ema: take the averaged weights where a training checkpoint holds both.
        hub_options: for `huggingface_hub.hf_hub_download`: revision, token, cache_dir, local_files_only.

    Raises:
        CheckpointError: missing, damaged, written by a newer version, without weights, or with weights that are not
            finite.
    """
    path, beside = locate(source, **(hub_options or {}))
    if path.suffix == ".safetensors":
        weights, own = read_safetensors_file(path)
    elif path.suffix in TORCH_SUFFIXES:
        weights, own = _unwrap(read_torch_file(path), path, use_ema)
    else:
        raise CheckpointError(f"{path} is no checkpoint: expected .safetensors or one of {', '.join(TORCH_SUFFIXES)}")
    meta = merge_descriptions(check_description(own, path), beside, path)
    check_weights(weights, path)
    weights = strip_wrappers(weights)
    return Checkpoint(from_authors(weights) if is_authors(weights) else weights, meta, path)


def load_weights(model: Sequencer2D, source: str | os.PathLike[str], *, use_ema: bool = True) -> Checkpoint:
    """Load weights into `model`, strictly, in place; returns the checkpoint.

    A classifier for another number of classes is left out, a stem for 3 channels adapted, a position embedding
    resampled; the log says so.

    Raises:
        CheckpointError: as `read_checkpoint`, or anything else that does not fit, naming the parameters.
    """
    checkpoint = read_checkpoint(source, use_ema=use_ema)
    model.load_state_dict(fit_state(checkpoint.state_dict, model, str(checkpoint.path)), strict=True)
    return checkpoint


def load_model(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    hub_options: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Sequencer2D:
    """Rebuild a model, in eval mode on the CPU, from what its checkpoint says of itself.

    A file that says nothing is recognised by its parameters if they are those of a variant.

    Args:
        source: as for `read_checkpoint`.
        name: the variant, for files of which neither is true.
        hub_options: as for `read_checkpoint`.
        **overrides: fields of `ModelConfig` to change, `num_classes` and `in_chans` included.

    Returns:
        The model. Its `pretrained_cfg` holds the input that the checkpoint was made for, and as `label_names` its class
        names (None where they are not known).

    Raises:
        CheckpointError: as `load_weights`, or nobody says which model it is.
        ConfigError: an override that does not exist or does not fit.
    """
    checkpoint = read_checkpoint(source, hub_options=hub_options)
    state, meta = checkpoint.state_dict, checkpoint.meta
    name = name or meta.get("model") or identify(state)
    if name not in VARIANTS:
        said = f"names the unknown model {name!r}" if name else "does not say which model it is"
        raise CheckpointError(f"{checkpoint.path} {said}: give its variant as name=, one of {', '.join(VARIANTS)}")
    sizes = {
        "num_classes": state[HEAD[0]].shape[0] if HEAD[0] in state else 0,
        "in_chans": state[STEM].shape[1] if STEM in state else 3,
    }
    config = _config(name, _stored_overrides(meta) | sizes, checkpoint.path).replace(**overrides)
    check_shapes(state, config, name, str(checkpoint.path), free=overrides)
    model = Sequencer2D(config, name)
    model.load_state_dict(fit_state(state, model, str(checkpoint.path)), strict=True)
    _take_over_input(model, meta, sizes["num_classes"], checkpoint.path)
    return model.eval()


def _config(name: str, fields: Mapping[str, Any], path: Path) -> ModelConfig:
    try:
        return model_config(name, **fields)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its description is of no model: {error}") from error


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
    path = Path(path)
    said = dict(meta or {})
    # timm's models and those of dense tasks cannot describe themselves: the run that trains them does.
    description = describe_model(model) | said if isinstance(model, Sequencer2D) else said
    given = model.state_dict()
    check_plain(given, path)
    if isinstance(model, Sequencer2D):
        _check_names(given, model, path)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in given.items()}
    if path.suffix == ".safetensors":
        header = {"format": "pt", HEADER_KEY: json.dumps(description, allow_nan=False)}
        content = safetensors.torch.save(state, header)
    elif path.suffix in (".pt", ".pth"):
        buffer = io.BytesIO()
        torch.save({"meta": description, "model": state}, buffer)
        content = buffer.getvalue()
    else:
        raise CheckpointError(f"cannot write weights to {path}: use the suffix .safetensors, .pt or .pth")
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def _check_names(state: Mapping[str, Tensor], model: Sequencer2D, path: Path) -> None:
    """Raise `CheckpointError` unless the weights are those of the model's description, name by name."""
    with torch.device("meta"):
        expected = Sequencer2D(model.config, model.variant).state_dict().keys()
    if other := sorted(state.keys() ^ expected):
        raise CheckpointError(
            f"cannot write {path}: the model's weights are computed from others ({len(other)} names differ, "
            f"{other[0]} first). Make them plain: adapters by merge_and_unload(), parametrizations and pruning by "
            "torch's functions that remove them"
        )


def describe_model(model: Sequencer2D, class_names: Sequence[str] | None = None) -> dict[str, Any]:
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


def _stored_overrides(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides; a file of ours, which states its format, without `pad` is from when all images were padded."""
    before = {"pad": "zeros"} if "format" in meta else {}
    return before | meta.get("overrides", {})


def _take_over_input(model: Sequencer2D, meta: Mapping[str, Any], classes: int, path: Path) -> None:
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


def _unwrap(content: Any, path: Path, use_ema: bool) -> tuple[dict[str, Tensor], Any]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a dict of parameters")
    meta = content.get("meta", {})
    if not meta and content.get("arch") in tuple(VARIANTS):
        meta = {"model": content["arch"]}
    keys = (*EMA_KEYS, *MODEL_KEYS) if use_ema else MODEL_KEYS
    state = next((content[key] for key in keys if isinstance(content.get(key), Mapping)), content)
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(
            f"{path} holds no weights: expected parameters, or a dict with them under 'model' or 'state_dict'"
        )
    return dict(state), meta
