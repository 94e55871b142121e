"""What the kernels that keep W_hh in registers share: activations, layouts and the addressing of scans.

Gluon, Triton's lower level, because Triton itself decides where a matrix lies: it reads W_hh from shared memory at each
step. Imported only when a kernel runs. Suffixes: R rows of a tile, S scans, D hidden units, NW warps, U = 8*NW units of
a chunk, NC chunks, M = 4*U values of a chunk's gates. The LSTM in 16 bits only.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

GATES = gl.constexpr(4)

# Triton 3.9 renamed the copy from global to shared memory, and left an error under the old name.
copy_async = async_copy.async_load if hasattr(async_copy, "async_load") else async_copy.async_copy_global_to_shared


@gluon.jit
def tanh(x, FAST: gl.constexpr):
    """As in `triton_common`: one special-function instruction, or exact to fp32 rounding."""
    if FAST:
        return gl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1)
    else:
        # The exponent is never positive, so nothing overflows at any x.
        e = gl.exp(-2.0 * gl.abs(x))
        magnitude = (1.0 - e) / (1.0 + e)
        return gl.where(x < 0.0, -magnitude, magnitude)


@gluon.jit
def sigmoid(x, FAST: gl.constexpr):
    """The logistic function in fp32."""
    if FAST:
        return 0.5 * tanh(0.5 * x, FAST) + 0.5
    else:
        e = gl.exp(-gl.abs(x))
        return gl.where(x < 0.0, e, 1.0) / (1.0 + e)


@gluon.jit
def scan_of(slot, B, H, W, SCANS: gl.constexpr, REVERSED: gl.constexpr):
    """The scan in a slot: (steps, rows, lines), `lines` being what `place` and `advance` take. SCANS: two bits a slot.

    Rows are its sequences: columns of the grid for vertical scans, lines for horizontal ones. REVERSED: the scan's last
    step comes first. `lines`: rows that lie side by side; tokens from such a group to the next, from a row's beginning
    to the first step, and from a step to the next.
    """
    scan = (SCANS >> (2 * slot)) & 3
    vertical = scan // 2 == 0
    steps = gl.where(vertical, H, W)
    stride = gl.where(vertical, W, 1)
    from_end = (scan % 2 == 1) != REVERSED
    start = gl.where(from_end, (steps - 1) * stride, 0)
    hop = gl.where(from_end, -stride, stride).to(gl.int64)
    return steps, B * gl.where(vertical, W, H), (stride, gl.where(vertical, H * W, W), start, hop)


@gluon.jit
def place(tile, rows, lines, skipped, first, column, PITCH: gl.constexpr, R: gl.constexpr, LAYOUT: gl.constexpr):
    """A tile's rows at their first step, or `skipped` steps on: offsets, R by columns, and which rows exist, (R, 1).

    Offsets into a tensor of PITCH values a token, of which the slot's begin at `first`.
    """
    side_by_side, group, start, hop = lines
    row = tile * R + gl.arange(0, R, gl.SliceLayout(1, LAYOUT))
    exists = row < rows
    row = gl.minimum(row, rows - 1)
    token = (row // side_by_side).to(gl.int64) * group + row % side_by_side + (start + skipped * hop)
    return (token * PITCH + first)[:, None] + column[None, :], exists[:, None]


@gluon.jit
def advance(
    at, exists, tile, step, steps, rows, lines, first, column,
    PITCH: gl.constexpr, R: gl.constexpr, LAYOUT: gl.constexpr,
):  # fmt: skip
    """From a step's place to the next one's: of the program's next tile behind the last. Returns the first four."""
    at += lines[3] * PITCH
    step += 1
    if step == steps:
        step = 0
        tile += gl.num_programs(0)
        at, exists = place(tile, rows, lines, 0, first, column, PITCH, R, LAYOUT)
    return at, exists, tile, step


@gluon.jit
def load_weight(weight, rows, LAYOUT: gl.constexpr, NC: gl.constexpr, U: gl.constexpr, D: gl.constexpr,
                OPERAND: gl.constexpr, SHARED: gl.constexpr):  # fmt: skip
    """W_hh of a scan as operands of products: a tuple of (M, U), tile (n, k), gates of chunk n by inputs of chunk k.

    rows: of `weight`, (M,) in LAYOUT, the tile's for chunk 0. Through shared memory, a line of memory at a time: an
    operand's registers, filled from memory, would take many lines each.
    """
    # A buffer for each k: the warps wait for each other once for several tiles. One alone where tiles are large.
    BUFFERS: gl.constexpr = NC if U < 64 else 1
    buffers = ()
    for _ in gl.static_range(BUFFERS):
        buffers = buffers + (gl.allocate_shared_memory(weight.dtype.element_ty, [rows.shape[0], U], SHARED),)
    column = gl.arange(0, U, gl.SliceLayout(0, LAYOUT))
    loaded = ()
    for n in gl.static_range(NC):
        for k in gl.static_range(NC):
            loaded = loaded + (gl.load(weight + ((rows + n * U) * D)[:, None] + (column + k * U)[None, :]),)
    w = ()
    for first in gl.static_range(0, NC * NC, BUFFERS):
        for k in gl.static_range(BUFFERS):
            buffers[k].store(loaded[first + k])
        for k in gl.static_range(BUFFERS):
            w = w + (buffers[k].load(OPERAND),)
    return w


@gluon.jit
def next_slot(slot, STAGES: gl.constexpr):
    """The place after `slot` in a ring of STAGES."""
    return gl.where(slot == STAGES - 1, 0, slot + 1)


def swizzled(columns: int) -> gl.SwizzledSharedLayout:
    """For tiles of rows of `columns` 16-bit values, read by ldmatrix: eight rows' 16 bytes lie in different banks."""
    phase = max(64 // columns, 1)
    return gl.SwizzledSharedLayout(vec=8, per_phase=phase, max_phase=8 // phase, order=[1, 0])


def copies(warps: int, columns: int) -> gl.BlockedLayout:
    """For copies of tiles of `columns` 16-bit values: 16 bytes a thread, neighbours side by side.

    What lies side by side in memory must do so in shared memory: the halves of a sector are else fetched one by one.
    """
    across = min(columns // 8, 32)
    return gl.BlockedLayout([1, 8], [32 // across, across], [warps, 1], [1, 0])
