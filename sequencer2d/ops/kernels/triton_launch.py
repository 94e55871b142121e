"""Launches the Triton kernels of the recurrence."""

import functools
import importlib
import math
from typing import Any

import torch
import triton
from torch import Tensor

from sequencer2d.ops import targets
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.kernels import launching, prepared, triton_backward, triton_common, triton_forward
from sequencer2d.ops.kernels.prepared import Handle
from sequencer2d.ops.launches import SharedLaunch
from sequencer2d.ops.scans import Scan
from sequencer2d.ops.tuning import most_rows, multiprocessors


def launch_forward(
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    *,
    scans: tuple[int, ...],
    cell: str,
    save_cells: bool,
    launches: tuple[SharedLaunch, ...],
    approximate_tanh: bool,
    precision: str,
    first: Tensor | None = None,
    last: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the forward kernel: out (B, *grid, S*D), and the cell states, shaped as out if saved and otherwise empty.

    first: (S, rows, D), the state that the scans begin with, c or, for a cell without c, h; None for zeros.
    last: (S, rows, D), where that state after the last step goes, if it is wanted.
    """
    hidden = weight_hh.shape[-1]
    out = gates.new_empty(*gates.shape[:-1], len(scans) * hidden)
    cells = torch.empty_like(out) if save_cells else gates.new_empty(0)
    tensors = (
        gates, weight_hh, inner_bias_operand(inner_bias, weight_hh, cell), out, cells,
        weight_hh if first is None else first, out if last is None else last,
    )  # fmt: skip
    same = (
        "shared forward", gates.shape, gates.dtype, gates.device, hidden, scans, cell, save_cells, launches,
        approximate_tanh, precision, first is None, last is None,
    )  # fmt: skip
    if prepared.repeat(same, *tensors):
        return out, cells
    longest = most_rows(gates, scans)

    def start(launch: SharedLaunch) -> Handle | None:
        return launching.run_kernel(
            triton_forward.forward_kernel, (triton.cdiv(longest, launch.rows), len(scans)),
            *tensors, *grid_arguments(gates),
            SCANS=pack_scans(scans), S=len(scans), D=hidden, DC=launch.chunk, NC=triton.cdiv(hidden, launch.chunk),
            R=launch.rows, CELL_FORWARD=device_function(cell, "forward"), G=CELLS[cell].gates,
            HAS_INNER_GATE=CELLS[cell].inner_gate is not None, SAVE=save_cells, APPROX_TANH=approximate_tanh,
            PRECISION=precision, RESIDENT=launch.resident, STAGES=launch.stages, MATMULS_FIRST=launch.matmuls_first,
            FIRST=beginning(cell, first), LAST=last is not None, num_warps=launch.warps, num_stages=1,
        )  # fmt: skip

    key = ("forward", hidden, len(scans), cell, save_cells, first is None, last is None, gates.dtype, gates.device)
    prepared.keep(same, launching.first_that_fits(key, launches, start))
    return out, cells


def launch_backward(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    out: Tensor,
    cells: Tensor,
    *,
    scans: tuple[int, ...],
    cell: str,
    launches: tuple[SharedLaunch, ...],
    approximate_tanh: bool,
    precision: str,
    first: Tensor | None = None,
    grad_first: Tensor | None = None,
    grad_last: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the backward kernel: the gradients of the gates and of the recurrent products, both (B, *grid, S*G*D).

    They are the same tensor unless the cell has an inner gate.

    first: as in `launch_forward`.
    grad_first: (S, rows, D), where the gradient of `first` goes.
    grad_last: (S, rows, D), the gradient of c after the last step; None for zeros.
    """
    hidden = weight_hh.shape[-1]
    grad_gates = torch.empty_like(gates)
    grad_recurrent = grad_gates if CELLS[cell].inner_gate is None else torch.empty_like(gates)
    tensors = (
        grad_out, gates, weight_hh, inner_bias_operand(inner_bias, weight_hh, cell), out,
        cells if CELLS[cell].has_c else out, grad_gates, grad_recurrent,
        *(out if state is None else state for state in (first, grad_first, grad_last)),
    )  # fmt: skip
    same = (
        "shared backward", gates.shape, gates.dtype, gates.device, hidden, scans, cell, launches, approximate_tanh,
        precision, first is None, grad_last is None,
    )  # fmt: skip
    if prepared.repeat(same, *tensors):
        return grad_gates, grad_recurrent
    longest = most_rows(gates, scans)

    def start(launch: SharedLaunch) -> Handle | None:
        inputs = launch.product_inputs or launch.chunk
        return launching.run_kernel(
            triton_backward.backward_kernel, (triton.cdiv(longest, launch.rows), len(scans)),
            *tensors, 1.0, *grid_arguments(gates),
            SCANS=pack_scans(scans), S=len(scans), D=hidden, DC=launch.chunk, NC=triton.cdiv(hidden, launch.chunk),
            KC=inputs, NK=triton.cdiv(hidden, inputs), R=launch.rows,
            CELL_BACKWARD=device_function(cell, "backward"), G=CELLS[cell].gates,
            HAS_INNER_GATE=CELLS[cell].inner_gate is not None, STATE=state_read_in_backward(cell),
            APPROX_TANH=approximate_tanh, PRECISION=precision, RESIDENT=launch.resident, STAGES=launch.stages,
            MATMULS_FIRST=launch.matmuls_first, FIRST=beginning(cell, first), LAST=grad_last is not None,
            num_warps=launch.warps, num_stages=1,
        )  # fmt: skip

    key = ("backward", hidden, len(scans), cell, first is None, grad_last is None, gates.dtype, gates.device)
    prepared.keep(same, launching.first_that_fits(key, launches, start))
    return grad_gates, grad_recurrent


def launch_weight_gradient(
    grad_recurrent: Tensor, out: Tensor, *, scans: tuple[int, ...], hidden: int, cell: str, precision: str
) -> tuple[Tensor, Tensor]:
    """The gradients of W_hh, fp32 (S, G*D, D), and of a bias inside the recurrent product, fp32 (S, G*D)."""
    gates = CELLS[cell].gates
    tiling = _weight_tiling(math.prod(out.shape[:-1]), len(scans), gates * hidden, out.device)
    programs, per_program, row_tiles = tiling
    partial = out.new_empty(programs, len(scans), gates * hidden, hidden, dtype=torch.float32)
    partial_bias = out.new_empty(programs, len(scans), gates * hidden, dtype=torch.float32)
    tensors = (grad_recurrent, out, partial, partial_bias)
    same = ("weight", out.shape, out.dtype, out.device, hidden, scans, gates, tiling, precision)
    if prepared.repeat(same, *tensors):
        return partial.sum(0), partial_bias.sum(0)
    table = targets.of(out.device).launches
    chunk = 16 if hidden <= 16 or 32 < hidden <= 48 else 32

    def start(stages: int) -> Handle | None:
        return launching.run_kernel(
            triton_backward.weight_gradient_kernel, (programs, len(scans), row_tiles),
            *tensors, per_program, *grid_arguments(out),
            SCANS=pack_scans(scans), S=len(scans), D=hidden, DC=chunk, NC=triton.cdiv(hidden, chunk), G=gates,
            ROWS=table.weight_rows, TOKENS=table.weight_tokens, PRECISION=precision, num_warps=4, num_stages=stages,
        )  # fmt: skip

    key = ("weight", hidden, len(scans), cell, out.dtype, out.device)
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


def device_function(cell: str, direction: str) -> Any:
    """The device function of a cell's step, "forward" or "backward", which the kernels inline."""
    code = CELLS[cell].device_code
    assert code is not None, f"no kernels for {cell}"
    return _device_function(code.functions, direction)


@functools.cache
def _device_function(functions: str, direction: str) -> Any:
    module, _, name = functions.partition(":")
    return getattr(importlib.import_module(module), f"{name}_{direction}")


def inner_bias_operand(inner_bias: Tensor | None, weight_hh: Tensor, cell: str) -> Tensor:
    """What the kernels get for the bias of the inner gate, (S, D): zeros if a cell that has such a gate has no biases.

    For other cells it is any tensor, which is not read.
    """
    if inner_bias is not None or CELLS[cell].inner_gate is None:
        return weight_hh if inner_bias is None else inner_bias
    return weight_hh.new_zeros(weight_hh.shape[0], weight_hh.shape[-1])


def state_read_in_backward(cell: str) -> int:
    """Which state a backward step reads, as the kernels number them."""
    row = CELLS[cell]
    if row.has_c:
        return triton_common.STATE_C.value
    assert row.device_code is not None
    return (triton_common.STATE_H if row.device_code.reads_h else triton_common.NO_STATE).value


def beginning(cell: str, first: Tensor | None) -> int:
    """What a scan begins with, as the kernels number it."""
    if first is None:
        return triton_common.FROM_ZERO.value
    return (triton_common.FROM_C if CELLS[cell].has_c else triton_common.FROM_H).value


def pack_scans(scans: tuple[int, ...]) -> int:
    """The scans' numbers as the kernels read them: three bits a slot, slot 0 in the lowest."""
    return sum(number << (3 * slot) for slot, number in enumerate(scans))


def grid_arguments(tokens: Tensor) -> tuple[int, ...]:
    """What the kernels know of the grid of (B, *grid, C): its tokens, and steps and stride of each of three axes."""
    sizes = tokens.shape[1:-1]
    walks = [Scan(axis, False).walk(sizes) for axis in range(len(sizes))]
    numbers = [number for walk in walks for number in (walk.steps, walk.stride)]
    return math.prod(tokens.shape[:-1]), *numbers, *[1] * (6 - len(numbers))
