"""What a worker sends for a batch that the device makes: all its numbers in one buffer.

One buffer means one copy to the device. Whatever can be computed without pixels is computed by the worker: which
images share an operation, and the matrices of those that move pixels.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sequencer2d.data.draws import Draws, Operation
from sequencer2d.data.operations import AFFINE, MATRICES, kind_of

if TYPE_CHECKING:
    from typing_extensions import Self


class Step(NamedTuple):
    """One operation for some images of a batch; its numbers stand in the plan's buffer."""

    kind: str
    """`operations.AFFINE`, or a key of `operations.OPERATIONS`."""
    resample: int
    """Pillow's filter for operations that move pixels; 0 for the others."""
    members: slice
    """Places of the images in the batch, int64 (M,)."""
    arguments: slice
    """float64 (M,), or (6 M,) for affine maps."""


class Rows(NamedTuple):
    """The numbers that every image of the batch has, int64 (B,) each."""

    indices: Tensor
    """Number of the image in the source."""
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    """The part of the image that is taken, in pixels."""
    filters: Tensor
    """`pixel_ops.BILINEAR` or `BICUBIC`."""
    flips: Tensor
    """1 where the image is mirrored."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """What a policy does to the images of one batch.

    Attributes:
        buffer: int64 (n,): what the slices point to. Floating-point numbers stand in it as their bits.
        steps: the operations, in order.
    """

    buffer: Tensor
    steps: tuple[Step, ...]

    def members(self, step: Step) -> Tensor:
        """Places of a step's images in the batch, int64 (M,)."""
        return self.buffer[step.members]

    def arguments(self, step: Step) -> Tensor:
        """Arguments of a step, float64 (M,), or (M, 6) for affine maps."""
        values = self.buffer[step.arguments].view(torch.float64)
        return values.view(-1, 6) if step.kind == AFFINE else values

    def pin_memory(self) -> Self:
        """The same in page-locked memory. The `DataLoader` calls it in a thread of its own."""
        return dataclasses.replace(self, buffer=self.buffer.pin_memory())

    def to(self, device: torch.device) -> Self:
        """The same on `device`: one copy, for which the CPU does not wait if the buffer is page-locked."""
        return dataclasses.replace(self, buffer=self.buffer.to(device, non_blocking=True))


@dataclasses.dataclass(frozen=True)
class Plan(Steps):
    """How to make one batch: which images, which part of each, then the steps. `buffer` begins with the rows of `Rows`.

    Attributes:
        size: images of the batch.
        rows_first: the images whose rows are resized before their columns, as `Step.members`.
    """

    size: int
    rows_first: slice

    @property
    def rows(self) -> Rows:
        """What every image has."""
        count = len(Rows._fields)
        return Rows(*self.buffer[: count * self.size].view(count, self.size).unbind())


def make_plan(indices: np.ndarray, draws: Draws, size: tuple[int, int]) -> Plan:
    """Pack the draws of a batch.

    Args:
        indices: int64 (B,), numbers of the images in the source.
        draws: what happens to each image.
        size: (height, width) of the batch in pixels.
    """
    buffer = _Buffer()
    buffer.add(np.stack([indices, *draws.crops.T, draws.filters, draws.flips]).ravel())
    late = np.flatnonzero(_rows_first(draws.crops, size)) if pillow_may_resize_rows_first() else np.zeros(0, int)
    rows_first = buffer.add(late)
    steps = _pack(draws.operations, size, buffer)
    return Plan(torch.from_numpy(buffer.joined()), steps, len(indices), rows_first)


def make_steps(operations: Sequence[Sequence[Operation]], size: tuple[int, int]) -> Steps:
    """Pack the operations of each image of a batch of (height, width) `size`."""
    buffer = _Buffer()
    steps = _pack(operations, size, buffer)
    return Steps(torch.from_numpy(buffer.joined()), steps)


class _Buffer:
    """Numbers one after another, each part at a known place."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._length = 0

    def add(self, values: np.ndarray) -> slice:
        """Append int64 or float64 (n,); where it stands."""
        start, self._length = self._length, self._length + len(values)
        self._parts.append(values.view(np.int64))
        return slice(start, self._length)

    def joined(self) -> np.ndarray:
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.int64)


def _pack(operations: Sequence[Sequence[Operation]], size: tuple[int, int], buffer: _Buffer) -> tuple[Step, ...]:
    """The steps of a batch, layer by layer; their numbers go into `buffer`."""
    steps = []
    for layer in range(max(map(len, operations), default=0)):
        for (kind, resample), members in _groups(operations, layer).items():
            values = [_argument(operations[index][layer], size) for index in members]
            places = buffer.add(np.array(members))
            steps.append(Step(kind, resample, places, buffer.add(np.array(values, np.float64).ravel())))
    return tuple(steps)


def _groups(operations: Sequence[Sequence[Operation]], layer: int) -> dict[tuple[str, int], list[int]]:
    """The images that need the same operation as their `layer`-th, by its kind and filter."""
    groups: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for index, steps in enumerate(operations):
        if layer < len(steps):
            groups[kind_of(steps[layer].name), steps[layer].resample].append(index)
    return groups


def _argument(step: Operation, size: tuple[int, int]) -> float | tuple[float, ...]:
    return MATRICES[step.name](step.value, *size) if step.name in MATRICES else step.value


def _rows_first(crops: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Whether Pillow resizes the rows of each crop first: where it drops more than twice as many rows as columns."""
    dropped_rows, dropped_columns = crops[:, 2] - size[0], crops[:, 3] - size[1]
    return (dropped_rows > 0) & (dropped_rows > 2 * dropped_columns)


@functools.cache
def pillow_may_resize_rows_first() -> bool:
    """Whether this Pillow chooses the order of the two passes; before version 13 columns always came first.

    The image between the passes is rounded to whole numbers, so that the order shows in the pixels.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (64, 8), dtype=np.uint8)
    image, bilinear = Image.fromarray(pixels), Image.Resampling.BILINEAR
    columns_first = image.resize((6, 64), bilinear).resize((6, 9), bilinear)
    return image.resize((6, 9), bilinear).tobytes() != columns_first.tobytes()
