"""Backward of the fused LSTM with W_hh in registers, from the activations that `gluon_forward` saved. Device code.

The scans run in reverse. The only product of a step multiplies the gates' gradients with W_hh. All warps exchange these
gradients, 16 rows, through shared memory; a warp holds the columns of W_hh of its own units. A step has two barriers.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from sequencer2d.ops.kernels import gluon_common as common
from sequencer2d.ops.kernels import gluon_spread as spread


@gluon.jit
def prefetch_step_inputs(
    rings, stage, activations, rows_exist, grads, units_exist, cells, has_previous, NC: gl.constexpr, U: gl.constexpr
):  # fmt: skip
    """Start copying what a step reads to a stage of the rings. has_previous: whether a state precedes the step."""
    ring, ring_grads, ring_cells = rings
    for n in gl.static_range(NC):
        common.copy_async(ring[n].index(stage), activations + n * U, mask=rows_exist)
        common.copy_async(ring_grads[n].index(stage), grads + n * U, mask=units_exist)
        # The state before a scan's first step is 0, which a masked copy writes.
        common.copy_async(ring_cells[n].index(stage), cells + n * U, mask=units_exist & has_previous)
    async_copy.commit_group()


@gluon.jit(do_not_specialize=common.GRID)
def backward_kernel(
    grad_out, activations, weight, cells, grad_gates, grad_last,
    tokens, steps_0, stride_0, steps_1, stride_1, steps_2, stride_2,
    SCANS: gl.constexpr, S: gl.constexpr, D: gl.constexpr, NW: gl.constexpr, NC: gl.constexpr, R: gl.constexpr,
    APPROX_TANH: gl.constexpr, STAGES: gl.constexpr, COPY: gl.constexpr, COPY_UNITS: gl.constexpr,
    GATES_SHARED: gl.constexpr, UNITS_SHARED: gl.constexpr, LAST: gl.constexpr,
    PLACES: gl.constexpr, STREAMED: gl.constexpr,
):  # fmt: skip
    """activations, grad_gates (B, *grid, S*G*D), weight (S, G*D, D), grad_out, cells (B, *grid, S*D).

    If LAST, grad_last (S, rows, D) is the gradient of c after the last step. PLACES and `weight` are as in forward.
    """
    G: gl.constexpr = common.GATES
    U: gl.constexpr = 8 * NW
    M: gl.constexpr = G * U
    mma: gl.constexpr = gl.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[1, NW], instr_shape=[16, 8])
    left: gl.constexpr = gl.DotOperandLayout(0, mma, 2)
    right: gl.constexpr = gl.DotOperandLayout(1, mma, 2)
    dtype: gl.constexpr = activations.dtype.element_ty

    slot = gl.program_id(1)
    axes = (steps_0, stride_0, steps_1, stride_1, steps_2, stride_2)
    steps, rows, walk = common.scan_geometry(slot, tokens, axes, SCANS, True)
    delta = walk[3]
    first, first_unit = slot * (G * D), slot * D

    ring = ()
    ring_cells = ()
    ring_grads = ()
    for _ in gl.static_range(NC):
        ring = ring + (gl.allocate_shared_memory(dtype, [STAGES, R, M], GATES_SHARED),)
        ring_cells = ring_cells + (gl.allocate_shared_memory(dtype, [STAGES, R, U], UNITS_SHARED),)
        ring_grads = ring_grads + (gl.allocate_shared_memory(dtype, [STAGES, R, U], UNITS_SHARED),)
    rings = (ring, ring_grads, ring_cells)
    column = gl.arange(0, M, gl.SliceLayout(0, COPY))
    # Hints that eight neighbors are contiguous, which the compiler does not see.
    column = gl.max_contiguous(gl.multiple_of(column // U * D + column % U, 8), 8)
    unit = gl.arange(0, U, gl.SliceLayout(0, COPY_UNITS))

    prefetch_tile = gl.program_id(0)
    prefetch_step = 0
    prefetch, rows_exist = common.locate(prefetch_tile, rows, walk, 0, first, column, S * G * D, R, COPY)
    prefetch_units, units_exist = common.locate(prefetch_tile, rows, walk, 0, first_unit, unit, S * D, R, COPY_UNITS)
    for stage in gl.static_range(STAGES - 1):
        prefetch_step_inputs(
            rings, stage, activations + prefetch, rows_exist, grad_out + prefetch_units, units_exist,
            cells + (prefetch_units + delta * (S * D)), prefetch_step + 1 < steps, NC, U,
        )  # fmt: skip
        moved = common.advance(
            prefetch_units, units_exist, prefetch_tile, prefetch_step, steps, rows, walk, first_unit, unit, S * D, R,
            COPY_UNITS,
        )  # fmt: skip
        prefetch_units, units_exist = moved[0], moved[1]
        prefetch, rows_exist, prefetch_tile, prefetch_step = common.advance(
            prefetch, rows_exist, prefetch_tile, prefetch_step, steps, rows, walk, first, column, S * G * D, R, COPY
        )  # fmt: skip

    row = gl.arange(0, M, gl.SliceLayout(1, COPY_UNITS))
    row = row // U * D + row % U
    scan_weight = weight + slot * (G * D * D)
    if len(PLACES) > 0:
        w = spread.place_tiles(scan_weight, PLACES, NW, U, False, right)
    else:
        w = common.load_weight(scan_weight, row, COPY_UNITS, NC, U, D, right, UNITS_SHARED)

    exchanged = ()
    for _ in gl.static_range(NC):
        exchanged = exchanged + (gl.allocate_shared_memory(dtype, [R, M], GATES_SHARED),)
    read = 0
    write = STAGES - 1
    zero = gl.zeros([R, U], gl.float32, mma)
    for tile in range(gl.program_id(0), gl.cdiv(rows, R), gl.num_programs(0)):
        dh = ()
        dc = ()
        for n in gl.static_range(NC):
            dh = dh + (zero,)
            if LAST:
                ends = common.locate_states(slot, tile, rows, unit, D, R, COPY_UNITS)
                tile_rows = tile * R + gl.arange(0, R, gl.SliceLayout(1, COPY_UNITS))
                dc_last = gl.load(grad_last + ends + n * U, mask=(tile_rows < rows)[:, None], other=0.0)
                dc = dc + (gl.convert_layout(dc_last.to(gl.float32), mma),)
            else:
                dc = dc + (zero,)
        result, mask = common.locate(tile, rows, walk, 0, first, column, S * G * D, R, COPY)
        for _step in range(steps):
            ahead = 0
            if len(PLACES) > 0:
                ahead = spread.first_from_memory(scan_weight, STREAMED, NW, U)
            async_copy.wait_group(STAGES - 2)
            dc_new = ()
            for n in gl.static_range(NC):
                # (R, gates, units) to i, f, g, o, each (R, U). This renames registers and moves no data.
                all_gates = ring[n].index(read).load(mma).to(gl.float32)
                i_g, f_o = gl.split(all_gates.reshape([R, 2, 2, U]).permute([0, 3, 1, 2]))
                i, g = gl.split(i_g)
                f, o = gl.split(f_o)
                before = gl.convert_layout(ring_cells[n].index(read).load(mma).to(gl.float32), i.type.layout)
                dh_n = dh[n] + ring_grads[n].index(read).load(mma).to(gl.float32)
                dh_n = gl.convert_layout(dh_n, i.type.layout)
                dc_n = gl.convert_layout(dc[n], i.type.layout)
                u = common.tanh(f * before + i * g, APPROX_TANH)
                dc_n += dh_n * o * (1.0 - u * u)
                d_i = dc_n * g * i * (1.0 - i)
                d_f = dc_n * before * f * (1.0 - f)
                d_g = dc_n * i * (1.0 - g * g)
                d_o = dh_n * u * o * (1.0 - o)
                dc_new = dc_new + (gl.convert_layout(dc_n * f, mma),)
                d = gl.join(gl.join(d_i, d_g), gl.join(d_f, d_o)).permute([0, 2, 3, 1]).reshape([R, M])
                exchanged[n].store(d.to(dtype))
            dc = dc_new
            for n in gl.static_range(NC):
                gl.store(grad_gates + result + n * U, exchanged[n].load(COPY), mask=mask)
            result += delta * (S * G * D)
            prefetch_step_inputs(
                rings, write, activations + prefetch, rows_exist, grad_out + prefetch_units, units_exist,
                cells + (prefetch_units + delta * (S * D)), prefetch_step + 1 < steps, NC, U,
            )  # fmt: skip
            moved = common.advance(
                prefetch_units, units_exist, prefetch_tile, prefetch_step, steps, rows, walk, first_unit, unit, S * D,
                R, COPY_UNITS,
            )  # fmt: skip
            prefetch_units, units_exist = moved[0], moved[1]
            prefetch, rows_exist, prefetch_tile, prefetch_step = common.advance(
                prefetch, rows_exist, prefetch_tile, prefetch_step, steps, rows, walk, first, column, S * G * D, R, COPY
            )  # fmt: skip
            read = common.next_stage(read, STAGES)
            write = common.next_stage(write, STAGES)
            # A product waits for the previous one of its chain, so each chunk of gates has a chain of its own.
            dh = ()
            for _ in gl.static_range(NC):
                dh = dh + (zero,)
            for n in gl.static_range(NC):
                d = exchanged[n].load(left)
                added = ()
                for k in gl.static_range(NC):
                    if len(PLACES) > 0:
                        tile_w, ahead = spread.fetch_tile(
                            w, ahead, scan_weight, n * NC + k, PLACES, STREAMED, NW, U, False, right
                        )  # fmt: skip
                        added = added + (dh[k] + mma_v2(d, tile_w, zero),)
                    else:
                        added = added + (dh[k] + mma_v2(d, w[n * NC + k], zero),)
                dh = added
