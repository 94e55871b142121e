"""Forward of the fused recurrence: all scans of a token mixer in one launch, addressed in place on the NHWC grid.

A program runs one scan over a tile of R rows from its first step to its last. W_hh stays on the chip, h in registers in
the dtype of the gates, c in fp32; each step reads its gates once and writes h into its slot of the concatenated output.
Gates are copied to shared memory STAGES - 1 steps ahead: what a step costs is else the wait for memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sequencer2d.ops import triton_common as common
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.tuning import Launch, most_rows

CELL_CODES = {"lstm": 0, "gru": 1, "rnn": 2}


@triton.jit
def cell_forward(sums, c_old, bias_n, CELL: tl.constexpr, FAST: tl.constexpr):
    """One step of a chunk: the gates' sums of input and recurrent part, a tuple of (R, DC); returns fp32 (h, c).

    For the GRU they are those of r and z, and the candidate's recurrent and input part.
    """
    if CELL == common.LSTM:
        i = common.sigmoid(sums[0], FAST)
        f = common.sigmoid(sums[1], FAST)
        g = common.tanh(sums[2], FAST)
        o = common.sigmoid(sums[3], FAST)
        c = f * c_old + i * g
        return o * common.tanh(c, FAST), c
    elif CELL == common.GRU:
        r = common.sigmoid(sums[0], FAST)
        z = common.sigmoid(sums[1], FAST)
        n = common.tanh(sums[3] + r * (sums[2] + bias_n), FAST)
        h = n + z * (c_old - n)
        return h, h
    else:
        h = common.tanh(sums[0], FAST)
        return h, h


@triton.jit(do_not_specialize=["B", "H", "W"])
def forward_kernel(
    gates, weight, bias_n, out, cells, B, H, W,
    SCANS: tl.constexpr, S: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, NC: tl.constexpr,
    R: tl.constexpr, CELL: tl.constexpr, SAVE: tl.constexpr, FAST: tl.constexpr,
    PRECISION: tl.constexpr, RESIDENT: tl.constexpr, STAGES: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """gates (B, H, W, S*G*D), weight (S, G*D, D), bias_n (S, D) for GRU, out (B, H, W, S*D), cells as out if SAVE.

    The fp32 state next to h is c for the LSTM; for the GRU it is h itself, unrounded. SCANS packs two bits a slot.
    """
    G: tl.constexpr = 4 if CELL == common.LSTM else (3 if CELL == common.GRU else 1)
    slot = tl.program_id(1)
    any_rows, steps, valid, token, hop = common.place_rows(slot, B, H, W, SCANS, R, False)
    if any_rows:
        column = tl.arange(0, DC)[None, :]
        bias_rows = bias_n + slot * D + column
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
        tiles = common.weight_tiles(weight, slot, D, DC, DC, NC, NC, G, RESIDENT)
        for _ in tl.range(0, steps, num_stages=STAGES):
            sums = ()
            if AHEAD:
                for n in tl.static_range(NC):
                    sum_n = common.gate_sums(
                        gate_rows, h, tiles, weight, slot, n, valid, D, DC, DC, NC, G, PRECISION
                    )  # fmt: skip
                    sums = sums + (sum_n,)
            h_new = ()
            c_new = ()
            for n in tl.static_range(NC):
                bias = zero
                if CELL == common.GRU:
                    bias = tl.load(bias_rows + n * DC, mask=common.exists(n, True, D, DC), other=0.0).to(tl.float32)
                if AHEAD:
                    sum_n = sums[n]
                else:
                    sum_n = common.gate_sums(
                        gate_rows, h, tiles, weight, slot, n, valid, D, DC, DC, NC, G, PRECISION
                    )  # fmt: skip
                h_chunk, c_chunk = cell_forward(common.apart(sum_n, R, DC, G), c[n], bias, CELL, FAST)
                h_new = h_new + (h_chunk.to(dtype),)
                c_new = c_new + (c_chunk,)
            h = h_new
            c = c_new
            for n in tl.static_range(NC):
                common.store_chunk(out_rows, n, h[n], valid, D, DC)
                if SAVE:
                    common.store_chunk(cell_rows, n, c[n].to(dtype), valid, D, DC)
            gate_rows += hop * (S * G * D)
            out_rows += hop * (S * D)
            cell_rows += hop * (S * D)


def launch_forward(
    gates: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    *,
    scans: tuple[int, ...],
    cell: str,
    save_cells: bool,
    launches: tuple[Launch, ...],
    fast: bool,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Run the kernel. Returns out (B, H, W, S*D) and the cell states, of the same shape if saved, else empty."""
    batch, height, width, _ = gates.shape
    hidden = weight_hh.shape[-1]
    out = gates.new_empty(batch, height, width, len(scans) * hidden)
    cells = torch.empty_like(out) if save_cells else gates.new_empty(0)
    longest = most_rows(gates, scans)

    def start(launch: Launch) -> None:
        common.run_kernel(
            forward_kernel, (triton.cdiv(longest, launch.rows), len(scans)),
            gates, weight_hh, weight_hh if bias_n is None else bias_n, out, cells, batch, height, width,
            SCANS=pack_scans(scans), S=len(scans), D=hidden, DC=launch.chunk, NC=triton.cdiv(hidden, launch.chunk),
            R=launch.rows, CELL=CELL_CODES[cell], SAVE=save_cells, FAST=fast, PRECISION=precision,
            RESIDENT=launch.resident, STAGES=launch.stages, AHEAD=launch.ahead, num_warps=launch.warps, num_stages=1,
        )  # fmt: skip

    key = ("forward", hidden, len(scans), cell, save_cells, gates.dtype, gates.device)
    common.first_that_fits(key, launches, start)
    return out, cells


def pack_scans(scans: tuple[int, ...]) -> int:
    """Two bits a slot, slot 0 in the lowest."""
    return sum(scan << (2 * slot) for slot, scan in enumerate(scans))


def gate_count(cell: str) -> int:
    """Gates G of a cell."""
    return CELLS[cell].gates
