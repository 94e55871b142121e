"""SharedLaunch configurations of the fused recurrence: a fixed table by hidden size, kernel and number of rows.

A table beats autotuning here. An autotuner's key would have to hold the batch, so each new batch size would stall for
another round of tuning.
"""

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sequencer2d.ops.scans import Scan

# How many of the 227 KiB of shared memory that a program can have W_hh may take, for a launch to be tried at all.
_RESIDENT_BYTES = 160 * 1024


@dataclass(frozen=True)
class SharedLaunch:
    """How a kernel with W_hh in shared memory is launched.

    Attributes:
        rows: the rows of a tile.
        chunk: the hidden units that are computed together.
        warps: the warps of a program.
        resident: whether W_hh stays on the chip. Otherwise it is read at each step.
        stages: the stages of the pipeline that copies a step's inputs to shared memory (1: no pipeline).
        product_inputs: in backward, the inputs of one product with W_hh, a power of two times the chunk (None: 1).
        matmuls_first: whether the products of all chunks with W_hh come before the first activation. In small batches
            the two then overlap, at the cost of registers.
    """

    rows: int
    chunk: int
    warps: int
    resident: bool = True
    stages: int = 2
    product_inputs: int | None = None
    matmuls_first: bool = True


@dataclass(frozen=True)
class RegisterLaunch:
    """How a kernel with W_hh in registers is launched.

    Attributes:
        rows: the rows of a tile, a multiple of eight in forward and of sixteen in backward.
        warps: the warps of a program. A chunk has eight units for each warp.
        stages: the stages of the ring in shared memory that a step's inputs are copied to.
        programs_per_sm: the programs that run on one multiprocessor at a time.
    """

    rows: int
    warps: int
    stages: int
    programs_per_sm: int

    def programs(self, rows: int, scans: int, device: torch.device) -> int:
        """Programs of each scan for `rows` rows: one for each tile, but no more than the device runs at a time."""
        return min(-(-rows // self.rows), max(self.programs_per_sm * multiprocessors(device) // scans, 1))


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """The number of multiprocessors of a GPU; 1 for the interpreter."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


# (kernel, hidden units): launches with the smallest number of rows that each is for, largest first. Measured on an H200
# in bf16 by benchmarks/kernels/recurrence.py. Small batches take small tiles, so that every multiprocessor gets one.
_SHARED_TABLE = {
    ("forward", 96): ((2048, SharedLaunch(32, 32, 4)), (0, SharedLaunch(16, 32, 4, stages=3))),
    ("forward", 64): ((0, SharedLaunch(16, 64, 4, stages=3)),),
    ("forward", 48): (
        (4096, SharedLaunch(32, 16, 2, stages=4)),
        (1024, SharedLaunch(16, 16, 2, stages=3)),
        (0, SharedLaunch(16, 64, 4, stages=3)),
    ),
    ("backward", 96): ((0, SharedLaunch(16, 32, 4, stages=3, matmuls_first=False)),),
    ("backward", 64): (
        (2048, SharedLaunch(64, 32, 4, stages=3, product_inputs=64, matmuls_first=False)),
        (0, SharedLaunch(16, 32, 4, stages=3, matmuls_first=False)),
    ),
    ("backward", 48): (
        (4096, SharedLaunch(64, 16, 4, product_inputs=64)),
        (2048, SharedLaunch(64, 16, 4, stages=3, product_inputs=64)),
        (1024, SharedLaunch(32, 16, 2, stages=3)),
        (0, SharedLaunch(16, 64, 4, stages=3, matmuls_first=False)),
    ),
}
_OTHERS = {
    "forward": ((1024, SharedLaunch(32, 32, 4)), (0, SharedLaunch(16, 32, 4))),
    "backward": (
        (1024, SharedLaunch(64, 32, 4, matmuls_first=False)),
        (0, SharedLaunch(16, 32, 4, matmuls_first=False)),
    ),
}
# (kernel, hidden units): as above, for the LSTM in 16 bits with W_hh in registers. They have room for 128 units; sizes
# that are missing here were not timed. "training" is forward that saves what backward reads.
_REGISTER_TABLE = {
    ("forward", 96): ((0, RegisterLaunch(8, 4, 4, 2)),),
    ("forward", 64): ((0, RegisterLaunch(8, 4, 3, 4)),),
    ("forward", 48): ((2048, RegisterLaunch(16, 2, 3, 4)), (0, RegisterLaunch(8, 2, 3, 6))),
    ("training", 96): ((0, RegisterLaunch(8, 4, 4, 2)),),
    ("training", 64): ((1024, RegisterLaunch(16, 8, 3, 2)), (0, RegisterLaunch(8, 4, 3, 3))),
    ("training", 48): ((0, RegisterLaunch(8, 2, 3, 4)),),
    ("backward", 96): ((0, RegisterLaunch(16, 4, 3, 2)),),
    ("backward", 64): ((0, RegisterLaunch(16, 8, 3, 2)),),
    ("backward", 48): ((0, RegisterLaunch(16, 2, 3, 4)),),
}
REGISTER_RESIDENT_HIDDEN = frozenset(hidden for _, hidden in _REGISTER_TABLE)
# From this size on, the gates' activations are saved for backward. With fewer units all kernels wait for memory, and
# activations are more to write. At 64 units saving costs 3 or 4 % in large batches and gains 15 to 35 % in small ones.
MIN_HIDDEN_TO_SAVE_ACTIVATIONS = 64
# Values of the residual stream up to which the fused products are faster than the vendor's: those of one image of
# 224 x 224 pixels in the first stage, of two after it (not timed).
MAX_SMALL_BATCH = 1024 * 192
# The most channels for which a layer norm and a product fit into one launch.
MAX_NORMED_CHANNELS = 384


def choose_register_launches(
    kernel: str, gates: Tensor, weight_hh: Tensor, scans: tuple[int, ...]
) -> tuple[RegisterLaunch, ...]:
    """As `choose_shared_launches`, for kernels with W_hh in registers."""
    return _register_launches(kernel, weight_hh.shape[-1], most_rows(gates, scans))


@functools.lru_cache(maxsize=1024)
def _register_launches(kernel: str, hidden: int, rows: int) -> tuple[RegisterLaunch, ...]:
    fitting = [launch for least, launch in _REGISTER_TABLE[kernel, hidden] if rows >= least]
    return *fitting, replace(fitting[-1], stages=2)


def choose_shared_launches(
    kernel: str, gates: Tensor, weight_hh: Tensor, scans: tuple[int, ...]
) -> tuple[SharedLaunch, ...]:
    """Launches of `kernel` ("forward" or "backward") for gates (B, *grid, S*G*D) and weight_hh (S, G*D, D), best first.

    The table's launch comes first, then those for fewer rows. The last one reads W_hh again at each step, for devices
    whose shared memory has no room for the others.
    """
    _, width, hidden = weight_hh.shape
    return _shared_launches(kernel, hidden, width // hidden, most_rows(gates, scans), gates.dtype)


def most_rows(gates: Tensor, scans: tuple[int, ...]) -> int:
    """The number of sequences of the scan that has the most."""
    sizes = gates.shape[1:-1]
    tokens = math.prod(gates.shape[:-1])
    return max(tokens // Scan.numbered(number).walk(sizes).steps for number in scans)


@functools.lru_cache(maxsize=1024)  # a recurrence is launched often, and small batches wait for the host
def _shared_launches(kernel: str, hidden: int, gates: int, rows: int, dtype: torch.dtype) -> tuple[SharedLaunch, ...]:
    chunk = _chunk(hidden)
    last = SharedLaunch(16, chunk, 4, resident=False, stages=1, matmuls_first=False)
    if dtype == torch.float32:
        last = _launch_fp32(kernel, hidden, last)
        # The pipeline holds a step's W_hh in shared memory, in backward for both products. Launches that no GPU has
        # room for are left out, because they take longest to compile.
        across = max(last.product_inputs or 0, last.chunk)
        tiles = -(-hidden // last.chunk) * last.chunk * -(-hidden // across) * across * (1 if gates == 1 else 4)
        staged = tiles * dtype.itemsize * (2 if kernel == "backward" else 1)
        return (replace(last, stages=2), last) if staged <= _RESIDENT_BYTES else (last,)
    found = []
    for least, entry in _SHARED_TABLE.get((kernel, hidden), _OTHERS[kernel]):
        launch = entry if (kernel, hidden) in _SHARED_TABLE else _adapted(entry, kernel, hidden, chunk)
        padded = -(-hidden // launch.chunk) * launch.chunk
        if rows >= least and gates * padded * padded * dtype.itemsize <= _RESIDENT_BYTES:
            found += [launch, replace(launch, stages=1)]
    return *found, last


def _launch_fp32(kernel: str, hidden: int, launch: SharedLaunch) -> SharedLaunch:
    """The launch for fp32, where a product's operands take two TF32 parts each, too many registers for four warps.

    The choice rests on what the compiler spills at 128 units: with four warps 1.7 KB a thread in forward and 2.9 KB in
    backward, with these launches 36 and 128 bytes (Triton 3.6, compute capability 9.0).
    """
    if kernel == "backward" and hidden > 32:
        return replace(launch, chunk=16, product_inputs=64, warps=8)
    return replace(launch, warps=8) if hidden > 64 else launch


def _adapted(launch: SharedLaunch, kernel: str, hidden: int, chunk: int) -> SharedLaunch:
    """A launch of `_OTHERS` for `hidden` units."""
    # One product takes all inputs instead of one chunk's, because the cost of a product is its latency.
    inputs = max(chunk, 1 << (hidden - 1).bit_length()) if kernel == "backward" and launch.rows == 64 else None
    return replace(launch, chunk=chunk, product_inputs=inputs)


def _chunk(hidden: int) -> int:
    """Hidden units of a chunk: 64 for many units, otherwise whichever of 32 and 16 pads `hidden` least."""
    if hidden > 128:
        return 64
    return 16 if hidden <= 16 or 32 < hidden <= 48 else 32
