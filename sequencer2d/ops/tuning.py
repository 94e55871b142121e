"""Chooses launches from a device's table: by kernel, hidden size and number of rows, best first."""

import functools
import math
from dataclasses import replace

import torch
from torch import Tensor

from sequencer2d.ops import targets
from sequencer2d.ops.launches import LaunchTable, RegisterLaunch, SharedLaunch, StreamedLaunch
from sequencer2d.ops.precision import allows_tf32
from sequencer2d.ops.scans import Scan


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """The number of multiprocessors of a GPU; 1 for the interpreter."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def programs(launch: RegisterLaunch, rows: int, scans: int, device: torch.device) -> int:
    """Programs of each scan for `rows` rows: one for each tile, but no more than the device runs at a time."""
    return min(-(-rows // launch.rows), max(launch.programs_per_sm * multiprocessors(device) // scans, 1))


def choose_register_launches(
    kernel: str, gates: Tensor, weight_hh: Tensor, scans: tuple[int, ...]
) -> tuple[RegisterLaunch, ...]:
    """As `choose_shared_launches`, for kernels with W_hh in registers."""
    table = targets.of(gates.device).launches
    return _register_launches(table, kernel, weight_hh.shape[-1], most_rows(gates, scans))


@functools.lru_cache(maxsize=1024)
def _register_launches(table: LaunchTable, kernel: str, hidden: int, rows: int) -> tuple[RegisterLaunch, ...]:
    fitting = [launch for least, launch in table.registers[kernel, hidden] if rows >= least]
    return *fitting, replace(fitting[-1], stages=2)


def choose_shared_launches(
    kernel: str, gates: Tensor, weight_hh: Tensor, scans: tuple[int, ...]
) -> tuple[SharedLaunch, ...]:
    """Launches of `kernel` ("forward" or "backward") for gates (B, *grid, S*G*D) and weight_hh (S, G*D, D), best first.

    The table's launch comes first, then those for fewer rows. The last one reads W_hh again at each step, for devices
    whose shared memory has no room for the others.
    """
    _, width, hidden = weight_hh.shape
    table, rows = targets.of(gates.device).launches, most_rows(gates, scans)
    if gates.dtype == torch.float32:
        return _launches_fp32(table, kernel, hidden, width // hidden, 1 if allows_tf32() else 2)
    return _shared_launches(table, kernel, hidden, width // hidden, rows, gates.dtype)


def choose_streamed_launches(gates: Tensor, scans: tuple[int, ...]) -> tuple[StreamedLaunch, ...]:
    """As `choose_shared_launches`, for kernels that read W_hh from memory at each step."""
    rows = most_rows(gates, scans)
    return tuple(launch for least, launch in targets.of(gates.device).launches.streamed if rows >= least)


def most_rows(gates: Tensor, scans: tuple[int, ...]) -> int:
    """The number of sequences of the scan that has the most."""
    return _most_rows(gates.shape[:-1], scans)


@functools.lru_cache(maxsize=1024)
def _most_rows(grid: tuple[int, ...], scans: tuple[int, ...]) -> int:
    sizes, tokens = grid[1:], math.prod(grid)
    return max(tokens // Scan.numbered(number).walk(sizes).steps for number in scans)


@functools.lru_cache(maxsize=1024)  # a recurrence is launched often, and small batches wait for the host
def _shared_launches(
    table: LaunchTable, kernel: str, hidden: int, gates: int, rows: int, dtype: torch.dtype
) -> tuple[SharedLaunch, ...]:
    chunk = _chunk(hidden)
    last = _last_launch(chunk)
    found = []
    for least, entry in table.shared.get((kernel, hidden), table.shared_default[kernel]):
        launch = entry if (kernel, hidden) in table.shared else _adapted(entry, kernel, hidden, chunk)
        padded = -(-hidden // launch.chunk) * launch.chunk
        if rows >= least and gates * padded * padded * dtype.itemsize <= table.resident_bytes:
            found += [launch, replace(launch, stages=1)]
    return *found, last


def _last_launch(chunk: int) -> SharedLaunch:
    return SharedLaunch(16, chunk, 4, resident=False, stages=1, matmuls_first=False)


@functools.lru_cache(maxsize=1024)
def _launches_fp32(table: LaunchTable, kernel: str, hidden: int, gates: int, parts: int) -> tuple[SharedLaunch, ...]:
    """The launches for fp32, whose operands take one TF32 part each, or two for the accuracy of fp32.

    Two take too many registers for four warps. The choice rests on what the compiler spills at 128 units: with four
    warps 1.7 KB a thread in forward and 2.9 KB in backward, with these launches 36 and 128 bytes (Triton 3.6, compute
    capability 9.0).
    """
    last = _last_launch(_chunk(hidden))
    if kernel == "backward" and hidden > 32:
        last = replace(last, chunk=16, product_inputs=64, warps=8)
    elif hidden > 64:
        last = replace(last, warps=8)
    # Shared memory holds W_hh, or the pipeline holds a step's copy of it; in backward for both products. Launches that
    # no GPU has room for are left out, because they take longest to compile.
    across = max(last.product_inputs or 0, last.chunk)
    tiles = -(-hidden // last.chunk) * last.chunk * -(-hidden // across) * across * (1 if gates == 1 else 4)
    staged, found = tiles * 4 * (2 if kernel == "backward" else 1), []
    if parts * staged <= table.resident_bytes:
        found.append(replace(last, resident=True, stages=2, matmuls_first=kernel == "forward"))
    if staged <= table.resident_bytes:
        found.append(replace(last, stages=2))
    return *found, last


def _adapted(launch: SharedLaunch, kernel: str, hidden: int, chunk: int) -> SharedLaunch:
    """A default launch for `hidden` units."""
    # One product takes all inputs instead of one chunk's, because the cost of a product is its latency.
    inputs = max(chunk, 1 << (hidden - 1).bit_length()) if kernel == "backward" and launch.rows == 64 else None
    return replace(launch, chunk=chunk, product_inputs=inputs)


def _chunk(hidden: int) -> int:
    """Hidden units of a chunk: 64 for many units, otherwise whichever of 32 and 16 pads `hidden` least."""
    if hidden > 128:
        return 64
    return 16 if hidden <= 16 or 32 < hidden <= 48 else 32
