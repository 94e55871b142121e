"""The recurrences in plain PyTorch: any device and dtype, differentiable twice; the oracle of the kernels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.ops.cells import CELLS, State
from sequencer2d.ops.scans import Scan
from sequencer2d.ops.weights import Weights


def scan_gates(gates: Tensor, weight_hh: Tensor, bias_hh: Tensor | None, *, scans: Sequence[int], cell: str) -> Tensor:
    """Run the scans over gates whose input product is done.

    Args:
        gates: (B, *grid, S*G*D), the input's part of the pre-activations, its bias included.
        weight_hh: (S, G*D, D).
        bias_hh: (S, G*D) or None.
        scans: the number of the scan that each of the S slots runs, see `scans`.
        cell: "lstm", "gru" or "rnn".

    Returns:
        (B, *grid, S*D), the hidden states, scan by scan.
    """
    return scan_states(gates, weight_hh, bias_hh, scans=scans, cell=cell)[0]


def scan_states(
    gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    *,
    scans: Sequence[int],
    cell: str,
    first: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """`scan_gates` with every state of the cell, each (B, *grid, S*D): h, and c if the cell has it.

    first: (S, rows, D), the state that the scans begin with: c, or h for a cell without c. The rows of a scan are in
    the order of memory.
    """
    outputs = []
    for slot, (number, gates_scan) in enumerate(zip(scans, gates.chunk(len(scans), dim=-1), strict=True)):
        bias = None if bias_hh is None else bias_hh[slot]
        begin = None if first is None else first[slot]
        outputs.append(_scan(gates_scan, weight_hh[slot], bias, Scan.numbered(number), cell, begin))
    return tuple(torch.cat(states, dim=-1) for states in zip(*outputs, strict=True))


def rnn2d_reference(x: Tensor, weights: Weights, *, scans: Sequence[int], cell: str) -> Tensor:
    """`sequencer2d.ops.rnn2d` in plain PyTorch."""
    bias = None if weights.bias_ih is None else weights.bias_ih.flatten()
    gates = F.linear(x, weights.weight_ih.flatten(0, 1), bias)
    return scan_gates(gates, weights.weight_hh, weights.bias_hh, scans=scans, cell=cell)


def _scan(
    gates: Tensor, weight_hh: Tensor, bias_hh: Tensor | None, scan: Scan, cell: str, first: Tensor | None
) -> State:
    """One scan: gates (B, *grid, G*D) to the cell's states, each (B, *grid, D)."""
    steps = gates.unbind(scan.dim)
    batch = steps[0].shape[:-1]
    state = tuple(gates.new_zeros(*batch, weight_hh.shape[-1]) for _ in range(CELLS[cell].states))
    if first is not None:
        state = *state[:-1], first.view(*batch, -1)
    states: list[State] = [state] * len(steps)
    for t in scan.order(len(steps)):
        state = CELLS[cell].step(steps[t], F.linear(state[0], weight_hh, bias_hh), state)
        states[t] = state
    return tuple(torch.stack(values, dim=scan.dim) for values in zip(*states, strict=True))
