"""Matrix products fused with a layer norm before them or with the residual sum behind them, for small batches.

With few rows, starting a launch takes longer than its arithmetic; with many rows the vendor's products are faster. From
Hopper on, a launch may start before the previous one has ended, and load its weights meanwhile. Device code.
Suffixes: K inputs in NK chunks of KC, a power of two; R rows and T columns of a tile.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from sequencer2d.ops.kernels import triton_common as common

# sqrt(2/pi) and 0.044715 times that: the coefficients of tanh's argument in the tanh form of GELU.
_GELU_LINEAR = tl.constexpr(0.7978845608028654)
_GELU_CUBIC = tl.constexpr(0.035677408136300125)
_CACHE_LINE = tl.constexpr(64)  # 16-bit values in the 128 bytes of one prefetch


@triton.jit(do_not_specialize=["rows"])
def normed_linear_kernel(
    x, shift, weight, bias, out, rows, N, eps,
    K: tl.constexpr, KC: tl.constexpr, NK: tl.constexpr, R: tl.constexpr, T: tl.constexpr,
    GELU: tl.constexpr, APPROX_TANH: tl.constexpr, EARLY_START: tl.constexpr,
):  # fmt: skip
    """out (rows, N) = layer norm of (x (rows, K) - shift (K,)), times weight (N, K).T, plus bias (N,).

    EARLY_START: load the weights while the previous launch may still run, then wait for its end (see `gluon_forward`).
    """
    if EARLY_START:
        gdc_launch_dependents()
    row = tl.program_id(1) * R + tl.arange(0, R)
    column = tl.program_id(0) * T + tl.arange(0, T)
    inner = tl.arange(0, KC)
    row_exists, column_exists = (row < rows)[:, None], (column < N)[None, :]
    weights = weight + (column * K)[None, :] + inner[:, None]
    tiles = ()
    for k in tl.static_range(NK):
        tiles = tiles + (tl.load(weights + k * KC, mask=column_exists, other=0.0),)
    if EARLY_START:
        gdc_wait()
    x_rows = x + (row.to(tl.int64) * K)[:, None] + inner[None, :]
    loaded = ()
    for k in tl.static_range(NK):
        loaded = loaded + (tl.load(x_rows + k * KC, mask=row_exists, other=0.0),)
    mean = tl.zeros([R], tl.float32)
    for k in tl.static_range(NK):
        mean += tl.sum(loaded[k].to(tl.float32) - tl.load(shift + inner + k * KC).to(tl.float32)[None, :], 1)
    mean = mean / K
    variance = tl.zeros([R], tl.float32)
    for k in tl.static_range(NK):
        centered = loaded[k].to(tl.float32) - tl.load(shift + inner + k * KC).to(tl.float32)[None, :] - mean[:, None]
        variance += tl.sum(centered * centered, 1)
    scale = tl.rsqrt(variance / K + eps)
    total = tl.zeros([R, T], tl.float32)
    for k in tl.static_range(NK):
        centered = loaded[k].to(tl.float32) - tl.load(shift + inner + k * KC).to(tl.float32)[None, :] - mean[:, None]
        total = tl.dot((centered * scale[:, None]).to(tiles[k].dtype), tiles[k], total)
    total += tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
    if GELU:
        total = 0.5 * total * (1.0 + common.tanh(total * (_GELU_LINEAR + _GELU_CUBIC * total * total), APPROX_TANH))
    place = out + (row.to(tl.int64) * N)[:, None] + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=row_exists & column_exists)


@triton.jit(do_not_specialize=["rows"])
def add_linear_kernel(
    total, x, weight, rows, N,
    K: tl.constexpr, KC: tl.constexpr, NK: tl.constexpr, R: tl.constexpr, T: tl.constexpr, CACHE_LINES: tl.constexpr,
    STAGES: tl.constexpr, EARLY_START: tl.constexpr,
):  # fmt: skip
    """total (rows, N) += x (rows, K) @ weight (N, K).T.

    EARLY_START: as above, but the weights are only prefetched into the L2 cache. CACHE_LINES: a power of two, at least
    the number of cache lines in a row of weights.
    """
    row = tl.program_id(1) * R + tl.arange(0, R)
    column = tl.program_id(0) * T + tl.arange(0, T)
    inner = tl.arange(0, KC)
    row_exists, column_exists = (row < rows)[:, None], (column < N)[None, :]
    if EARLY_START:
        gdc_launch_dependents()
        cache_line = tl.minimum(tl.arange(0, CACHE_LINES) * _CACHE_LINE, K - 1)
        prefetched = weight + (tl.minimum(column, N - 1) * K)[:, None] + cache_line[None, :]
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [prefetched], dtype=tl.int32, is_pure=False, pack=1
        )
        gdc_wait()
    x_rows = x + (row.to(tl.int64) * K)[:, None] + inner[None, :]
    weights = weight + (column * K)[None, :] + inner[:, None]
    product = tl.zeros([R, T], tl.float32)
    for k in tl.range(NK, num_stages=STAGES):
        left = tl.load(x_rows + k * KC, mask=row_exists, other=0.0)
        product = tl.dot(left, tl.load(weights + k * KC, mask=column_exists, other=0.0), product)
    place = total + (row.to(tl.int64) * N)[:, None] + column[None, :]
    exists = row_exists & column_exists
    before = tl.load(place, mask=exists, other=0.0).to(tl.float32)
    tl.store(place, (before + product).to(total.dtype.element_ty), mask=exists)
