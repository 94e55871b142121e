"""What the kernels with W_hh in registers share: activations, the weights and the addressing of scans. Device code.

They are written in Gluon, Triton's lower level. In Triton the compiler decides where a matrix lies, and it reads W_hh
from shared memory at every step. These kernels run the LSTM in 16 bits only. Suffixes: R rows of a tile, S scans,
D hidden units, NW warps, U = 8*NW units of a chunk, NC chunks, M = 4*U values of a chunk's gates.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

GATES = gl.constexpr(4)
GRID = ["tokens", "steps_0", "stride_0", "steps_1", "stride_1", "steps_2", "stride_2"]

# Triton 3.9 renamed the copy from global to shared memory; the old name raises an error there.
copy_async = async_copy.async_load if hasattr(async_copy, "async_load") else async_copy.async_copy_global_to_shared


@gluon.jit
def tanh(x, APPROX_TANH: gl.constexpr):
    """tanh in fp32, as in `triton_common`: one special-function instruction, or exact to fp32 rounding."""
    if APPROX_TANH:
        return gl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1)
    else:
        # The exponent is never positive, so nothing overflows at any x.
        e = gl.exp(-2.0 * gl.abs(x))
        magnitude = (1.0 - e) / (1.0 + e)
        return gl.where(x < 0.0, -magnitude, magnitude)


@gluon.jit
def sigmoid(x, APPROX_TANH: gl.constexpr):
    """The logistic function in fp32."""
    if APPROX_TANH:
        return 0.5 * tanh(0.5 * x, APPROX_TANH) + 0.5
    else:
        e = gl.exp(-gl.abs(x))
        return gl.where(x < 0.0, e, 1.0) / (1.0 + e)


@gluon.jit
def scan_geometry(slot, tokens, axes, SCANS: gl.constexpr, LAST_FIRST: gl.constexpr):
    """The scan of a slot: (steps, rows, walk). `walk` is what `locate` and `advance` take.

    Rows are the scan's sequences. `axes` and SCANS are as in `triton_common.scan_of`. LAST_FIRST: start at the last
    step, as backward does.

    walk: the number of rows that lie side by side, and three distances in tokens: from one group of such rows to the
    next, from a row's first token to its first step, and from a step to the next (negative if the scan goes back).
    """
    scan = (SCANS >> (3 * slot)) & 7
    axis = scan // 2
    steps = gl.where(axis == 0, axes[0], gl.where(axis == 1, axes[2], axes[4]))
    stride = gl.where(axis == 0, axes[1], gl.where(axis == 1, axes[3], axes[5]))
    from_end = (scan % 2 == 1) != LAST_FIRST
    start = gl.where(from_end, (steps - 1) * stride, 0)
    delta = gl.where(from_end, -stride, stride).to(gl.int64)
    return steps, tokens // steps, (stride, steps * stride, start, delta)


@gluon.jit
def locate(tile, rows, walk, skipped, first, column, PITCH: gl.constexpr, R: gl.constexpr, LAYOUT: gl.constexpr):
    """Locate the rows of a tile at their first step, or `skipped` steps later.

    Returns:
        Offsets (R, columns) into a tensor of PITCH values a token, where the slot's values begin at `first`; which rows
        exist, (R, 1).
    """
    side_by_side, group, start, delta = walk
    row = tile * R + gl.arange(0, R, gl.SliceLayout(1, LAYOUT))
    rows_exist = row < rows
    row = gl.minimum(row, rows - 1)
    token = (row // side_by_side).to(gl.int64) * group + row % side_by_side + (start + skipped * delta)
    return (token * PITCH + first)[:, None] + column[None, :], rows_exist[:, None]


@gluon.jit
def advance(
    at, rows_exist, tile, step, steps, rows, walk, first, column,
    PITCH: gl.constexpr, R: gl.constexpr, LAYOUT: gl.constexpr,
):  # fmt: skip
    """Move from a step to the next, and from a tile's last step to the program's next tile.

    Returns the new values of the first four arguments.
    """
    at += walk[3] * PITCH
    step += 1
    if step == steps:
        step = 0
        tile += gl.num_programs(0)
        at, rows_exist = locate(tile, rows, walk, 0, first, column, PITCH, R, LAYOUT)
    return at, rows_exist, tile, step


@gluon.jit
def locate_states(slot, tile, rows, unit, D: gl.constexpr, R: gl.constexpr, LAYOUT: gl.constexpr):
    """Offsets (R, units) of a tile's rows in a tensor (S, rows, D) that has one value for each row of a scan."""
    row = slot * rows + tile * R + gl.arange(0, R, gl.SliceLayout(1, LAYOUT))
    return (row.to(gl.int64) * D)[:, None] + unit[None, :]


@gluon.jit
def load_weight(weight, rows, LAYOUT: gl.constexpr, NC: gl.constexpr, U: gl.constexpr, D: gl.constexpr,
                OPERAND: gl.constexpr, SHARED: gl.constexpr):  # fmt: skip
    """Load W_hh of a scan as operands of products: a tuple of (M, U), gates of chunk n by inputs of chunk k.

    `rows`, (M,) in LAYOUT, are the rows of `weight` for chunk 0. The tiles pass through shared memory, because loading
    an operand's registers from memory directly would touch many cache lines for each of them.
    """
    # With a buffer for each k the warps wait for each other only once for several tiles. Large tiles share one buffer.
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
def next_stage(slot, STAGES: gl.constexpr):
    """The stage after `slot` in a ring of STAGES."""
    return gl.where(slot == STAGES - 1, 0, slot + 1)
