"""Checkpoint files: read in our format, timm's and the authors', and written in ours. No model is built here.

What a file of ours says of itself (`meta`) is described in docs/design.md.
"""

import dataclasses
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sequencer2d.errors import CheckpointError
from sequencer2d.files import atomic_write
from sequencer2d.models.description import check_description
from sequencer2d.models.hub_config import merge_descriptions
from sequencer2d.models.locate import locate
from sequencer2d.models.names import StateDict, from_authors, is_authors, strip_wrappers
from sequencer2d.models.variants import VARIANTS
from sequencer2d.models.weight_files import (
    HEADER_KEY,
    check_plain,
    check_weights,
    read_safetensors_file,
    read_torch_file,
)

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


def write_checkpoint(
    state_dict: Mapping[str, Tensor], description: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Write weights and what describes them, atomically.

    Args:
        state_dict: the weights under our names, on any device.
        description: the file's `meta`, plain JSON values.
        path: `.safetensors`, `.pt` or `.pth`.

    Raises:
        CheckpointError: another suffix, a file that cannot be written, or weights that are quantized or
            sharded.
    """
    path = Path(path)
    check_plain(state_dict, path)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    if path.suffix == ".safetensors":
        header = {"format": "pt", HEADER_KEY: json.dumps(dict(description), allow_nan=False)}
        content = safetensors.torch.save(state, header)
    elif path.suffix in (".pt", ".pth"):
        buffer = io.BytesIO()
        torch.save({"meta": dict(description), "model": state}, buffer)
        content = buffer.getvalue()
    else:
        raise CheckpointError(f"cannot write weights to {path}: use the suffix .safetensors, .pt or .pth")
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


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
