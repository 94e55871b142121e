"""One recurrent layer over sequences, with the states before and after them and with sequences of different lengths.

The scans are those of `rnn2d` along the only axis. What sequences add is arithmetic on the gates of a few steps: the
h that a sequence begins with adds its product with W_hh to the gates of the first step; and steps beyond a sequence's
end get gates that keep the state, so that a backward scan, too, begins its sequence with the right state.

Suffixes: N sequences, T steps, C input channels, S scans (forward and, if there are two, backward), G gates, D hidden
units.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.ops import (
    registration,  # noqa: F401  (registers the operators)
    scan_kernels,
)
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.edges import last_steps
from sequencer2d.ops.fused import InputProduct, of_inner_gate, refuse_double_backward, split_biases
from sequencer2d.ops.padding import pad_units, pad_weights, without_padding
from sequencer2d.ops.precision import compute_dtype
from sequencer2d.ops.scans import SEQUENCE_SCANS, is_reverse
from sequencer2d.ops.sequence_operators import scan_sequence_by_reference
from sequencer2d.ops.weights import Weights

# Large enough that sigmoid is 0 or 1 in any dtype, and far below the largest value of float16.
_SATURATED = 1e4


def rnn_sequence(
    x: Tensor,
    weights: Weights,
    state: tuple[Tensor, ...] | None = None,
    lengths: Tensor | None = None,
    *,
    cell: str,
    by_reference: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer of `torch.nn.LSTM`, `GRU` or `RNN` through the fused kernels or, if `by_reference`, in plain PyTorch.

    Args:
        x: (N, T, C), or a time-major grid (1, T, N, C).
        weights: of one scan or two, see `Weights`.
        state: h, and c if the cell has it, before the first step, (S, N, D) each; None for zeros.
        lengths: (N,) integers on the device of x, the steps of each sequence; None if all have T.
        cell: "lstm", "gru" or "rnn" (tanh).
        by_reference: compute in any dtype, differentiable twice, slowly.

    Returns:
        The hidden states, as x with S*D channels (undefined beyond a sequence's end); and h, and c if the cell
        has it, after each sequence's last step, (S, N, D) each. All are in the dtype of x, under autocast in its dtype.
    """
    dtype, hidden = compute_dtype(x), weights.weight_hh.shape[-1]
    padded = hidden if by_reference else scan_kernels.padded_hidden(hidden, cell, dtype, x.device.type, x.device.index)
    if padded > hidden:
        state = None if state is None else tuple(pad_units(part, hidden, padded) for part in state)
        out, last = _run(x, pad_weights(weights, padded, cell), state, lengths, dtype, cell, by_reference)
        return without_padding(out, hidden, padded), tuple(without_padding(part, hidden, padded) for part in last)
    return _run(x, weights, state, lengths, dtype, cell, by_reference)


def _run(
    x: Tensor,
    weights: Weights,
    state: tuple[Tensor, ...] | None,
    lengths: Tensor | None,
    dtype: torch.dtype,
    cell: str,
    by_reference: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    row = CELLS[cell]
    scans = SEQUENCE_SCANS[weights.weight_hh.shape[0]]
    bias, inner_bias = (
        None if b is None else b.to(dtype) for b in split_biases(weights.bias_ih, weights.bias_hh, cell)
    )
    recurrent, weight = weights.weight_hh.to(dtype), weights.weight_ih.flatten(0, 1).to(dtype)
    state = None if state is None else tuple(part.to(dtype) for part in state)
    # The scans' backward yields the bias's gradient as a by-product, unless gates are changed on the way to them.
    by_product = not by_reference and row.inner_gate is None and state is None and lengths is None
    gates = _input_product(
        x.to(dtype), weight, bias.detach() if bias is not None and by_product else bias, by_reference
    )
    if lengths is not None:
        gates = _hold_beyond_ends(gates, lengths, cell, len(scans))
    first = None
    if state is not None and row.inner_gate is None:
        gates = _add_at_first_steps(gates, state[0] @ recurrent.mT, lengths, scans)
        first = state[1] if row.has_c else None
    elif state is not None:
        first = state[0]
    operands = (recurrent, inner_bias, first)
    if by_reference:
        out, last = scan_sequence_by_reference(gates, *operands, scans=scans, cell=cell)
    elif torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (gates, bias, *operands)):
        out, last = SequenceScan.apply(gates, bias if by_product else None, *operands, scans, cell)
    else:
        out, _, _, last = torch.ops.sequencer2d.sequence_scan(gates, *operands, scans, cell, False)
    ends = last_steps(out, scans) if lengths is None else _at_ends(out, lengths, scans)
    return out, (ends, last) if row.has_c else (ends,)


class SequenceScan(torch.autograd.Function):
    """`sequence_scan` with its gradients: h, and c after the last step, from gates (B, *grid, S*G*D).

    `bias` (S*G*D,) is part of the gates already, but detached from them, and receives its gradient here.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        bias: Tensor | None,
        weight_hh: Tensor,
        inner_bias: Tensor | None,
        first: Tensor | None,
        scans: Any,
        cell: str,
    ) -> tuple[Tensor, Tensor]:
        out, cells, activations, last = torch.ops.sequencer2d.sequence_scan(
            gates, weight_hh, inner_bias, first, scans, cell, True
        )
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.saved_activations = activations.dim() == gates.dim()
        ctx.save_for_backward(activations if ctx.saved_activations else gates, weight_hh, inner_bias, first, out, cells)
        ctx.scans, ctx.cell = scans, cell
        ctx.set_materialize_grads(False)
        return out, last

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None) -> Any:  # type: ignore[override]
        refuse_double_backward()
        gates, weight_hh, inner_bias, first, out, cells = ctx.saved_tensors
        grad_gates, grad_weight, grad_bias, grad_first = torch.ops.sequencer2d.sequence_scan_backward(
            torch.zeros_like(out) if grad_out is None else grad_out,
            grad_last if CELLS[ctx.cell].has_c else None,
            gates, weight_hh, inner_bias, first, out, cells, ctx.scans, ctx.cell, ctx.saved_activations,
        )  # fmt: skip
        grad_outer = None if ctx.bias_dtype is None else grad_bias.flatten().to(ctx.bias_dtype)
        grad_inner = of_inner_gate(grad_bias, inner_bias, ctx.cell)
        return grad_gates, grad_outer, grad_weight, grad_inner, None if first is None else grad_first, None, None


def _input_product(x: Tensor, weight: Tensor, bias: Tensor | None, by_reference: bool) -> Tensor:
    needs_grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    if by_reference or not needs_grad:
        return F.linear(x, weight, bias)
    return InputProduct.apply(x, weight, bias)


def _hold_beyond_ends(gates: Tensor, lengths: Tensor, cell: str, scans: int) -> Tensor:
    """Replace the gates of the steps beyond each sequence's end by those that keep the state (see `Cell.holding`)."""
    hidden = gates.shape[-1] // (scans * CELLS[cell].gates)
    signs = gates.new_tensor(CELLS[cell].holding).repeat_interleave(hidden).repeat(scans)
    steps = torch.arange(gates.shape[1], device=gates.device)
    beyond = steps >= lengths[:, None] if gates.dim() == 3 else (steps[:, None] >= lengths)[None]
    return torch.where(beyond[..., None], signs * _SATURATED, gates)


def _add_at_first_steps(gates: Tensor, added: Tensor, lengths: Tensor | None, scans: tuple[int, ...]) -> Tensor:
    """Add (S, N, G*D) to the gates of the step at which each scan enters each sequence."""
    rows = torch.arange(added.shape[1], device=gates.device)
    slots = torch.arange(len(scans), device=gates.device)[:, None]
    zeros = torch.zeros_like(rows)
    ends = zeros + (gates.shape[1] - 1) if lengths is None else lengths.to(gates.device) - 1
    steps = torch.stack([ends if is_reverse(number) else zeros for number in scans])
    by_slot = gates.unflatten(-1, (len(scans), -1))
    where = (rows, steps, slots) if gates.dim() == 3 else (zeros, steps, rows, slots)
    return by_slot.index_put(where, added.to(gates.dtype), accumulate=True).flatten(-2)


def _at_ends(out: Tensor, lengths: Tensor, scans: tuple[int, ...]) -> Tensor:
    """h after each sequence's last step, (S, N, D)."""
    rows = torch.arange(len(lengths), device=out.device)
    ends = []
    for number, part in zip(scans, out.chunk(len(scans), dim=-1), strict=True):
        steps = torch.zeros_like(rows) if is_reverse(number) else lengths - 1
        ends.append(part[rows, steps] if out.dim() == 3 else part[0, steps, rows])
    return torch.stack(ends)
