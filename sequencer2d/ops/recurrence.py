"""The operands of a launch: what forward and backward of the same scans have in common."""

from collections.abc import Hashable
from typing import NamedTuple

from torch import Tensor

from sequencer2d.ops.cells import CELLS, Cell


class Recurrence(NamedTuple):
    """Scans over gates whose input product is done, as the kernels take them. Tensors are contiguous.

    Attributes:
        gates: (B, *grid, S*G*D), the input's part of the pre-activations, with every bias that may be added to it.
        weight_hh: (S, G*D, D).
        inner_bias: (S, D), the recurrent bias of the cell's inner gate; None if it has none, or no biases.
        scans: the scan of each slot.
        cell: the name of the cell.
        approximate_tanh: whether to use the hardware's tanh.
        precision: of float32 products, as Triton names it.
        first: (S, rows, D), the state that the scans begin with: c, or h for a cell without c. None stands for zeros.
    """

    gates: Tensor
    weight_hh: Tensor
    inner_bias: Tensor | None
    scans: tuple[int, ...]
    cell: str
    approximate_tanh: bool
    precision: str
    first: Tensor | None = None

    @property
    def row(self) -> Cell:
        """The cell's row of the table of cells."""
        return CELLS[self.cell]

    @property
    def hidden(self) -> int:
        """D, the hidden units."""
        return int(self.weight_hh.shape[-1])

    @property
    def kind(self) -> tuple[Hashable, ...]:
        """What a launch depends on, apart from the values of the tensors."""
        gates = self.gates
        return (
            gates.shape, gates.dtype, gates.device, self.hidden, self.scans, self.cell, self.approximate_tanh,
            self.precision, self.first is None,
        )  # fmt: skip

    @property
    def binary(self) -> tuple[Hashable, ...]:
        """What a kernel is compiled for, apart from how it is launched."""
        return self.hidden, len(self.scans), self.cell, self.first is None, self.gates.dtype, self.gates.device
