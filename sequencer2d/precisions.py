"""The precisions that a user may name, and PyTorch's type of each: one row each. PyTorch is loaded when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def dtype_of(precision: str) -> torch.dtype:
    """The type of numbers of a precision."""
    import torch

    dtype: torch.dtype = getattr(torch, _TYPES[precision])
    return dtype


def autocast_dtype(precision: str) -> torch.dtype | None:
    """The type that autocast computes in; None for fp32, which needs no autocast."""
    return None if precision == "fp32" else dtype_of(precision)
