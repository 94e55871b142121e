"""Launch configurations of the fused recurrence: a fixed table by hidden size, kernel and number of rows.

A table beats autotuning here: the batch is part of an autotuner's key, so each new one would stall for a retune.
"""

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# What W_hh may take of the 227 KiB of shared memory that a program can have, for a launch to be tried at all.
_RESIDENT_BYTES = 160 * 1024


@dataclass(frozen=True)
class Launch:
    """How a kernel is launched.

    Attributes:
        rows: of a tile.
        chunk: hidden units that are computed together.
        warps: of a program.
        resident: whether W_hh stays on the chip or is read at each step.
        stages: of the pipeline that copies a step's inputs to shared memory (1: none).
        inner: in backward, inputs of one product with W_hh, a power of two times the chunk; None for the chunk.
        ahead: whether all chunks' products with W_hh come before the first activation, so that few rows overlap the
            two, at the cost of registers.
    """

    rows: int
    chunk: int
    warps: int
    resident: bool = True
    stages: int = 2
    inner: int | None = None
    ahead: bool = True


@dataclass(frozen=True)
class Stationary:
    """How a kernel with W_hh in registers is launched.

    Attributes:
        rows: of a tile: a multiple of eight in forward, sixteen in backward.
        warps: of a program; a chunk has eight units for each.
        stages: of the ring in shared memory that a step's inputs are copied to.
        share: programs on a multiprocessor.
    """

    rows: int
    warps: int
    stages: int
    share: int

    def programs(self, rows: int, scans: int, device: torch.device) -> int:
        """Programs of each scan for `rows` rows: a tile each, or as many as the device runs at a time."""
        return min(-(-rows // self.rows), max(self.share * multiprocessors(device) // scans, 1))


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Of a GPU; 1 for the interpreter."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


# (kernel, hidden units): launches by the least number of rows that they are for, largest first. Measured on an H200 in
# bf16 by benchmarks/kernels/recurrence.py. Few rows want small tiles, so that every multiprocessor gets one.
_TABLE = {
    ("forward", 96): ((2048, Launch(32, 32, 4)), (0, Launch(16, 32, 4, stages=3))),
    ("forward", 64): ((0, Launch(16, 64, 4, stages=3)),),
    ("forward", 48): (
        (4096, Launch(32, 16, 2, stages=4)),
        (1024, Launch(16, 16, 2, stages=3)),
        (0, Launch(16, 64, 4, stages=3)),
    ),
    ("backward", 96): ((0, Launch(16, 32, 4, stages=3, ahead=False)),),
    ("backward", 64): (
        (2048, Launch(64, 32, 4, stages=3, inner=64, ahead=False)),
        (0, Launch(16, 32, 4, stages=3, ahead=False)),
    ),
    ("backward", 48): (
        (4096, Launch(64, 16, 4, inner=64)),
        (2048, Launch(64, 16, 4, stages=3, inner=64)),
        (1024, Launch(32, 16, 2, stages=3)),
        (0, Launch(16, 64, 4, stages=3, ahead=False)),
    ),
}
_OTHERS = {
    "forward": ((1024, Launch(32, 32, 4)), (0, Launch(16, 32, 4))),
    "backward": ((1024, Launch(64, 32, 4, ahead=False)), (0, Launch(16, 32, 4, ahead=False))),
}
# (kernel, hidden units): as above, for the LSTM in 16 bits, with W_hh in registers, which have room for 128 units; the
# others were not timed. "training": forward that keeps what backward needs.
_STATIONARY_TABLE = {
    ("forward", 96): ((0, Stationary(8, 4, 4, 2)),),
    ("forward", 64): ((0, Stationary(8, 4, 3, 4)),),
    ("forward", 48): ((2048, Stationary(16, 2, 3, 4)), (0, Stationary(8, 2, 3, 6))),
    ("training", 96): ((0, Stationary(8, 4, 4, 2)),),
    ("training", 64): ((1024, Stationary(16, 8, 3, 2)), (0, Stationary(8, 4, 3, 3))),
    ("training", 48): ((0, Stationary(8, 2, 3, 4)),),
    ("backward", 96): ((0, Stationary(16, 4, 3, 2)),),
    ("backward", 64): ((0, Stationary(16, 8, 3, 2)),),
    ("backward", 48): ((0, Stationary(16, 2, 3, 4)),),
}
STATIONARY = frozenset(hidden for _, hidden in _STATIONARY_TABLE)
# From here on the gates' activations are kept for backward. With fewer units all kernels wait for memory, and that is
# more to write; at 64 it costs 3 or 4 % with many rows and saves 15 to 35 % with few.
KEEPING = 64
# Values of the residual stream up to which it pays to launch less instead of calling the vendor's products: those of
# one image of 224 x 224 pixels before the first stage, of two after it (not timed). Then the most channels that a norm
# and a product in one launch have room for.
FEW = 1024 * 192
MOST_NORMED = 384


def choose_stationary(kernel: str, gates: Tensor, weight_hh: Tensor, scans: tuple[int, ...]) -> tuple[Stationary, ...]:
    """As `choose`, for kernels that keep W_hh in registers."""
    return _stationary_launches(kernel, weight_hh.shape[-1], most_rows(gates, scans))


@functools.lru_cache(maxsize=1024)
def _stationary_launches(kernel: str, hidden: int, rows: int) -> tuple[Stationary, ...]:
    fitting = [launch for least, launch in _STATIONARY_TABLE[kernel, hidden] if rows >= least]
    return *fitting, replace(fitting[-1], stages=2)


def choose(kernel: str, gates: Tensor, weight_hh: Tensor, scans: tuple[int, ...]) -> tuple[Launch, ...]:
    """Launches of `kernel` ("forward" or "backward") for gates (B, H, W, S*G*D) and weight_hh (S, G*D, D), best first.

    Behind the table's come those for fewer rows, and last one that reads W_hh again at each step, for a device whose
    shared memory does not hold the others.
    """
    _, width, hidden = weight_hh.shape
    return _launches(kernel, hidden, width // hidden, most_rows(gates, scans), gates.dtype)


def most_rows(gates: Tensor, scans: tuple[int, ...]) -> int:
    """Sequences of the scans that have the most."""
    batch, height, width, _ = gates.shape
    return max(batch * (width if scan < 2 else height) for scan in scans)


@functools.lru_cache(maxsize=1024)  # a recurrence is launched often, and small batches wait for the host
def _launches(kernel: str, hidden: int, gates: int, rows: int, dtype: torch.dtype) -> tuple[Launch, ...]:
    chunk = _chunk(hidden)
    last = Launch(16, chunk, 4, resident=False, stages=1, ahead=False)
    if dtype == torch.float32:
        last = _launch_fp32(kernel, hidden, last)
        # The pipeline holds a step's W_hh in shared memory, in backward for both products. What no GPU holds is left
        # out, as it takes longest to compile.
        across = max(last.inner or 0, last.chunk)
        tiles = -(-hidden // last.chunk) * last.chunk * -(-hidden // across) * across * (1 if gates == 1 else 4)
        staged = tiles * dtype.itemsize * (2 if kernel == "backward" else 1)
        return (replace(last, stages=2), last) if staged <= _RESIDENT_BYTES else (last,)
    found = []
    for least, entry in _TABLE.get((kernel, hidden), _OTHERS[kernel]):
        launch = entry if (kernel, hidden) in _TABLE else _adapted(entry, kernel, hidden, chunk)
        padded = -(-hidden // launch.chunk) * launch.chunk
        if rows >= least and gates * padded * padded * dtype.itemsize <= _RESIDENT_BYTES:
            found += [launch, replace(launch, stages=1)]
    return *found, last


def _launch_fp32(kernel: str, hidden: int, launch: Launch) -> Launch:
    """Of more units than four warps have registers for: they hold a product's operands in two TF32 parts each.

    Chosen by what the compiler spills: with four warps 1.7 KB a thread in forward and 2.9 in backward at 128 units,
    with these 36 and 128 bytes (Triton 3.6, compute capability 9.0).
    """
    if kernel == "backward" and hidden > 32:
        return replace(launch, chunk=16, inner=64, warps=8)
    return replace(launch, warps=8) if hidden > 64 else launch


def _adapted(launch: Launch, kernel: str, hidden: int, chunk: int) -> Launch:
    """A launch of no certain size for `hidden` units."""
    # One product over all inputs instead of one a chunk: what a product costs is its latency.
    inner = max(chunk, 1 << (hidden - 1).bit_length()) if kernel == "backward" and launch.rows == 64 else None
    return replace(launch, chunk=chunk, inner=inner)


def _chunk(hidden: int) -> int:
    """Hidden units of a chunk: 64 where many would be needed, else of 32 and 16 what pads `hidden` least."""
    if hidden > 128:
        return 64
    return 16 if hidden <= 16 or 32 < hidden <= 48 else 32
