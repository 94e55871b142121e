"""When the fused products of small batches pay, and how they are launched. Kernels are imported when one runs."""

import torch
from torch import Tensor

from sequencer2d.ops import compile_errors, devices, targets

_PROBLEM = "products of small batches,"


def is_small_batch(stream: Tensor, x: Tensor) -> bool:
    """Whether a product from or to the residual stream (..., C) has so few rows that our own kernels are faster.

    x: the input of the product. Its last dimension must be a multiple of 16.
    """
    return (
        # This comes first, so that a trace for a device without the kernels does not depend on the number of rows.
        devices.problem("products", stream.device.type, stream.device.index) is None
        and x.dtype == stream.dtype
        and x.dtype in (torch.float16, torch.bfloat16)
        and x.shape[-1] % 16 == 0
        and stream.numel() <= targets.max_small_batch(stream.device.type, stream.device.index)
        and (torch.compiler.is_compiling() or compile_errors.ruled_out(_PROBLEM, x.dtype, x.device) is None)
    )


def rule_out(x: Tensor, error: Exception) -> None:
    """Use the vendor's products from now on, because the kernels do not compile."""
    compile_errors.rule_out(_PROBLEM, x.dtype, x.device, error=error, instead="PyTorch's own products run")


def normed_linear_pays(x: Tensor) -> bool:
    """Whether a layer norm and a product of tokens x (..., C) are faster in one launch than in two."""
    return is_small_batch(x, x) and x.shape[-1] <= targets.max_normed_channels(x.device.type, x.device.index)


def normed_linear(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float, gelu: bool) -> Tensor:
    """The product with a layer norm before it, in one launch; see `linear_operators`. For small batches only."""
    from sequencer2d.ops.kernels import triton_linear_launch

    early_start = devices.starts_early(x.device) and weight.is_contiguous()
    x, shift, weight, bias = (tensor.contiguous() for tensor in (x, shift, weight, bias))
    with devices.current(x):
        return triton_linear_launch.launch_normed_linear(
            x,
            shift,
            weight,
            bias,
            eps,
            gelu=gelu,
            approximate_tanh=devices.approximates_tanh(x),
            early_start=early_start,
        )


def add_linear(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """The product added to a contiguous tensor, in one launch; see `linear_operators`. For small batches only."""
    from sequencer2d.ops.kernels import triton_linear_launch

    with devices.current(x):
        triton_linear_launch.launch_add_linear(
            total, x.contiguous(), weight.contiguous(), early_start=devices.starts_early(x.device)
        )
