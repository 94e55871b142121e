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


def rnn2d_vendor(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    *,
    scans: Sequence[int],
    cell: str,
) -> Tensor:
    """`sequencer2d.ops.rnn2d` through torch's function of the cell; same arguments."""
    outputs = []
    for slots in runs(scans):
        flat = _flat_weights(weight_ih, weight_hh, bias_ih, bias_hh, slots)
        # The kernels take time-major sequences, (T, N, C). For the columns of one image that is the grid as it is.
        dim = Scan.numbered(scans[slots[0]]).dim
        hidden = _sequences(x.movedim(dim, 0), flat, slots, cell, bias_ih is not None)
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


def _flat_weights(
    weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor | None, bias_hh: Tensor | None, slots: Sequence[int]
) -> list[Tensor]:
    groups = [weight_ih, weight_hh] if bias_ih is None or bias_hh is None else [weight_ih, weight_hh, bias_ih, bias_hh]
    return [group[slot] for slot in slots for group in groups]


def _sequences(x: Tensor, flat: list[Tensor], slots: Sequence[int], cell: str, has_bias: bool) -> Tensor:
    """Run x (T, ..., C) as sequences over T; returns (T, ..., len(slots)*D)."""
    sequences = x.flatten(1, -2)
    hidden = flat[1].shape[-1]
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
