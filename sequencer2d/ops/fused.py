"""The fused recurrence with its gradients: one matrix product for the inputs of all scans, then one launch.

Suffixes: B batch, H rows, W columns, C input channels, S scans, G gates, D hidden units.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.errors import ImplementationError
from sequencer2d.ops import (
    compile_errors,
    devices,
    registration,  # noqa: F401  (registers the operators)
)
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.precision import compute_dtype
from sequencer2d.ops.weights import Weights

MAX_AXES = 3
MAX_SCANS = 2 * MAX_AXES
MAX_HIDDEN = 512
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def refusal(x: Tensor, hidden: int, scans: Sequence[int], cell: str) -> str | None:
    """Why the kernels cannot take the arguments; None if they can."""
    reason = devices.problem("shared", x.device.type, x.device.index)
    if reason is not None:
        return reason
    if CELLS[cell].device_code is None:
        return f"it has no kernels for the cell {cell}"
    dtype = compute_dtype(x)
    if dtype not in _DTYPES:
        return f"it computes in float32, float16 or bfloat16, not in {dtype}"
    if hidden > MAX_HIDDEN:
        return f"{hidden} hidden units a scan are more than the {MAX_HIDDEN} that it takes"
    if len(scans) > MAX_SCANS or x.ndim - 2 > MAX_AXES:
        return f"{len(scans)} scans of {x.ndim - 2} axes are more than {MAX_SCANS} scans of {MAX_AXES} axes"
    # The symbols of a compiler cannot be keys.
    return None if torch.compiler.is_compiling() else compile_errors.ruled_out(cell, hidden, dtype, x.device)


def rnn2d_fused(x: Tensor, weights: Weights, *, scans: Sequence[int], cell: str, recompute: bool) -> Tensor:
    """`sequencer2d.ops.rnn2d` through the fused kernels. `recompute` is gates="recomputed"."""
    bias, inner_bias = split_biases(weights.bias_ih, weights.bias_hh, cell)
    dtype = compute_dtype(x)
    weight = weights.weight_ih.flatten(0, 1)
    recurrent = weights.weight_hh.to(dtype)
    inner_bias = None if inner_bias is None else inner_bias.to(dtype)
    tensors = (x, weight, bias, recurrent, inner_bias)
    training = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    if training and recompute:
        bias = None if bias is None else bias.to(dtype)
        return RecomputedRNN2D.apply(x.to(dtype), weight.to(dtype), bias, recurrent, inner_bias, tuple(scans), cell)
    if training and CELLS[cell].inner_gate is None:
        # The scans' backward yields the bias's gradient as a by-product, so that of the product need not sum it again.
        gates = InputProduct.apply(x.to(dtype), weight.to(dtype), None if bias is None else bias.detach().to(dtype))
        return FusedScan.apply(gates, bias, recurrent, None, tuple(scans), cell)
    if training:
        gates = InputProduct.apply(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
        return FusedScan.apply(gates, None, recurrent, inner_bias, tuple(scans), cell)
    gates = F.linear(x, weight, bias)
    return torch.ops.sequencer2d.scan(gates, recurrent, inner_bias, tuple(scans), cell, False)[0]


class InputProduct(torch.autograd.Function):
    """`F.linear` whose gradients are computed in the dtype of its arguments, inside any autocast.

    The products that PyTorch's own backward calls take the dtype of the autocast that backward happens to run in.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_x = grad_out @ weight
            if ctx.needs_input_grad[1]:
                grad_weight = grad_out.flatten(0, -2).T @ x.flatten(0, -2)
            if ctx.needs_input_grad[2]:
                grad_bias = grad_out.flatten(0, -2).sum(0)
        return grad_x, grad_weight, grad_bias


class FusedScan(torch.autograd.Function):
    """The scans over gates (B, *grid, S*G*D). Saves h, c, and the gates or their activations for backward.

    `bias` (S*G*D,) is part of the gates already, but detached from them, and receives its gradient here. Not for
    cells with an inner gate.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        bias: Tensor | None,
        weight_hh: Tensor,
        inner_bias: Tensor | None,
        scans: Any,
        cell: str,
    ) -> Tensor:
        out, cells, activations = torch.ops.sequencer2d.scan(gates, weight_hh, inner_bias, scans, cell, True)
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.saved_activations = activations.dim() == gates.dim()
        ctx.save_for_backward(activations if ctx.saved_activations else gates, weight_hh, inner_bias, out, cells)
        ctx.scans, ctx.cell = scans, cell
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        refuse_double_backward()
        gates, weight_hh, inner_bias, out, cells = ctx.saved_tensors
        grad_gates, grad_weight, grad_bias = torch.ops.sequencer2d.scan_backward(
            grad_out, gates, weight_hh, inner_bias, out, cells, ctx.scans, ctx.cell, ctx.saved_activations
        )
        grad_outer = None if ctx.bias_dtype is None else grad_bias.flatten().to(ctx.bias_dtype)
        return grad_gates, grad_outer, grad_weight, of_inner_gate(grad_bias, inner_bias, ctx.cell), None, None


class RecomputedRNN2D(torch.autograd.Function):
    """Input product and scans. Saves x and h; backward repeats the product and, for a cell with c, the scans."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_ih: Tensor,
        bias: Tensor | None,
        weight_hh: Tensor,
        inner_bias: Tensor | None,
        scans: Any,
        cell: str,
    ) -> Tensor:
        gates = F.linear(x, weight_ih, bias)
        out = torch.ops.sequencer2d.scan(gates, weight_hh, inner_bias, scans, cell, False)[0]
        ctx.save_for_backward(x, weight_ih, bias, weight_hh, inner_bias, out)
        ctx.scans, ctx.cell = scans, cell
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        refuse_double_backward()
        x, weight_ih, bias, weight_hh, inner_bias, out = ctx.saved_tensors
        grads = torch.ops.sequencer2d.rnn2d_recomputing_backward(
            grad_out, x, weight_ih, bias, weight_hh, inner_bias, out, ctx.scans, ctx.cell
        )
        grad_x, grad_weight_ih, grad_bias, grad_weight_hh, grad_bias_hh = grads
        return (
            grad_x,
            grad_weight_ih,
            None if bias is None else grad_bias.to(bias.dtype),
            grad_weight_hh,
            of_inner_gate(grad_bias_hh, inner_bias, ctx.cell),
            None,
            None,
        )


def of_inner_gate(grad_bias: Tensor, inner_bias: Tensor | None, cell: str) -> Tensor | None:
    """The part of the inner gate, (S, D), of the gradient of a bias of all gates, (S, G*D)."""
    if inner_bias is None:
        return None
    inner_gate = CELLS[cell].inner_gate
    assert inner_gate is not None
    return grad_bias.unflatten(1, (CELLS[cell].gates, -1))[:, inner_gate].to(inner_bias.dtype)


def split_biases(bias_ih: Tensor | None, bias_hh: Tensor | None, cell: str) -> tuple[Tensor | None, Tensor | None]:
    """The bias to add to the input product, (S*G*D,), and that of the recurrent product of the inner gate, (S, D)."""
    row = CELLS[cell]
    if bias_ih is None or bias_hh is None:
        return None, None
    if not row.recurrent:
        return bias_ih.flatten(), None
    if row.inner_gate is None:
        return (bias_ih + bias_hh).flatten(), None
    gates = list(bias_hh.chunk(row.gates, dim=-1))
    inner = gates[row.inner_gate]
    gates[row.inner_gate] = torch.zeros_like(inner)
    return (bias_ih + torch.cat(gates, dim=-1)).flatten(), inner.contiguous()


def refuse_double_backward() -> None:
    # With create_graph=True autograd runs backward with gradients enabled. So does a compiler while it traces.
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise ImplementationError(
            "the fused recurrence has no second derivative; use implementation='reference' for double backward"
        )
