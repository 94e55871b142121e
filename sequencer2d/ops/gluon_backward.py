"""Backward of the fused LSTM with W_hh in registers, from the activations that `gluon_forward` saved.

The scans run in reverse. A step's only product is that of the gates' gradients, 16 rows that all warps exchange through
shared memory, with W_hh, of which a warp holds the columns of its own units. A step waits twice for the other warps.
"""

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

from sequencer2d.ops import gluon_common as common
from sequencer2d.ops.triton_common import first_that_fits, run_kernel
from sequencer2d.ops.triton_forward import pack_scans
from sequencer2d.ops.tuning import Stationary, most_rows


@gluon.jit
def copy_step(
    rings, stage, activations, exists, grads, units_exist, cells, inner, NC: gl.constexpr, U: gl.constexpr
):  # fmt: skip
    """Start copying what a step reads to a stage of the rings. inner: whether there is a state before the step."""
    ring, ring_grads, ring_cells = rings
    for n in gl.static_range(NC):
        common.copy_async(ring[n].index(stage), activations + n * U, mask=exists)
        common.copy_async(ring_grads[n].index(stage), grads + n * U, mask=units_exist)
        # The state before a scan's first step is 0.
        common.copy_async(ring_cells[n].index(stage), cells + n * U, mask=units_exist & inner)
    async_copy.commit_group()


@gluon.jit(do_not_specialize=["B", "H", "W"])
def backward_kernel(
    grad_out, activations, weight, cells, grad_gates, B, H, W,
    SCANS: gl.constexpr, S: gl.constexpr, D: gl.constexpr, NW: gl.constexpr, NC: gl.constexpr, R: gl.constexpr,
    FAST: gl.constexpr, STAGES: gl.constexpr, COPY: gl.constexpr, COPY_UNITS: gl.constexpr,
    GATES_SHARED: gl.constexpr, UNITS_SHARED: gl.constexpr,
):  # fmt: skip
    """activations, grad_gates (B, H, W, S*G*D), weight (S, G*D, D), grad_out, cells (B, H, W, S*D)."""
    G: gl.constexpr = common.GATES
    U: gl.constexpr = 8 * NW
    M: gl.constexpr = G * U
    mma: gl.constexpr = gl.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[1, NW], instr_shape=[16, 8])
    left: gl.constexpr = gl.DotOperandLayout(0, mma, 2)
    right: gl.constexpr = gl.DotOperandLayout(1, mma, 2)
    dtype: gl.constexpr = activations.dtype.element_ty

    slot = gl.program_id(1)
    steps, rows, lines = common.scan_of(slot, B, H, W, SCANS, True)
    hop = lines[3]
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
    # Hints: the compiler does not see that eight neighbours are.
    column = gl.max_contiguous(gl.multiple_of(column // U * D + column % U, 8), 8)
    unit = gl.arange(0, U, gl.SliceLayout(0, COPY_UNITS))

    ahead_tile = gl.program_id(0)
    ahead_step = 0
    ahead, exists = common.place(ahead_tile, rows, lines, 0, first, column, S * G * D, R, COPY)
    ahead_units, units_exist = common.place(ahead_tile, rows, lines, 0, first_unit, unit, S * D, R, COPY_UNITS)
    for stage in gl.static_range(STAGES - 1):
        copy_step(
            rings, stage, activations + ahead, exists, grad_out + ahead_units, units_exist,
            cells + (ahead_units + hop * (S * D)), ahead_step + 1 < steps, NC, U,
        )  # fmt: skip
        moved = common.advance(
            ahead_units, units_exist, ahead_tile, ahead_step, steps, rows, lines, first_unit, unit, S * D, R, COPY_UNITS
        )  # fmt: skip
        ahead_units, units_exist = moved[0], moved[1]
        ahead, exists, ahead_tile, ahead_step = common.advance(
            ahead, exists, ahead_tile, ahead_step, steps, rows, lines, first, column, S * G * D, R, COPY
        )  # fmt: skip

    row = gl.arange(0, M, gl.SliceLayout(1, COPY_UNITS))
    row = row // U * D + row % U
    w = common.load_weight(weight + slot * (G * D * D), row, COPY_UNITS, NC, U, D, right, UNITS_SHARED)

    exchanged = ()
    for _ in gl.static_range(NC):
        exchanged = exchanged + (gl.allocate_shared_memory(dtype, [R, M], GATES_SHARED),)
    read = 0
    write = STAGES - 1
    zero = gl.zeros([R, U], gl.float32, mma)
    for tile in range(gl.program_id(0), gl.cdiv(rows, R), gl.num_programs(0)):
        dh = ()
        dc = ()
        for _ in gl.static_range(NC):
            dh = dh + (zero,)
            dc = dc + (zero,)
        done, mask = common.place(tile, rows, lines, 0, first, column, S * G * D, R, COPY)
        for _step in range(steps):
            async_copy.wait_group(STAGES - 2)
            dc_new = ()
            for n in gl.static_range(NC):
                # (R, gates, units) to i, f, g, o, each (R, U): registers change their names.
                all_gates = ring[n].index(read).load(mma).to(gl.float32)
                i_g, f_o = gl.split(all_gates.reshape([R, 2, 2, U]).permute([0, 3, 1, 2]))
                i, g = gl.split(i_g)
                f, o = gl.split(f_o)
                before = gl.convert_layout(ring_cells[n].index(read).load(mma).to(gl.float32), i.type.layout)
                dh_n = dh[n] + ring_grads[n].index(read).load(mma).to(gl.float32)
                dh_n = gl.convert_layout(dh_n, i.type.layout)
                dc_n = gl.convert_layout(dc[n], i.type.layout)
                u = common.tanh(f * before + i * g, FAST)
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
                gl.store(grad_gates + done + n * U, exchanged[n].load(COPY), mask=mask)
            done += hop * (S * G * D)
            copy_step(
                rings, write, activations + ahead, exists, grad_out + ahead_units, units_exist,
                cells + (ahead_units + hop * (S * D)), ahead_step + 1 < steps, NC, U,
            )  # fmt: skip
            moved = common.advance(
                ahead_units, units_exist, ahead_tile, ahead_step, steps, rows, lines, first_unit, unit, S * D, R,
                COPY_UNITS,
            )  # fmt: skip
            ahead_units, units_exist = moved[0], moved[1]
            ahead, exists, ahead_tile, ahead_step = common.advance(
                ahead, exists, ahead_tile, ahead_step, steps, rows, lines, first, column, S * G * D, R, COPY
            )  # fmt: skip
            read = common.next_slot(read, STAGES)
            write = common.next_slot(write, STAGES)
            # A chain of products for each chunk of gates, added at the end: a product waits for the one before.
            dh = ()
            for _ in gl.static_range(NC):
                dh = dh + (zero,)
            for n in gl.static_range(NC):
                d = exchanged[n].load(left)
                added = ()
                for k in gl.static_range(NC):
                    added = added + (dh[k] + mma_v2(d, w[n * NC + k], zero),)
                dh = added


def launch_backward(
    grad_out: Tensor,
    activations: Tensor,
    weight_hh: Tensor,
    cells: Tensor,
    *,
    scans: tuple[int, ...],
    launches: tuple[Stationary, ...],
    fast: bool,
    grad_gates: Tensor | None = None,
) -> Tensor:
    """Gradient of the gates, (B, H, W, S*G*D). Its place may be that of the activations, as in forward."""
    batch, height, width, _ = activations.shape
    hidden = weight_hh.shape[-1]
    grad_gates = torch.empty_like(activations) if grad_gates is None else grad_gates
    longest = most_rows(activations, scans)

    def start(launch: Stationary) -> None:
        units = 8 * launch.warps
        run_kernel(
            backward_kernel, (launch.programs(longest, len(scans), activations.device), len(scans)),
            grad_out, activations, weight_hh, cells, grad_gates, batch, height, width,
            SCANS=pack_scans(scans), S=len(scans), D=hidden, NW=launch.warps, NC=triton.cdiv(hidden, units),
            R=launch.rows, FAST=fast, STAGES=launch.stages, COPY=common.copies(launch.warps, 4 * units),
            COPY_UNITS=common.copies(launch.warps, units), GATES_SHARED=common.swizzled(4 * units),
            UNITS_SHARED=common.swizzled(units), num_warps=launch.warps,
        )  # fmt: skip

    key = ("stationary backward", hidden, len(scans), activations.dtype, activations.device)
    first_that_fits(key, launches, start)
    return grad_gates
