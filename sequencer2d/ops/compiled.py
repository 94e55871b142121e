"""The vendor's recurrence as one operator, for torch.compile and torch.export.

Traced directly, it would break the graph (cuDNN) or unroll over the tokens (export).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sequencer2d.ops import registration  # noqa: F401  (registers the operators)
from sequencer2d.ops.precision import compute_dtype
from sequencer2d.ops.weights import Weights


class VendorRNN2D(torch.autograd.Function):
    """`vendor.rnn2d_vendor` as the operator `sequencer2d::rnn2d`; backward runs forward again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor | None,
        bias_hh: Tensor | None,
        scans: Any,
        cell: str,
    ) -> Tensor:
        ctx.save_for_backward(x, weight_ih, weight_hh, bias_ih, bias_hh)
        ctx.scans, ctx.cell = scans, cell
        return torch.ops.sequencer2d.rnn2d(x, weight_ih, weight_hh, bias_ih, bias_hh, scans, cell)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        tensors = ctx.saved_tensors
        grads = torch.ops.sequencer2d.rnn2d_backward(grad_out, *tensors, ctx.scans, ctx.cell)
        needed = [None if tensor is None else grad for tensor, grad in zip(tensors, grads, strict=True)]
        return *needed, None, None


def rnn2d_compiled(x: Tensor, weights: Weights, *, scans: Sequence[int], cell: str) -> Tensor:
    """`vendor.rnn2d_vendor` as one node of a traced graph. Computes in autocast's dtype if it is on."""
    dtype = compute_dtype(x)
    tensors = [t if t is None else t.to(dtype) for t in (x, *weights)]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return VendorRNN2D.apply(*tensors, tuple(scans), cell)
    return torch.ops.sequencer2d.rnn2d(*tensors, list(scans), cell)
