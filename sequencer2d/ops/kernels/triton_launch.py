"""Launches the Triton kernels of the recurrence."""

import functools
import math
from typing import Any

import torch
import triton
from torch import Tensor

from sequencer2d.ops import targets
from sequencer2d.ops.kernels import launching, prepared, triton_backward, triton_forward
from sequencer2d.ops.kernels.prepared import Handle
from sequencer2d.ops.kernels.scan_launch import (
    beginning,
    grid_arguments,
    inner_bias_operand,
    launch_scans,
    pack_scans,
    state_read_in_backward,
)
from sequencer2d.ops.launches import SharedLaunch
from sequencer2d.ops.recurrence import Recurrence
from sequencer2d.ops.tuning import multiprocessors


def launch_forward(
    recurrence: Recurrence, launches: tuple[SharedLaunch, ...], *, save_cells: bool, last: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run the forward kernel: out (B, *grid, S*D), and the cell states, shaped as out if saved and otherwise empty.

    Args:
        recurrence: the scans.
        launches: launch configurations, best first.
        save_cells: whether to write the cell states.
        last: (S, rows, D), where the state after the last step goes, if it is wanted.
    """
    gates, weight_hh, first, hidden = recurrence.gates, recurrence.weight_hh, recurrence.first, recurrence.hidden
    out = gates.new_empty(*gates.shape[:-1], len(recurrence.scans) * hidden)
    cells = torch.empty_like(out) if save_cells else gates.new_empty(0)
    tensors = (
        gates, weight_hh, inner_bias_operand(recurrence), out, cells, weight_hh if first is None else first,
        out if last is None else last,
    )  # fmt: skip
    launch_scans(
        triton_forward.forward_kernel, ("shared", "forward"), recurrence, launches, tensors,
        flags={"SAVE": save_cells, "FIRST": beginning(recurrence), "LAST": last is not None},
        sizes=lambda launch: {
            "NC": triton.cdiv(hidden, launch.chunk), "RESIDENT": launch.resident, "MATMULS_FIRST": launch.matmuls_first,
        },
    )  # fmt: skip
    return out, cells


def launch_backward(
    recurrence: Recurrence,
    launches: tuple[SharedLaunch, ...],
    grad_out: Tensor,
    out: Tensor,
    cells: Tensor,
    *,
    grad_first: Tensor | None = None,
    grad_last: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the backward kernel: the gradients of the gates and of the recurrent products, both (B, *grid, S*G*D).

    They are the same tensor unless the cell has an inner gate.

    Args:
        recurrence: the scans.
        launches: launch configurations, best first.
        grad_out: (B, *grid, S*D), the gradient of `out`.
        out: h, as `launch_forward` returned it.
        cells: the cell states, as `launch_forward` returned them.
        grad_first: (S, rows, D), where the gradient of the state that the scans begin with goes.
        grad_last: (S, rows, D), the gradient of c after the last step; None for zeros.
    """
    gates, row, hidden = recurrence.gates, recurrence.row, recurrence.hidden
    grad_gates = torch.empty_like(gates)
    grad_recurrent = grad_gates if row.inner_gate is None else torch.empty_like(gates)
    tensors = (
        grad_out, gates, recurrence.weight_hh, inner_bias_operand(recurrence), out, cells if row.has_c else out,
        grad_gates, grad_recurrent,
        *(out if state is None else state for state in (recurrence.first, grad_first, grad_last)),
    )  # fmt: skip

    def sizes(launch: SharedLaunch) -> dict[str, Any]:
        inputs = launch.product_inputs or launch.chunk
        return {
            "NC": triton.cdiv(hidden, launch.chunk), "KC": inputs, "NK": triton.cdiv(hidden, inputs),
            "RESIDENT": launch.resident, "MATMULS_FIRST": launch.matmuls_first,
        }  # fmt: skip

    launch_scans(
        triton_backward.backward_kernel, ("shared", "backward"), recurrence, launches, tensors, scalars=(1.0,),
        flags={
            "STATE": state_read_in_backward(recurrence), "FIRST": beginning(recurrence), "LAST": grad_last is not None,
        },
        sizes=sizes,
    )  # fmt: skip
    return grad_gates, grad_recurrent


def launch_weight_gradient(recurrence: Recurrence, grad_recurrent: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of W_hh, fp32 (S, G*D, D), and of a bias inside the recurrent product, fp32 (S, G*D)."""
    scans, gates, hidden = recurrence.scans, recurrence.row.gates, recurrence.hidden
    tiling = _weight_tiling(math.prod(out.shape[:-1]), len(scans), gates * hidden, out.device)
    programs, per_program, row_tiles = tiling
    partial = out.new_empty(programs, len(scans), gates * hidden, hidden, dtype=torch.float32)
    partial_bias = out.new_empty(programs, len(scans), gates * hidden, dtype=torch.float32)
    tensors = (grad_recurrent, out, partial, partial_bias)
    same = ("weight", out.shape, out.dtype, out.device, hidden, scans, gates, tiling, recurrence.precision)
    if prepared.repeat(same, *tensors):
        return partial.sum(0), partial_bias.sum(0)
    table = targets.of(out.device).launches
    chunk = 16 if hidden <= 16 or 32 < hidden <= 48 else 32

    def start(stages: int) -> Handle | None:
        return launching.run_kernel(
            triton_backward.weight_gradient_kernel, (programs, len(scans), row_tiles),
            *tensors, per_program, *grid_arguments(out),
            SCANS=pack_scans(scans), S=len(scans), D=hidden, DC=chunk, NC=triton.cdiv(hidden, chunk), G=gates,
            ROWS=table.weight_rows, TOKENS=table.weight_tokens, PRECISION=recurrence.precision,
            num_warps=4, num_stages=stages,
        )  # fmt: skip

    key = ("weight", hidden, len(scans), recurrence.cell, out.dtype, out.device)
    prepared.keep(same, launching.first_that_fits(key, (3, 2, 1), start))
    return partial.sum(0), partial_bias.sum(0)


@functools.lru_cache(maxsize=1024)
def _weight_tiling(tokens: int, scans: int, rows: int, device: torch.device) -> tuple[int, int, int]:
    """How the weight gradient is cut: programs along the tokens, the tokens of each, and tiles along the rows."""
    table = targets.of(device).launches
    row_tiles = triton.cdiv(rows, table.weight_rows)
    splits = max(table.weight_programs_per_sm * multiprocessors(device) // (scans * row_tiles), 1)
    per_program = max(triton.cdiv(triton.cdiv(tokens, splits), table.weight_tokens), 1) * table.weight_tokens
    return triton.cdiv(tokens, per_program), per_program, row_tiles
