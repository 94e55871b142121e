"""What the Triton kernels share: activations, weight tiles, gate layout and the addressing of scans. Device code.

Suffixes: R rows of a tile, S scans, G gates, D hidden units, DC hidden units of a chunk, NC chunks, KC inputs of one
product with W_hh, NK such products a chunk, GP gates padded to a power of two. A row is one sequence of a scan: in an
image's grid a column for vertical scans, a line for horizontal ones.

Tiles must have sizes that are powers of two, and hidden sizes such as 48 and 96 are not. So D is cut into NC chunks of
DC units: three chunks of 16 or 32 waste nothing, where padding to 64 or 128 would cost 1.8 times the products.
"""

import triton
import triton.language as tl

# The arguments that say what a grid looks like: its tokens, and steps and stride of each of three axes (see `scans`).
# They are not specialized, so that one binary serves all grids.
GRID = ["tokens", "steps_0", "stride_0", "steps_1", "stride_1", "steps_2", "stride_2"]
# The state that the backward step of a cell reads.
NO_STATE = tl.constexpr(0)
STATE_H = tl.constexpr(1)
STATE_C = tl.constexpr(2)
# Where a scan begins: with zeros, or with a given state that the kernel carries in fp32 (c, or h for a cell without c).
FROM_ZERO = tl.constexpr(0)
FROM_H = tl.constexpr(1)
FROM_C = tl.constexpr(2)


@triton.jit
def tanh(x, APPROX_TANH: tl.constexpr):
    """tanh in fp32, exact to fp32 rounding (absolute error).

    APPROX_TANH: one special-function instruction instead, exact to 2^-11.
    """
    if APPROX_TANH:
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        # The exponent is never positive, so nothing overflows at any x.
        e = tl.exp(-2.0 * tl.abs(x))
        magnitude = (1.0 - e) / (1.0 + e)
        return tl.where(x < 0.0, -magnitude, magnitude)


@triton.jit
def sigmoid(x, APPROX_TANH: tl.constexpr):
    """The logistic function in fp32."""
    if APPROX_TANH:
        return 0.5 * tanh(0.5 * x, APPROX_TANH) + 0.5
    else:
        e = tl.exp(-tl.abs(x))
        return tl.where(x < 0.0, e, 1.0) / (1.0 + e)


@triton.jit
def scan_of(slot, axes, SCANS: tl.constexpr):
    """The scan of a slot: (its steps, the distance in tokens between two steps, whether it runs backward).

    `axes` is a tuple of steps and stride of each of three axes. SCANS packs the scans' numbers, three bits a slot.
    """
    scan = (SCANS >> (3 * slot)) & 7
    axis = scan // 2
    steps = tl.where(axis == 0, axes[0], tl.where(axis == 1, axes[2], axes[4]))
    stride = tl.where(axis == 0, axes[1], tl.where(axis == 1, axes[3], axes[5]))
    return steps, stride, scan % 2 == 1


@triton.jit
def locate_rows(slot, tokens, axes, SCANS: tl.constexpr, R: tl.constexpr, LAST_FIRST: tl.constexpr):
    """Locate the rows of a program in the flattened grid of all images' tokens. `axes`: see `scan_of`.

    LAST_FIRST: start at the scan's last step and go back to its first, as backward does.

    Returns:
        Whether the program has any row; the number of steps; which rows exist, (R, 1); the token of each row's first
        step, int64 (R,); `delta`, the signed distance in tokens from a step to the next.
    """
    steps, stride, backward = scan_of(slot, axes, SCANS)
    total = tokens // steps
    first = tl.program_id(0) * R
    rows = first + tl.arange(0, R)
    valid = (rows < total)[:, None]
    rows = tl.minimum(rows, total - 1)
    group = steps * stride
    from_end = backward != LAST_FIRST
    token = (rows // stride).to(tl.int64) * group + rows % stride + tl.where(from_end, (steps - 1) * stride, 0)
    return first < total, steps, valid, token, tl.where(from_end, -stride, stride).to(tl.int64)


@triton.jit
def locate_states(slot, tokens, steps, R: tl.constexpr, D: tl.constexpr):
    """Offsets of a program's rows in a tensor (S, rows, D) that has one value for each row of a scan: int64 (R, 1)."""
    rows = slot * (tokens // steps) + tl.program_id(0) * R + tl.arange(0, R)
    return rows[:, None].to(tl.int64) * D


@triton.jit
def load_weight_tile(
    weight, slot, n: tl.constexpr, k: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr,
    G: tl.constexpr, RELOAD: tl.constexpr,
):  # fmt: skip
    """Load the part of W_hh that maps inputs of part k to all gates of the units of chunk n: (KC, GP*DC).

    The gates stand side by side, padded to a power of two GP, so that one product serves them all: the cost of such a
    small product is its latency, not its arithmetic.

    RELOAD: load the tile at every use, for weights that do not fit on the chip.
    """
    GP: tl.constexpr = 4 if G > 1 else 1
    column = tl.arange(0, GP * DC)[None, :]
    gate = column // DC
    unit = n * DC + column % DC
    source = k * KC + tl.arange(0, KC)[:, None]
    pointers = weight + slot * (G * D * D) + (gate * D + unit) * D + source
    # Only a volatile load stays inside the loop. The compiler would hoist any other and keep all tiles in registers.
    # Triton 3.3 rejects a chain of three conditions, hence the parentheses.
    if (D % DC == 0 and D % KC == 0) and GP == G:
        return tl.load(pointers, volatile=RELOAD)
    else:
        return tl.load(pointers, mask=(unit < D) & (source < D) & (gate < G), other=0.0, volatile=RELOAD)


@triton.jit
def load_weight_tiles(
    weight, slot, D: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr, NC: tl.constexpr, NK: tl.constexpr,
    G: tl.constexpr, RESIDENT: tl.constexpr,
):  # fmt: skip
    """All tiles of a scan's W_hh as a flat tuple, tile (n, k) at n * NK + k. Empty unless RESIDENT."""
    tiles = ()
    if RESIDENT:
        for n in tl.static_range(NC):
            for k in tl.static_range(NK):
                tiles = tiles + (load_weight_tile(weight, slot, n, k, D, DC, KC, G, False),)
    return tiles


@triton.jit
def fetch_tile(
    tiles, weight, slot, n: tl.constexpr, k: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr,
    NK: tl.constexpr, G: tl.constexpr,
):  # fmt: skip
    """Tile (n, k): from `tiles`, or from memory if `tiles` is empty."""
    if len(tiles) > 0:
        return tiles[n * NK + k]
    else:
        return load_weight_tile(weight, slot, n, k, D, DC, KC, G, True)


@triton.jit
def select_half(x, upper: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """The lower or upper half of the columns of x (R, C). This renames registers and moves no data."""
    low, high = tl.split(tl.permute(tl.reshape(x, (R, 2, C // 2)), (0, 2, 1)))
    if upper:
        return high
    else:
        return low


@triton.jit
def select_chunk(parts, n: tl.constexpr, R: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr):
    """Chunk n, (R, DC), of `parts`, a tuple of (R, KC) where KC is one, two or four times DC."""
    RATIO: tl.constexpr = KC // DC
    x = parts[n // RATIO]
    if RATIO == 4:
        x = select_half(x, n % 4 >= 2, R, 4 * DC)
    if RATIO >= 2:
        x = select_half(x, n % 2 == 1, R, 2 * DC)
    return x


@triton.jit
def chunk_mask(n: tl.constexpr, valid, D: tl.constexpr, DC: tl.constexpr):
    """The mask of chunk n: rows that exist, `valid` (R, 1), and units below D."""
    if D % DC == 0:
        return valid
    else:
        return valid & ((n * DC + tl.arange(0, DC)[None, :]) < D)


@triton.jit
def load_chunk(pointers, n: tl.constexpr, valid, D: tl.constexpr, DC: tl.constexpr):
    """Load chunk n, (R, DC), with 0 where a row or a unit does not exist. `pointers` (R, DC) are those of chunk 0."""
    return tl.load(pointers + n * DC, mask=chunk_mask(n, valid, D, DC), other=0.0)


@triton.jit
def load_parts(
    pointers, valid, D: tl.constexpr, KC: tl.constexpr, NK: tl.constexpr, RELOAD: tl.constexpr,
):  # fmt: skip
    """Load D values as a tuple of NK parts (R, KC). `pointers` are those of part 0. RELOAD: see `load_weight_tile`."""
    parts = ()
    for k in tl.static_range(NK):
        mask = chunk_mask(k, valid, D, KC)
        parts = parts + (tl.load(pointers + k * KC, mask=mask, other=0.0, volatile=RELOAD),)
    return parts


@triton.jit
def add_parts(
    parts, pointers, valid, D: tl.constexpr, KC: tl.constexpr, NK: tl.constexpr, RELOAD: tl.constexpr,
):  # fmt: skip
    """Add `load_parts` of other pointers to `parts`."""
    added = load_parts(pointers, valid, D, KC, NK, RELOAD)
    sums = ()
    for k in tl.static_range(NK):
        sums = sums + (parts[k] + added[k],)
    return sums


@triton.jit
def store_chunk(pointers, n: tl.constexpr, value, valid, D: tl.constexpr, DC: tl.constexpr):
    """Store `value` (R, DC) as chunk n, where rows and units exist."""
    tl.store(pointers + n * DC, value, mask=chunk_mask(n, valid, D, DC))


@triton.jit
def gate_columns(D: tl.constexpr, DC: tl.constexpr, G: tl.constexpr):
    """Offsets of chunk 0 of all gates of a scan, side by side in the order of `load_weight_tile`: (1, GP*DC).

    Of three gates the last, the inner gate, takes the third place and again the fourth (see `gate_sums`).
    """
    GP: tl.constexpr = 4 if G > 1 else 1
    column = tl.arange(0, GP * DC)[None, :]
    if G == 3:
        return tl.minimum(column // DC, 2) * D + column % DC
    else:
        return column // DC * D + column % DC


@triton.jit
def gates_mask(
    n: tl.constexpr, valid, without: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, G: tl.constexpr,
):  # fmt: skip
    """The mask of chunk n of all gates side by side. Of three gates' four places it leaves out the place `without`."""
    GP: tl.constexpr = 4 if G > 1 else 1
    column = tl.arange(0, GP * DC)[None, :]
    mask = valid
    if D % DC != 0:
        mask = mask & (n * DC + column % DC < D)
    if G == 3:
        mask = mask & (column // DC != without)
    return mask


@triton.jit
def store_gates(
    pointers, n: tl.constexpr, value, valid, D: tl.constexpr, DC: tl.constexpr, G: tl.constexpr,
):  # fmt: skip
    """Store `value` (R, GP*DC) as chunk n of all gates, without the fourth place of three gates."""
    tl.store(pointers + n * DC, value, mask=gates_mask(n, valid, 3, D, DC, G))


@triton.jit
def gate_sums(
    pointers, h, tiles, weight, slot, n: tl.constexpr, valid, D: tl.constexpr, DC: tl.constexpr,
    KC: tl.constexpr, NK: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The pre-activations of chunk n of all gates side by side, W_ih·x + b + W_hh·h: fp32 (R, GP*DC).

    Of three gates the last, the inner gate, keeps the two products apart: the third place holds W_hh·h, the fourth the
    input's part, where W_hh has zeros. `pointers` are those of chunk 0.
    """
    mask = gates_mask(n, valid, 2, D, DC, G)
    sums = tl.load(pointers + n * DC, mask=mask, other=0.0).to(tl.float32)
    for k in tl.static_range(NK):
        tile = fetch_tile(tiles, weight, slot, n, k, D, DC, KC, NK, G)
        sums = tl.dot(h[k], tile, sums, input_precision=PRECISION)
    return sums


@triton.jit
def split_gates(gates, R: tl.constexpr, DC: tl.constexpr, G: tl.constexpr):
    """Split gates that stand side by side, (R, GP*DC), into a tuple of GP tensors (R, DC)."""
    if G == 1:
        return (gates,)
    else:
        # This renames registers and moves no data: a thread holds the same unit of every gate.
        by_gate = tl.permute(tl.reshape(gates, (R, 2, 2, DC)), (0, 3, 1, 2))
        even, odd = tl.split(by_gate)
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
        return first, second, third, fourth


@triton.jit
def join_gates(parts, R: tl.constexpr, DC: tl.constexpr, G: tl.constexpr):
    """The inverse of `split_gates`: join G tensors (R, DC) to one of (R, GP*DC)."""
    if G == 1:
        return parts[0]
    else:
        last = parts[2]
        if G == 4:
            last = parts[3]
        else:
            last = tl.zeros_like(last)
        by_gate = tl.join(tl.join(parts[0], parts[2]), tl.join(parts[1], last))
        return tl.reshape(tl.permute(by_gate, (0, 2, 3, 1)), (R, 4 * DC))
