"""One step of each cell, forward and backward, on a chunk of units. Device code, inlined into the kernels of the scans.

`NAME_forward(sums, c_old, inner_bias, APPROX_TANH)`: `sums` is a tuple of the gates' pre-activations, each (R, DC).
`c_old` is the fp32 state before the step: c, or h before rounding for a cell without c. It returns the new (h, c) in
fp32, for a cell without c (h, h).

`NAME_backward(sums, state, dh, dc, inner_bias, APPROX_TANH)`: `state` is the state before the step, c or h (0 for a
cell that reads neither). `dh` and `dc` are the gradients of what the step returned; for a cell that reads h, `dh`
includes `dc`. It returns in fp32 the gradients of the gates' input part, of their recurrent part, and of `state`.

For a cell with an inner gate, `sums` holds that gate's recurrent part, without its bias `inner_bias`, and then, as one
more entry, its input part.
"""

import triton
import triton.language as tl

from sequencer2d.ops.kernels import triton_common as common


@triton.jit
def lstm_forward(sums, c_old, inner_bias, APPROX_TANH: tl.constexpr):
    """Eq. 1-3 of the paper."""
    i = common.sigmoid(sums[0], APPROX_TANH)
    f = common.sigmoid(sums[1], APPROX_TANH)
    g = common.tanh(sums[2], APPROX_TANH)
    o = common.sigmoid(sums[3], APPROX_TANH)
    c = f * c_old + i * g
    return o * common.tanh(c, APPROX_TANH), c


@triton.jit
def lstm_backward(sums, state, dh, dc, inner_bias, APPROX_TANH: tl.constexpr):
    """`state` is c."""
    i = common.sigmoid(sums[0], APPROX_TANH)
    f = common.sigmoid(sums[1], APPROX_TANH)
    g = common.tanh(sums[2], APPROX_TANH)
    o = common.sigmoid(sums[3], APPROX_TANH)
    u = common.tanh(f * state + i * g, APPROX_TANH)
    dc += dh * o * (1.0 - u * u)
    d = (dc * g * i * (1.0 - i), dc * state * f * (1.0 - f), dc * i * (1.0 - g * g), dh * u * o * (1.0 - o))
    return d, d, dc * f


@triton.jit
def gru_forward(sums, c_old, inner_bias, APPROX_TANH: tl.constexpr):
    """torch.nn.GRU's form; the inner gate is the candidate n."""
    r = common.sigmoid(sums[0], APPROX_TANH)
    z = common.sigmoid(sums[1], APPROX_TANH)
    n = common.tanh(sums[3] + r * (sums[2] + inner_bias), APPROX_TANH)
    h = n + z * (c_old - n)
    return h, h


@triton.jit
def gru_backward(sums, state, dh, dc, inner_bias, APPROX_TANH: tl.constexpr):
    """`state` is h."""
    r = common.sigmoid(sums[0], APPROX_TANH)
    z = common.sigmoid(sums[1], APPROX_TANH)
    recurrent_n = sums[2] + inner_bias
    n = common.tanh(sums[3] + r * recurrent_n, APPROX_TANH)
    dn = dh * (1.0 - z) * (1.0 - n * n)
    dr = dn * recurrent_n * r * (1.0 - r)
    dz = dh * (state - n) * z * (1.0 - z)
    return (dr, dz, dn), (dr, dz, dn * r), dh * z


@triton.jit
def rnn_forward(sums, c_old, inner_bias, APPROX_TANH: tl.constexpr):
    """The Elman network with tanh."""
    h = common.tanh(sums[0], APPROX_TANH)
    return h, h


@triton.jit
def rnn_backward(sums, state, dh, dc, inner_bias, APPROX_TANH: tl.constexpr):
    """Reads no state."""
    h = common.tanh(sums[0], APPROX_TANH)
    d = (dh * (1.0 - h * h),)
    return d, d, dc
