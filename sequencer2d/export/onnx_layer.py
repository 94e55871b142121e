"""The operator that stands for one recurrent layer of ONNX while a model is traced, and its translation.

`sequencer2d_onnx::layer` has ONNX's own contract (gate order, bias, layout), so its translation is a single node.
Torch only traces it: it has a shape and no arithmetic.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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


def translations() -> dict[Any, Callable[..., Any]]:
    """The table that `torch.onnx.export` takes as `custom_translation_table`."""
    return {torch.ops.sequencer2d_onnx.layer.default: _translate}


def _translate(x: Any, weight: Any, recurrence: Any, bias: Any, hidden: int, direction: str, cell: str) -> Any:
    from onnxscript import opset18 as op

    arguments = {"direction": direction, "hidden_size": hidden}
    if cell == "lstm":
        out, _, _ = op.LSTM(x, weight, recurrence, bias, **arguments)
    elif cell == "gru":
        # torch multiplies the reset gate into the recurrent product after its bias.
        out, _ = op.GRU(x, weight, recurrence, bias, linear_before_reset=1, **arguments)
    else:
        out, _ = op.RNN(x, weight, recurrence, bias, **arguments)
    return out
