"""A copy of a block's weights in the dtype of its products, those of all scans in one tensor.

It is made at each call. A copy kept between calls would have to be thrown away whenever a weight changes, and not every
change can be seen: writing through `Tensor.data`, as older optimizers do, and FSDP's gathering into the same memory
leave a tensor's version as it was. What is kept between calls without gradients is the memory that the copy goes to,
because small batches wait for the host, and to allocate and to cut memory takes it longer than to launch the copy.

Suffixes: S scans, G gates, C channels, D hidden units, M hidden channels of the MLP.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Values after which a tensor in a common piece of memory begins: 16 bytes in every dtype.
_ALIGNED = 8
# Pieces of memory that a thread keeps. Blocks of one shape on one stream share one; S has two shapes.
MAX_ROOMS = 8


class Packed(NamedTuple):
    """The weights of a block's products in their dtype, those of all scans in one tensor, `bias` the sum of both."""

    weight_ih: Tensor  # (S*G*D, C)
    weight_hh: Tensor  # (S, G*D, D)
    bias: Tensor  # (S*G*D,)
    fc: Tensor  # (C, S*D)
    fc_bias: Tensor
    fc1: Tensor  # (M, C)
    fc1_bias: Tensor
    fc2: Tensor  # (C, M)
    fc2_bias: Tensor


class _Room(NamedTuple):
    """Memory for a copy.

    Attributes:
        copies: views of it, one for each weight that is copied, in the order of the weights.
        biases: views of it, the biases of the input products of all scans and those of the recurrent ones.
        packed: views of it in the shapes of the products: `weight_ih`, `weight_hh` and `bias`, then those of the
            linear layers if these are copied.
    """

    copies: list[Tensor]
    biases: list[Tensor]
    packed: tuple[Tensor, ...]


class _Rooms(threading.local):
    """A thread's rooms. On one stream, what a call reads was copied before the next one copies to the same place."""

    def __init__(self) -> None:
        self.by_key: OrderedDict[tuple[Any, ...], _Room] = OrderedDict()


_ROOMS = _Rooms()


def pack(weights: Sequence[Tensor], slots: int, dtype: torch.dtype, *, keep: bool) -> Packed:
    """Copy the recurrent weights and, where the dtype is another one, those of the linear layers; add the biases.

    Args:
        weights: in the order of `block.run_block`.
        slots: scans.
        dtype: of the copy.
        keep: whether the copy is read after the next call, by backward; otherwise the next call may overwrite it.
    """
    linear, is_cast = weights[4 * slots : -4], weights[0].dtype is not dtype
    room = _new_room(weights, slots, dtype) if keep or _is_captured(weights[0]) else _kept_room(weights, slots, dtype)
    torch._foreach_copy_(room.copies, list(weights[:-4] if is_cast else weights[: 4 * slots]))
    torch.add(*room.biases, out=room.packed[2])
    return Packed(*room.packed) if is_cast else Packed(*room.packed, *linear)


def _is_captured(weight: Tensor) -> bool:
    """Whether the calls become a part of a CUDA graph, which runs at any time and so needs memory of its own."""
    return weight.is_cuda and torch.cuda.is_current_stream_capturing()


def _kept_room(weights: Sequence[Tensor], slots: int, dtype: torch.dtype) -> _Room:
    first, rooms = weights[0], _ROOMS.by_key
    stream = torch._C._cuda_getCurrentRawStream(first.device.index) if first.is_cuda else 0
    # These sizes determine all others; see `block.takes`.
    sizes = first.shape, weights[slots].shape[1], weights[4 * slots + 2].shape[0]
    key = (sizes, slots, first.dtype, dtype, first.device, stream)
    room = rooms.get(key)
    if room is None:
        while len(rooms) >= MAX_ROOMS:
            rooms.popitem(last=False)
        with torch.inference_mode(False):  # as later calls may be outside of it
            room = rooms[key] = _new_room(weights, slots, dtype)
    else:
        rooms.move_to_end(key)
    return room


def _new_room(weights: Sequence[Tensor], slots: int, dtype: torch.dtype) -> _Room:
    (rows, channels), hidden, first = weights[0].shape, weights[slots].shape[1], weights[0]
    copied = weights[4 * slots : -4] if first.dtype is not dtype else ()
    sizes = [slots * rows * channels, slots * rows * hidden, 2 * slots * rows, slots * rows, *map(Tensor.numel, copied)]
    weight_ih, weight_hh, biases, bias, *linear = pieces(first, dtype, sizes)
    weight_ih, weight_hh = weight_ih.view(-1, channels), weight_hh.view(-1, hidden)
    linear = [
        piece if weight.dim() == 1 else piece.view(weight.shape) for piece, weight in zip(linear, copied, strict=True)
    ]
    copies = [*cut(weight_ih, rows), *cut(weight_hh, rows), *cut(biases, rows), *linear]
    packed = (weight_ih, weight_hh.view(slots, rows, hidden), bias, *linear)
    return _Room(copies, cut(biases, slots * rows), packed)


def cut(tensor: Tensor, rows: int) -> list[Tensor]:
    """A contiguous tensor in pieces of so many rows. It is the way with the fewest calls of operators inside."""
    return list(torch.unsafe_split_with_sizes(tensor, [rows] * (tensor.shape[0] // rows)))


def pieces(like: Tensor, dtype: torch.dtype, sizes: Sequence[int]) -> list[Tensor]:
    """Vectors of these sizes in one piece of memory, each at an address that kernels take."""
    padded = [-(-size // _ALIGNED) * _ALIGNED for size in sizes]
    parts = torch.unsafe_split_with_sizes(like.new_empty(sum(padded), dtype=dtype), padded)
    return [piece if size == room else piece[:size] for piece, size, room in zip(parts, sizes, padded, strict=True)]
