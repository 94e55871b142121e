"""W_hh spread over registers, shared memory and memory, for hidden sizes that registers alone cannot hold. Device code.

W_hh of a scan is cut into tiles, gates of chunk n by inputs of chunk k, which lie in memory one after another in the
order of their use. A tile holds its values as the threads hold them as an operand of `mma.sync`: 8 values of a thread,
32 threads, the warps, and then the next 8 values. So 16 bytes a thread, neighbors side by side, are read from a tile in
shared memory or in memory, whatever its rows and columns are. The functions in `spread` pack W_hh so.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

# Where a tile lies.
REGISTERS = gl.constexpr(0)
SHARED = gl.constexpr(1)
MEMORY = gl.constexpr(2)


@gluon.jit
def load_packed(weight, p: gl.constexpr, NW: gl.constexpr, U: gl.constexpr):
    """Load tile p of `weight` as it is packed. The load is volatile, so it stays inside a loop."""
    values: gl.constexpr = gl.BlockedLayout([8], [32], [NW], [0])
    SIZE: gl.constexpr = 4 * U * U
    return gl.load(weight + p * SIZE + gl.arange(0, SIZE, values), volatile=True)


@gluon.jit
def unpack(packed, NW: gl.constexpr, U: gl.constexpr, FORWARD: gl.constexpr, OPERAND: gl.constexpr):
    """A packed tile as an operand (4*U, U). This renames registers and moves no data."""
    if FORWARD:
        # By bits: row 2*U; columns from 16; rows from 16; rows 1 to 4; columns 2 and 4; column 8; row 8; column 1.
        parts = packed.reshape([2, U // 16, NW, 8, 4, 2, 2, 2]).permute([0, 2, 6, 3, 1, 5, 4, 7])
    else:
        # By bits: rows from 32; columns from 8; columns 1 to 4; rows 2 and 4; row 16; row 8; row 1.
        parts = packed.reshape([U // 8, NW, 8, 4, 2, 2, 2]).permute([0, 4, 5, 3, 6, 1, 2])
    return gl.convert_layout(parts.reshape([4 * U, U]), OPERAND, assert_trivial=True)


@gluon.jit
def place_tiles(
    weight, PLACES: gl.constexpr, NW: gl.constexpr, U: gl.constexpr, FORWARD: gl.constexpr, OPERAND: gl.constexpr
):
    """A tuple with an entry for each tile: the operand, a buffer in shared memory, or nothing for one in memory."""
    flat: gl.constexpr = gl.SwizzledSharedLayout(vec=1, per_phase=1, max_phase=1, order=[0])
    tiles = ()
    for p in gl.static_range(len(PLACES)):
        if PLACES[p] == REGISTERS:
            tiles = tiles + (unpack(load_packed(weight, p, NW, U), NW, U, FORWARD, OPERAND),)
        elif PLACES[p] == SHARED:
            buffer = gl.allocate_shared_memory(weight.dtype.element_ty, [4 * U * U], flat)
            buffer.store(load_packed(weight, p, NW, U))
            tiles = tiles + (buffer,)
        else:
            tiles = tiles + (0,)
    return tiles


@gluon.jit
def first_from_memory(weight, STREAMED: gl.constexpr, NW: gl.constexpr, U: gl.constexpr):
    """Begin to load the first tile that a step reads from memory; 0 if there is none."""
    if STREAMED[0] >= 0:
        return load_packed(weight, STREAMED[0], NW, U)
    else:
        return 0


@gluon.jit
def fetch_tile(
    tiles, ahead, weight, p: gl.constexpr, PLACES: gl.constexpr, STREAMED: gl.constexpr, NW: gl.constexpr,
    U: gl.constexpr, FORWARD: gl.constexpr, OPERAND: gl.constexpr,
):  # fmt: skip
    """Tile p as an operand, and what is loaded from memory ahead of its use.

    STREAMED: the first tile that is read from memory and then, for each tile, the next one after it; -1 for none.
    """
    if PLACES[p] == REGISTERS:
        return tiles[p], ahead
    elif PLACES[p] == SHARED:
        packed = tiles[p].load(gl.BlockedLayout([8], [32], [NW], [0]))
        return unpack(packed, NW, U, FORWARD, OPERAND), ahead
    else:
        tile = unpack(ahead, NW, U, FORWARD, OPERAND)
        if STREAMED[p + 1] >= 0:
            ahead = load_packed(weight, STREAMED[p + 1], NW, U)
        return tile, ahead
