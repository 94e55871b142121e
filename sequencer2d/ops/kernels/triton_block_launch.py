"""Launches the kernels between the matrix products of a block in training. Tensors are contiguous, (T, C) or (T, M)."""

from typing import Any

import torch
import triton
from torch import Tensor

from sequencer2d.ops.kernels import launching, prepared, triton_block
from sequencer2d.ops.tuning import multiprocessors

# Tokens of a tile, and programs of a multiprocessor that go through the tokens in backward.
_ROWS, _PROGRAMS_PER_SM, _COLUMNS = 8, 2, 256


def new_sums(x: Tensor, width: int) -> Tensor:
    """Where the programs of backward write their sums over the tokens of x (T, C): fp32 (programs, width)."""
    programs = min(-(-x.shape[0] // _ROWS), _PROGRAMS_PER_SM * multiprocessors(x.device))
    return x.new_empty(programs, width, dtype=torch.float32)


def add_norm(
    x: Tensor, branch: Tensor | None, mask: Tensor | None, weight: Tensor, bias: Tensor, eps: float, save: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x + mask * branch, or x itself without a branch; its layer norm; and mean and scale, fp32 (T,), for backward.

    Without `save`, mean and scale hold nothing that means anything.
    """
    rows, channels = x.shape
    total = x if branch is None else torch.empty_like(x)
    normed = torch.empty_like(x)
    if save:
        mean, scale = torch.unsafe_split_with_sizes(x.new_empty(2 * rows, dtype=torch.float32), [rows, rows])
    else:
        mean = scale = x.new_empty(rows, dtype=torch.float32)  # the kernel writes both
    given = x if branch is None else branch
    tensors = (x, given, given if mask is None else mask, weight, bias, total, normed, mean, scale)
    images = 1 if mask is None else mask.shape[0]
    constants = {"C": channels, "HAS_BRANCH": branch is not None, "HAS_MASK": mask is not None}
    _launch(triton_block.add_norm_kernel, (-(-rows // _ROWS),), tensors, (rows, rows // images, eps), constants)
    return total, normed, mean, scale


def add_norm_backward(
    grad_normed: Tensor,
    grad_total: Tensor,
    saved: tuple[Tensor, Tensor, Tensor],
    weight: Tensor,
    mask: Tensor | None,
    sums: Tensor,
    column: int,
    branch_column: int | None,
) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the branch in `add_norm`; they are one tensor without a mask.

    Args:
        grad_normed: the gradient of the norm, which is no longer needed afterwards.
        grad_total: that of the sum, from elsewhere.
        saved: the sum, mean and scale, as `add_norm` returned them.
        weight: of the norm, (C,).
        mask: as in `add_norm`.
        sums: of `new_sums`.
        column: where the sums for the norm's weight and bias go.
        branch_column: where those of the branch's gradient go; None if there was no branch.
    """
    total = saved[0]
    rows, channels = total.shape
    grad_x = grad_normed  # a program reads a row before it writes it
    grad_branch = grad_x if mask is None else torch.empty_like(grad_x)
    given = grad_x if mask is None else mask
    tensors = (
        grad_normed, grad_total, *saved, weight, given, grad_x, grad_branch, sums
    )  # fmt: skip
    images = 1 if mask is None else mask.shape[0]
    constants = {"C": channels, "HAS_BRANCH": branch_column is not None, "HAS_MASK": mask is not None}
    scalars = (rows, rows // images, sums.shape[1], column, branch_column or 0)
    _launch(triton_block.add_norm_backward_kernel, (sums.shape[0],), tensors, scalars, constants)
    return grad_x, grad_branch


def apply_mask(grad: Tensor, mask: Tensor | None, sums: Tensor, column: int) -> Tensor:
    """mask * grad, which is `grad` itself without a mask; its sums go into `sums` from `column` on."""
    rows, channels = grad.shape
    grad_branch = grad if mask is None else torch.empty_like(grad)
    tensors = (grad, grad if mask is None else mask, grad_branch, sums)
    images = 1 if mask is None else mask.shape[0]
    constants = {"C": channels, "HAS_MASK": mask is not None}
    _launch(
        triton_block.mask_kernel, (sums.shape[0],), tensors, (rows, rows // images, sums.shape[1], column), constants
    )
    return grad_branch


def gelu_backward_(grad: Tensor, expanded: Tensor, sums: Tensor, column: int) -> Tensor:
    """grad (T, M) *= the derivative of the exact GELU at `expanded`; its sums go into `sums` from `column` on.

    Returns what the GELU returned in forward.
    """
    rows, outputs = grad.shape
    active = torch.empty_like(expanded)
    tensors, scalars = (grad, expanded, active, sums), (rows, sums.shape[1], column)
    same = ("gelu backward", outputs, grad.device, sums.shape[0], *scalars)
    if not prepared.repeat(same, *tensors):
        grid = (sums.shape[0], triton.cdiv(outputs, _COLUMNS))
        with launching.compiling("gelu backward", outputs, grad.dtype):
            handle = launching.run_kernel(
                triton_block.gelu_backward_kernel, grid, *tensors, *scalars, M=outputs, T=_COLUMNS, R=_ROWS, num_warps=8
            )
        prepared.keep(same, handle)
    return active


def _launch(
    kernel: Any, grid: tuple[int, ...], tensors: tuple[Tensor, ...], scalars: tuple[Any, ...], constants: dict[str, Any]
) -> None:
    same = (kernel, grid, tensors[0].device, scalars, *constants.values())
    if not prepared.repeat(same, *tensors):
        padded = triton.next_power_of_2(constants["C"])
        with launching.compiling(kernel.__name__, constants["C"], tensors[0].dtype):
            handle = launching.run_kernel(
                kernel, grid, *tensors, *scalars, CP=padded, R=_ROWS, num_warps=8, **constants
            )
        prepared.keep(same, handle)
