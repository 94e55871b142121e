"""One recurrent layer over sequences as one autograd node, for eager PyTorch.

The node computes what `sequences.rnn_sequence` does without first states and lengths.

There, small layers wait for the host, which pays for every operator and every node of autograd. As in `block`, the node
copies and casts the weights in one launch at each call, and calls what the layer needs and nothing else.

Suffixes: N sequences, T steps, C input channels, S scans, G gates, D hidden units.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.ops import devices, scan_kernels
from sequencer2d.ops.block import DEVICE_OF, DTYPE_OF, product, runs_eagerly
from sequencer2d.ops.block_weights import cut, pieces
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.edges import ends_of_sequences
from sequencer2d.ops.fused import refuse_double_backward
from sequencer2d.ops.padding import pad_units, pad_weights, without_padding
from sequencer2d.ops.precision import compute_dtype
from sequencer2d.ops.scans import SEQUENCE_SCANS, Scan
from sequencer2d.ops.sequence_operators import sequence_gradients, sequence_scan
from sequencer2d.ops.weights import Weights


def takes(x: Tensor, weights: Sequence[Any]) -> bool:
    """Whether `run_layer` takes x and weights, which may be anything: plain tensors, seen by PyTorch alone."""
    return (
        runs_eagerly()
        and type(x) is Tensor
        and set(map(type, weights)) == {torch.nn.Parameter}
        and len(set(map(DTYPE_OF, weights))) == 1
        and set(map(DEVICE_OF, weights)) == {x.device}
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
        ctx.hidden = weights[slots].shape[1]
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # type: ignore[override]
        refuse_double_backward()
        x, weight_ih, weight_hh, inner_bias, gates, out, cells = ctx.saved_tensors
        slots, (x_dtype, dtype), hidden, padded = ctx.slots, ctx.dtypes, ctx.hidden, weight_hh.shape[-1]
        weight_hh = weight_hh.view(slots, -1, padded)
        scans = SEQUENCE_SCANS[slots]
        with torch._C._DisableAutocast(), devices.current(out):
            if padded > hidden:
                grads = tuple(None if grad is None else pad_units(grad, hidden, padded) for grad in grads)
            grad_out = _add_at_last_steps(grads[0], grads[1], out, scans)
            grad_gates, grad_weight_hh, grad_bias, _ = sequence_gradients(
                grad_out, grads[2] if len(grads) > 2 else None, gates, weight_hh, inner_bias, None, out, cells, scans,
                ctx.cell, ctx.saved_activations,
            )  # fmt: skip
            flat = grad_gates.view(-1, grad_gates.shape[-1])
            grad_x = torch.mm(flat, weight_ih).view(x.shape) if ctx.needs_input_grad[0] else None
            if grad_x is not None and x_dtype is not grad_x.dtype:
                grad_x = grad_x.to(x_dtype)
            grad_weight_ih = product(flat.t(), x.reshape(-1, x.shape[-1]), dtype)
            if padded > hidden:
                grad_weight_ih = grad_weight_ih.unflatten(0, (-1, padded))[:, :hidden].flatten(0, 1)
                by_gate = grad_weight_hh.unflatten(1, (-1, padded))
                grad_weight_hh = by_gate[:, :, :hidden, :hidden].flatten(1, 2)
                grad_bias = without_padding(grad_bias, hidden, padded)
            outer = None
            if ctx.biased:
                outer = grad_bias if inner_bias is None else flat.sum(0, dtype=torch.float32)
            found = _of_each_weight(grad_weight_ih, grad_weight_hh, outer, grad_bias)
        needed = zip(found, ctx.needs_input_grad[3:], strict=True)
        return grad_x, None, None, *(grad if need else None for grad, need in needed)


def _of_each_weight(weight_ih: Tensor, weight_hh: Tensor, outer: Tensor | None, bias: Tensor) -> list[Tensor]:
    """The gradients of `run_layer`'s weights, in the dtype of that of `weight_ih`, each to be changed in place.

    outer: that of the biases of the input product, None without biases. It may be `bias`, that of the recurrent one.
    """
    dtype = weight_ih.dtype
    found = [*cut(weight_ih, weight_hh.shape[1]), *weight_hh.to(dtype).unbind()]
    if outer is not None:
        # Each bias has a gradient that may be changed in place.
        found += [*outer.to(dtype).view(bias.shape).unbind(), *bias.to(dtype, copy=True).unbind()]
    return found


def _forward(
    x: Tensor, dtype: torch.dtype, weights: Sequence[Tensor], cell: str, slots: int, *, save: bool
) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """The results of the node, and what backward reads."""
    if x.dtype is not dtype:
        x = x.to(dtype)
    scans, hidden, device = SEQUENCE_SCANS[slots], weights[slots].shape[1], x.device
    weight_ih, weight_hh, bias, inner_bias = _pack(weights, slots, cell, dtype)
    padded = scan_kernels.padded_hidden(hidden, cell, dtype, device.type, device.index)
    if padded > hidden:
        packed = Weights(weight_ih.view(slots, -1, x.shape[-1]), weight_hh, None, None)
        weight_ih, weight_hh, *_ = pad_weights(packed, padded, cell)
        weight_ih = weight_ih.flatten(0, 1)
        bias = None if bias is None else pad_units(bias, hidden, padded)
    if x.dim() == 3 and x.is_contiguous():
        gates = F.linear(x, weight_ih, bias)
    else:
        gates = F.linear(x.reshape(-1, x.shape[-1]), weight_ih, bias).view(*x.shape[:-1], weight_ih.shape[0])
    out, cells, activations, last = sequence_scan(gates, weight_hh, inner_bias, None, scans, cell, save)
    ends = ends_of_sequences(out, slots)
    results: tuple[Tensor, ...] = (out, ends) if CELLS[cell].states == 1 else (out, ends, last)
    if padded > hidden:
        results = tuple(without_padding(result, hidden, padded) for result in results)
    if not save:
        return results, ()
    saved_activations = activations.dim() == gates.dim()
    kept = activations if saved_activations else gates
    # A parameter is saved as it is, so that PyTorch says what it always says if it changes before backward.
    weight_hh = weights[1] if weight_hh.data_ptr() == weights[1].data_ptr() else weight_hh
    return results, (saved_activations, x, weight_ih, weight_hh, inner_bias, kept, out, cells)


def _pack(
    weights: Sequence[Tensor], slots: int, cell: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """weight_ih (S*G*D, C), weight_hh (S, G*D, D), the bias of the gates (S*G*D,) and that of the inner gate (S, D)."""
    (rows, channels), hidden, first, row = weights[0].shape, weights[slots].shape[1], weights[0], CELLS[cell]
    biased, inner_bias = len(weights) > 2 * slots, None
    if slots == 1 and first.dtype is dtype and not (biased and row.inner_gate is not None):
        # The weights are as the kernels take them.
        bias = torch.add(weights[2], weights[3]) if biased else None
        return first, weights[1].unsqueeze(0), bias, None
    # One piece of memory for all, because small layers wait for the host, which each allocation costs microseconds.
    sizes = [slots * rows * channels, slots * rows * hidden, *([2 * slots * rows] if biased else ())]
    weight_ih, weight_hh, *biases = pieces(first, dtype, sizes)
    weight_ih, weight_hh = weight_ih.view(-1, channels), weight_hh.view(-1, hidden)
    copies = [*cut(weight_ih, rows), *cut(weight_hh, rows)]
    if biased:
        copies += cut(biases[0], rows)
    torch._foreach_copy_(copies, list(weights))
    weight_hh = weight_hh.view(slots, rows, hidden)
    if not biased:
        return weight_ih, weight_hh, None, None
    outer, recurrent = cut(biases[0], slots * rows)
    if row.inner_gate is not None:
        inner = recurrent.view(slots, row.gates, hidden).select(1, row.inner_gate)
        inner_bias = inner.clone()
        inner.zero_()
    return weight_ih, weight_hh, torch.add(outer, recurrent), inner_bias


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
