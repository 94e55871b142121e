"""Backward of the fused recurrence: the scans run in reverse, then one launch for the recurrent weights' gradient.

The first kernel recomputes the activations of a step from the input gates and the hidden state before it, both already
in memory, so forward writes nothing but h and c. The second multiplies gate gradients with shifted hidden states; it
splits the tokens over programs and the partial sums are added in a fixed order, so the result is deterministic.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sequencer2d.ops import triton_common as common
from sequencer2d.ops.triton_forward import CELL_CODES, gate_count, pack_scans
from sequencer2d.ops.tuning import Launch, most_rows, multiprocessors

# Tokens and gate rows of the weight gradient's launch, and programs on a multiprocessor: as many as run at a time, as a
# second round of fewer costs as much as the first. 64 is what wgmma needs of the tile's rows.
WEIGHT_TOKENS = 64
WEIGHT_ROWS = 64
WEIGHT_SHARE = 3


@triton.jit
def cell_backward(sums, state, dh, dc, bias_n, CELL: tl.constexpr, FAST: tl.constexpr):
    """Gradients of one step of a chunk.

    sums are as in forward, state is c (LSTM) or h (GRU) before the step, dh and dc the gradients of what the step
    returned. Returns, in fp32, the gradients of the gates' input part, of their recurrent part, and of the state before
    (LSTM: c; GRU: h).
    """
    if CELL == common.LSTM:
        i = common.sigmoid(sums[0], FAST)
        f = common.sigmoid(sums[1], FAST)
        g = common.tanh(sums[2], FAST)
        o = common.sigmoid(sums[3], FAST)
        u = common.tanh(f * state + i * g, FAST)
        dc += dh * o * (1.0 - u * u)
        d = (dc * g * i * (1.0 - i), dc * state * f * (1.0 - f), dc * i * (1.0 - g * g), dh * u * o * (1.0 - o))
        return d, d, dc * f
    elif CELL == common.GRU:
        r = common.sigmoid(sums[0], FAST)
        z = common.sigmoid(sums[1], FAST)
        recurrent_n = sums[2] + bias_n
        n = common.tanh(sums[3] + r * recurrent_n, FAST)
        dn = dh * (1.0 - z) * (1.0 - n * n)
        dr = dn * recurrent_n * r * (1.0 - r)
        dz = dh * (state - n) * z * (1.0 - z)
        return (dr, dz, dn), (dr, dz, dn * r), dh * z
    else:
        h = common.tanh(sums[0], FAST)
        d = (dh * (1.0 - h * h),)
        return d, d, dc


@triton.jit(do_not_specialize=["B", "H", "W"])
def backward_kernel(
    grad_out, gates, weight, bias_n, out, states, grad_gates, grad_rec, one, B, H, W,
    SCANS: tl.constexpr, S: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, NC: tl.constexpr, KC: tl.constexpr,
    NK: tl.constexpr, R: tl.constexpr, CELL: tl.constexpr, FAST: tl.constexpr, PRECISION: tl.constexpr,
    RESIDENT: tl.constexpr, STAGES: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Shapes as in forward; grad_gates as gates. grad_rec, as gates, is written for the GRU only, where the gradient of
    the recurrent product differs from that of the input gates. states: c for the LSTM, h (that is, out) for the GRU.
    """
    G: tl.constexpr = 4 if CELL == common.LSTM else (3 if CELL == common.GRU else 1)
    STATE: tl.constexpr = CELL != common.RNN
    # Every warp needs all of h as a product's operand, in fp32 its parts as well: too much to keep beside W_hh's.
    REREAD: tl.constexpr = False if AHEAD else gates.dtype.element_ty == tl.float32
    slot = tl.program_id(1)
    # `hop` leads to the step before in scan order.
    any_rows, steps, valid, token, hop = common.place_rows(slot, B, H, W, SCANS, R, True)
    if any_rows:
        # Three offsets serve all tensors: registers are what this kernel is short of.
        column = tl.arange(0, DC)[None, :]
        bias_rows = bias_n + slot * D + column
        gate_row = token[:, None] * (S * G * D) + slot * (G * D) + common.gate_columns(D, DC, G)
        unit_row = token[:, None] * (S * D) + slot * D + column
        wide_row = token[:, None] * (S * D) + slot * D + tl.arange(0, KC)[None, :]
        dtype = gates.dtype.element_ty
        zero = tl.zeros((R, DC), tl.float32)
        wide_zero = tl.zeros((R, KC), tl.float32)
        dh = ()
        dc = ()
        for _ in tl.static_range(NK):
            dh = dh + (wide_zero,)
        for _ in tl.static_range(NC):
            dc = dc + (zero,)
        tiles = common.weight_tiles(weight, slot, D, DC, KC, NC, NK, G, RESIDENT)
        for t in tl.range(0, steps, num_stages=STAGES):
            inner = t + 1 < steps
            h = common.load_parts(out + wide_row + hop * (S * D), valid & inner, D, KC, NK, False)
            sums = ()
            if AHEAD:
                for n in tl.static_range(NC):
                    sum_n = common.gate_sums(
                        gates + gate_row, h, tiles, weight, slot, n, valid, D, DC, KC, NK, G, PRECISION
                    )  # fmt: skip
                    sums = sums + (sum_n,)
            dh_new = ()
            for _ in tl.static_range(NK):
                dh_new = dh_new + (wide_zero,)
            dc_new = ()
            for n in tl.static_range(NC):
                dh_n = common.chunk_of(dh, n, R, DC, KC)
                dh_n += common.load_chunk(grad_out + unit_row, n, valid, D, DC).to(tl.float32)
                state = zero
                if STATE:
                    # 0 at the first step.
                    before = states + unit_row + hop * (S * D)
                    state = common.load_chunk(before, n, valid & inner, D, DC).to(tl.float32)
                bias = zero
                if CELL == common.GRU:
                    bias = tl.load(bias_rows + n * DC, mask=common.exists(n, True, D, DC), other=0.0).to(tl.float32)
                    dh_n += dc[n]
                if AHEAD:
                    sum_n = sums[n]
                else:
                    if REREAD:
                        h = common.load_parts(out + wide_row + hop * (S * D), valid & inner, D, KC, NK, True)
                    sum_n = common.gate_sums(
                        gates + gate_row, h, tiles, weight, slot, n, valid, D, DC, KC, NK, G, PRECISION
                    )  # fmt: skip
                parts = common.apart(sum_n, R, DC, G)
                d_x, d_rec, d_state = cell_backward(parts, state, dh_n, dc[n], bias, CELL, FAST)
                dc_new = dc_new + (d_state,)
                d_all = common.side_by_side(d_rec, R, DC, G).to(dtype)
                common.store_gates(grad_rec + gate_row, n, d_all, valid, D, DC, G)
                if CELL == common.GRU:
                    d_inputs = common.side_by_side(d_x, R, DC, G).to(dtype)
                    common.store_gates(grad_gates + gate_row, n, d_inputs, valid, D, DC, G)
                dh_sum = ()
                for k in tl.static_range(NK):
                    tile = tl.trans(common.get_tile(tiles, weight, slot, n, k, D, DC, KC, NK, G))
                    dh_sum = dh_sum + (tl.dot(d_all, tile, dh_new[k], input_precision=PRECISION),)
                dh_new = dh_sum
            # Times 1, which the compiler cannot know: were the products' own registers carried into the next step, it
            # would see them read while products run, and make all of those wait for each other.
            dh = ()
            for k in tl.static_range(NK):
                dh = dh + (dh_new[k] * one,)
            dc = dc_new
            gate_row += hop * (S * G * D)
            unit_row += hop * (S * D)
            wide_row += hop * (S * D)


@triton.jit(do_not_specialize=["tokens", "per_program", "H", "W"])
def weight_gradient_kernel(
    grad_rec, out, partial, partial_bias, tokens, per_program, H, W,
    SCANS: tl.constexpr, S: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, NC: tl.constexpr, G: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """partial (programs, S, G*D, D) fp32: sums over a range of tokens of grad_rec (tokens, S*G*D) times the hidden
    state before, out (tokens, S*D) one step back in scan order, which is 0 at a scan's first step. partial_bias
    (programs, S, G*D) fp32: the sums of grad_rec alone, which is read here anyway.
    """
    slot = tl.program_id(1)
    axis, backward, steps, stride = common.scan_steps(slot, H, W, SCANS)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    hop = tl.where(backward, stride, -stride)
    first = tl.where(backward, steps - 1, 0)
    sums = ()
    for _ in tl.static_range(NC):
        sums = sums + (tl.zeros((ROWS, DC), tl.float32),)
    # Summed by one more product, with ones: 16 columns are the narrowest there is.
    ones = tl.full((TOKENS, 16), 1.0, grad_rec.dtype.element_ty)
    bias = tl.zeros((ROWS, 16), tl.float32)
    begin = tl.program_id(0) * per_program
    end = tl.minimum(begin + per_program, tokens)
    for start in range(begin, end, TOKENS):
        token = start + tl.arange(0, TOKENS)
        real = token < end
        position = tl.where(axis == 0, (token // W) % H, token % W)
        wide = token.to(tl.int64)
        grads = tl.load(
            grad_rec + wide[:, None] * (S * G * D) + slot * (G * D) + row[None, :],
            mask=real[:, None] & (row[None, :] < G * D), other=0.0,
        )  # fmt: skip
        bias = tl.dot(tl.trans(grads), ones, bias, input_precision=PRECISION)
        added = ()
        for n in tl.static_range(NC):
            column = n * DC + tl.arange(0, DC)
            hidden = tl.load(
                out + (wide + hop)[:, None] * (S * D) + slot * D + column[None, :],
                mask=(real & (position != first))[:, None] & (column[None, :] < D), other=0.0,
            )  # fmt: skip
            added = added + (tl.dot(tl.trans(grads), hidden, sums[n], input_precision=PRECISION),)
        sums = added
    first_sum = (tl.program_id(0) * S + slot) * (G * D)
    # All columns are equal.
    tl.store(partial_bias + first_sum + row, tl.max(bias, 1), mask=row < G * D)
    base = partial + (first_sum + row[:, None]).to(tl.int64) * D
    for n in tl.static_range(NC):
        column = n * DC + tl.arange(0, DC)[None, :]
        tl.store(base + column, sums[n], mask=(row[:, None] < G * D) & (column < D))


def launch_backward(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    out: Tensor,
    cells: Tensor,
    *,
    scans: tuple[int, ...],
    cell: str,
    launches: tuple[Launch, ...],
    fast: bool,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of the gates and of the recurrent products, both (B, H, W, S*G*D); the same tensor but for the GRU."""
    batch, height, width, _ = gates.shape
    hidden = weight_hh.shape[-1]
    grad_gates = torch.empty_like(gates)
    grad_rec = torch.empty_like(gates) if cell == "gru" else grad_gates
    longest = most_rows(gates, scans)

    def start(launch: Launch) -> None:
        inner = launch.inner or launch.chunk
        common.run_kernel(
            backward_kernel, (triton.cdiv(longest, launch.rows), len(scans)),
            grad_out, gates, weight_hh, weight_hh if bias_n is None else bias_n, out,
            cells if cell == "lstm" else out, grad_gates, grad_rec, 1.0, batch, height, width,
            SCANS=pack_scans(scans), S=len(scans), D=hidden, DC=launch.chunk, NC=triton.cdiv(hidden, launch.chunk),
            KC=inner, NK=triton.cdiv(hidden, inner), R=launch.rows, CELL=CELL_CODES[cell], FAST=fast,
            PRECISION=precision, RESIDENT=launch.resident, STAGES=launch.stages, AHEAD=launch.ahead,
            num_warps=launch.warps, num_stages=1,
        )  # fmt: skip

    common.first_that_fits(("backward", hidden, len(scans), cell, gates.dtype, gates.device), launches, start)
    return grad_gates, grad_rec


def launch_weight_gradient(
    grad_rec: Tensor, out: Tensor, *, scans: tuple[int, ...], hidden: int, cell: str, precision: str
) -> tuple[Tensor, Tensor]:
    """Gradients of W_hh, (S, G*D, D), and of a bias inside the recurrent product, (S, G*D); fp32."""
    batch, height, width, _ = out.shape
    tokens, gates = batch * height * width, gate_count(cell)
    row_tiles = triton.cdiv(gates * hidden, WEIGHT_ROWS)
    splits = max(WEIGHT_SHARE * multiprocessors(out.device) // (len(scans) * row_tiles), 1)
    per_program = max(triton.cdiv(triton.cdiv(tokens, splits), WEIGHT_TOKENS), 1) * WEIGHT_TOKENS
    programs = triton.cdiv(tokens, per_program)
    partial = out.new_empty(programs, len(scans), gates * hidden, hidden, dtype=torch.float32)
    partial_bias = out.new_empty(programs, len(scans), gates * hidden, dtype=torch.float32)
    grid = (programs, len(scans), row_tiles)
    chunk = 16 if hidden <= 16 or 32 < hidden <= 48 else 32

    def start(stages: int) -> None:
        common.run_kernel(
            weight_gradient_kernel, grid,
            grad_rec, out, partial, partial_bias, tokens, per_program, height, width,
            SCANS=pack_scans(scans), S=len(scans), D=hidden, DC=chunk, NC=triton.cdiv(hidden, chunk), G=gates,
            ROWS=WEIGHT_ROWS, TOKENS=WEIGHT_TOKENS, PRECISION=precision, num_warps=4, num_stages=stages,
        )  # fmt: skip

    common.first_that_fits(("weight", hidden, len(scans), cell, out.dtype, out.device), (3, 2, 1), start)
    return partial.sum(0), partial_bias.sum(0)
