"""Launches Triton's kernels over scans, whatever keeps their W_hh: what all of them are passed stands here once."""

import functools
import importlib
import math
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import triton
from torch import Tensor

from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.kernels import launching, prepared, triton_common
from sequencer2d.ops.kernels.prepared import Handle
from sequencer2d.ops.launches import SharedLaunch, StreamedLaunch
from sequencer2d.ops.recurrence import Recurrence
from sequencer2d.ops.scans import Scan
from sequencer2d.ops.tuning import most_rows

Launch = TypeVar("Launch", SharedLaunch, StreamedLaunch)


def launch_scans(
    kernel: Any,
    names: tuple[str, str],
    recurrence: Recurrence,
    launches: tuple[Launch, ...],
    tensors: tuple[Tensor, ...],
    *,
    scalars: tuple[float, ...] = (),
    flags: dict[str, Hashable],
    sizes: Callable[[Launch], dict[str, Any]],
) -> None:
    """Start a kernel with the first launch that fits, or repeat how it was started for the same shapes.

    Args:
        kernel: Triton's function. Its arguments are tensors, scalars, those of `grid_arguments`, and constants.
        names: the family of kernels, and "forward" or "backward".
        recurrence: the scans.
        launches: launch configurations, best first.
        tensors: the kernel's tensors.
        scalars: its numbers after them.
        flags: constants that the launch configuration does not change.
        sizes: constants of a launch configuration, beside those that all kernels have.
    """
    family, direction = names
    same = (names, recurrence.kind, launches, *flags.values())
    if prepared.repeat(same, *tensors):
        return
    longest, scans, row = most_rows(recurrence.gates, recurrence.scans), recurrence.scans, recurrence.row
    fixed = {
        "SCANS": pack_scans(scans), "S": len(scans), "D": recurrence.hidden, "G": row.gates,
        f"CELL_{direction.upper()}": device_function(recurrence.cell, direction),
        "HAS_INNER_GATE": row.inner_gate is not None, "APPROX_TANH": recurrence.approximate_tanh,
        "PRECISION": recurrence.precision, **flags,
    }  # fmt: skip

    def start(launch: Launch) -> Handle | None:
        return launching.run_kernel(
            kernel, (triton.cdiv(longest, launch.rows), len(scans)),
            *tensors, *scalars, *grid_arguments(recurrence.gates),
            **fixed, **sizes(launch), DC=launch.chunk, R=launch.rows, STAGES=launch.stages, num_warps=launch.warps,
            num_stages=1,
        )  # fmt: skip

    key = (family, direction, *recurrence.binary, *flags.values())
    prepared.keep(same, launching.first_that_fits(key, launches, start))


def device_function(cell: str, direction: str) -> Any:
    """The device function of a cell's step, "forward" or "backward", which the kernels inline."""
    code = CELLS[cell].device_code
    assert code is not None, f"no kernels for {cell}"
    return _device_function(code.functions, direction)


@functools.cache
def _device_function(functions: str, direction: str) -> Any:
    module, _, name = functions.partition(":")
    return getattr(importlib.import_module(module), f"{name}_{direction}")


def inner_bias_operand(recurrence: Recurrence) -> Tensor:
    """What the kernels get for the bias of the inner gate, (S, D): zeros if a cell that has such a gate has no biases.

    For other cells it is any tensor, which is not read.
    """
    inner_bias, weight_hh = recurrence.inner_bias, recurrence.weight_hh
    if inner_bias is not None or recurrence.row.inner_gate is None:
        return weight_hh if inner_bias is None else inner_bias
    return weight_hh.new_zeros(weight_hh.shape[0], weight_hh.shape[-1])


def state_read_in_backward(recurrence: Recurrence) -> int:
    """Which state a backward step reads, as the kernels number them."""
    row = recurrence.row
    if row.has_c:
        return triton_common.STATE_C.value
    assert row.device_code is not None
    return (triton_common.STATE_H if row.device_code.reads_h else triton_common.NO_STATE).value


def beginning(recurrence: Recurrence) -> int:
    """What a scan begins with, as the kernels number it."""
    if recurrence.first is None:
        return triton_common.FROM_ZERO.value
    return (triton_common.FROM_C if recurrence.row.has_c else triton_common.FROM_H).value


def pack_scans(scans: tuple[int, ...]) -> int:
    """The scans' numbers as the kernels read them: three bits a slot, slot 0 in the lowest."""
    return sum(number << (3 * slot) for slot, number in enumerate(scans))


def grid_arguments(tokens: Tensor) -> tuple[int, ...]:
    """What the kernels know of the grid of (B, *grid, C): its tokens, and steps and stride of each of three axes."""
    sizes = tokens.shape[1:-1]
    walks = [Scan(axis, False).walk(sizes) for axis in range(len(sizes))]
    numbers = [number for walk in walks for number in (walk.steps, walk.stride)]
    return math.prod(tokens.shape[:-1]), *numbers, *[1] * (6 - len(numbers))
