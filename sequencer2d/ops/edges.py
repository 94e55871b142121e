"""The first and the last step of every scan, cut out of a tensor over the grid.

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


def _edges(values: Tensor, scans: Sequence[int], *, last: bool) -> Tensor:
    edges = []
    for number, part in zip(scans, values.chunk(len(scans), dim=-1), strict=True):
        scan = Scan.numbered(number)
        edges.append(part.select(scan.dim, -1 if scan.reverse != last else 0).flatten(0, -2))
    return torch.stack(edges)
