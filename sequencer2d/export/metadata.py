"""What an artifact says of itself: the checkpoint's own description, and which exporter wrote it how."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

import sequencer2d
from sequencer2d.errors import CheckpointError
from sequencer2d.files import parse_json
from sequencer2d.input_spec import InputSpec
from sequencer2d.models import describe_model
from sequencer2d.models.description import ARTIFACT_FIELDS, check_description
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.terminal import to_json

VERSION = 1
KEY = "sequencer2d"


def describe(model: Sequencer2D, kind: str, precision: str, opset: int | None = None) -> dict[str, Any]:
    """The description of an artifact as plain JSON values: that of a checkpoint and the entry `artifact`.

    `artifact` holds its format's `version`, the `kind` and `precision`, the versions of this package and of torch, and
    `minimum_size`, the fewest pixels along an axis that it takes. It holds ONNX's `opset` if one was asked for.
    """
    return describe_model(model) | {"artifact": _artifact(kind, precision, minimum_size(model), opset)}


def describe_dense(task: str, stated: Mapping[str, Any], num_classes: int, size: Sequence[int]) -> dict[str, Any]:
    """The description of a segmenter or a detector as ONNX, whose `predict` keeps whole images.

    Args:
        task: "segmentation" or "detection".
        stated: the model's `pretrained_cfg`.
        num_classes: outputs.
        size: (height, width) in pixels of the images.
    """
    spec = replace(InputSpec.from_timm(stated), size=(size[0], size[1]), crop_pct=1.0, crop_mode="squash")
    if spec.class_names is not None and len(spec.class_names) != num_classes:
        spec = replace(spec, class_names=None, class_descriptions=None)
    said = {"task": task, "num_classes": num_classes, **spec.to_description()}
    return said | {"artifact": _artifact("onnx", "fp32", 1, None)}


def _artifact(kind: str, precision: str, least: int, opset: int | None) -> dict[str, Any]:
    return {
        "version": VERSION,
        "kind": kind,
        "precision": precision,
        "sequencer2d": sequencer2d.__version__,
        "torch": str(torch.__version__),
        "minimum_size": least,
        **({"opset": opset} if opset is not None else {}),
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


def from_string(text: object, path: object, kind: str) -> dict[str, Any]:
    """Read the description back and check that it is one that this version understands.

    Raises:
        CheckpointError: no description, a damaged one, or one of another version.
    """
    if not text or not isinstance(text, str | bytes):
        raise CheckpointError(f"{path} does not describe itself: it was not written by `sequencer2d export`")
    try:
        meta = check_description(parse_json(text), path)
    except ValueError as error:
        raise CheckpointError(f"{path}: its description cannot be read ({error}); export the model again") from error
    said = meta.get("artifact", {})
    if "version" in said and said["version"] != VERSION:
        raise CheckpointError(
            f"{path} is an artifact of version {said['version']}, written by sequencer2d {said.get('sequencer2d')}; "
            f"this sequencer2d ({sequencer2d.__version__}) reads version {VERSION}: export the model again, or use "
            "that version"
        )
    check_description(meta, path, ARTIFACT_FIELDS)
    names, channels = meta["class_names"], meta["in_chans"]
    if names is not None and len(names) != meta["num_classes"]:
        raise CheckpointError(f"{path}: its description has {len(names)} names for {meta['num_classes']} classes")
    if {len(meta["input"]["mean"]), len(meta["input"]["std"])} != {channels}:
        raise CheckpointError(f"{path}: its description has no mean and std for each of {channels} channels")
    if said["kind"] != kind:
        raise CheckpointError(f"{path} calls itself {said['kind']!r} but is {kind!r}: export the model again")
    return meta
