"""What the Triton kernels share: activations, cells, weight tiles and the addressing of scans.

Imported only when a kernel runs. Suffixes: R rows of a tile, S scans, G gates, D hidden units, DC hidden units of a
chunk, NC chunks. A row is one sequence: a column of the grid for vertical scans, a line for horizontal ones.

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
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        # The exponent is never positive, so nothing overflows at any x.
        e = tl.exp(-2.0 * tl.abs(x))
        magnitude = (1.0 - e) / (1.0 + e)
        return tl.where(x < 0.0, -magnitude, magnitude)


@triton.jit
def sigmoid(x, FAST: tl.constexpr):
    """The logistic function in fp32."""
    if FAST:
        return 0.5 * tanh(0.5 * x, FAST) + 0.5
    else:
        e = tl.exp(-tl.abs(x))
        return tl.where(x < 0.0, e, 1.0) / (1.0 + e)


@triton.jit
def row_tokens(rows, axis, H, W):
    """Index of the first token (t = 0) of each row in the flattened (B, H, W) grid, as int64."""
    inner = tl.where(axis == 0, W, 1)
    outer = tl.where(axis == 0, H * W, W)
    return (rows // inner).to(tl.int64) * outer + rows % inner


@triton.jit
def weight_tile(
    weight, slot, n: tl.constexpr, k: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, G: tl.constexpr,
    AGAIN: tl.constexpr,
):  # fmt: skip
    """W_hh of all gates, units of chunk n by inputs of chunk k, as (inputs, gates * units): (DC, GP*DC).

    The gates stand side by side, padded to a power of two GP, so that one product serves them all: what a product costs
    here is its latency, not its arithmetic. AGAIN: read it here each time, where all tiles together do not fit.
    """
    GP: tl.constexpr = 4 if G > 1 else 1
    column = tl.arange(0, GP * DC)[None, :]
    gate = column // DC
    unit = n * DC + column % DC
    source = k * DC + tl.arange(0, DC)[:, None]
    pointers = weight + slot * (G * D * D) + (gate * D + unit) * D + source
    # A volatile load stays where it stands; any other would be moved out of the loop, and all tiles be kept.
    if D % DC == 0 and GP == G:
        return tl.load(pointers, volatile=AGAIN)
    else:
        return tl.load(pointers, mask=(unit < D) & (source < D) & (gate < G), other=0.0, volatile=AGAIN)


@triton.jit
def weight_tiles(
    weight, slot, D: tl.constexpr, DC: tl.constexpr, NC: tl.constexpr, G: tl.constexpr, RESIDENT: tl.constexpr,
):  # fmt: skip
    """All tiles of a scan's W_hh, a flat tuple: tile (n, k) at n * NC + k; empty if they are read at each step."""
    tiles = ()
    if RESIDENT:
        for n in tl.static_range(NC):
            for k in tl.static_range(NC):
                tiles = tiles + (weight_tile(weight, slot, n, k, D, DC, G, False),)
    return tiles


@triton.jit
def get_tile(
    tiles, weight, slot, n: tl.constexpr, k: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, NC: tl.constexpr,
    G: tl.constexpr,
):  # fmt: skip
    """Tile (n, k), from `tiles` or from memory."""
    if len(tiles) > 0:
        return tiles[n * NC + k]
    else:
        return weight_tile(weight, slot, n, k, D, DC, G, True)


@triton.jit
def prefetch_rows(pointers, BYTES: tl.constexpr, R: tl.constexpr):
    """Ask for rows of BYTES bytes at `pointers` (R, 1) to come to L2: costs no register until they are loaded.

    A step that waits for device memory at each of its chunks takes several times what its arithmetic does.
    """
    LINES: tl.constexpr = (BYTES + 127) // 128
    WIDTH: tl.constexpr = triton.next_power_of_2(LINES)
    line = tl.minimum(tl.arange(0, WIDTH), LINES - 1)[None, :]
    tl.inline_asm_elementwise(
        "{ prefetch.global.L2 [$1]; mov.b32 $0, 0; }",
        "=r,l",
        [pointers.to(tl.uint64) + tl.broadcast_to(line * 128, (R, WIDTH)).to(tl.uint64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def load_chunk(pointers, column, valid, D: tl.constexpr, DC: tl.constexpr):
    """Values (R, DC) at `pointers` (R, 1) + column (1, DC); 0 for rows that do not exist and units past D."""
    if D % DC == 0:
        return tl.load(pointers + column, mask=valid, other=0.0)
    else:
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
def recurrent_products(
    h, tiles, weight, slot, n: tl.constexpr, R: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, NC: tl.constexpr,
    G: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Chunk n of W_hh·h for every gate, fp32: a tuple of G tensors (R, DC)."""
    product = tl.dot(h[0], get_tile(tiles, weight, slot, n, 0, D, DC, NC, G), input_precision=PRECISION)
    for k in tl.static_range(1, NC):
        product = tl.dot(h[k], get_tile(tiles, weight, slot, n, k, D, DC, NC, G), product, input_precision=PRECISION)
    if G == 1:
        return (product,)
    else:
        # Splitting off the gates renames registers: a thread holds the same unit of every gate.
        by_gate = tl.permute(tl.reshape(product, (R, 2, 2, DC)), (0, 3, 1, 2))
        even, odd = tl.split(by_gate)
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
        if G == 3:
            return first, second, third
        else:
            return first, second, third, fourth


@triton.jit
def side_by_side(parts, R: tl.constexpr, DC: tl.constexpr, G: tl.constexpr):
    """The inverse of the split: G tensors (R, DC) to one (R, GP*DC), gates side by side."""
    if G == 1:
        return parts[0]
    else:
        last = parts[2]
        if G == 4:
            last = parts[3]
        else:
            last = tl.zeros_like(last)
        joined = tl.join(tl.join(parts[0], parts[2]), tl.join(parts[1], last))
        return tl.reshape(tl.permute(joined, (0, 2, 3, 1)), (R, 4 * DC))
