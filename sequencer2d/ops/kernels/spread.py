"""W_hh as the kernels read it that spread it over registers, shared memory and memory: see `gluon_spread`."""

from typing import Any

from torch import Tensor

from sequencer2d.ops.launches import RegisterLaunch

REGISTERS, SHARED, MEMORY = 0, 1, 2


def pack_for_forward(weight_hh: Tensor, warps: int) -> Tensor:
    """W_hh (S, 4*D, D) as its tiles, inputs by inputs and then gates by gates; same shape.

    The gates are the left operand of the products, in the row order of `gluon_forward.split_gates`.
    """
    scans, _, hidden = weight_hh.shape
    chunks = hidden // (8 * warps)
    # pairs of gates, the two of a pair; chunk, warp and unit; chunk of inputs, and inputs from 16, 8, 2 and 1
    parts = weight_hh.contiguous().view(scans, 2, 2, chunks, warps, 8, chunks, warps // 2, 2, 4, 2)
    return parts.permute(0, 6, 3, 1, 7, 4, 5, 9, 8, 2, 10).contiguous().view(weight_hh.shape)


def pack_for_backward(weight_hh: Tensor, warps: int) -> Tensor:
    """W_hh (S, 4*D, D) as its tiles, gates by gates and then inputs by inputs; same shape.

    The gates, gate after gate, are the rows of the right operand.
    """
    scans, _, hidden = weight_hh.shape
    units = 8 * warps
    chunks = hidden // units
    tiles = weight_hh.contiguous().view(scans, 4, chunks, units, chunks, units).permute(0, 2, 4, 1, 3, 5).contiguous()
    # rows from 32, 16, 8, 2 and 1; columns from 8 and from 1
    parts = tiles.view(scans, chunks, chunks, warps, 2, 2, 4, 2, warps, 8)
    return parts.permute(0, 1, 2, 3, 8, 9, 6, 4, 5, 7).contiguous().view(weight_hh.shape)


def tile_places(launch: RegisterLaunch, hidden: int) -> dict[str, Any]:
    """PLACES and STREAMED of the kernels. The tiles from memory are spread evenly, so that loads overlap products."""
    if launch.register_tiles is None:
        return {"PLACES": (), "STREAMED": ()}
    tiles = (hidden // (8 * launch.warps)) ** 2
    streamed = max(tiles - launch.register_tiles - launch.shared_tiles, 0)
    places: list[int] = []
    for tile in range(tiles):
        if (tile + 1) * streamed // tiles > tile * streamed // tiles:
            places.append(MEMORY)
        else:
            places.append(REGISTERS if places.count(REGISTERS) < launch.register_tiles else SHARED)
    following = [-1]
    for tile in reversed(range(tiles)):
        following.append(tile if places[tile] == MEMORY else following[-1])
    return {"PLACES": tuple(places), "STREAMED": tuple(reversed(following))}
