"""Launches the Triton kernels of the fused products."""

from typing import Any

import triton
from torch import Tensor

from sequencer2d.ops import targets
from sequencer2d.ops.kernels import launching, prepared, triton_linear


def launch_normed_linear(
    x: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    gelu: bool,
    approximate_tanh: bool,
    early_start: bool,
) -> Tensor:
    """Run the kernel: x (..., K) to (..., N), all contiguous. K is a multiple of 16 and at most 384."""
    inputs, outputs = x.shape[-1], weight.shape[0]
    out = x.new_empty(*x.shape[:-1], outputs)
    rows, chunk = x.numel() // inputs, _chunk(inputs)
    tile_rows = targets.of(x.device).launches.linear_rows
    columns, warps = (128, 4) if inputs <= 192 else (64, 8)
    tensors = (x, shift, weight, bias, out)
    same = ("normed linear", rows, inputs, outputs, eps, x.dtype, x.device, gelu, approximate_tanh, early_start)
    if out.numel() and not prepared.repeat(same, *tensors):
        with launching.compiling("normed linear", inputs, x.dtype):
            handle = launching.run_kernel(
                triton_linear.normed_linear_kernel, (triton.cdiv(outputs, columns), triton.cdiv(rows, tile_rows)),
                *tensors, rows, outputs, eps,
                K=inputs, KC=chunk, NK=inputs // chunk, R=tile_rows, T=columns, GELU=gelu,
                APPROX_TANH=approximate_tanh, EARLY_START=early_start, num_warps=warps, **_start_options(early_start),
            )  # fmt: skip
        prepared.keep(same, handle)
    return out


def launch_add_linear(total: Tensor, x: Tensor, weight: Tensor, *, early_start: bool) -> None:
    """Run the kernel: total (..., N) += x (..., K) @ weight (N, K).T, all contiguous. K is a multiple of 16."""
    inputs, outputs = x.shape[-1], weight.shape[0]
    rows, chunk = x.numel() // inputs, _chunk(inputs)
    table = targets.of(x.device).launches
    tensors = (total, x, weight)
    same = ("added linear", rows, inputs, outputs, x.dtype, x.device, early_start)
    if total.numel() and not prepared.repeat(same, *tensors):
        with launching.compiling("added linear", inputs, x.dtype):
            handle = launching.run_kernel(
                triton_linear.add_linear_kernel,
                (triton.cdiv(outputs, table.add_columns), triton.cdiv(rows, table.linear_rows)),
                *tensors, rows, outputs,
                K=inputs, KC=chunk, NK=inputs // chunk, R=table.linear_rows, T=table.add_columns,
                STAGES=table.add_stages, EARLY_START=early_start,
                CACHE_LINES=triton.next_power_of_2(triton.cdiv(inputs, 64)), num_warps=4,
                **_start_options(early_start),
            )  # fmt: skip
        prepared.keep(same, handle)


def _chunk(inputs: int) -> int:
    """The largest power of two up to 128 that divides the number of inputs."""
    return min(inputs & -inputs, 128)


def _start_options(early_start: bool) -> dict[str, Any]:
    """Options of a launch. The interpreter does not know this one, so it is given only where it is needed."""
    return {"launch_pdl": True} if early_start else {}
