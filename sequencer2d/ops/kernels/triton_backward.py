"""Backward of the fused recurrence: one launch runs the scans in reverse, a second gives the gradient of W_hh.

The first kernel recomputes the activations of a step from its gates and from the hidden state before it. Both are in
memory already, so forward writes nothing but h and c. The second kernel multiplies the gates' gradients with the hidden
states one step earlier. It splits the tokens over programs; the partial sums are added in a fixed order, so the result
is deterministic.
"""

import triton
import triton.language as tl

from sequencer2d.ops.kernels import triton_common as common


@triton.jit(do_not_specialize=common.GRID)
def backward_kernel(
    grad_out, gates, weight, inner_bias, out, states, grad_gates, grad_recurrent, first, grad_first, grad_last,
    runtime_one,
    tokens, steps_0, stride_0, steps_1, stride_1, steps_2, stride_2,
    SCANS: tl.constexpr, S: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, NC: tl.constexpr, KC: tl.constexpr,
    NK: tl.constexpr, R: tl.constexpr, CELL_BACKWARD: tl.constexpr, G: tl.constexpr, HAS_INNER_GATE: tl.constexpr,
    STATE: tl.constexpr, APPROX_TANH: tl.constexpr, PRECISION: tl.constexpr,
    RESIDENT: tl.constexpr, STAGES: tl.constexpr, MATMULS_FIRST: tl.constexpr, FIRST: tl.constexpr,
    LAST: tl.constexpr,
):  # fmt: skip
    """Shapes as in forward; grad_gates and grad_recurrent as gates; states as out.

    grad_recurrent receives the gradients of the recurrent product. They differ from those of the input product only if
    HAS_INNER_GATE; otherwise it is the same tensor as grad_gates. STATE says what `states` holds: c, or h (that is,
    `out`); NO_STATE: the cell reads neither. CELL_BACKWARD is one of the device functions of `triton_cells`.
    first, grad_first, grad_last (S, rows, D): the state that the scans began with, and its gradient, unless FIRST says
    that they began with zeros; if LAST, the gradient of c after the last step.
    """
    # Every warp needs all of h as an operand of the products. In fp32 the operand is split into two TF32 parts, which
    # leaves too few registers to keep h, so it is read again for each chunk.
    REREAD: tl.constexpr = False if MATMULS_FIRST else gates.dtype.element_ty == tl.float32
    slot = tl.program_id(1)
    axes = (steps_0, stride_0, steps_1, stride_1, steps_2, stride_2)
    # `delta` leads to the previous step of the scan.
    any_rows, steps, valid, token, delta = common.locate_rows(slot, tokens, axes, SCANS, R, True)
    if any_rows:
        # All tensors share three offsets: this kernel is short of registers.
        column = tl.arange(0, DC)[None, :]
        bias_rows = inner_bias + slot * D + column
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
        ends = common.locate_states(slot, tokens, steps, R, D)
        narrow, wide = ends + column, ends + tl.arange(0, KC)[None, :]
        for n in tl.static_range(NC):
            if LAST:
                dc = dc + (common.load_chunk(grad_last + narrow, n, valid, D, DC).to(tl.float32),)
            else:
                dc = dc + (zero,)
        tiles = common.load_weight_tiles(weight, slot, D, DC, KC, NC, NK, G, RESIDENT)
        for t in tl.range(0, steps, num_stages=STAGES):
            has_previous = t + 1 < steps
            h = common.load_parts(out + wide_row + delta * (S * D), valid & has_previous, D, KC, NK, False)
            if FIRST == common.FROM_H:
                h = common.add_parts(h, first + wide, valid & (t + 1 == steps), D, KC, NK, False)
            sums = ()
            if MATMULS_FIRST:
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
                dh_n = common.select_chunk(dh, n, R, DC, KC)
                dh_n += common.load_chunk(grad_out + unit_row, n, valid, D, DC).to(tl.float32)
                state = zero
                if STATE != common.NO_STATE:
                    # 0 at the first step.
                    before = states + unit_row + delta * (S * D)
                    state = common.load_chunk(before, n, valid & has_previous, D, DC).to(tl.float32)
                    if FIRST != common.FROM_ZERO:
                        state += common.load_chunk(first + narrow, n, valid & (t + 1 == steps), D, DC).to(tl.float32)
                bias = zero
                if HAS_INNER_GATE:
                    bias = tl.load(bias_rows + n * DC, mask=common.chunk_mask(n, True, D, DC), other=0.0).to(tl.float32)
                if STATE == common.STATE_H:
                    dh_n += dc[n]
                if MATMULS_FIRST:
                    sum_n = sums[n]
                else:
                    if REREAD:
                        h = common.load_parts(out + wide_row + delta * (S * D), valid & has_previous, D, KC, NK, True)
                        if FIRST == common.FROM_H:
                            h = common.add_parts(h, first + wide, valid & (t + 1 == steps), D, KC, NK, True)
                    sum_n = common.gate_sums(
                        gates + gate_row, h, tiles, weight, slot, n, valid, D, DC, KC, NK, G, PRECISION
                    )  # fmt: skip
                parts = common.split_gates(sum_n, R, DC, G)
                d_x, d_rec, d_state = CELL_BACKWARD(parts, state, dh_n, dc[n], bias, APPROX_TANH)
                dc_new = dc_new + (d_state,)
                d_all = common.join_gates(d_rec, R, DC, G).to(dtype)
                common.store_gates(grad_recurrent + gate_row, n, d_all, valid, D, DC, G)
                if HAS_INNER_GATE:
                    d_inputs = common.join_gates(d_x, R, DC, G).to(dtype)
                    common.store_gates(grad_gates + gate_row, n, d_inputs, valid, D, DC, G)
                dh_sum = ()
                for k in tl.static_range(NK):
                    tile = tl.trans(common.fetch_tile(tiles, weight, slot, n, k, D, DC, KC, NK, G))
                    dh_sum = dh_sum + (tl.dot(d_all, tile, dh_new[k], input_precision=PRECISION),)
                dh_new = dh_sum
            # Multiplying by 1, a value unknown to the compiler, copies the sums out of the products' registers. If
            # those were carried into the next step, the compiler would make all products wait for each other.
            dh = ()
            for k in tl.static_range(NK):
                dh = dh + (dh_new[k] * runtime_one,)
            dc = dc_new
            gate_row += delta * (S * G * D)
            unit_row += delta * (S * D)
            wide_row += delta * (S * D)
        if FIRST != common.FROM_ZERO:
            for n in tl.static_range(NC):
                d_first = dc[n]
                if FIRST == common.FROM_H:
                    d_first += common.select_chunk(dh, n, R, DC, KC)
                common.store_chunk(grad_first + narrow, n, d_first.to(dtype), valid, D, DC)


@triton.jit(do_not_specialize=["per_program", *common.GRID])
def weight_gradient_kernel(
    grad_recurrent, out, partial, partial_bias, per_program,
    tokens, steps_0, stride_0, steps_1, stride_1, steps_2, stride_2,
    SCANS: tl.constexpr, S: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, NC: tl.constexpr, G: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Partial sums of the gradient of W_hh over a range of tokens, and of a bias inside the recurrent product.

    partial (programs, S, G*D, D) fp32: grad_recurrent (tokens, S*G*D) times the hidden state before the step, which is
    `out` (tokens, S*D) one step earlier in scan order and 0 at a scan's first step. partial_bias (programs, S, G*D)
    fp32: the sums of grad_recurrent alone.
    """
    slot = tl.program_id(1)
    axes = (steps_0, stride_0, steps_1, stride_1, steps_2, stride_2)
    steps, stride, backward = common.scan_of(slot, axes, SCANS)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    delta = tl.where(backward, stride, -stride)
    first = tl.where(backward, steps - 1, 0)
    sums = ()
    for _ in tl.static_range(NC):
        sums = sums + (tl.zeros((ROWS, DC), tl.float32),)
    # A product with ones sums the bias's gradient; 16 columns are the narrowest that a product takes.
    ones = tl.full((TOKENS, 16), 1.0, grad_recurrent.dtype.element_ty)
    bias = tl.zeros((ROWS, 16), tl.float32)
    begin = tl.program_id(0) * per_program
    end = tl.minimum(begin + per_program, tokens)
    for start in range(begin, end, TOKENS):
        token = start + tl.arange(0, TOKENS)
        real = token < end
        position = token // stride % steps
        wide = token.to(tl.int64)
        grads = tl.load(
            grad_recurrent + wide[:, None] * (S * G * D) + slot * (G * D) + row[None, :],
            mask=real[:, None] & (row[None, :] < G * D), other=0.0,
        )  # fmt: skip
        bias = tl.dot(tl.trans(grads), ones, bias, input_precision=PRECISION)
        added = ()
        for n in tl.static_range(NC):
            column = n * DC + tl.arange(0, DC)
            hidden = tl.load(
                out + (wide + delta)[:, None] * (S * D) + slot * D + column[None, :],
                mask=(real & (position != first))[:, None] & (column[None, :] < D), other=0.0,
            )  # fmt: skip
            added = added + (tl.dot(tl.trans(grads), hidden, sums[n], input_precision=PRECISION),)
        sums = added
    first_sum = (tl.program_id(0) * S + slot) * (G * D)
    # All columns are equal, so the maximum picks one.
    tl.store(partial_bias + first_sum + row, tl.max(bias, 1), mask=row < G * D)
    base = partial + (first_sum + row[:, None]).to(tl.int64) * D
    for n in tl.static_range(NC):
        column = n * DC + tl.arange(0, DC)[None, :]
        tl.store(base + column, sums[n], mask=(row[:, None] < G * D) & (column < D))
