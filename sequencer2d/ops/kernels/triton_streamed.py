"""The recurrence with W_hh read from memory at each step, for hidden sizes that the chip has no room for. Device code.

Loops over chunks of hidden units are loops of the program, not of the compiler, so that a kernel is small at any hidden
size. h goes from step to step through the output, the fp32 state through memory that only its own program touches.
Backward gets the products of W_hh with the hidden states: those of all steps are one matrix product, done before. A
step is then element-wise work and one product. Suffixes as in `triton_common`.
"""

import triton
import triton.language as tl

from sequencer2d.ops.kernels import triton_common as common


@triton.jit
def units_mask(n, valid, D: tl.constexpr, N: tl.constexpr):
    """The mask of part n of N units: rows that exist, `valid` (R, 1), and units below D."""
    if D % N == 0:
        return valid
    else:
        return valid & (n * N + tl.arange(0, N)[None, :] < D)


@triton.jit
def gates_mask(n, valid, without: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, G: tl.constexpr):
    """As `triton_common.gates_mask`, for a chunk n that the compiler does not know."""
    column = tl.arange(0, (4 if G > 1 else 1) * DC)[None, :]
    mask = valid
    if D % DC != 0:
        mask = mask & (n * DC + column % DC < D)
    if G == 3:
        mask = mask & (column // DC != without)
    return mask


@triton.jit
def locate_states(slot, slot_rows, R: tl.constexpr, D: tl.constexpr):
    """Offsets of a program's rows in a tensor (S, slot_rows, D) that has one value for each row: int64 (R, 1)."""
    rows = slot * slot_rows + tl.program_id(0) * R + tl.arange(0, R)
    return rows[:, None].to(tl.int64) * D


@triton.jit
def load_weight_tile(
    weight, slot, n, k, D: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr, G: tl.constexpr,
):  # fmt: skip
    """As `triton_common.load_weight_tile`, for n and k that the compiler does not know."""
    column = tl.arange(0, (4 if G > 1 else 1) * DC)[None, :]
    unit = n * DC + column % DC
    source = k * KC + tl.arange(0, KC)[:, None]
    pointers = weight + slot * (G * D * D) + (column // DC * D + unit) * D + source
    if D % DC == 0 and D % KC == 0 and G != 3:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask=(unit < D) & (source < D) & (column // DC < G), other=0.0)


@triton.jit(do_not_specialize=["slot_rows", *common.GRID])
def forward_kernel(
    gates, weight, inner_bias, out, cells, first, state, slot_rows,
    tokens, steps_0, stride_0, steps_1, stride_1, steps_2, stride_2,
    SCANS: tl.constexpr, S: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr, R: tl.constexpr,
    CELL_FORWARD: tl.constexpr, G: tl.constexpr, HAS_INNER_GATE: tl.constexpr, SAVE: tl.constexpr,
    APPROX_TANH: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr, FROM_H: tl.constexpr,
):  # fmt: skip
    """gates (B, *grid, S*G*D), weight (S, G*D, D), inner_bias (S, D), out (B, *grid, S*D); if SAVE, cells as out.

    state (S, slot_rows, D) fp32 holds the state before the first step and, at the end, that after the last. If FROM_H,
    first (S, slot_rows, D) is the h before the first step, which is 0 otherwise. No scan has more rows than slot_rows.
    """
    slot = tl.program_id(1)
    axes = (steps_0, stride_0, steps_1, stride_1, steps_2, stride_2)
    any_rows, steps, valid, token, delta = common.locate_rows(slot, tokens, axes, SCANS, R, False)
    if any_rows:
        unit = tl.arange(0, DC)[None, :]
        source = tl.arange(0, KC)[None, :]
        gate_rows = gates + token[:, None] * (S * G * D) + slot * (G * D) + common.gate_columns(D, DC, G)
        unit_rows = token[:, None] * (S * D) + slot * D
        state_rows = locate_states(slot, slot_rows, R, D)
        dtype = gates.dtype.element_ty
        for t in range(steps):
            for n in range(tl.cdiv(D, DC)):
                sums = tl.load(gate_rows + n * DC, mask=gates_mask(n, valid, 2, D, DC, G), other=0.0).to(tl.float32)
                for k in tl.range(0, tl.cdiv(D, KC), num_stages=STAGES):
                    mask = units_mask(k, valid, D, KC)
                    before = unit_rows - delta * (S * D) + k * KC + source
                    h = tl.load(out + before, mask=mask & (t > 0), other=0.0)
                    if FROM_H:
                        h += tl.load(first + state_rows + k * KC + source, mask=mask & (t == 0), other=0.0)
                    tile = load_weight_tile(weight, slot, n, k, D, DC, KC, G)
                    sums = tl.dot(h, tile, sums, input_precision=PRECISION)
                mask = units_mask(n, valid, D, DC)
                column = n * DC + unit
                bias = tl.zeros((R, DC), tl.float32)
                if HAS_INNER_GATE:
                    bias += tl.load(inner_bias + slot * D + column, mask=column < D, other=0.0).to(tl.float32)
                c = tl.load(state + state_rows + column, mask=mask, other=0.0)
                h_new, c_new = CELL_FORWARD(common.split_gates(sums, R, DC, G), c, bias, APPROX_TANH)
                tl.store(out + unit_rows + column, h_new.to(dtype), mask=mask)
                tl.store(state + state_rows + column, c_new, mask=mask)
                if SAVE:
                    tl.store(cells + unit_rows + column, c_new.to(dtype), mask=mask)
            # The next step reads what other threads of this program have written.
            tl.debug_barrier()
            gate_rows += delta * (S * G * D)
            unit_rows += delta * (S * D)


@triton.jit(do_not_specialize=["slot_rows", *common.GRID])
def backward_kernel(
    grad_out, gates, weight, inner_bias, states, grad_gates, recurrent, first, dh, dc, slot_rows,
    tokens, steps_0, stride_0, steps_1, stride_1, steps_2, stride_2,
    SCANS: tl.constexpr, S: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr, JC: tl.constexpr,
    R: tl.constexpr, CELL_BACKWARD: tl.constexpr, G: tl.constexpr, HAS_INNER_GATE: tl.constexpr,
    STATE: tl.constexpr, APPROX_TANH: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
    FIRST: tl.constexpr,
):  # fmt: skip
    """Shapes as in forward; grad_gates and recurrent as gates; states as out.

    recurrent holds the products of W_hh with the h before each step, and then the gradients of these products. They
    differ from those of the gates only if HAS_INNER_GATE; otherwise grad_gates is not used. STATE and FIRST are as in
    `triton_backward`. dh and dc (S, slot_rows, D) fp32 are the gradients of h and of the state after the last step and,
    at the end, before the first.
    """
    slot = tl.program_id(1)
    axes = (steps_0, stride_0, steps_1, stride_1, steps_2, stride_2)
    # `delta` leads to the previous step of the scan.
    any_rows, steps, valid, token, delta = common.locate_rows(slot, tokens, axes, SCANS, R, True)
    if any_rows:
        unit = tl.arange(0, DC)[None, :]
        part = tl.arange(0, KC)[None, :]
        joined = tl.arange(0, JC)
        gate_rows = token[:, None] * (S * G * D) + slot * (G * D)
        unit_rows = token[:, None] * (S * D) + slot * D
        state_rows = locate_states(slot, slot_rows, R, D)
        dtype = gates.dtype.element_ty
        zero = tl.zeros((R, DC), tl.float32)
        for t in range(steps):
            has_previous = t + 1 < steps
            for n in range(tl.cdiv(D, DC)):
                mask = units_mask(n, valid, D, DC)
                column = n * DC + unit
                sums = ()
                for g in tl.static_range(G):
                    inputs = tl.load(gates + gate_rows + g * D + column, mask=mask, other=0.0).to(tl.float32)
                    product = tl.load(recurrent + gate_rows + g * D + column, mask=mask, other=0.0).to(tl.float32)
                    if HAS_INNER_GATE and g == G - 1:
                        sums = sums + (product, inputs)
                    else:
                        sums = sums + (inputs + product,)
                before = zero
                if STATE != common.NO_STATE:
                    at = states + unit_rows + delta * (S * D) + column
                    before += tl.load(at, mask=mask & has_previous, other=0.0).to(tl.float32)
                    if FIRST != common.FROM_ZERO:
                        at_first = mask & (t + 1 == steps)
                        before += tl.load(first + state_rows + column, mask=at_first, other=0.0).to(tl.float32)
                bias = zero
                if HAS_INNER_GATE:
                    bias += tl.load(inner_bias + slot * D + column, mask=column < D, other=0.0).to(tl.float32)
                dh_n = tl.load(dh + state_rows + column, mask=mask, other=0.0)
                dh_n += tl.load(grad_out + unit_rows + column, mask=mask, other=0.0).to(tl.float32)
                dc_n = tl.load(dc + state_rows + column, mask=mask, other=0.0)
                if STATE == common.STATE_H:
                    dh_n += dc_n
                d_inputs, d_products, d_state = CELL_BACKWARD(sums, before, dh_n, dc_n, bias, APPROX_TANH)
                tl.store(dc + state_rows + column, d_state, mask=mask)
                for g in tl.static_range(G):
                    tl.store(recurrent + gate_rows + g * D + column, d_products[g].to(dtype), mask=mask)
                    if HAS_INNER_GATE:
                        tl.store(grad_gates + gate_rows + g * D + column, d_inputs[g].to(dtype), mask=mask)
            # The products read what other threads of this program have written, and so does the next step.
            tl.debug_barrier()
            for k in range(tl.cdiv(D, KC)):
                total = tl.zeros((R, KC), tl.float32)
                for j in tl.range(0, tl.cdiv(G * D, JC), num_stages=STAGES):
                    mask = units_mask(j, valid, G * D, JC)
                    grads = tl.load(recurrent + gate_rows + j * JC + joined[None, :], mask=mask, other=0.0)
                    row = j * JC + joined[:, None]
                    tile = tl.load(
                        weight + slot * (G * D * D) + row * D + k * KC + part,
                        mask=(row < G * D) & (k * KC + part < D), other=0.0,
                    )  # fmt: skip
                    total = tl.dot(grads, tile, total, input_precision=PRECISION)
                tl.store(dh + state_rows + k * KC + part, total, mask=units_mask(k, valid, D, KC))
            tl.debug_barrier()
            gate_rows += delta * (S * G * D)
            unit_rows += delta * (S * D)
