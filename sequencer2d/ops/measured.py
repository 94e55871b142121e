"""What was measured on a GPU decides which implementation of a sequence "auto" takes: a row for each such measurement.

`python -m benchmarks.recurrences` times both implementations and names every problem for which "auto" takes the slower
one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sequencer2d.ops.precision import compute_dtype


@dataclass(frozen=True)
class Problems:
    """A range of problems that one measurement stands for. Bounds are inclusive.

    Attributes:
        cells: names of the cells.
        bits: of the dtype that is computed in.
        training: whether gradients are recorded; None for both.
        hidden: the least and the greatest number of hidden units D.
        sequences: the least and the greatest number of sequences.
    """

    cells: tuple[str, ...]
    bits: int
    training: bool | None
    hidden: tuple[int, float]
    sequences: tuple[int, float] = (1, math.inf)

    def include(self, cell: str, bits: int, training: bool, hidden: int, sequences: int) -> bool:
        """Whether a problem is one of these."""
        return (
            cell in self.cells
            and bits == self.bits
            and self.training in (None, training)
            and self.hidden[0] <= hidden <= self.hidden[1]
            and self.sequences[0] <= sequences <= self.sequences[1]
        )


# The layers of `sequencer2d.nn.LSTM`, `GRU` and `RNN` that are faster with the fused kernels. None has been measured.
KERNELS_FASTER: tuple[Problems, ...] = ()


def are_kernels_faster(x: Tensor, sequences: int, hidden: int, cell: str) -> bool:
    """Whether the fused kernels were measured to be faster than cuDNN for a layer on x with `hidden` units.

    An exported program takes any number of sequences, so that number must not decide there.
    """
    return not torch.compiler.is_exporting() and _are_among(KERNELS_FASTER, x, sequences, hidden, cell)


def _are_among(rows: Sequence[Problems], x: Tensor, sequences: int, hidden: int, cell: str) -> bool:
    bits, training = compute_dtype(x).itemsize * 8, torch.is_grad_enabled()
    return any(row.include(cell, bits, training, hidden, sequences) for row in rows)
