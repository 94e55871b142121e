"""What `torch.onnx.export` makes of recurrences: translations of this package's operators.

`sequencer2d::rnn2d` is what a traced model holds on a CPU. `export_model` replaces it by `sequencer2d_onnx::layer`, one
recurrent layer of ONNX. It has ONNX's own contract (gate order, bias, layout), so weights are reordered once and its
translation is a single node. Torch only traces it: it has a shape and no arithmetic.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sequencer2d.errors import ConfigError
from sequencer2d.ops import vendor
from sequencer2d.ops.cells import CELLS, OnnxNode
from sequencer2d.ops.scans import Scan, time_first

_LIBRARY = torch.library.Library("sequencer2d_onnx", "DEF")
_LIBRARY.define(
    "layer(Tensor x, Tensor weight, Tensor recurrence, Tensor bias, int hidden, str direction, str cell) -> Tensor"
)


def _fake_layer(
    x: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor, hidden: int, direction: str, cell: str
) -> Tensor:
    """(T, N, C) to (T, directions, N, D)."""
    return x.new_empty(x.shape[0], weight.shape[0], x.shape[1], hidden)


torch.library.register_fake("sequencer2d_onnx::layer", _fake_layer, lib=_LIBRARY)


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """The table that `torch.onnx.export(model, ..., dynamo=True)` takes as `custom_translation_table`.

    For models with recurrent mixers of this package, those that `fuse` put into other models among them: on the CPU, in
    float32.
    """
    return {
        torch.ops.sequencer2d_onnx.layer.default: _translate,
        torch.ops.sequencer2d.rnn2d.default: _translate_grid,
    }


def _translate_grid(
    x: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any, scans: Sequence[int], cell: str
) -> Any:
    """Each axis of (B, H, W, C) as one node over time-major sequences; concatenated to (B, H, W, S*D)."""
    from onnxscript import opset18 as op

    hidden = weight_hh.shape[2]
    constant = lambda values: op.Constant(value_ints=list(values))  # noqa: E731

    def of_slots(stacked: Any, slots: Sequence[int]) -> Any:
        """Weights or biases of some slots, their gates in ONNX's order."""
        chosen = op.Gather(stacked, constant(slots), axis=0)
        order = onnx_node(cell).gate_order
        gates = [op.Slice(chosen, constant([g * hidden]), constant([(g + 1) * hidden]), constant([1])) for g in order]
        return op.Concat(*gates, axis=1) if len(gates) > 1 else gates[0]

    outputs = []
    for slots in vendor.runs(scans):
        scan = Scan.numbered(scans[slots[0]])
        direction = "bidirectional" if len(slots) == 2 else "reverse" if scan.reverse else "forward"
        to_time, back = time_first(scan.axis, 4)
        grid = op.Transpose(x, perm=to_time)
        leading = op.Shape(grid, start=0, end=3)
        time = op.Shape(grid, start=0, end=1)
        sequences = op.Reshape(grid, op.Concat(time, constant([-1, weight_ih.shape[2]]), axis=0))
        biases = [of_slots(bias, slots) for bias in (bias_ih, bias_hh) if bias is not None]
        bias = op.Concat(*biases, axis=1) if biases else None
        y = _translate(sequences, of_slots(weight_ih, slots), of_slots(weight_hh, slots), bias, hidden, direction, cell)
        y = op.Transpose(y, perm=[0, 2, 1, 3])
        y = op.Reshape(y, op.Concat(leading, constant([len(slots) * hidden]), axis=0))
        outputs.append(op.Transpose(y, perm=back))
    return op.Concat(*outputs, axis=-1) if len(outputs) > 1 else outputs[0]


def _translate(x: Any, weight: Any, recurrence: Any, bias: Any, hidden: int, direction: str, cell: str) -> Any:
    from onnxscript import opset18 as op

    node = onnx_node(cell)
    operator = getattr(op, node.operator)
    return operator(x, weight, recurrence, bias, direction=direction, hidden_size=hidden, **node.attributes)[0]


def onnx_node(cell: str) -> OnnxNode:
    """ONNX's node of a cell. Raises `ConfigError` if ONNX has none."""
    node = CELLS[cell].onnx
    if node is None:
        raise ConfigError(f"ONNX has no operator for the cell {cell!r}; export to another format")
    return node
