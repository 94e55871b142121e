"""The ONNX graphs need no plug-in for TensorRT: its parser lists each of their operators, with restrictions that hold.

The list is that of the parser of TensorRT 10.1 (docs/operators.md of onnx-tensorrt: opsets 9 to 20). No engine is
built here.
"""

from pathlib import Path
from typing import Any

import onnx
import pytest

from sequencer2d.export import formats, metadata
from tests.export.conftest import small

PARSED = {
    "Add", "Concat", "Conv", "Div", "Erf", "Gelu", "Gemm", "GRU", "LayerNormalization", "LSTM", "MatMul", "Mul", "Pad",
    "ReduceMean", "Reshape", "Resize", "RNN", "Shape", "Split", "Squeeze", "Sub", "Transpose",
}  # fmt: skip
"""Of the operators that the parser lists, those that graphs of ours hold."""
RESIZE_MODES = ("nearest", "linear")
OPSETS = range(9, 21)


def written(path: Path, variant: str = "sequencer2d_n", opset: int = 18, **overrides: Any) -> onnx.ModelProto:
    model = small(variant, **overrides)
    formats.write_onnx(model, path, metadata.describe(model, "onnx", "fp32", opset))
    return onnx.load(path)


def objections(model: onnx.ModelProto) -> list[str]:
    """Why the parser would need a plug-in, or refuse."""
    found = [f"opset {entry.version}" for entry in model.opset_import if entry.version not in OPSETS]
    constants = {entry.name for entry in model.graph.initializer}
    for node in model.graph.node:
        said = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        rules = (
            ("not parsed", node.op_type in PARSED),
            ("layout", said.get("layout", 0) == 0),
            ("input_forget", said.get("input_forget", 0) == 0),
            ("activations", len({*said.get("activations", ())}) <= 1),
            ("outputs", node.op_type != "LayerNormalization" or len(node.output) == 1),
            ("axes", node.op_type not in ("Squeeze", "ReduceMean") or {*node.input[1:]} <= constants),
            ("mode", node.op_type != "Resize" or said["mode"].decode() in RESIZE_MODES),
        )
        found += [f"{node.op_type}: {rule}" for rule, holds in rules if not holds]
    return found


def test_the_default_export_needs_no_plug_in(artifacts: dict[str, Path]) -> None:
    assert objections(onnx.load(artifacts["onnx"])) == []


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("sequencer2d_s_gru", {}),
        ("vsequencer_s", {"cell": "rnn"}),
        ("sequencer2d_s_add", {"pad": "zeros", "opset": 20}),
    ],
)
def test_other_cells_fusions_and_edges_need_none_either(tmp_path: Path, variant: str, options: dict[str, Any]) -> None:
    assert objections(written(tmp_path / "m.onnx", variant, **options)) == []


def test_position_embeddings_and_int8_and_newer_opsets_are_what_it_does_not_take(tmp_path: Path) -> None:
    """The reasons that docs/export-onnx.md gives."""
    from sequencer2d.export.int8 import quantize_file

    assert objections(written(tmp_path / "pe.onnx", "vsequencer_pe_s")) == ["Resize: mode"]
    model = written(tmp_path / "m.onnx", opset=21)
    assert objections(model) == ["opset 21"]
    quantize_file(tmp_path / "m.onnx")
    assert "DynamicQuantizeLinear: not parsed" in objections(onnx.load(tmp_path / "m.onnx"))
