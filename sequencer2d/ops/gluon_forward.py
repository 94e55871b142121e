"""Forward of the fused LSTM with W_hh in registers, for hidden sizes that leave room for it.

A product's stationary operand is W_hh, (gates, units before), its other the hidden states of R rows: 8 are enough for
the tensor cores, so that few rows spread over many multiprocessors. A warp holds all gates of its units; a step
exchanges h alone, through shared memory, and waits twice for the other warps. Programs take one tile after another and
copy the gates of steps to come, across tiles.
"""

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from sequencer2d.ops import gluon_common as common
from sequencer2d.ops.triton_common import first_that_fits, run_kernel
from sequencer2d.ops.triton_forward import pack_scans
from sequencer2d.ops.tuning import Stationary, most_rows


@gluon.jit
def four_gates(sums, NW: gl.constexpr, R: gl.constexpr):
    """Sums (M, R) of a chunk to i, f, g, o, each (NW, 8, R): registers change their names, nothing moves.

    Rows of sums: two gates' halves (t), warps, the other two's (b), units; a thread has all four gates of its units.
    """
    by_gate = sums.reshape([2, NW, 2, 8, R]).permute([1, 3, 4, 0, 2])
    i_g, f_o = gl.split(by_gate)
    i, g = gl.split(i_g)
    f, o = gl.split(f_o)
    return i, f, g, o


@gluon.jit(do_not_specialize=["B", "H", "W"])
def forward_kernel(
    gates, weight, out, cells, activations, B, H, W,
    SCANS: gl.constexpr, S: gl.constexpr, D: gl.constexpr, NW: gl.constexpr, NC: gl.constexpr, R: gl.constexpr,
    SAVE: gl.constexpr, FAST: gl.constexpr, EARLY: gl.constexpr, STAGES: gl.constexpr, READ: gl.constexpr,
    COPY: gl.constexpr, COPY_UNITS: gl.constexpr, GATES_SHARED: gl.constexpr, UNITS_SHARED: gl.constexpr,
):  # fmt: skip
    """gates (B, H, W, S*G*D), weight (S, G*D, D), out (B, H, W, S*D); if SAVE, cells as out, activations as gates.

    EARLY: started before the launch before it has ended; reads W_hh, then waits for that end. As such launches let the
    next one start at once, several may be under way: W_hh must be written by none of them.
    """
    G: gl.constexpr = common.GATES
    U: gl.constexpr = 8 * NW
    M: gl.constexpr = G * U
    mma: gl.constexpr = gl.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[NW, 1], instr_shape=[16, 8])
    left: gl.constexpr = gl.DotOperandLayout(0, mma, 2)
    right: gl.constexpr = gl.DotOperandLayout(1, mma, 2)
    pairs: gl.constexpr = gl.BlockedLayout([1, 2], [64 // U, U // 2], [NW, 1], [1, 0])
    dtype: gl.constexpr = gates.dtype.element_ty

    slot = gl.program_id(1)
    steps, rows, lines = common.scan_of(slot, B, H, W, SCANS, False)
    hop = lines[3]
    first, first_unit = slot * (G * D), slot * D

    # W_hh in the order of `four_gates`, its registers filled once for all tiles.
    row = gl.arange(0, M, gl.SliceLayout(1, COPY_UNITS))
    row = (row // (16 * NW) * 2 + row % 16 // 8) * D + row // 16 % NW * 8 + row % 8
    if EARLY:
        gdc_launch_dependents()
        w = common.load_weight(weight + slot * (G * D * D), row, COPY_UNITS, NC, U, D, left, UNITS_SHARED)
        gdc_wait()

    # Gates of steps to come: a ring of STAGES in shared memory for each chunk. Separate buffers, as the compiler puts a
    # barrier between any two writes to one.
    ring = ()
    for _ in gl.static_range(NC):
        ring = ring + (gl.allocate_shared_memory(dtype, [STAGES, R, M], GATES_SHARED),)
    column = gl.arange(0, M, gl.SliceLayout(0, COPY))
    # A hint: the compiler does not see that eight neighbours are.
    column = gl.max_contiguous(gl.multiple_of(column // U * D + column % U, 8), 8)
    ahead_tile = gl.program_id(0)
    ahead_step = 0
    ahead, exists = common.place(ahead_tile, rows, lines, 0, first, column, S * G * D, R, COPY)
    for stage in gl.static_range(STAGES - 1):
        for n in gl.static_range(NC):
            common.copy_async(ring[n].index(stage), gates + ahead + n * U, mask=exists)
        async_copy.commit_group()
        ahead, exists, ahead_tile, ahead_step = common.advance(
            ahead, exists, ahead_tile, ahead_step, steps, rows, lines, first, column, S * G * D, R, COPY
        )  # fmt: skip

    if not EARLY:
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
    unit = gl.arange(0, U, gl.SliceLayout(0, pairs))
    read = 0
    write = STAGES - 1
    for tile in range(gl.program_id(0), gl.cdiv(rows, R), gl.num_programs(0)):
        zero = four_gates(gl.zeros([M, R], gl.float32, mma), NW, R)[0]
        c = ()
        for n in gl.static_range(NC):
            c = c + (zero,)
            units[n].store(gl.zeros([R, U], dtype, pairs))
        # Results of a step are written during the next one, when they lie in shared memory in the order of memory.
        done, mask = common.place(tile, rows, lines, -1, first_unit, unit, S * D, R, pairs)
        done_gates, gates_mask = common.place(tile, rows, lines, -1, first, column, S * G * D, R, COPY)
        for step in range(steps):
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
                gl.store(out + done + n * U, units[n].load(pairs), mask=mask & (step > 0))
                if SAVE:
                    gl.store(cells + done + n * U, staged_cells[n].load(pairs), mask=mask & (step > 0))
                    gl.store(activations + done_gates + n * U, staged[n].load(COPY), mask=gates_mask & (step > 0))
            done += hop * (S * D)
            done_gates += hop * (S * G * D)
            for n in gl.static_range(NC):
                common.copy_async(ring[n].index(write), gates + ahead + n * U, mask=exists)
            async_copy.commit_group()
            ahead, exists, ahead_tile, ahead_step = common.advance(
                ahead, exists, ahead_tile, ahead_step, steps, rows, lines, first, column, S * G * D, R, COPY
            )  # fmt: skip
            read = common.next_slot(read, STAGES)
            write = common.next_slot(write, STAGES)
            # Inputs before chunks: a product waits for the one before of its chunk.
            for k in gl.static_range(NC):
                added = ()
                for n in gl.static_range(NC):
                    added = added + (mma_v2(w[n * NC + k], h[k], sums[n]),)
                sums = added
            c_new = ()
            for n in gl.static_range(NC):
                i, f, g, o = four_gates(sums[n], NW, R)
                i = common.sigmoid(i, FAST)
                f = common.sigmoid(f, FAST)
                g = common.tanh(g, FAST)
                o = common.sigmoid(o, FAST)
                c_n = f * c[n] + i * g
                h_n = o * common.tanh(c_n, FAST)
                c_new = c_new + (c_n,)
                units[n].store(h_n.reshape([U, R]).permute([1, 0]).to(dtype))
                if SAVE:
                    staged_cells[n].store(c_n.reshape([U, R]).permute([1, 0]).to(dtype))
                    both = gl.join(gl.join(i, g), gl.join(f, o)).permute([3, 4, 0, 1, 2]).reshape([M, R])
                    staged[n].store(both.permute([1, 0]).to(dtype))
            c = c_new
        for n in gl.static_range(NC):
            gl.store(out + done + n * U, units[n].load(pairs), mask=mask)
            if SAVE:
                gl.store(cells + done + n * U, staged_cells[n].load(pairs), mask=mask)
                gl.store(activations + done_gates + n * U, staged[n].load(COPY), mask=gates_mask)


def read_layout(warps: int, rows: int) -> gl.DistributedLinearLayout:
    """Of a chunk's gates (M, R), gate by gate: as the products' sums, whose rows are in another order, want them."""
    units = 8 * warps
    registers = [[0, 1], [units, 0], [2 * units, 0]] + [[0, 8 << i] for i in range((rows // 8).bit_length() - 1)]
    across = [[8 << i, 0] for i in range(warps.bit_length() - 1)]
    lanes = [[0, 2], [0, 4], [1, 0], [2, 0], [4, 0]]
    return gl.DistributedLinearLayout(registers, lanes, across, [], [4 * units, rows])


def launch_forward(
    gates: Tensor,
    weight_hh: Tensor,
    *,
    scans: tuple[int, ...],
    save: bool,
    launches: tuple[Stationary, ...],
    fast: bool,
    early: bool = False,
    activations: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernel: out (B, H, W, S*D) and, empty unless saved, cell states (as out) and activations (as gates).

    The activations' place may be that of the gates: a program reads a value before it writes there, and no other does.
    early: start, and read W_hh, before the launches before this one have ended; for compute capability 9.0 and later.
    """
    batch, height, width, _ = gates.shape
    hidden = weight_hh.shape[-1]
    out = gates.new_empty(batch, height, width, len(scans) * hidden)
    cells = torch.empty_like(out) if save else gates.new_empty(0)
    if activations is None:
        activations = torch.empty_like(gates) if save else gates.new_empty(0)
    longest = most_rows(gates, scans)

    def start(launch: Stationary) -> None:
        units = 8 * launch.warps
        run_kernel(
            forward_kernel, (launch.programs(longest, len(scans), gates.device), len(scans)),
            gates, weight_hh, out, cells, activations, batch, height, width,
            SCANS=pack_scans(scans), S=len(scans), D=hidden, NW=launch.warps, NC=triton.cdiv(hidden, units),
            R=launch.rows, SAVE=save, FAST=fast, EARLY=early, STAGES=launch.stages,
            READ=read_layout(launch.warps, launch.rows), COPY=common.copies(launch.warps, 4 * units),
            COPY_UNITS=common.copies(launch.warps, units), GATES_SHARED=common.swizzled(4 * units),
            UNITS_SHARED=common.swizzled(units), num_warps=launch.warps, launch_pdl=early,
        )  # fmt: skip

    first_that_fits(("stationary forward", hidden, len(scans), save, gates.dtype, gates.device), launches, start)
    return out, cells, activations
