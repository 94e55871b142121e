"""Products with what stands before or behind them in one launch, for so few rows that launches are what counts.

A layer norm and the product after it; a product added to the residual stream. With many rows the vendor's products are
faster. From Hopper on a launch starts before the one before it has ended: its weights are under way by then.
K inputs in NK chunks of KC, a power of two; R rows and T columns of a tile.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from sequencer2d.ops import triton_common as common

# Measured on an H200: the whole of sequencer2d_s, one image.
ROWS = 64
_ADD_COLUMNS, _ADD_STAGES = 32, 4
# sqrt(2/pi) and 0.044715 times that: of tanh's argument in the approximation of GELU by it.
_LINEAR = tl.constexpr(0.7978845608028654)
_CUBIC = tl.constexpr(0.035677408136300125)
_LINE = tl.constexpr(64)  # 16-bit values in 128 bytes, what a prefetch asks for


@triton.jit(do_not_specialize=["rows"])
def normed_linear_kernel(
    x, shift, weight, bias, out, rows, N, eps,
    K: tl.constexpr, KC: tl.constexpr, NK: tl.constexpr, R: tl.constexpr, T: tl.constexpr,
    GELU: tl.constexpr, FAST: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """x (rows, K), shift (K,), weight (N, K), bias (N,), out (rows, N).

    EARLY: as in `gluon_forward`: reads the weights, then waits for the end of the launch before.
    """
    if EARLY:
        gdc_launch_dependents()
    row = tl.program_id(1) * R + tl.arange(0, R)
    column = tl.program_id(0) * T + tl.arange(0, T)
    inner = tl.arange(0, KC)
    row_exists, column_exists = (row < rows)[:, None], (column < N)[None, :]
    weights = weight + (column * K)[None, :] + inner[:, None]
    tiles = ()
    for k in tl.static_range(NK):
        tiles = tiles + (tl.load(weights + k * KC, mask=column_exists, other=0.0),)
    if EARLY:
        gdc_wait()
    lines = x + (row.to(tl.int64) * K)[:, None] + inner[None, :]
    loaded = ()
    for k in tl.static_range(NK):
        loaded = loaded + (tl.load(lines + k * KC, mask=row_exists, other=0.0),)
    mean = tl.zeros([R], tl.float32)
    for k in tl.static_range(NK):
        mean += tl.sum(loaded[k].to(tl.float32) - tl.load(shift + inner + k * KC).to(tl.float32)[None, :], 1)
    mean = mean / K
    variance = tl.zeros([R], tl.float32)
    for k in tl.static_range(NK):
        apart = loaded[k].to(tl.float32) - tl.load(shift + inner + k * KC).to(tl.float32)[None, :] - mean[:, None]
        variance += tl.sum(apart * apart, 1)
    scale = tl.rsqrt(variance / K + eps)
    total = tl.zeros([R, T], tl.float32)
    for k in tl.static_range(NK):
        apart = loaded[k].to(tl.float32) - tl.load(shift + inner + k * KC).to(tl.float32)[None, :] - mean[:, None]
        total = tl.dot((apart * scale[:, None]).to(tiles[k].dtype), tiles[k], total)
    total += tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
    if GELU:
        total = 0.5 * total * (1.0 + common.tanh(total * (_LINEAR + _CUBIC * total * total), FAST))
    place = out + (row.to(tl.int64) * N)[:, None] + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=row_exists & column_exists)


@triton.jit(do_not_specialize=["rows"])
def add_linear_kernel(
    total, x, weight, rows, N,
    K: tl.constexpr, KC: tl.constexpr, NK: tl.constexpr, R: tl.constexpr, T: tl.constexpr, LINES: tl.constexpr,
    STAGES: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """total (rows, N) += x (rows, K) @ weight (N, K).T. EARLY: as above, but the weights only go to the L2 cache.

    LINES: a power of two, at least as many as 128 bytes go into a row of weights.
    """
    row = tl.program_id(1) * R + tl.arange(0, R)
    column = tl.program_id(0) * T + tl.arange(0, T)
    inner = tl.arange(0, KC)
    row_exists, column_exists = (row < rows)[:, None], (column < N)[None, :]
    if EARLY:
        gdc_launch_dependents()
        line = tl.minimum(tl.arange(0, LINES) * _LINE, K - 1)
        asked = weight + (tl.minimum(column, N - 1) * K)[:, None] + line[None, :]
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [asked], dtype=tl.int32, is_pure=False, pack=1
        )
        gdc_wait()
    lines = x + (row.to(tl.int64) * K)[:, None] + inner[None, :]
    weights = weight + (column * K)[None, :] + inner[:, None]
    product = tl.zeros([R, T], tl.float32)
    for k in tl.range(NK, num_stages=STAGES):
        left = tl.load(lines + k * KC, mask=row_exists, other=0.0)
        product = tl.dot(left, tl.load(weights + k * KC, mask=column_exists, other=0.0), product)
    place = total + (row.to(tl.int64) * N)[:, None] + column[None, :]
    exists = row_exists & column_exists
    before = tl.load(place, mask=exists, other=0.0).to(tl.float32)
    tl.store(place, (before + product).to(total.dtype.element_ty), mask=exists)


def launch_normed_linear(
    x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float, *, gelu: bool, fast: bool, early: bool
) -> Tensor:
    """Run the kernel: x (..., K) to (..., N), all contiguous. K: at most 384, a multiple of 16."""
    inner, outer = x.shape[-1], weight.shape[0]
    out = x.new_empty(*x.shape[:-1], outer)
    rows, chunk = x.numel() // inner, _chunk(inner)
    columns, warps = (128, 4) if inner <= 192 else (64, 8)
    if out.numel():
        with common.compiling("normed linear", inner, x.dtype):
            common.run_kernel(
                normed_linear_kernel, (triton.cdiv(outer, columns), triton.cdiv(rows, ROWS)),
                x, shift, weight, bias, out, rows, outer, eps,
                K=inner, KC=chunk, NK=inner // chunk, R=ROWS, T=columns, GELU=gelu, FAST=fast, EARLY=early,
                num_warps=warps, **_start(early),
            )  # fmt: skip
    return out


def launch_add_linear(total: Tensor, x: Tensor, weight: Tensor, *, early: bool) -> None:
    """Run the kernel: total (..., N) += x (..., K) @ weight (N, K).T, all contiguous. K: a multiple of 16."""
    inner, outer = x.shape[-1], weight.shape[0]
    rows, chunk = x.numel() // inner, _chunk(inner)
    if total.numel():
        with common.compiling("added linear", inner, x.dtype):
            common.run_kernel(
                add_linear_kernel, (triton.cdiv(outer, _ADD_COLUMNS), triton.cdiv(rows, ROWS)),
                total, x, weight, rows, outer,
                K=inner, KC=chunk, NK=inner // chunk, R=ROWS, T=_ADD_COLUMNS, STAGES=_ADD_STAGES, EARLY=early,
                LINES=triton.next_power_of_2(triton.cdiv(inner, 64)), num_warps=4, **_start(early),
            )  # fmt: skip


def _chunk(inner: int) -> int:
    """The largest power of two up to 128 that divides the inputs."""
    return min(inner & -inner, 128)


def _start(early: bool) -> dict[str, Any]:
    """Options of a launch: the interpreter does not know this one."""
    return {"launch_pdl": True} if early else {}
