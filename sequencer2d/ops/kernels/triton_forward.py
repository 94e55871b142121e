"""Forward of the fused recurrence: all scans of a token mixer in one launch, addressed in place on the NHWC grid.

A program runs one scan over a tile of R rows from its first step to its last. W_hh stays on the chip. h stays in
registers in the dtype of the gates, c in fp32. Each step reads its gates once and writes h into its slot of the
concatenated output. Gates are copied to shared memory STAGES - 1 steps ahead, because a step that waits for memory
takes about twice as long as its arithmetic.
"""

import triton
import triton.language as tl

from sequencer2d.ops.kernels import triton_common as common


@triton.jit(do_not_specialize=common.GRID)
def forward_kernel(
    gates, weight, inner_bias, out, cells, first, last,
    tokens, steps_0, stride_0, steps_1, stride_1, steps_2, stride_2,
    SCANS: tl.constexpr, S: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, NC: tl.constexpr,
    R: tl.constexpr, CELL_FORWARD: tl.constexpr, G: tl.constexpr, HAS_INNER_GATE: tl.constexpr, SAVE: tl.constexpr,
    APPROX_TANH: tl.constexpr, PRECISION: tl.constexpr, RESIDENT: tl.constexpr, STAGES: tl.constexpr,
    MATMULS_FIRST: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """gates (B, *grid, S*G*D), weight (S, G*D, D), inner_bias (S, D), out (B, *grid, S*D); if SAVE, cells as out.

    first (S, rows, D) is the state that the scans begin with, see `triton_common.FROM_ZERO`. If LAST, the fp32 state
    after the last step goes to last (S, rows, D).

    Beside h the kernel carries an fp32 state: c, or h itself before rounding for a cell without c. CELL_FORWARD is one
    of the device functions of `triton_cells`. inner_bias is read if HAS_INNER_GATE.
    """
    slot = tl.program_id(1)
    axes = (steps_0, stride_0, steps_1, stride_1, steps_2, stride_2)
    any_rows, steps, valid, token, delta = common.locate_rows(slot, tokens, axes, SCANS, R, False)
    if any_rows:
        column = tl.arange(0, DC)[None, :]
        bias_rows = inner_bias + slot * D + column
        gate_rows = gates + token[:, None] * (S * G * D) + slot * (G * D) + common.gate_columns(D, DC, G)
        out_rows = out + token[:, None] * (S * D) + slot * D + column
        cell_rows = cells + token[:, None] * (S * D) + slot * D + column

        dtype = gates.dtype.element_ty
        zero = tl.zeros((R, DC), tl.float32)
        h = ()
        c = ()
        for _ in tl.static_range(NC):
            h = h + (zero.to(dtype),)
            c = c + (zero,)
        ends = common.locate_states(slot, tokens, steps, R, D) + column
        if FIRST != common.FROM_ZERO:
            h_first = ()
            c = ()
            for n in tl.static_range(NC):
                c = c + (common.load_chunk(first + ends, n, valid, D, DC).to(tl.float32),)
                h_first = h_first + (c[n].to(dtype),)
            if FIRST == common.FROM_H:
                h = h_first
        tiles = common.load_weight_tiles(weight, slot, D, DC, DC, NC, NC, G, RESIDENT)
        for _ in tl.range(0, steps, num_stages=STAGES):
            sums = ()
            if MATMULS_FIRST:
                for n in tl.static_range(NC):
                    sum_n = common.gate_sums(
                        gate_rows, h, tiles, weight, slot, n, valid, D, DC, DC, NC, G, PRECISION
                    )  # fmt: skip
                    sums = sums + (sum_n,)
            h_new = ()
            c_new = ()
            for n in tl.static_range(NC):
                bias = zero
                if HAS_INNER_GATE:
                    bias = tl.load(bias_rows + n * DC, mask=common.chunk_mask(n, True, D, DC), other=0.0).to(tl.float32)
                if MATMULS_FIRST:
                    sum_n = sums[n]
                else:
                    sum_n = common.gate_sums(
                        gate_rows, h, tiles, weight, slot, n, valid, D, DC, DC, NC, G, PRECISION
                    )  # fmt: skip
                h_chunk, c_chunk = CELL_FORWARD(common.split_gates(sum_n, R, DC, G), c[n], bias, APPROX_TANH)
                h_new = h_new + (h_chunk.to(dtype),)
                c_new = c_new + (c_chunk,)
            h = h_new
            c = c_new
            for n in tl.static_range(NC):
                common.store_chunk(out_rows, n, h[n], valid, D, DC)
                if SAVE:
                    common.store_chunk(cell_rows, n, c[n].to(dtype), valid, D, DC)
            gate_rows += delta * (S * G * D)
            out_rows += delta * (S * D)
            cell_rows += delta * (S * D)
        if LAST:
            for n in tl.static_range(NC):
                common.store_chunk(last + ends, n, c[n].to(dtype), valid, D, DC)
