"""Launch configurations of the fused recurrence: a fixed table by hidden size, kernel and number of rows.

A table beats autotuning here: the batch is part of an autotuner's key, so each new one would stall for a retune.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Of the 227 KiB of shared memory a program can have, what W_hh may take beside the layout conversions' scratch space.
_RESIDENT_BYTES = 160 * 1024


@dataclass(frozen=True)
class Launch:
    """How a kernel is launched: rows of a tile, hidden units of a chunk, warps, W_hh kept on the chip or read."""

    rows: int
    chunk: int
    warps: int
    resident: bool = True


def choose(kernel: str, gates: Tensor, weight_hh: Tensor, scans: tuple[int, ...]) -> Launch:
    """The launch of `kernel` ("forward" or "backward") for gates (B, H, W, S*G*D) and weight_hh (S, G*D, D)."""
    _, width, hidden = weight_hh.shape
    batch, height, columns, _ = gates.shape
    rows = max(batch * (columns if scan < 2 else height) for scan in scans)
    if gates.dtype == torch.float32:
        return Launch(16, 32 if hidden > 16 else 16, 4, resident=False)
    chunk = _chunk(hidden)
    padded = -(-hidden // chunk) * chunk
    resident = width // hidden * padded * padded * gates.element_size() <= _RESIDENT_BYTES
    tile = 64 if rows >= 64 * 16 else 16
    return Launch(tile, chunk, 4, resident)


def _chunk(hidden: int) -> int:
    """The largest power of two from 16 to 32 whose multiples pad `hidden` least."""
    return min((32, 16), key=lambda chunk: -(-hidden // chunk) * chunk)
