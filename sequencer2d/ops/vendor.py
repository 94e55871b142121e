"""The recurrences through PyTorch's own RNN functions: cuDNN on CUDA, oneDNN or ATen on a CPU.

They take sequences, so the grid is permuted for each axis and the axes' outputs are concatenated. The fused kernels
avoid these copies.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.precision import compute_dtype
from sequencer2d.ops.scans import Scan, is_reverse
from sequencer2d.ops.weights import Weights


def rnn2d_vendor(x: Tensor, weights: Weights, *, scans: Sequence[int], cell: str) -> Tensor:
    """`sequencer2d.ops.rnn2d` through torch's function of the cell."""
    outputs = []
    for slots in runs(scans):
        # The kernels take time-major sequences, (T, N, C). For the columns of one image that is the grid as it is.
        dim = Scan.numbered(scans[slots[0]]).dim
        hidden = _sequences(x.movedim(dim, 0), weights, slots, cell)
        outputs.append(hidden.movedim(0, dim))
    return outputs[0].contiguous() if len(outputs) == 1 else torch.cat(outputs, dim=-1)


def supports(scans: Sequence[int]) -> bool:
    """Whether the vendors' functions can run the scans: each backward scan follows the forward scan of its axis."""
    return not any(is_reverse(scans[run[0]]) for run in runs(scans))


def runs(scans: Sequence[int]) -> list[list[int]]:
    """Group the slots by calls: a forward scan, and the backward scan of the same axis if it is the next slot."""
    runs: list[list[int]] = []
    for slot, number in enumerate(scans):
        scan = Scan.numbered(number)
        if scan.reverse and runs and [scans[s] for s in runs[-1]] == [Scan(scan.axis, False).number]:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    return runs


def _sequences(x: Tensor, weights: Weights, slots: list[int], cell: str) -> Tensor:
    """Run x (T, ..., C) as sequences over T; returns (T, ..., len(slots)*D)."""
    sequences = x.flatten(1, -2)
    flat, has_bias, hidden = weights.of_slots(slots), weights.bias_ih is not None, weights.weight_hh.shape[-1]
    # The vendor's kernels need states of the dtype they compute in, which autocast may change.
    zeros = sequences.new_zeros(len(slots), sequences.shape[1], hidden, dtype=compute_dtype(x))
    state = (zeros, zeros) if CELLS[cell].has_c else zeros
    function = CELLS[cell].vendor
    assert function is not None, f"PyTorch has no function for the cell {cell}"
    # cuDNN has a backward only for a forward in training mode. Without dropout both modes compute the same.
    train = torch.is_grad_enabled()
    with warnings.catch_warnings():
        # The weights are slices of one stack. cuDNN compacts them at each call, which costs little.
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous")
        output = function(sequences, state, flat, has_bias, 1, 0.0, train, len(slots) == 2, False)[0]
    return output.reshape(*x.shape[:-1], len(slots) * hidden)
