"""The first and the last step of every scan, cut out of a tensor over the grid, and what stands before each step.

Suffixes: B batch, S scans, D hidden units. Rows are a scan's sequences in the order of memory.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sequencer2d.ops.scans import Scan


def first_steps(values: Tensor, scans: Sequence[int]) -> Tensor:
    """(B, *grid, S*X) to (S, rows, X): the values of each scan at its first step."""
    return _edges(values, scans, last=False)


def last_steps(values: Tensor, scans: Sequence[int]) -> Tensor:
    """(B, *grid, S*X) to (S, rows, X): the values of each scan at its last step."""
    return _edges(values, scans, last=True)


def ends_of_sequences(values: Tensor, slots: int) -> Tensor:
    """`last_steps` of sequences (N, T, S*X), or a time-major grid (1, T, N, S*X), in few operators.

    A forward scan ends at the last step, the backward one in slot 1 at the first.
    """
    width, rows_dim = values.shape[-1] // slots, 0 if values.dim() == 3 else 2
    size, strides = (values.shape[rows_dim], width), (values.stride(rows_dim), values.stride(-1))
    begin = values.storage_offset()
    places = [begin + (values.shape[1] - 1) * values.stride(1), begin + width * values.stride(-1)][:slots]
    return torch.stack([values.as_strided(size, strides, place) for place in places])


def states_before(values: Tensor, scans: Sequence[int], first: Tensor | None) -> Tensor:
    """(B, *grid, S*D): what stands one step earlier in scan order; before a scan's first step `first`, or zeros.

    first: (S, rows, D).
    """
    before = torch.empty_like(values)
    slots = zip(scans, values.chunk(len(scans), dim=-1), before.chunk(len(scans), dim=-1), strict=True)
    for slot, (number, source, target) in enumerate(slots):
        scan = Scan.numbered(number)
        steps = values.shape[scan.dim]
        begin, end = (0, steps - 1) if scan.reverse else (1, 0)
        target.narrow(scan.dim, begin, steps - 1).copy_(source.narrow(scan.dim, 1 - begin, steps - 1))
        edge = target.select(scan.dim, end)
        edge.copy_(first.select(0, slot).view_as(edge)) if first is not None else edge.zero_()
    return before


def _edges(values: Tensor, scans: Sequence[int], *, last: bool) -> Tensor:
    width, edges = values.shape[-1] // len(scans), []
    for slot, number in enumerate(scans):
        scan = Scan.numbered(number)
        edges.append(values.select(scan.dim, -1 if scan.reverse != last else 0).narrow(-1, slot * width, width))
    stacked = torch.stack(edges)
    return stacked if stacked.dim() == 3 else stacked.flatten(1, -2)
