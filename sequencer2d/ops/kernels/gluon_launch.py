"""Launches the Gluon kernels, those of the LSTM with W_hh in registers, and says which thread holds what."""

import torch
import triton
from torch import Tensor
from triton.experimental.gluon import language as gl

from sequencer2d.ops.kernels import gluon_backward, gluon_forward, launching, prepared
from sequencer2d.ops.kernels.prepared import Handle
from sequencer2d.ops.kernels.scan_launch import grid_arguments, pack_scans
from sequencer2d.ops.kernels.spread import pack_for_backward, pack_for_forward, tile_places
from sequencer2d.ops.launches import RegisterLaunch
from sequencer2d.ops.tuning import most_rows, programs


def launch_forward(
    gates: Tensor,
    weight_hh: Tensor,
    *,
    scans: tuple[int, ...],
    save: bool,
    launches: tuple[RegisterLaunch, ...],
    approximate_tanh: bool,
    early_start: bool = False,
    activations: Tensor | None = None,
    last: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the forward kernel.

    Args:
        gates: (B, *grid, S*G*D), the gates' pre-activations from the input.
        weight_hh: (S, G*D, D).
        scans: the scan of each slot.
        save: whether to write what backward reads.
        launches: launch configurations, best first. Either all of them hold W_hh in registers alone, or none.
        approximate_tanh: use the hardware's tanh.
        early_start: start, and read W_hh, before the previous launch has ended; from compute capability 9.0 on.
        activations: where the gates' activations go. It may be `gates` itself: a program reads a value before it writes
            to the same place, and no other program reads it.
        last: (S, rows, D), where c after the last step goes, if it is wanted.

    Returns:
        out (B, *grid, S*D); the cell states, shaped as out, and the activations, shaped as gates, both empty unless
        saved.
    """
    hidden = weight_hh.shape[-1]
    if launches[0].register_tiles is not None:
        # The copy is written by the launch before, so it must not be read before that has ended.
        weight_hh, early_start = pack_for_forward(weight_hh, launches[0].warps), False
    out = gates.new_empty(*gates.shape[:-1], len(scans) * hidden)
    cells = torch.empty_like(out) if save else gates.new_empty(0)
    if activations is None:
        activations = torch.empty_like(gates) if save else gates.new_empty(0)
    tensors = (gates, weight_hh, out, cells, activations, out if last is None else last)
    same = (
        "registers forward", gates.shape, gates.dtype, gates.device, hidden, scans, save, launches, approximate_tanh,
        early_start, last is None,
    )  # fmt: skip
    if prepared.repeat(same, *tensors):
        return out, cells, activations
    longest = most_rows(gates, scans)

    def start(launch: RegisterLaunch) -> Handle | None:
        units = 8 * launch.warps
        return launching.run_kernel(
            gluon_forward.forward_kernel, (programs(launch, longest, len(scans), gates.device), len(scans)),
            *tensors, *grid_arguments(gates),
            SCANS=pack_scans(scans), S=len(scans), D=hidden, NW=launch.warps, NC=triton.cdiv(hidden, units),
            R=launch.rows, SAVE=save, APPROX_TANH=approximate_tanh, EARLY_START=early_start, STAGES=launch.stages,
            READ=read_layout(launch.warps, launch.rows), COPY=copy_layout(launch.warps, 4 * units),
            COPY_UNITS=copy_layout(launch.warps, units), GATES_SHARED=shared_layout(4 * units),
            UNITS_SHARED=shared_layout(units), LAST=last is not None, **tile_places(launch, hidden),
            num_warps=launch.warps, launch_pdl=early_start,
        )  # fmt: skip

    key = ("register-resident forward", hidden, len(scans), save, last is None, gates.dtype, gates.device)
    prepared.keep(same, launching.first_that_fits(key, launches, start))
    return out, cells, activations


def launch_backward(
    grad_out: Tensor,
    activations: Tensor,
    weight_hh: Tensor,
    cells: Tensor,
    *,
    scans: tuple[int, ...],
    launches: tuple[RegisterLaunch, ...],
    approximate_tanh: bool,
    grad_gates: Tensor | None = None,
    grad_last: Tensor | None = None,
) -> Tensor:
    """Run the backward kernel: the gradient of the gates, (B, *grid, S*G*D). It may go where the activations are.

    grad_last: (S, rows, D), the gradient of c after the last step; None for zeros.
    """
    hidden = weight_hh.shape[-1]
    if launches[0].register_tiles is not None:
        weight_hh = pack_for_backward(weight_hh, launches[0].warps)
    grad_gates = torch.empty_like(activations) if grad_gates is None else grad_gates
    tensors = (grad_out, activations, weight_hh, cells, grad_gates, cells if grad_last is None else grad_last)
    same = (
        "registers backward", activations.shape, activations.dtype, activations.device, hidden, scans, launches,
        approximate_tanh, grad_last is None,
    )  # fmt: skip
    if prepared.repeat(same, *tensors):
        return grad_gates
    longest = most_rows(activations, scans)

    def start(launch: RegisterLaunch) -> Handle | None:
        units = 8 * launch.warps
        return launching.run_kernel(
            gluon_backward.backward_kernel, (programs(launch, longest, len(scans), activations.device), len(scans)),
            *tensors, *grid_arguments(activations),
            SCANS=pack_scans(scans), S=len(scans), D=hidden, NW=launch.warps, NC=triton.cdiv(hidden, units),
            R=launch.rows, APPROX_TANH=approximate_tanh, STAGES=launch.stages,
            COPY=copy_layout(launch.warps, 4 * units), COPY_UNITS=copy_layout(launch.warps, units),
            GATES_SHARED=shared_layout(4 * units), UNITS_SHARED=shared_layout(units), LAST=grad_last is not None,
            **tile_places(launch, hidden), num_warps=launch.warps,
        )  # fmt: skip

    key = ("register-resident backward", hidden, len(scans), grad_last is None, activations.dtype, activations.device)
    prepared.keep(same, launching.first_that_fits(key, launches, start))
    return grad_gates


def shared_layout(columns: int) -> gl.SwizzledSharedLayout:
    """Shared memory for tiles whose rows hold `columns` 16-bit values and are read by ldmatrix.

    The 16 bytes that ldmatrix reads from each of eight rows lie in different banks.
    """
    phase = max(64 // columns, 1)
    return gl.SwizzledSharedLayout(vec=8, per_phase=phase, max_phase=8 // phase, order=[1, 0])


def copy_layout(warps: int, columns: int) -> gl.BlockedLayout:
    """Threads of a copy of tiles whose rows hold `columns` 16-bit values: 16 bytes a thread, neighbors side by side.

    What is contiguous in memory must be so in shared memory. Otherwise each half of a 32-byte sector is fetched alone.
    """
    across = min(columns // 8, 32)
    return gl.BlockedLayout([1, 8], [32 // across, across], [warps, 1], [1, 0])


def read_layout(warps: int, rows: int) -> gl.DistributedLinearLayout:
    """Registers of a chunk's gates (M, R), gate by gate, as the sums of the products hold them in another row order."""
    units = 8 * warps
    registers = [[0, 1], [units, 0], [2 * units, 0]] + [[0, 8 << i] for i in range((rows // 8).bit_length() - 1)]
    across = [[8 << i, 0] for i in range(warps.bit_length() - 1)]
    lanes = [[0, 2], [0, 4], [1, 0], [2, 0], [4, 0]]
    return gl.DistributedLinearLayout(registers, lanes, across, [], [4 * units, rows])
