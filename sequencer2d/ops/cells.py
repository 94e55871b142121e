"""The table of recurrent cells. Each is one row; everything that depends on the cell reads it here.

A new cell is a row and its `step`, in plain PyTorch. With these the reference runs it. A row may also name the vendor's
function, the device functions of the fused kernels, and ONNX's node; without them those implementations refuse the
cell and say so. Suffixes: S scans, G gates, D hidden units.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

# State is (h,) or (h, c). A step takes the input part and the recurrent part of the gates, each (..., G*D).
State = tuple[Tensor, ...]
Step = Callable[[Tensor, Tensor, State], State]


def lstm_step(gates: Tensor, recurrent: Tensor, state: State) -> State:
    """One step of the LSTM, eq. 1-3 of the paper."""
    i, f, g, o = (gates + recurrent).chunk(4, dim=-1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(gates: Tensor, recurrent: Tensor, state: State) -> State:
    """One step of torch.nn.GRU: the reset gate scales the candidate's recurrent product, its bias included."""
    r_x, z_x, n_x = gates.chunk(3, dim=-1)
    r_h, z_h, n_h = recurrent.chunk(3, dim=-1)
    z = torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    return (n + z * (state[0] - n),)


def rnn_step(gates: Tensor, recurrent: Tensor, state: State) -> State:
    """One step of the Elman network with tanh."""
    return (torch.tanh(gates + recurrent),)


@dataclass(frozen=True)
class DeviceCode:
    """How the fused kernels run a cell.

    The kernels hold the gates of a unit side by side: one gate, four, or three of which the last is `inner_gate`.

    Attributes:
        functions: "module:name". The module, imported when a kernel runs, defines the device functions `NAME_forward`
            and `NAME_backward`, with the arguments of those in `kernels.triton_cells`.
        reads_h: whether a step reads h itself, beside its product with W_hh.
        in_registers: whether the kernels with W_hh in registers, which are written for the LSTM, run the cell.
    """

    functions: str
    reads_h: bool = False
    in_registers: bool = False


@dataclass(frozen=True)
class OnnxNode:
    """The node of ONNX that runs a cell.

    Attributes:
        operator: the name of ONNX's operator.
        gate_order: torch's index of each of ONNX's gates.
        attributes: attributes of the node beside direction and hidden size.
    """

    operator: str
    gate_order: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A recurrent cell.

    Attributes:
        gates: the number of gates G.
        states: the number of state tensors: 1 for h, 2 for h and c.
        step: one step in plain PyTorch.
        recurrent: whether the gates depend on h through W_hh. Otherwise `weight_hh` is (S, 0, D) and `bias_hh` (S, 0).
        inner_gate: the gate whose recurrent product, bias included, the step changes before it is added to the input's
            part; None if there is none. All other biases of the recurrent product may be added to the input's product.
        forget_gate: the gate that says how much of the state is kept, None if there is none.
        holding: the signs of the gates' pre-activations with which a step keeps the state, if they are large: c of a
            cell with c, whose h becomes 0; otherwise h, or only an h of 0 where no gate can keep it.
        layer: torch's layer of this cell, None if it has none.
        vendor: torch's function of this cell, which runs cuDNN's or oneDNN's kernels, None if it has none.
        device_code: how the fused kernels run the cell, None if they cannot.
        onnx: ONNX's node of this cell, None if it has none.
        onednn_mode: oneDNN's number of this cell for `aten::mkldnn_rnn_layer`, None if it has none.
    """

    gates: int
    states: int
    step: Step
    recurrent: bool = True
    inner_gate: int | None = None
    forget_gate: int | None = None
    holding: tuple[int, ...] = ()
    layer: type[nn.Module] | None = None
    vendor: Callable[..., tuple[Tensor, ...]] | None = None
    device_code: DeviceCode | None = None
    onnx: OnnxNode | None = None
    onednn_mode: int | None = None

    @property
    def recurrent_gates(self) -> int:
        """The gates that W_hh has rows for."""
        return self.gates if self.recurrent else 0

    @property
    def has_c(self) -> bool:
        """Whether the cell has a state c beside h."""
        return self.states == 2


_CELLS_MODULE = "sequencer2d.ops.kernels.triton_cells"

CELLS = {
    # Gates i, f, g, o.
    "lstm": Cell(
        gates=4,
        states=2,
        step=lstm_step,
        forget_gate=1,
        holding=(-1, 1, 0, -1),
        layer=nn.LSTM,
        vendor=torch.lstm,
        device_code=DeviceCode(f"{_CELLS_MODULE}:lstm", in_registers=True),
        onnx=OnnxNode("LSTM", (0, 3, 1, 2)),
        onednn_mode=2,
    ),
    # Gates r, z, n. The reset gate r scales the recurrent product of the candidate n; z says how much of h is kept.
    "gru": Cell(
        gates=3,
        states=1,
        step=gru_step,
        inner_gate=2,
        forget_gate=1,
        holding=(0, 1, 0),
        layer=nn.GRU,
        vendor=torch.gru,
        device_code=DeviceCode(f"{_CELLS_MODULE}:gru", reads_h=True),
        # As in torch, the reset gate scales the recurrent product after its bias was added.
        onnx=OnnxNode("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    ),
    # One gate, with tanh.
    "rnn": Cell(
        gates=1,
        states=1,
        step=rnn_step,
        holding=(0,),
        layer=nn.RNN,
        vendor=torch.rnn_tanh,
        device_code=DeviceCode(f"{_CELLS_MODULE}:rnn"),
        onnx=OnnxNode("RNN", (0,)),
    ),
}
