"""Forward of the fused LSTM with W_hh in registers, for hidden sizes that leave room for it. Device code.

W_hh, (gates, units), is the stationary operand of every product; the hidden states of R rows are the other. Tensor
cores need only 8 rows, so small batches spread over many multiprocessors. A warp holds all gates of its units. A step
exchanges h alone, through shared memory, and has two barriers. Programs take one tile after another and prefetch the
gates of later steps, across tiles.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from sequencer2d.ops.kernels import gluon_common as common
from sequencer2d.ops.kernels import gluon_spread as spread


@gluon.jit
def split_gates(sums, NW: gl.constexpr, R: gl.constexpr):
    """Split the sums (M, R) of a chunk into i, f, g, o, each (NW, 8, R). This renames registers and moves no data.

    The rows of `sums` run over pairs of gates, warps, the two gates of a pair, and units, so that a thread holds all
    four gates of its units.
    """
    by_gate = sums.reshape([2, NW, 2, 8, R]).permute([1, 3, 4, 0, 2])
    i_g, f_o = gl.split(by_gate)
    i, g = gl.split(i_g)
    f, o = gl.split(f_o)
    return i, f, g, o


@gluon.jit(do_not_specialize=common.GRID)
def forward_kernel(
    gates, weight, out, cells, activations, last,
    tokens, steps_0, stride_0, steps_1, stride_1, steps_2, stride_2,
    SCANS: gl.constexpr, S: gl.constexpr, D: gl.constexpr, NW: gl.constexpr, NC: gl.constexpr, R: gl.constexpr,
    SAVE: gl.constexpr, APPROX_TANH: gl.constexpr, EARLY_START: gl.constexpr, STAGES: gl.constexpr, READ: gl.constexpr,
    COPY: gl.constexpr, COPY_UNITS: gl.constexpr, GATES_SHARED: gl.constexpr, UNITS_SHARED: gl.constexpr,
    LAST: gl.constexpr, PLACES: gl.constexpr, STREAMED: gl.constexpr,
):  # fmt: skip
    """gates (B, *grid, S*G*D), weight (S, G*D, D), out (B, *grid, S*D); if SAVE, cells as out, activations as gates.

    If LAST, c after the last step goes to last (S, rows, D).

    EARLY_START: the launch starts before the previous one has ended, reads W_hh, and then waits for that end. It lets
    the next launch start at once, too, so several may run at the same time; none of them may write W_hh.

    PLACES: where each tile of W_hh lies, see `gluon_spread`, whose order `weight` then has; empty if all of it is in
    registers.
    """
    G: gl.constexpr = common.GATES
    U: gl.constexpr = 8 * NW
    M: gl.constexpr = G * U
    mma: gl.constexpr = gl.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[NW, 1], instr_shape=[16, 8])
    left: gl.constexpr = gl.DotOperandLayout(0, mma, 2)
    right: gl.constexpr = gl.DotOperandLayout(1, mma, 2)
    unit_pairs: gl.constexpr = gl.BlockedLayout([1, 2], [64 // U, U // 2], [NW, 1], [1, 0])
    dtype: gl.constexpr = gates.dtype.element_ty

    slot = gl.program_id(1)
    axes = (steps_0, stride_0, steps_1, stride_1, steps_2, stride_2)
    steps, rows, walk = common.scan_geometry(slot, tokens, axes, SCANS, False)
    delta = walk[3]
    first, first_unit = slot * (G * D), slot * D

    # W_hh in the order of `split_gates`. Its registers are filled once for all tiles.
    row = gl.arange(0, M, gl.SliceLayout(1, COPY_UNITS))
    row = (row // (16 * NW) * 2 + row % 16 // 8) * D + row // 16 % NW * 8 + row % 8
    if EARLY_START:
        gdc_launch_dependents()
        w = common.load_weight(weight + slot * (G * D * D), row, COPY_UNITS, NC, U, D, left, UNITS_SHARED)
        gdc_wait()

    # The gates of later steps: a ring of STAGES in shared memory for each chunk. The chunks have separate buffers,
    # because the compiler puts a barrier between any two writes to the same buffer.
    ring = ()
    for _ in gl.static_range(NC):
        ring = ring + (gl.allocate_shared_memory(dtype, [STAGES, R, M], GATES_SHARED),)
    column = gl.arange(0, M, gl.SliceLayout(0, COPY))
    # A hint that eight neighbors are contiguous, which the compiler does not see.
    column = gl.max_contiguous(gl.multiple_of(column // U * D + column % U, 8), 8)
    prefetch_tile = gl.program_id(0)
    prefetch_step = 0
    prefetch, rows_exist = common.locate(prefetch_tile, rows, walk, 0, first, column, S * G * D, R, COPY)
    for stage in gl.static_range(STAGES - 1):
        for n in gl.static_range(NC):
            common.copy_async(ring[n].index(stage), gates + prefetch + n * U, mask=rows_exist)
        async_copy.commit_group()
        prefetch, rows_exist, prefetch_tile, prefetch_step = common.advance(
            prefetch, rows_exist, prefetch_tile, prefetch_step, steps, rows, walk, first, column, S * G * D, R, COPY
        )  # fmt: skip

    scan_weight = weight + slot * (G * D * D)
    if len(PLACES) > 0:
        w = spread.place_tiles(scan_weight, PLACES, NW, U, True, left)
    elif not EARLY_START:
        w = common.load_weight(weight + slot * (G * D * D), row, COPY_UNITS, NC, U, D, left, UNITS_SHARED)

    units = ()
    for _ in gl.static_range(NC):
        units = units + (gl.allocate_shared_memory(dtype, [R, U], UNITS_SHARED),)
    staged = ()
    staged_cells = ()
    if SAVE:
        for _ in gl.static_range(NC):
            staged = staged + (gl.allocate_shared_memory(dtype, [R, M], GATES_SHARED),)
            staged_cells = staged_cells + (gl.allocate_shared_memory(dtype, [R, U], UNITS_SHARED),)
    unit = gl.arange(0, U, gl.SliceLayout(0, unit_pairs))
    read = 0
    write = STAGES - 1
    for tile in range(gl.program_id(0), gl.cdiv(rows, R), gl.num_programs(0)):
        zero = split_gates(gl.zeros([M, R], gl.float32, mma), NW, R)[0]
        c = ()
        for n in gl.static_range(NC):
            c = c + (zero,)
            units[n].store(gl.zeros([R, U], dtype, unit_pairs))
        # A step's results are written during the next step: by then they lie in shared memory in the order of memory.
        result, mask = common.locate(tile, rows, walk, -1, first_unit, unit, S * D, R, unit_pairs)
        result_gates, gates_mask = common.locate(tile, rows, walk, -1, first, column, S * G * D, R, COPY)
        for step in range(steps):
            ahead = 0
            if len(PLACES) > 0:
                ahead = spread.first_from_memory(scan_weight, STREAMED, NW, U)
            async_copy.wait_group(STAGES - 2)
            h = ()
            for k in gl.static_range(NC):
                h = h + (units[k].permute([1, 0]).load(right),)
            sums = ()
            for n in gl.static_range(NC):
                x = ring[n].index(read).permute([1, 0]).load(READ).to(gl.float32)
                x = x.reshape([2, 2, NW, 8, R]).permute([0, 2, 1, 3, 4]).reshape([M, R])
                sums = sums + (gl.convert_layout(x, mma),)
            for n in gl.static_range(NC):
                gl.store(out + result + n * U, units[n].load(unit_pairs), mask=mask & (step > 0))
                if SAVE:
                    gl.store(cells + result + n * U, staged_cells[n].load(unit_pairs), mask=mask & (step > 0))
                    gl.store(activations + result_gates + n * U, staged[n].load(COPY), mask=gates_mask & (step > 0))
            result += delta * (S * D)
            result_gates += delta * (S * G * D)
            for n in gl.static_range(NC):
                common.copy_async(ring[n].index(write), gates + prefetch + n * U, mask=rows_exist)
            async_copy.commit_group()
            prefetch, rows_exist, prefetch_tile, prefetch_step = common.advance(
                prefetch, rows_exist, prefetch_tile, prefetch_step, steps, rows, walk, first, column, S * G * D, R, COPY
            )  # fmt: skip
            read = common.next_stage(read, STAGES)
            write = common.next_stage(write, STAGES)
            # Inputs in the outer loop: a product waits for the previous one of its chunk.
            for k in gl.static_range(NC):
                added = ()
                for n in gl.static_range(NC):
                    if len(PLACES) > 0:
                        tile_w, ahead = spread.fetch_tile(
                            w, ahead, scan_weight, k * NC + n, PLACES, STREAMED, NW, U, True, left
                        )  # fmt: skip
                        added = added + (mma_v2(tile_w, h[k], sums[n]),)
                    else:
                        added = added + (mma_v2(w[n * NC + k], h[k], sums[n]),)
                sums = added
            c_new = ()
            for n in gl.static_range(NC):
                i, f, g, o = split_gates(sums[n], NW, R)
                i = common.sigmoid(i, APPROX_TANH)
                f = common.sigmoid(f, APPROX_TANH)
                g = common.tanh(g, APPROX_TANH)
                o = common.sigmoid(o, APPROX_TANH)
                c_n = f * c[n] + i * g
                h_n = o * common.tanh(c_n, APPROX_TANH)
                c_new = c_new + (c_n,)
                units[n].store(h_n.reshape([U, R]).permute([1, 0]).to(dtype))
                if SAVE:
                    staged_cells[n].store(c_n.reshape([U, R]).permute([1, 0]).to(dtype))
                    both = gl.join(gl.join(i, g), gl.join(f, o)).permute([3, 4, 0, 1, 2]).reshape([M, R])
                    staged[n].store(both.permute([1, 0]).to(dtype))
            c = c_new
        for n in gl.static_range(NC):
            gl.store(out + result + n * U, units[n].load(unit_pairs), mask=mask)
            if SAVE:
                gl.store(cells + result + n * U, staged_cells[n].load(unit_pairs), mask=mask)
                gl.store(activations + result_gates + n * U, staged[n].load(COPY), mask=gates_mask)
        if LAST:
            ends = common.locate_states(slot, tile, rows, unit, D, R, unit_pairs)
            for n in gl.static_range(NC):
                c_n = gl.convert_layout(c[n].reshape([U, R]).permute([1, 0]).to(dtype), unit_pairs)
                gl.store(last + ends + n * U, c_n, mask=mask)
