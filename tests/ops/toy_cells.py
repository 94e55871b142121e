"""Two cells that the package does not have, as rows: one with device functions, one that does not recur through h."""

import torch
import triton
import triton.language as tl

from sequencer2d.ops.cells import Cell, DeviceCode
from sequencer2d.ops.kernels import triton_common as common


def leaky_step(gates, recurrent, state):
    """The Elman network with a leak: half of h stays."""
    return (0.5 * state[0] + 0.5 * torch.tanh(gates + recurrent),)


@triton.jit
def leaky_forward(sums, c_old, inner_bias, APPROX_TANH: tl.constexpr):
    h = 0.5 * c_old + 0.5 * common.tanh(sums[0], APPROX_TANH)
    return h, h


@triton.jit
def leaky_backward(sums, state, dh, dc, inner_bias, APPROX_TANH: tl.constexpr):
    candidate = common.tanh(sums[0], APPROX_TANH)
    d = (0.5 * dh * (1.0 - candidate * candidate),)
    return d, d, 0.5 * dh


def averaging_step(gates, recurrent, state):
    """A weighted average of the values so far; the weight comes from the input alone."""
    assert recurrent.shape[-1] == 0
    weight, value = gates.chunk(2, dim=-1)
    kept = torch.sigmoid(weight)
    return (kept * state[0] + (1 - kept) * value,)


LEAKY = Cell(gates=1, states=1, step=leaky_step, device_code=DeviceCode("tests.ops.toy_cells:leaky", reads_h=True))
AVERAGING = Cell(gates=2, states=1, step=averaging_step, recurrent=False)
