"""What the Triton kernels share: activations, cells, weight tiles and the addressing of scans.

Imported only when a kernel runs. Suffixes: R rows of a tile, S scans, G gates, D hidden units, DC hidden units of a chunk,
NC chunks. A row is one sequence: a column of the grid for vertical scans, a line for horizontal ones.

D is cut into NC chunks of DC units, a power of two, because 48 and 96 are not: three chunks of 16 or 32 waste nothing,
padding to 64 or 128 would cost 1.8 times the products.
"""

import triton
import triton.language as tl

LSTM = tl.constexpr(0)
GRU = tl.constexpr(1)
RNN = tl.constexpr(2)


@triton.jit
def tanh(x, FAST: tl.constexpr):
    """tanh in fp32. FAST takes one special-function instruction, exact to 2^-11; else to fp32 rounding, absolutely."""
    if FAST:
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    # exp overflows to infinity for large x, and the quotient is then 0: safe at any x.
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)


@triton.jit
def sigmoid(x, FAST: tl.constexpr):
    """The logistic function in fp32."""
    if FAST:
        return 0.5 * tanh(0.5 * x, FAST) + 0.5
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def row_tokens(rows, axis, H, W):
    """Index of the first token (t = 0) of each row in the flattened (B, H, W) grid, as int64."""
    inner = tl.where(axis == 0, W, 1)
    outer = tl.where(axis == 0, H * W, W)
    return (rows // inner).to(tl.int64) * outer + rows % inner


@triton.jit
def weight_tile(weight, slot, gate, n: tl.constexpr, k: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, G: tl.constexpr):
    """W_hh of one gate, units [n*DC, (n+1)*DC) by inputs [k*DC, (k+1)*DC), as (inputs, units): (DC, DC)."""
    unit = n * DC + tl.arange(0, DC)[None, :]
    source = k * DC + tl.arange(0, DC)[:, None]
    pointers = weight + slot * (G * D * D) + (gate * D + unit) * D + source
    if D % DC == 0:
        return tl.load(pointers)
    return tl.load(pointers, mask=(unit < D) & (source < D), other=0.0)


@triton.jit
def weight_tiles(weight, slot, D: tl.constexpr, DC: tl.constexpr, NC: tl.constexpr, G: tl.constexpr):
    """All tiles of a scan's W_hh, as a flat tuple: tile (gate, n, k) at (gate * NC + n) * NC + k."""
    tiles = ()
    for gate in tl.static_range(G):
        for n in tl.static_range(NC):
            for k in tl.static_range(NC):
                tiles = tiles + (weight_tile(weight, slot, gate, n, k, D, DC, G),)
    return tiles


@triton.jit
def load_chunk(pointers, column, valid, D: tl.constexpr, DC: tl.constexpr):
    """Values (R, DC) at `pointers` (R, 1) + column (1, DC); 0 for rows that do not exist and units past D."""
    if D % DC == 0:
        return tl.load(pointers + column, mask=valid, other=0.0)
    return tl.load(pointers + column, mask=valid & (column < D), other=0.0)


@triton.jit
def store_chunk(pointers, column, value, valid, D: tl.constexpr, DC: tl.constexpr):
    """Store (R, DC) where rows and units exist."""
    if D % DC == 0:
        tl.store(pointers + column, value, mask=valid)
    else:
        tl.store(pointers + column, value, mask=valid & (column < D))


@triton.jit
def chunk_gates(pointers, n: tl.constexpr, valid, D: tl.constexpr, DC: tl.constexpr, G: tl.constexpr):
    """The G gate slices (R, DC) of chunk n from rows of G*D values."""
    column = n * DC + tl.arange(0, DC)[None, :]
    slices = ()
    for gate in tl.static_range(G):
        slices = slices + (load_chunk(pointers + gate * D, column, valid, D, DC),)
    return slices


@triton.jit
def recurrent_product(h, tiles, gate: tl.constexpr, n: tl.constexpr, NC: tl.constexpr, PRECISION: tl.constexpr):
    """Chunk n of one gate's W_hh·h, fp32: (R, DC)."""
    product = tl.dot(h[0], tiles[(gate * NC + n) * NC], input_precision=PRECISION)
    for k in tl.static_range(1, NC):
        product = tl.dot(h[k], tiles[(gate * NC + n) * NC + k], product, input_precision=PRECISION)
    return product
