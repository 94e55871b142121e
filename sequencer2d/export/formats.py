"""The formats: how each is written from a model. A writer takes (model, path, meta) and leaves the file(s) there."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from sequencer2d.errors import ConfigError, ExportError, did_you_mean
from sequencer2d.export import page, programs
from sequencer2d.export.metadata import KEY, to_strings
from sequencer2d.export.onnx_layer import onnx_translations
from sequencer2d.models.sequencer2d import Sequencer2D

OPSET = 18
"""ONNX's set of operators unless another one is asked for: the oldest that PyTorch's exporter writes."""
NEWEST_OPSET = 25
"""The newest that the tests have written and run."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}

Meta = Mapping[str, Any]
Counts = dict[str, int]


@dataclass(frozen=True)
class Format:
    """One way out.

    Attributes:
        suffix: of the file's name.
        precisions: those it can be written in.
        needs: packages it needs beside torch.
        write: (model, path, meta) → how many nodes of each kind its graph has.
        title: for messages and tables.
        opsets: oldest and newest of ONNX's sets of operators that it can be written in; None: there is no choice.
        takes_runtime: whether `write` takes a runtime as well, which the file then holds.
    """

    suffix: str
    precisions: tuple[str, ...]
    needs: tuple[str, ...]
    write: Callable[..., Counts]
    title: str
    opsets: tuple[int, int] | None = None
    takes_runtime: bool = False


def write_torch(model: Sequencer2D, path: Path, meta: Meta) -> Counts:
    """A `torch.export` program, for Python with this package."""
    program = _traced(model, "torch", meta)
    with programs.quiet():
        torch.export.save(program, path, extra_files={KEY: json.dumps(meta)})
    return _node_counts(program)


def write_aoti(model: Sequencer2D, path: Path, meta: Meta) -> Counts:
    """An AOTInductor package: compiled code, for C++ and Python without this package."""
    program = _traced(model, "aoti", meta)
    config = {"aot_inductor.metadata": to_strings(meta)}
    try:
        with programs.quiet(), programs.hushed("torch._inductor", "torch.utils.cpp_extension"), torch.no_grad():
            torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=config)
    except Exception as error:
        if "CxxCompiler" in type(error).__name__ or "CxxCompiler" in str(error):
            raise ExportError(
                "the format aoti needs a C++ compiler (g++ or clang++) on this machine: install one"
            ) from error
        raise
    return _node_counts(program)


def write_onnx(model: Sequencer2D, path: Path, meta: Meta) -> Counts:
    """ONNX, recurrences as its LSTM, GRU or RNN nodes; for int8 quantized after it.

    Raises:
        ExportError: the installed exporter cannot write the opset that `meta` names.
    """
    import onnx

    opset = meta["artifact"].get("opset", OPSET)
    program = _traced(model, "onnx", meta)
    with programs.quiet(), programs.hushed("torch.onnx", "onnxscript", "onnx_ir"):
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            custom_translation_table=onnx_translations(),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert exported is not None
    proto = exported.model_proto
    _check_opset(proto, opset)
    _name_axes(proto)
    del proto.metadata_props[:]
    for name, value in to_strings(meta).items():
        proto.metadata_props.add(key=name, value=value)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
    if meta["artifact"]["precision"] == "int8":
        from sequencer2d.export.int8 import quantize_file

        quantize_file(path)
        proto = onnx.load(path)
    return _counts(node.op_type for node in proto.graph.node)


def write_openvino(model: Sequencer2D, path: Path, meta: Meta) -> Counts:
    """OpenVINO's own format: `path` with the graph, and beside it a file .bin with the weights."""
    import openvino

    onnx_path = path.with_suffix(".onnx")
    write_onnx(model, onnx_path, meta)
    converted = openvino.convert_model(onnx_path)
    onnx_path.unlink()
    for name, value in to_strings(meta).items():
        converted.set_rt_info(value, [KEY, name])
    openvino.save_model(converted, path, compress_to_fp16=False)
    return _counts(operation.get_type_name() for operation in converted.get_ordered_ops())


def write_web(model: Sequencer2D, path: Path, meta: Meta, runtime: page.Runtime) -> Counts:
    """One HTML file with the model as ONNX and the runtime for it."""
    onnx_path = path.with_suffix(".onnx")
    counts = write_onnx(model, onnx_path, meta)
    onnx = onnx_path.read_bytes()
    onnx_path.unlink()
    page.write_page(model, onnx, path, meta, runtime)
    return counts


FORMATS: dict[str, Format] = {
    "torch": Format(".pt2", ("fp32", "bf16"), (), write_torch, "torch.export"),
    "aoti": Format(".pt2", ("fp32", "bf16"), (), write_aoti, "AOTInductor"),
    "onnx": Format(
        ".onnx",
        ("fp32", "int8"),
        ("onnx", "onnxscript", "onnxruntime"),
        write_onnx,
        "ONNX Runtime",
        opsets=(OPSET, NEWEST_OPSET),
    ),
    "openvino": Format(".xml", ("fp32",), ("onnx", "onnxscript", "openvino"), write_openvino, "OpenVINO"),
    "web": Format(
        ".html",
        ("fp32", "int8"),
        ("onnx", "onnxscript", "onnxruntime"),
        write_web,
        "ONNX Runtime Web",
        takes_runtime=True,
    ),
}

RECURRENT = (
    "sequencer2d.rnn2d.default",
    "aten.mkldnn_rnn_layer.default",
    "while_loop",
    *("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"),
    *("LSTMSequence", "GRUSequence", "RNNSequence"),
)
"""What recurrent nodes are called in the graphs."""


def find_format(name: str) -> Format:
    """The format of that name. Raises `ConfigError` for another one."""
    if name not in FORMATS:
        raise ConfigError(f"no format {name!r}; {did_you_mean(name, FORMATS)}")
    return FORMATS[name]


def recurrent_nodes(counts: Counts) -> int:
    """How many of a graph's nodes are recurrences."""
    return sum(count for name, count in counts.items() if name in RECURRENT)


def _traced(model: Sequencer2D, recurrence: str, meta: Meta) -> ExportedProgram:
    stride = model.config.total_stride
    return programs.trace(model, recurrence, in_chans=meta["in_chans"], size=(3 * stride, 4 * stride))


def _node_counts(program: ExportedProgram) -> Counts:
    return _counts(str(node.target) for node in program.graph.nodes if node.op == "call_function")


def _counts(names: Any) -> Counts:
    counts: Counts = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _check_opset(proto: Any, opset: int) -> None:
    """Raise `ExportError` unless the file is in that opset: an exporter that cannot convert writes another one."""
    (found,) = (entry.version for entry in proto.opset_import if entry.domain == "")
    if found != opset:
        raise ExportError(
            f"the installed PyTorch, onnx and onnxscript wrote opset {found} in place of {opset}: update them, or take "
            f"--opset {found} (in Python, opset={found})"
        )


def _name_axes(proto: Any) -> None:
    """Call the free axes batch, height and width instead of the tracer's symbols."""
    del proto.graph.value_info[:]
    (images,), (logits,) = proto.graph.input, proto.graph.output
    for value, names in ((images, {0: "batch", 2: "height", 3: "width"}), (logits, {0: "batch"})):
        for axis, name in names.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
