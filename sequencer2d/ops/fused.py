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
    devices,
    registration,  # noqa: F401  (registers the operators)
)
from sequencer2d.ops.precision import compute_dtype

MAX_HIDDEN = 256
MAX_HIDDEN_FP32 = 128
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def refusal(x: Tensor, hidden: int, scans: Sequence[int], cell: str) -> str | None:
    """Why the kernels cannot take the arguments; None if they can."""
    reason = devices.problem("shared", x.device.type, x.device.index)
    if reason is not None:
        return reason
    dtype = compute_dtype(x)
    if dtype not in _DTYPES:
        return f"it computes in float32, float16 or bfloat16, not in {dtype}"
    limit = MAX_HIDDEN_FP32 if dtype is torch.float32 else MAX_HIDDEN
    if hidden > limit:
        return f"{hidden} hidden units a scan are more than the {limit} that it takes in {dtype}"
    if len(scans) > 4:
        return f"{len(scans)} scans are more than 4"
    # The symbols of a compiler cannot be keys.
    return None if torch.compiler.is_compiling() else devices.ruled_out(cell, hidden, dtype, x.device)


def rnn2d_fused(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    *,
    scans: Sequence[int],
    cell: str,
    recompute: bool,
) -> Tensor:
    """`sequencer2d.ops.rnn2d` through the fused kernels; arguments as there, `recompute` for gates="recomputed"."""
    bias, bias_n = split_biases(bias_ih, bias_hh, cell)
    dtype = compute_dtype(x)
    weight = weight_ih.flatten(0, 1)
    recurrent = weight_hh.to(dtype)
    bias_n = None if bias_n is None else bias_n.to(dtype)
    tensors = (x, weight, bias, recurrent, bias_n)
    training = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    if training and recompute:
        bias = None if bias is None else bias.to(dtype)
        return RecomputedRNN2D.apply(x.to(dtype), weight.to(dtype), bias, recurrent, bias_n, tuple(scans), cell)
    if training and cell != "gru":
        # The scans' backward yields the bias's gradient as a by-product, so that of the product need not sum it again.
        gates = F.linear(x, weight, None if bias is None else bias.detach())
        return FusedScan.apply(gates, bias, recurrent, None, tuple(scans), cell)
    gates = F.linear(x, weight, bias)
    if training:
        return FusedScan.apply(gates, None, recurrent, bias_n, tuple(scans), cell)
    return torch.ops.sequencer2d.scan(gates, recurrent, bias_n, tuple(scans), cell, False)[0]


class FusedScan(torch.autograd.Function):
    """The scans over gates (B, H, W, S*G*D). Saves h, c, and the gates or their activations for backward.

    `bias` (S*G*D,) is part of the gates already, but detached from them, and receives its gradient here. Not for the
    GRU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        bias: Tensor | None,
        weight_hh: Tensor,
        bias_n: Tensor | None,
        scans: Any,
        cell: str,
    ) -> Tensor:
        out, cells, activations = torch.ops.sequencer2d.scan(gates, weight_hh, bias_n, scans, cell, True)
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.saved_activations = activations.dim() == gates.dim()
        ctx.save_for_backward(activations if ctx.saved_activations else gates, weight_hh, bias_n, out, cells)
        ctx.scans, ctx.cell = scans, cell
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        _refuse_double_backward()
        gates, weight_hh, bias_n, out, cells = ctx.saved_tensors
        grad_gates, grad_weight, grad_bias = torch.ops.sequencer2d.scan_backward(
            grad_out, gates, weight_hh, bias_n, out, cells, ctx.scans, ctx.cell, ctx.saved_activations
        )
        grad_outer = None if ctx.bias_dtype is None else grad_bias.flatten().to(ctx.bias_dtype)
        return grad_gates, grad_outer, grad_weight, _of_bias_n(grad_bias, bias_n), None, None


class RecomputedRNN2D(torch.autograd.Function):
    """Input product and scans. Saves x and h; backward repeats the product and, for the LSTM, the scans."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_ih: Tensor,
        bias: Tensor | None,
        weight_hh: Tensor,
        bias_n: Tensor | None,
        scans: Any,
        cell: str,
    ) -> Tensor:
        gates = F.linear(x, weight_ih, bias)
        out = torch.ops.sequencer2d.scan(gates, weight_hh, bias_n, scans, cell, False)[0]
        ctx.save_for_backward(x, weight_ih, bias, weight_hh, bias_n, out)
        ctx.scans, ctx.cell = scans, cell
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        _refuse_double_backward()
        x, weight_ih, bias, weight_hh, bias_n, out = ctx.saved_tensors
        grads = torch.ops.sequencer2d.rnn2d_recomputing_backward(
            grad_out, x, weight_ih, bias, weight_hh, bias_n, out, ctx.scans, ctx.cell
        )
        grad_x, grad_weight_ih, grad_bias, grad_weight_hh, grad_bias_hh = grads
        return (
            grad_x,
            grad_weight_ih,
            None if bias is None else grad_bias.to(bias.dtype),
            grad_weight_hh,
            _of_bias_n(grad_bias_hh, bias_n),
            None,
            None,
        )


def _of_bias_n(grad_bias: Tensor, bias_n: Tensor | None) -> Tensor | None:
    """The gradient of the GRU's bias_n (S, D), the last of three gates in (S, 3*D)."""
    return None if bias_n is None else grad_bias[:, 2 * bias_n.shape[1] :].to(bias_n.dtype)


def split_biases(bias_ih: Tensor | None, bias_hh: Tensor | None, cell: str) -> tuple[Tensor | None, Tensor | None]:
    """The bias to add to the input product, (S*G*D,), and the one that the GRU's reset gate scales, (S, D)."""
    if bias_ih is None or bias_hh is None:
        return None, None
    if cell != "gru":
        return (bias_ih + bias_hh).flatten(), None
    hidden = bias_hh.shape[-1] // 3
    outside, inside = bias_hh.split((2 * hidden, hidden), dim=-1)
    return (bias_ih + F.pad(outside, (0, hidden))).flatten(), inside.contiguous()


def _refuse_double_backward() -> None:
    # With create_graph=True autograd runs backward with gradients enabled. So does a compiler while it traces.
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise ImplementationError(
            "the fused recurrence has no second derivative; use implementation='reference' for double backward"
        )
