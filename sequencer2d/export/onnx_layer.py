"""What `torch.onnx.export` makes of recurrences: translations of this package's operators.

`sequencer2d::rnn2d` is what a traced token mixer holds on a CPU, `sequencer2d::rnn_layer` what a traced
`sequencer2d.nn.LSTM`, `GRU` or `RNN` does. `export_model` replaces it by `sequencer2d_onnx::layer`, one
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

    For models with recurrent mixers or layers of this package, those that `fuse` put into other models among them: on
    the CPU, in float32.
    """
    return {
        torch.ops.sequencer2d_onnx.layer.default: _translate,
        torch.ops.sequencer2d.rnn2d.default: _translate_grid,
        torch.ops.sequencer2d.rnn_layer.default: _translate_layer,
    }


def _translate_grid(
    x: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any, scans: Sequence[int], cell: str
) -> Any:
    """Each axis of (B, H, W, C) as one node over time-major sequences; concatenated to (B, H, W, S*D)."""
    from onnxscript import opset18 as op

    hidden = weight_hh.shape[2]
    outputs = []
    for slots in vendor.runs(scans):
        scan = Scan.numbered(scans[slots[0]])
        direction = "bidirectional" if len(slots) == 2 else "reverse" if scan.reverse else "forward"
        to_time, back = time_first(scan.axis, 4)
        grid = op.Transpose(x, perm=to_time)
        leading = op.Shape(grid, start=0, end=3)
        time = op.Shape(grid, start=0, end=1)
        sequences = op.Reshape(grid, op.Concat(time, _integers([-1, weight_ih.shape[2]]), axis=0))
        weights = _of_slots(weight_ih, weight_hh, bias_ih, bias_hh, slots, cell)
        y = _translate(sequences, *weights, hidden, direction, cell)
        y = op.Transpose(y, perm=[0, 2, 1, 3])
        y = op.Reshape(y, op.Concat(leading, _integers([len(slots) * hidden]), axis=0))
        outputs.append(op.Transpose(y, perm=back))
    return op.Concat(*outputs, axis=-1) if len(outputs) > 1 else outputs[0]


def _translate_layer(
    x: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any, h: Any, c: Any, cell: str, batch_first: bool
) -> tuple[Any, Any, Any]:
    """See `ops.vendor_sequences.rnn_layer`: one node, whose sequences are time-major, with its states."""
    from onnxscript import opset18 as op

    directions, _, hidden = weight_hh.shape
    weights = _of_slots(weight_ih, weight_hh, bias_ih, bias_hh, range(directions), cell)
    sequences = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
    states = (h,) if c is None else (h, c)
    direction = "bidirectional" if directions == 2 else "forward"
    y, *last = _node(sequences, *weights, hidden, direction, cell, states)
    # (T, directions, N, D) to (N, T, directions, D) or (T, N, directions, D)
    y = op.Transpose(y, perm=[2, 0, 1, 3] if batch_first else [0, 2, 1, 3])
    y = op.Reshape(y, _integers([0, 0, directions * hidden]))
    return y, last[0], last[1] if c is not None else op.Constant(value_floats=[])


def _of_slots(
    weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any, slots: Sequence[int], cell: str
) -> tuple[Any, Any, Any]:
    """Weights and biases of some slots, their gates in ONNX's order; both biases as one, None without biases."""
    from onnxscript import opset18 as op

    hidden = weight_hh.shape[2]

    def pick(stacked: Any) -> Any:
        chosen = op.Gather(stacked, _integers(slots), axis=0)
        order = onnx_node(cell).gate_order
        gates = [
            op.Slice(chosen, _integers([g * hidden]), _integers([(g + 1) * hidden]), _integers([1])) for g in order
        ]
        return op.Concat(*gates, axis=1) if len(gates) > 1 else gates[0]

    biases = [pick(bias) for bias in (bias_ih, bias_hh) if bias is not None]
    return pick(weight_ih), pick(weight_hh), op.Concat(*biases, axis=1) if biases else None


def _integers(values: Sequence[int]) -> Any:
    from onnxscript import opset18 as op

    return op.Constant(value_ints=list(values))


def _translate(x: Any, weight: Any, recurrence: Any, bias: Any, hidden: int, direction: str, cell: str) -> Any:
    return _node(x, weight, recurrence, bias, hidden, direction, cell, ())[0]


def _node(
    x: Any, weight: Any, recurrence: Any, bias: Any, hidden: int, direction: str, cell: str, states: tuple[Any, ...]
) -> Any:
    """ONNX's node of a layer and its results: h of all steps, and the states after the last one."""
    from onnxscript import opset18 as op

    node = onnx_node(cell)
    operator = getattr(op, node.operator)
    # None stands for the lengths of the sequences: all have as many steps.
    arguments = (x, weight, recurrence, bias, None, *states)
    return operator(*arguments, direction=direction, hidden_size=hidden, **node.attributes)


def onnx_node(cell: str) -> OnnxNode:
    """ONNX's node of a cell. Raises `ConfigError` if ONNX has none."""
    node = CELLS[cell].onnx
    if node is None:
        raise ConfigError(f"ONNX has no operator for the cell {cell!r}; export to another format")
    return node
