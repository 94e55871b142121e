"""Backbones and segmenters as ONNX: a pyramid's maps, or the logits of every pixel, for images of any size."""

import copy
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from sequencer2d.dense import Segmenter
from sequencer2d.errors import ConfigError, ExportError
from sequencer2d.export import programs, verify
from sequencer2d.export.artifacts import need
from sequencer2d.export.exporting import Exported
from sequencer2d.export.formats import FORMATS, OPSET, RECURRENT
from sequencer2d.export.metadata import describe_dense, to_strings
from sequencer2d.export.mixers import with_constant_weights
from sequencer2d.export.onnx_layer import onnx_translations
from sequencer2d.files import atomic_write
from sequencer2d.models import FeaturePyramid
from sequencer2d.terminal import to_json

SUFFIX = FORMATS["onnx"].suffix
_AXES = {0: "batch", 2: "height", 3: "width"}


class Maps(nn.Module):
    """The model under an input named `images`, its outputs always a tuple.

    Attributes:
        strides: of the outputs, in pixels.
        names: of the outputs: "logits", or "map_4" for a map of stride 4.
        multiple: pixels that sides are padded to multiples of.
        in_chans, pretrained_cfg: of the backbone, or of a run's whole model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if isinstance(model, Segmenter):
            backbone: Any = model.backbone
            self.strides: list[float] = [1]
            self.names: tuple[str, ...] = ("logits",)
            self.multiple = model.divisor
        elif isinstance(model, FeaturePyramid):
            backbone = model
            self.strides = list(model.feature_info.reduction())
            self.names, self.multiple = tuple(f"map_{stride:g}" for stride in self.strides), model.multiple
        else:
            raise ConfigError(
                f"{type(model).__name__} is neither a feature pyramid nor a Segmenter of sequencer2d.dense"
            )
        self.in_chans: int = getattr(backbone, "in_chans", 3)
        self.pretrained_cfg = getattr(model, "pretrained_cfg", None) or backbone.pretrained_cfg
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.model(images)
        return (found,) if isinstance(found, Tensor) else tuple(found)


def export_dense(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    images: Sequence[str | os.PathLike[str]] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Exported:
    """Write a feature pyramid or a `Segmenter` over one as ONNX, after comparing it with the model.

    The input is `images`, fp32 (batch, in_chans, height, width), normalized; batch, height and width are free, from
    the coarsest stride plus one pixel up. The outputs are `logits`, or `map_4`, `map_8` and so on. The metadata
    `mean`, `std` and `strides` are JSON, and of a segmenter `class_names` and `size`; `sequencer2d predict` takes the
    file of a segmenter in place of a run.

    Args:
        model: a `FeaturePyramid`, or a `Segmenter` on one of ours. It is not changed.
        path: of the file, with the suffix .onnx; its folder exists.
        images: real image files to compare on; by default scikit-learn's photographs, if it is installed.
        sizes: (height, width) in pixels to compare at; by default three, of which one is the model's own.

    Raises:
        ConfigError: another model, or another suffix.
        ExportError: the file would differ from the model, or cannot be written. Nothing is left behind.
        UserError: a package that ONNX needs is not installed.
    """
    started, target = time.perf_counter(), check_target(path)
    plain = _on_cpu(model)
    example = torch.zeros(2, plain.in_chans, 3 * plain.multiple, 4 * plain.multiple)
    proto = to_proto(plain, example, plain.names, _AXES, _described(plain, example))
    files = [Path(image) for image in images] if images is not None else verify.real_images()
    differences = _compare(proto, plain, sizes or verify.sizes_for(plain), files)  # type: ignore[arg-type]
    return write_proto(proto, target, differences, started)


def _on_cpu(model: nn.Module) -> Maps:
    """A copy in evaluation mode, on the CPU and in fp32."""
    return Maps(copy.deepcopy(model).float().cpu().eval().requires_grad_(False))


def to_proto(
    plain: nn.Module, example: Tensor, names: Sequence[str], free: Mapping[int, str], described: Mapping[str, str]
) -> Any:
    """A module as ONNX's protocol buffer, checked by `onnx.checker`.

    Args:
        plain: images → a tuple of tensors; it has a recurrence of ours.
        example: images (B, C, H, W) to trace it with.
        names: of the outputs.
        free: names of the free axes of the images.
        described: metadata.
    """
    import onnx

    constant = with_constant_weights(plain, programs.RECURRENCES["onnx"]).eval()
    shapes = (dict.fromkeys(free, Dim.DYNAMIC),) if free else None
    with torch.no_grad(), programs.quiet(), programs.hushed("torch.onnx", "onnxscript", "onnx_ir"):
        program = torch.export.export(constant, (example,), dynamic_shapes=shapes)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=onnx_translations(),
            input_names=["images"],
            output_names=list(names),
            verbose=False,
        )
    assert exported is not None
    proto = exported.model_proto
    del proto.graph.value_info[:], proto.metadata_props[:]
    for axis, name in free.items():
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    for key, value in described.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto)
    return proto


def check_target(path: str | os.PathLike[str]) -> Path:
    """The path of an ONNX file. Raises `ConfigError` for another suffix, `UserError` where a package is missing."""
    target = Path(path)
    if target.suffix != SUFFIX:
        raise ConfigError(f"the file of an ONNX model has the suffix {SUFFIX}; given {str(path)!r}")
    for package in FORMATS["onnx"].needs:
        need(package)
    return target


def write_proto(proto: Any, target: Path, differences: Sequence[verify.Difference], started: float) -> Exported:
    """Write a model that was compared. Raises `ExportError` where it differs too much or cannot be written."""
    verify.check(differences, verify.LIMITS["fp32"], "the ONNX model")
    written = proto.SerializeToString()
    try:
        with atomic_write(target) as file:
            file.write(written)
    except OSError as error:
        raise ExportError(f"cannot write to {target}: {error.strerror or error}; give another path") from error
    nodes = [node.op_type for node in proto.graph.node]
    return Exported(
        path=target,
        format="onnx",
        precision="fp32",
        differences=tuple(differences),
        limit=verify.LIMITS["fp32"],
        recurrent_nodes=sum(node in RECURRENT for node in nodes),
        nodes=len(nodes),
        seconds=time.perf_counter() - started,
        size_mib=len(written) / 2**20,
    )


def session_of(proto: Any) -> Any:
    """ONNX Runtime on the CPU, with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _described(plain: Maps, example: Tensor) -> dict[str, str]:
    """Of a segmenter what `predict` needs; of a pyramid, which predicts nothing, how images are prepared."""
    stated: Mapping[str, Any] = plain.pretrained_cfg
    if plain.names == ("logits",):
        with torch.no_grad():
            classes = plain(example)[0].shape[1]
        entries = to_strings(describe_dense("segmentation", stated, classes, stated["input_size"][-2:]))
    else:
        given = {"mean": list(stated["mean"]), "std": list(stated["std"])}
        entries = {name: to_json(value, indent=None) for name, value in given.items()}
    return entries | {"strides": to_json(plain.strides, indent=None)}


def _compare(
    proto: Any, plain: Maps, sizes: Sequence[tuple[int, int]], files: Sequence[Path]
) -> list[verify.Difference]:
    """Random images, and image files if there are any, through both at every size; each output on its own."""
    session = session_of(proto)
    generator = torch.Generator().manual_seed(0)
    differences = []
    for size in sizes:
        inputs = [("random", torch.randn(2, plain.in_chans, *size, generator=generator))]
        if files and plain.in_chans == 3:
            inputs.append(("images", verify.read_images(plain, size, files)))
        for source, batch in inputs:
            found = [torch.from_numpy(np.asarray(x)) for x in session.run(list(plain.names), {"images": batch.numpy()})]
            with torch.no_grad():
                expected = plain(batch)
            relative = max(verify.relative_difference(a, b) for a, b in zip(found, expected, strict=True))
            differences.append(verify.Difference(source, size, len(batch), relative))
    return differences
