"""One recurrent layer over sequences as one autograd node, for eager PyTorch.

The node computes what `sequences.rnn_sequence` does without first states and lengths.

There, small layers wait for the host, which pays for every operator and every node of autograd. As in `block`, the node
copies and casts the weights in one launch at each call, and calls what the layer needs and nothing else.

Suffixes: N sequences, T steps, C input channels, S scans, G gates, D hidden units.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sequencer2d.ops import devices
from sequencer2d.ops.block import product, runs_eagerly
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.edges import last_steps
from sequencer2d.ops.fused import refuse_double_backward
from sequencer2d.ops.precision import compute_dtype
from sequencer2d.ops.scans import Scan, scans_of
from sequencer2d.ops.sequence_operators import sequence_scan, sequence_scan_backward


def takes(x: Tensor, weights: Sequence[Any]) -> bool:
    """Whether `run_layer` takes x and weights, which may be anything: plain tensors, seen by PyTorch alone."""
    first = weights[0]
    return (
        runs_eagerly()
        and type(x) is Tensor
        and all(type(weight) is torch.nn.Parameter for weight in weights)
        and all(weight.dtype is first.dtype and weight.device == x.device for weight in weights)
    )


def run_layer(x: Tensor, weights: Sequence[Tensor], cell: str, slots: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The hidden states and the states after the last step, as `rnn_sequence` returns them, through the fused kernels.

    Args:
        x: (N, T, C), or a time-major grid (1, T, N, C).
        weights: weight_ih (G*D, C) of each scan, weight_hh (G*D, D) of each and, if there are biases, bias_ih (G*D,) of
            each, bias_hh of each.
        cell: "lstm", "gru" or "rnn".
        slots: 2 for a bidirectional layer, otherwise 1.
    """
    if torch.is_grad_enabled() and (x.requires_grad or any(weight.requires_grad for weight in weights)):
        out, *last = RecurrentLayer.apply(x, cell, slots, *weights)
    else:
        with torch._C._DisableAutocast(), devices.current(x):
            (out, *last), _ = _forward(x, compute_dtype(x), weights, cell, slots, save=False)
    return out, tuple(last)


class RecurrentLayer(torch.autograd.Function):
    """See `run_layer`. Saves the input, the copy of the weights, and what the scans' backward reads."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cell: str, slots: int, *weights: Tensor) -> tuple[Tensor, ...]:
        dtype = compute_dtype(x)
        with torch._C._DisableAutocast(), devices.current(x):
            results, (ctx.saved_activations, *saved) = _forward(x, dtype, weights, cell, slots, save=True)
        ctx.save_for_backward(*saved)
        ctx.cell, ctx.slots, ctx.dtypes, ctx.biased = cell, slots, (x.dtype, weights[0].dtype), len(weights) > 2 * slots
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # type: ignore[override]
        refuse_double_backward()
        x, weight_ih, weight_hh, inner_bias, gates, out, cells = ctx.saved_tensors
        slots, (x_dtype, dtype) = ctx.slots, ctx.dtypes
        scans = scans_of([0], slots == 2)
        with torch._C._DisableAutocast(), devices.current(out):
            grad_out = _add_at_last_steps(grads[0], grads[1], out, scans)
            grad_gates, grad_weight_hh, grad_bias, _ = sequence_scan_backward(
                grad_out, grads[2] if len(grads) > 2 else None, gates, weight_hh, inner_bias, None, out, cells, scans,
                ctx.cell, ctx.saved_activations,
            )  # fmt: skip
            flat = grad_gates.flatten(0, -2)
            grad_x = (flat @ weight_ih).view(x.shape).to(x_dtype) if ctx.needs_input_grad[0] else None
            grad_weight_ih = product(flat.t(), x.reshape(-1, x.shape[-1]), dtype).view(slots, -1, x.shape[-1])
            found = [*grad_weight_ih.unbind(), *grad_weight_hh.to(dtype).unbind()]
            if ctx.biased:
                # Each bias has a gradient that may be changed in place.
                outer = grad_bias.to(dtype) if inner_bias is None else flat.sum(0).to(dtype).view(grad_bias.shape)
                found += [*outer.unbind(), *grad_bias.to(dtype, copy=True).unbind()]
        needed = zip(found, ctx.needs_input_grad[3:], strict=True)
        return grad_x, None, None, *(grad if need else None for grad, need in needed)


def _forward(
    x: Tensor, dtype: torch.dtype, weights: Sequence[Tensor], cell: str, slots: int, *, save: bool
) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """The results of the node, and what backward reads."""
    x, scans = x.to(dtype), scans_of([0], slots == 2)
    weight_ih, weight_hh, bias, inner_bias = _pack(weights, slots, cell, dtype)
    flat = x.reshape(-1, x.shape[-1])
    gates = flat @ weight_ih.t() if bias is None else torch.addmm(bias, flat, weight_ih.t())
    gates = gates.view(*x.shape[:-1], gates.shape[-1])
    out, cells, activations, last = sequence_scan(gates, weight_hh, inner_bias, None, scans, cell, save)
    results = (out, last_steps(out, scans), last) if CELLS[cell].has_c else (out, last_steps(out, scans))
    saved_activations = activations.dim() == gates.dim()
    kept = activations if saved_activations else gates
    return results, (saved_activations, x, weight_ih, weight_hh, inner_bias, kept, out, cells) if save else ()


def _pack(
    weights: Sequence[Tensor], slots: int, cell: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """weight_ih (S*G*D, C), weight_hh (S, G*D, D), the bias of the gates (S*G*D,) and that of the inner gate (S, D)."""
    (rows, channels), hidden, first, row = weights[0].shape, weights[slots].shape[1], weights[0], CELLS[cell]
    weight_ih = first.new_empty(slots, rows, channels, dtype=dtype)
    weight_hh = first.new_empty(slots, rows, hidden, dtype=dtype)
    copies = [*weight_ih.unbind(), *weight_hh.unbind()]
    biased = len(weights) > len(copies)
    if biased:
        biases = first.new_empty(2, slots, rows, dtype=dtype)
        copies += biases.view(-1, rows).unbind()
    torch._foreach_copy_(copies, list(weights))
    if not biased:
        return weight_ih.view(-1, channels), weight_hh, None, None
    inner_bias = None
    if row.inner_gate is not None:
        inner = biases[1].view(slots, row.gates, hidden).select(1, row.inner_gate)
        inner_bias = inner.clone()
        inner.zero_()
    return weight_ih.view(-1, channels), weight_hh, torch.add(*biases.unbind()).view(-1), inner_bias


def _add_at_last_steps(
    grad_out: Tensor | None, grad_hidden: Tensor | None, out: Tensor, scans: tuple[int, ...]
) -> Tensor:
    """The gradient of `out`, given that of the h after the last step, (S, N, D), too."""
    if grad_hidden is None:
        return torch.zeros_like(out) if grad_out is None else grad_out
    total = torch.zeros_like(out) if grad_out is None else grad_out.clone(memory_format=torch.contiguous_format)
    for number, part, grad in zip(scans, total.chunk(len(scans), dim=-1), grad_hidden, strict=True):
        scan = Scan.numbered(number)
        edge = part.select(scan.dim, 0 if scan.reverse else -1)
        edge += grad.view_as(edge)
    return total
