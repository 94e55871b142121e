"""Scans: along which axis of a grid, and in which direction, a recurrence runs.

A grid of tokens has one axis or more: (B, T, C) is a sequence, (B, H, W, C) an image's tokens, (B, T, H, W, C) a
video's. Each axis has two scans, numbered 2 * axis for forward and 2 * axis + 1 for backward. In an image 0 and 1 are
vertical, 2 and 3 horizontal. Everything that depends on a scan's axis or direction reads it here.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Walk(NamedTuple):
    """Where the sequences of a scan lie in a grid whose tokens are numbered in the order of memory.

    Sequence r starts at token (r // stride) * group + r % stride.

    Attributes:
        steps: the tokens of one sequence.
        stride: the distance in tokens from one step to the next. As many sequences lie side by side.
        group: the distance in tokens from such a group of sequences to the next, steps * stride.
    """

    steps: int
    stride: int
    group: int


class Scan(NamedTuple):
    """One row: an axis of the grid, counted from the first after the batch, and whether the scan runs from its end."""

    axis: int
    reverse: bool

    @classmethod
    def numbered(cls, number: int) -> "Scan":
        """The scan with a number as in `rnn2d`'s `scans`."""
        return cls(number // 2, number % 2 == 1)

    @property
    def number(self) -> int:
        """The number of the scan, as in `rnn2d`'s `scans`."""
        return 2 * self.axis + self.reverse

    @property
    def dim(self) -> int:
        """The dimension of the axis in a tensor (B, *grid, C)."""
        return 1 + self.axis

    def order(self, steps: int) -> range:
        """The positions of the axis in the order in which the scan visits them."""
        return range(steps - 1, -1, -1) if self.reverse else range(steps)

    def walk(self, sizes: Sequence[int]) -> Walk:
        """Steps, stride and group in a grid of these sizes, batch and channels not among them."""
        stride = 1
        for size in sizes[self.axis + 1 :]:
            stride *= size
        return Walk(sizes[self.axis], stride, sizes[self.axis] * stride)


def scans_of(axes: Sequence[int], bidirectional: bool) -> tuple[int, ...]:
    """The numbers of the scans of some axes, forward and, if bidirectional, backward."""
    directions = (False, True) if bidirectional else (False,)
    return tuple(Scan(axis, reverse).number for axis in axes for reverse in directions)


# The scans over the only axis of sequences by their number: forward and, if there are two, backward.
SEQUENCE_SCANS = {1: scans_of([0], False), 2: scans_of([0], True)}


def by_axis(scans: Sequence[int]) -> dict[int, list[int]]:
    """The slots of each axis that occurs in `scans`, by axis in ascending order."""
    axes = sorted({Scan.numbered(number).axis for number in scans})
    return {axis: [slot for slot, number in enumerate(scans) if Scan.numbered(number).axis == axis] for axis in axes}


def is_reverse(number: int) -> bool:
    """Whether the scan with a number runs from the end of its axis to the beginning."""
    return Scan.numbered(number).reverse


def time_first(axis: int, dims: int) -> tuple[list[int], list[int]]:
    """The order of dimensions that moves an axis of (B, *grid, C), `dims` dimensions, to the front, and the inverse."""
    order = [1 + axis, *(dim for dim in range(dims) if dim != 1 + axis)]
    return order, [order.index(dim) for dim in range(dims)]
