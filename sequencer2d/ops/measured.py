"""What was measured on a GPU decides which implementation of a sequence "auto" takes: a row for each such measurement.

`python -m benchmarks.recurrences` times both implementations and names every problem for which "auto" takes the slower
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sequencer2d.ops.launches import H200
from sequencer2d.ops.precision import allows_tf32, compute_dtype
from sequencer2d.ops.targets import constant


@dataclass(frozen=True)
class Problems:
    """A range of problems that one measurement stands for. Bounds are inclusive.

    Attributes:
        cell: the name of the cell.
        dtype: that is computed in: "bfloat16", "float16", "float32", or "tf32" for float32 where the user allowed TF32.
        training: whether gradients are recorded.
        hidden: the least and the greatest number of hidden units D.
        sequences: the least and the greatest number of sequences.
    """

    cell: str
    dtype: str
    training: bool
    hidden: tuple[int, int]
    sequences: tuple[int, int]

    def include(self, cell: str, dtype: str, training: bool, hidden: int, sequences: int) -> bool:
        """Whether a problem is one of these."""
        return (
            cell == self.cell
            and dtype == self.dtype
            and training == self.training
            and self.hidden[0] <= hidden <= self.hidden[1]
            and self.sequences[0] <= sequences <= self.sequences[1]
        )


# The layers of `sequencer2d.nn.LSTM`, `GRU` and `RNN` that are faster with the fused kernels. These rows come from
# `benchmarks.choices`, which makes them from the results of `benchmarks.recurrences`.
KERNELS_FASTER: tuple[Problems, ...] = (
    Problems("gru", "bfloat16", False, (96, 128), (1, 256)),
    Problems("gru", "bfloat16", True, (96, 128), (1, 256)),
    Problems("gru", "bfloat16", True, (129, 256), (4136, 4136)),
    Problems("gru", "tf32", True, (129, 256), (4136, 4136)),
    Problems("lstm", "bfloat16", False, (48, 64), (1, 192)),
    Problems("lstm", "bfloat16", False, (65, 80), (1, 64)),
    Problems("lstm", "bfloat16", False, (81, 96), (1, 256)),
    Problems("lstm", "bfloat16", False, (97, 128), (1, 4740)),
    Problems("lstm", "bfloat16", False, (129, 160), (1, 195)),
    Problems("lstm", "bfloat16", False, (161, 192), (1, 1503)),
    Problems("lstm", "bfloat16", False, (193, 256), (1, 3008)),
    Problems("lstm", "bfloat16", True, (48, 64), (1, 192)),
    Problems("lstm", "bfloat16", True, (65, 80), (1, 64)),
    Problems("lstm", "bfloat16", True, (81, 96), (1, 256)),
    Problems("lstm", "bfloat16", True, (97, 128), (1, 4740)),
    Problems("lstm", "bfloat16", True, (129, 160), (1, 195)),
    Problems("lstm", "bfloat16", True, (161, 192), (1, 1503)),
    Problems("lstm", "bfloat16", True, (193, 256), (1, 3008)),
    Problems("lstm", "float16", False, (144, 192), (195, 195)),
    Problems("lstm", "float16", True, (144, 192), (195, 195)),
    Problems("lstm", "tf32", False, (97, 128), (560, 4740)),
    Problems("lstm", "tf32", False, (129, 160), (195, 195)),
    Problems("lstm", "tf32", False, (161, 192), (195, 1503)),
    Problems("lstm", "tf32", True, (97, 128), (560, 4740)),
    Problems("lstm", "tf32", True, (129, 160), (195, 195)),
    Problems("lstm", "tf32", True, (161, 192), (195, 1503)),
    Problems("rnn", "bfloat16", False, (96, 128), (1, 256)),
    Problems("rnn", "bfloat16", True, (96, 128), (1, 256)),
)


def are_kernels_faster(x: Tensor, sequences: int, hidden: int, cell: str) -> bool:
    """Whether the fused kernels were measured to be faster than cuDNN for a layer on x with `hidden` units.

    An exported program takes any number of sequences, so that number must not decide there.
    """
    return not torch.compiler.is_exporting() and _are_among(KERNELS_FASTER, x, sequences, hidden, cell)


def are_kernels_faster_on_grids(x: Tensor, hidden: int) -> bool:
    """Whether `rnn2d` takes the fused kernels for x on CUDA. Those that read W_hh from memory at each step it does not.

    These were timed on sequences alone, in TF32, and were behind cuDNN in half of the problems.
    """
    limit = H200.max_shared_hidden.get(compute_dtype(x).itemsize)
    return limit is None or hidden <= limit


def _are_among(rows: Sequence[Problems], x: Tensor, sequences: int, hidden: int, cell: str) -> bool:
    dtype, training = _arithmetic(compute_dtype(x)), torch.is_grad_enabled()
    return any(row.include(cell, dtype, training, hidden, sequences) for row in rows)


@constant
def _arithmetic(dtype: torch.dtype) -> str:
    """The name of a dtype as in `Problems`. torch.compile takes the answer for a constant."""
    return "tf32" if dtype is torch.float32 and allows_tf32() else str(dtype).removeprefix("torch.")
