"""The vendor's recurrence as operators, for `compiled` and for exported programs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sequencer2d.ops import vendor
from sequencer2d.ops.custom_operator import Operator
from sequencer2d.ops.weights import Weights


def rnn2d(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    scans: Sequence[int],
    cell: str,
) -> Tensor:
    """`vendor.rnn2d_vendor` with a contiguous result."""
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh)
    return vendor.rnn2d_vendor(x, weights, scans=scans, cell=cell).contiguous()


def rnn2d_backward(
    grad_out: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    scans: Sequence[int],
    cell: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the five tensors, by running forward again; empty for biases that are None."""
    inputs = [x, weight_ih, weight_hh, bias_ih, bias_hh]
    grads = vjp(functools.partial(rnn2d, scans=scans, cell=cell), inputs, grad_out)
    grad_x, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh = (
        x.new_empty(0) if grad is None else grad for grad in grads
    )
    return grad_x, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh


def vjp(function: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad_out: Tensor) -> list[Tensor | None]:
    """The vector-Jacobian product, by running the function again: for operators whose forward kept no graph.

    An input that is None has the gradient None.
    """
    # An operator runs below autograd, so autograd is switched on again here.
    autograd = torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False)
    with autograd, torch.enable_grad():
        leaves = [None if value is None else value.detach().requires_grad_() for value in inputs]
        out = function(*leaves)
        grads = iter(torch.autograd.grad(out, [leaf for leaf in leaves if leaf is not None], grad_out))
    # The fake operators promise contiguous results. The vendors' gradients have the strides that their kernels prefer.
    return [None if leaf is None else next(grads).contiguous() for leaf in leaves]


def _fake_rnn2d(
    x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Any, bias_hh: Any, scans: Sequence[int], cell: str
) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(scans) * weight_hh.shape[-1])


def _fake_rnn2d_backward(
    grad_out: Tensor, x: Tensor, weight_ih: Tensor, weight_hh: Tensor, *biases_and_more: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grads = [value.new_empty(value.shape) for value in (x, weight_ih, weight_hh)]
    biases = [x.new_empty(0) if bias is None else bias.new_empty(bias.shape) for bias in biases_and_more[:2]]
    return grads[0], grads[1], grads[2], biases[0], biases[1]


OPERATORS = (
    Operator(
        "rnn2d(Tensor x, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, int[] scans, str cell)"
        " -> Tensor",
        run=rnn2d,
        fake=_fake_rnn2d,
    ),
    Operator(
        "rnn2d_backward(Tensor grad_out, Tensor x, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, "
        "Tensor? bias_hh, int[] scans, str cell) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        run=rnn2d_backward,
        fake=_fake_rnn2d_backward,
    ),
)
