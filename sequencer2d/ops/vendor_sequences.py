"""A layer of torch.nn.LSTM, GRU or RNN by the vendor's kernels as one operator, for torch.compile and torch.export.

Suffixes: N sequences, T steps, C input channels, S directions, G gates, D hidden units.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.custom_operator import Operator
from sequencer2d.ops.precision import compute_dtype
from sequencer2d.ops.vendor_operators import vjp
from sequencer2d.ops.weights import Weights


def rnn_layer(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    h: Tensor,
    c: Tensor | None,
    cell: str,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """x (N, T, C) or (T, N, C), weights as in `Weights`, states (S, N, D) to h of all steps, and the last states.

    The last c is empty for a cell without c.
    """
    return _contiguous(*_run(x, Weights(weight_ih, weight_hh, bias_ih, bias_hh), h, c, cell, batch_first))


def rnn_layer_backward(
    grad_out: Tensor,
    grad_h: Tensor,
    grad_c: Tensor | None,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    h: Tensor,
    c: Tensor | None,
    cell: str,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the seven tensors, by running forward again; empty for those that are None."""

    def products(*tensors: Tensor | None) -> Tensor:
        # One number whose gradients are those of all results.
        inputs, weights, states = tensors[0], Weights(*tensors[1:5]), tensors[5:]  # type: ignore[arg-type]
        assert inputs is not None
        assert states[0] is not None
        out, last_h, last_c = _run(inputs, weights, states[0], states[1], cell, batch_first)
        total = (out * grad_out).sum() + (last_h * grad_h).sum()
        return total if grad_c is None else total + (last_c * grad_c).sum()

    tensors = [x, weight_ih, weight_hh, bias_ih, bias_hh, h, c]
    grads = vjp(products, tensors, x.new_ones(()))
    return tuple(x.new_empty(0) if grad is None else grad for grad in grads)  # type: ignore[return-value]


def _run(
    x: Tensor, weights: Weights, h: Tensor, c: Tensor | None, cell: str, batch_first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    function, slots = CELLS[cell].vendor, list(range(h.shape[0]))
    assert function is not None, f"PyTorch has no function for the cell {cell}"
    state = h if c is None else (h, c)
    has_bias, train = weights.bias_ih is not None, torch.is_grad_enabled()
    with warnings.catch_warnings():
        # The weights are slices of one stack. cuDNN compacts them at each call, which costs little.
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous")
        out, *last = function(x, state, weights.of_slots(slots), has_bias, 1, 0.0, train, len(slots) == 2, batch_first)
    return out, last[0], last[1] if c is not None else x.new_empty(0)


def _contiguous(*tensors: Tensor) -> Any:
    return tuple(tensor.contiguous() for tensor in tensors)


class VendorLayer(torch.autograd.Function):
    """`rnn_layer` with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(x, *arguments[:6])
        ctx.options = arguments[6:]
        out, h, c = torch.ops.sequencer2d.rnn_layer(x, *arguments)
        return out, h, c

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_h: Tensor, grad_c: Tensor) -> Any:  # type: ignore[override]
        tensors = ctx.saved_tensors
        with_c = tensors[-1] is not None
        grads = torch.ops.sequencer2d.rnn_layer_backward(
            grad_out, grad_h, grad_c if with_c else None, *tensors, *ctx.options
        )
        needed = [None if tensor is None else grad for tensor, grad in zip(tensors, grads, strict=True)]
        return *needed, None, None


def rnn_layer_compiled(
    x: Tensor, weights: Weights, state: tuple[Tensor, ...], *, cell: str, batch_first: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A layer as one node of a traced graph: h of all steps, and the last states. Computes in autocast's dtype."""
    dtype = compute_dtype(x)
    h, c = state if len(state) == 2 else (*state, None)
    tensors = [t if t is None else t.to(dtype) for t in (x, *weights, h, c)]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        out, *last = VendorLayer.apply(*tensors, cell, batch_first)
    else:
        out, *last = torch.ops.sequencer2d.rnn_layer(*tensors, cell, batch_first)
    return out, tuple(last[: len(state)])


def _fake_layer(
    x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Any, bias_hh: Any, h: Tensor, c: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    out = x.new_empty(*x.shape[:-1], weight_hh.shape[0] * weight_hh.shape[-1])
    return out, h.new_empty(h.shape), x.new_empty(0 if c is None else c.shape)


def _fake_backward(grad_out: Tensor, grad_h: Tensor, grad_c: Any, *arguments: Any) -> Any:
    x = arguments[0]
    return tuple(x.new_empty(0 if tensor is None else tensor.shape) for tensor in arguments[:7])


_ARGUMENTS = (
    "Tensor x, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, Tensor h, Tensor? c, str cell, "
    "bool batch_first"
)
OPERATORS = (
    Operator(f"rnn_layer({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)", run=rnn_layer, fake=_fake_layer),
    Operator(
        f"rnn_layer_backward(Tensor grad_out, Tensor grad_h, Tensor? grad_c, {_ARGUMENTS}) -> "
        "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        run=rnn_layer_backward,
        fake=_fake_backward,
    ),
)
