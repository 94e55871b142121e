"""Launches the kernels that read W_hh from memory at each step."""

import torch
import triton
from torch import Tensor

from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.kernels import launching, prepared, triton_streamed
from sequencer2d.ops.kernels.prepared import Handle
from sequencer2d.ops.kernels.triton_launch import (
    beginning,
    device_function,
    grid_arguments,
    inner_bias_operand,
    pack_scans,
    state_read_in_backward,
)
from sequencer2d.ops.launches import StreamedLaunch
from sequencer2d.ops.tuning import most_rows


def launch_forward(
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    state: Tensor,
    *,
    scans: tuple[int, ...],
    cell: str,
    save_cells: bool,
    launches: tuple[StreamedLaunch, ...],
    approximate_tanh: bool,
    precision: str,
    first: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the forward kernel: out (B, *grid, S*D), and the cell states, shaped as out if saved and otherwise empty.

    state: (S, rows, D) fp32, the state that the scans begin with, c or, for a cell without c, h. It is overwritten by
        the state after the last step.
    first: (S, rows, D), the h that the scans begin with, for a cell without c; None for zeros.
    """
    hidden = weight_hh.shape[-1]
    out = gates.new_empty(*gates.shape[:-1], len(scans) * hidden)
    cells = torch.empty_like(out) if save_cells else gates.new_empty(0)
    tensors = (
        gates, weight_hh, inner_bias_operand(inner_bias, weight_hh, cell), out, cells,
        weight_hh if first is None else first, state,
    )  # fmt: skip
    same = (
        "streamed forward", gates.shape, gates.dtype, gates.device, hidden, scans, cell, save_cells, launches,
        approximate_tanh, precision, first is None,
    )  # fmt: skip
    if prepared.repeat(same, *tensors):
        return out, cells
    longest = most_rows(gates, scans)

    def start(launch: StreamedLaunch) -> Handle | None:
        return launching.run_kernel(
            triton_streamed.forward_kernel, (triton.cdiv(longest, launch.rows), len(scans)),
            *tensors, longest, *grid_arguments(gates),
            SCANS=pack_scans(scans), S=len(scans), D=hidden, DC=launch.chunk, KC=launch.inputs, R=launch.rows,
            CELL_FORWARD=device_function(cell, "forward"), G=CELLS[cell].gates,
            HAS_INNER_GATE=CELLS[cell].inner_gate is not None, SAVE=save_cells, APPROX_TANH=approximate_tanh,
            PRECISION=precision, STAGES=launch.stages, FROM_H=first is not None, num_warps=launch.warps, num_stages=1,
        )  # fmt: skip

    key = ("streamed forward", hidden, len(scans), cell, save_cells, first is None, gates.dtype, gates.device)
    prepared.keep(same, launching.first_that_fits(key, launches, start))
    return out, cells


def launch_backward(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    states: Tensor,
    recurrent: Tensor,
    dh: Tensor,
    dc: Tensor,
    *,
    scans: tuple[int, ...],
    cell: str,
    launches: tuple[StreamedLaunch, ...],
    approximate_tanh: bool,
    precision: str,
    first: Tensor | None = None,
) -> Tensor:
    """Run the backward kernel: the gradient of the gates, (B, *grid, S*G*D).

    Args:
        grad_out: (B, *grid, S*D).
        gates: as in forward.
        weight_hh: (S, G*D, D).
        inner_bias: as in forward.
        states: c, or h for a cell without c, shaped as grad_out.
        recurrent: shaped as gates, W_hh times the h before each step. It is overwritten by the gradient of these
            products, which the result is, too, unless the cell has an inner gate.
        dh: (S, rows, D) fp32, zeros. It is overwritten by the gradient of the h before the first step, without the
            part that passes through `dc`.
        dc: (S, rows, D) fp32, the gradient of the state after the last step. It is overwritten by that of the state
            before the first.
        scans: the scan of each slot.
        cell: the name of the cell.
        launches: launch configurations, best first.
        approximate_tanh: use the hardware's tanh.
        precision: of float32 products.
        first: (S, rows, D), the state that the scans began with; None for zeros.
    """
    hidden = weight_hh.shape[-1]
    grad_gates = recurrent if CELLS[cell].inner_gate is None else torch.empty_like(gates)
    tensors = (
        grad_out, gates, weight_hh, inner_bias_operand(inner_bias, weight_hh, cell), states, grad_gates, recurrent,
        weight_hh if first is None else first, dh, dc,
    )  # fmt: skip
    same = (
        "streamed backward", gates.shape, gates.dtype, gates.device, hidden, scans, cell, launches, approximate_tanh,
        precision, first is None,
    )  # fmt: skip
    if prepared.repeat(same, *tensors):
        return grad_gates
    longest = most_rows(gates, scans)

    def start(launch: StreamedLaunch) -> Handle | None:
        return launching.run_kernel(
            triton_streamed.backward_kernel, (triton.cdiv(longest, launch.rows), len(scans)),
            *tensors, longest, *grid_arguments(gates),
            SCANS=pack_scans(scans), S=len(scans), D=hidden, DC=launch.chunk, KC=2 * launch.chunk, JC=launch.inputs,
            R=launch.rows, CELL_BACKWARD=device_function(cell, "backward"), G=CELLS[cell].gates,
            HAS_INNER_GATE=CELLS[cell].inner_gate is not None, STATE=state_read_in_backward(cell),
            APPROX_TANH=approximate_tanh, PRECISION=precision, STAGES=launch.stages, FIRST=beginning(cell, first),
            num_warps=launch.warps, num_stages=1,
        )  # fmt: skip

    key = ("streamed backward", hidden, len(scans), cell, first is None, gates.dtype, gates.device)
    prepared.keep(same, launching.first_that_fits(key, launches, start))
    return grad_gates
