"""Launches the kernels that read W_hh from memory at each step."""

import torch
from torch import Tensor

from sequencer2d.ops.kernels import triton_streamed
from sequencer2d.ops.kernels.scan_launch import beginning, inner_bias_operand, launch_scans, state_read_in_backward
from sequencer2d.ops.launches import StreamedLaunch
from sequencer2d.ops.recurrence import Recurrence
from sequencer2d.ops.tuning import most_rows


def launch_forward(
    recurrence: Recurrence, launches: tuple[StreamedLaunch, ...], state: Tensor, *, save_cells: bool
) -> tuple[Tensor, Tensor]:
    """Run the forward kernel: out (B, *grid, S*D), and the cell states, shaped as out if saved and otherwise empty.

    Args:
        recurrence: the scans.
        launches: launch configurations, best first.
        state: (S, rows, D) fp32, the state that the scans begin with, c or, for a cell without c, h. It is overwritten
            by the state after the last step.
        save_cells: whether to write the cell states.
    """
    gates, weight_hh, hidden = recurrence.gates, recurrence.weight_hh, recurrence.hidden
    # The kernel multiplies the first h by W_hh in the dtype of the gates.
    first = None if recurrence.row.has_c else recurrence.first
    out = gates.new_empty(*gates.shape[:-1], len(recurrence.scans) * hidden)
    cells = torch.empty_like(out) if save_cells else gates.new_empty(0)
    tensors = (
        gates, weight_hh, inner_bias_operand(recurrence), out, cells, weight_hh if first is None else first, state,
    )  # fmt: skip
    launch_scans(
        triton_streamed.forward_kernel, ("streamed", "forward"), recurrence, launches, tensors,
        scalars=(most_rows(gates, recurrence.scans),), flags={"SAVE": save_cells, "FROM_H": first is not None},
        sizes=lambda launch: {"KC": launch.inputs},
    )  # fmt: skip
    return out, cells


def launch_backward(
    recurrence: Recurrence,
    launches: tuple[StreamedLaunch, ...],
    grad_out: Tensor,
    states: Tensor,
    recurrent: Tensor,
    dh: Tensor,
    dc: Tensor,
) -> Tensor:
    """Run the backward kernel: the gradient of the gates, (B, *grid, S*G*D).

    Args:
        recurrence: the scans.
        launches: launch configurations, best first.
        grad_out: (B, *grid, S*D).
        states: c, or h for a cell without c, shaped as grad_out.
        recurrent: shaped as gates, W_hh times the h before each step. It is overwritten by the gradient of these
            products, which the result is, too, unless the cell has an inner gate.
        dh: (S, rows, D) fp32, zeros. It is overwritten by the gradient of the h before the first step, without the
            part that passes through `dc`.
        dc: (S, rows, D) fp32, the gradient of the state after the last step. It is overwritten by that of the state
            before the first.
    """
    gates, weight_hh, first, row = recurrence.gates, recurrence.weight_hh, recurrence.first, recurrence.row
    grad_gates = recurrent if row.inner_gate is None else torch.empty_like(gates)
    tensors = (
        grad_out, gates, weight_hh, inner_bias_operand(recurrence), states, grad_gates, recurrent,
        weight_hh if first is None else first, dh, dc,
    )  # fmt: skip
    launch_scans(
        triton_streamed.backward_kernel, ("streamed", "backward"), recurrence, launches, tensors,
        scalars=(most_rows(gates, recurrence.scans),),
        flags={"STATE": state_read_in_backward(recurrence), "FIRST": beginning(recurrence)},
        sizes=lambda launch: {"KC": 2 * launch.chunk, "JC": launch.inputs},
    )  # fmt: skip
    return grad_gates
