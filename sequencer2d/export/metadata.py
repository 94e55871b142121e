"""What an artefact says of itself: the checkpoint's own description, and which exporter wrote it how."""

import json
from collections.abc import Mapping
from typing import Any

import torch

import sequencer2d
from sequencer2d.errors import CheckpointError
from sequencer2d.models.checkpoints import describe_model
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.terminal import to_json

VERSION = 1
KEY = "sequencer2d"


def describe(model: Sequencer2D, kind: str, precision: str) -> dict[str, Any]:
    """The description of an artefact as plain JSON values: that of a checkpoint and the entry `artifact`.

    `artifact` holds its format's `version`, the `kind` and `precision`, the versions of this package and of torch, and
    `minimum_size`, the fewest pixels along an axis that it takes.
    """
    return describe_model(model) | {
        "artifact": {
            "version": VERSION,
            "kind": kind,
            "precision": precision,
            "sequencer2d": sequencer2d.__version__,
            "torch": str(torch.__version__),
            "minimum_size": minimum_size(model),
        }
    }


def minimum_size(model: Sequencer2D) -> int:
    """Pixels along an axis that make two tokens: tracing tells one token from any other number."""
    stride = model.config.total_stride
    return stride + 1 if model.config.pad == "zeros" else 2 * stride


def to_strings(meta: Mapping[str, Any]) -> dict[str, str]:
    """The description as strings by name, as formats hold them, each JSON.

    The whole stands under `sequencer2d`; for programs in other languages `class_names`, `size`, `mean`, `std`,
    `interpolation` and `crop_pct` stand beside it.
    """
    entries = {KEY: meta, "class_names": meta["class_names"], **meta["input"]}
    return {name: to_json(value, indent=None, allow_nan=False) for name, value in entries.items()}


def from_string(text: str | None, path: object, kind: str) -> dict[str, Any]:
    """Read the description back and check that it is one that this version understands.

    Raises:
        CheckpointError: no description, a damaged one, or one of another version.
    """
    if not text:
        raise CheckpointError(f"{path} does not describe itself: it was not written by `sequencer2d export`")
    try:
        meta = json.loads(text)
        said = meta["artifact"]
        version, written_by = said["version"], said["sequencer2d"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its description cannot be read ({error}); export the model again") from error
    if version != VERSION:
        raise CheckpointError(
            f"{path} is an artefact of version {version}, written by sequencer2d {written_by}; this sequencer2d "
            f"({sequencer2d.__version__}) reads version {VERSION}: export the model again, or use that version"
        )
    if said["kind"] != kind:
        raise CheckpointError(f"{path} calls itself {said['kind']!r} but is {kind!r}: export the model again")
    return meta
