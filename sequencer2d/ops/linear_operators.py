"""Operators for inference that fuse a matrix product with what stands before or behind it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.ops import compile_errors, linear_kernels
from sequencer2d.ops.custom_operator import Operator


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """gelu(x @ weight.T + bias)."""
    return F.gelu(F.linear(x, weight, bias))


def linear_gelu_cuda(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear_gelu`; in 16 bits with GELU's tanh form in the epilogue of the product."""
    if x.dtype not in (torch.float16, torch.bfloat16):
        return linear_gelu(x, weight, bias)
    if bias is None:
        return F.gelu(F.linear(x, weight), approximate="tanh")
    out = torch._addmm_activation(bias, x.reshape(-1, x.shape[-1]), weight.t(), use_gelu=True)
    return out.view(*x.shape[:-1], weight.shape[0])


def normed_linear(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float, gelu: bool) -> Tensor:
    """The layer norm of x (..., K) - shift (K,), times weight (N, K).T, plus bias (N,); with `gelu`, GELU's tanh form.

    Reads `weight` while earlier kernels may still run; none of them may write it.
    """
    if linear_kernels.normed_linear_pays(x) and weight.dtype == x.dtype:
        try:
            return linear_kernels.normed_linear(x, shift, weight, bias, eps, gelu)
        except compile_errors.CompileError as error:
            linear_kernels.rule_out(x, error)
    y = F.linear(F.layer_norm(x - shift, shift.shape, eps=eps), weight, bias)
    return F.gelu(y, approximate="tanh") if gelu else y


def add_linear_(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """total (..., N) += x (..., K) @ weight.T, in place; `total` is contiguous.

    The sum is the epilogue of the product. torch's epilogue takes a bias or a matrix but not both, so there is no bias.
    Small batches take a kernel of our own, which starts before the previous launch has ended.
    """
    if linear_kernels.is_small_batch(total, x) and weight.dtype == x.dtype and total.is_contiguous():
        try:
            linear_kernels.add_linear(total, x, weight)
            return
        except compile_errors.CompileError as error:
            linear_kernels.rule_out(x, error)
    total.view(-1, total.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), weight.t())


def _fake_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _fake_normed_linear(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float, gelu: bool) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _fake_add_linear_(total: Tensor, x: Tensor, weight: Tensor) -> None:
    return None


OPERATORS = (
    Operator(
        "linear_gelu(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
        run=linear_gelu,
        cuda=linear_gelu_cuda,
        fake=_fake_linear,
        differentiated=False,
    ),
    Operator(
        "normed_linear(Tensor x, Tensor shift, Tensor weight, Tensor bias, float eps, bool gelu) -> Tensor",
        run=normed_linear,
        fake=_fake_normed_linear,
        differentiated=False,
    ),
    Operator(
        "add_linear_(Tensor(a!) total, Tensor x, Tensor weight) -> ()",
        run=add_linear_,
        fake=_fake_add_linear_,
        differentiated=False,
    ),
)
