"""Which CUDA graph serves a batch: one of its own, or a larger one that the batch is padded for. No CUDA in here."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

# Graphs of a model share their memory; what each adds is its input, its output and a list of launches.
MAX_GRAPHS = 32
# A graph is captured when it would have served two calls, as capturing costs as much as many calls. Where another would
# have to give way, it must be wanted more often: shapes that take turns would otherwise be captured for ever.
SIGHTINGS, SIGHTINGS_CROWDED = 2, 16
# The call in a row with the same batch at which it gets a graph of its own although a larger one serves it.
IN_A_ROW = 4
# A batch is padded to at most this many times its images.
MOST_PADDING = 2
# Pixels of a batch up to which padding takes less time than launching without a graph. From 64 images of 224×224 on,
# the GPU is busy for as long as the host needs for the launches. This is an estimate from the time of an image.
PADDED_PIXELS = 64 * 224 * 224
_MAX_COUNTED = 1024

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Choice(Generic[Value]):
    """What to do with a call: replay `graph`, or capture one for `capture` images, or run without, padded to `run`."""

    graph: Value | None = None
    capture: int | None = None
    run: int | None = None


@dataclasses.dataclass
class _Sightings:
    """Calls that a graph which does not exist would have served."""

    batch: int
    count: int = 0
    is_one_batch: bool = True


class GraphTable(Generic[Value]):
    """A bounded table of graphs by kind and batch. When it is full, the one that was not used for longest is dropped.

    A kind is all that calls must have in common to be served by one graph, but for the batch: the image size.
    """

    def __init__(self, most: int = MAX_GRAPHS) -> None:
        self._most = most
        self._graphs: OrderedDict[tuple[Hashable, int], Value] = OrderedDict()
        self._sightings: OrderedDict[tuple[Hashable, int], _Sightings] = OrderedDict()
        self._in_a_row: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()  # kind → batch, calls

    def __len__(self) -> int:
        return len(self._graphs)

    def __contains__(self, key: tuple[Hashable, int]) -> bool:
        return key in self._graphs

    def choose(
        self, kind: Hashable, batch: int, largest: int = 0, ready: Callable[[], int] | None = None
    ) -> Choice[Value]:
        """Count a call and say what serves it.

        Args:
            kind: of the call.
            batch: its images.
            largest: images to which a batch may be padded; 0: not at all.
            ready: gives the smallest batch from this one on that runs without compiling; none: this one.
        """
        own = self._graphs.get((kind, batch))
        if own is not None:
            self._graphs.move_to_end((kind, batch))
            self._in_a_row.pop(kind, None)
            return Choice(graph=own)
        in_a_row = self._count_in_a_row(kind, batch)
        ready_batch = batch if ready is None else ready()
        padded = max(round_up(batch) if round_up(batch) <= largest else batch, ready_batch)
        sightings = self._see(kind, padded, batch)
        is_crowded = len(self) >= self._most
        if in_a_row >= (SIGHTINGS_CROWDED if is_crowded else IN_A_ROW):
            return Choice(capture=batch)
        other = self._smallest(kind, batch, max(padded, min(largest, MOST_PADDING * batch)))
        if other is not None:
            return Choice(graph=other)
        if sightings.count >= (SIGHTINGS_CROWDED if is_crowded else SIGHTINGS):
            self._in_a_row[kind] = batch, in_a_row - 1  # once the graph is there, the same call comes again
            return Choice(capture=batch if sightings.is_one_batch and ready_batch == batch else padded)
        return Choice(run=ready_batch)

    def put(self, kind: Hashable, batch: int, graph: Value) -> None:
        """Keep a graph for this many images."""
        while len(self._graphs) >= self._most:
            self._graphs.popitem(last=False)
        self._graphs[kind, batch] = graph
        self._sightings.pop((kind, round_up(batch)), None)
        self._sightings.pop((kind, batch), None)

    def clear(self) -> None:
        """Forget all graphs and calls."""
        for table in (self._graphs, self._sightings, self._in_a_row):
            table.clear()

    def _count_in_a_row(self, kind: Hashable, batch: int) -> int:
        before, calls = self._in_a_row.pop(kind, (batch, 0))
        calls = calls + 1 if before == batch else 1
        self._in_a_row[kind] = batch, calls
        _bound(self._in_a_row)
        return calls

    def _see(self, kind: Hashable, padded: int, batch: int) -> _Sightings:
        sightings = self._sightings.pop((kind, padded), None) or _Sightings(batch)
        sightings.count += 1
        sightings.is_one_batch &= sightings.batch == batch
        self._sightings[kind, padded] = sightings
        _bound(self._sightings)
        return sightings

    def _smallest(self, kind: Hashable, at_least: int, at_most: int) -> Value | None:
        """The graph of fewest images between two numbers, marked as used."""
        found = [images for known, images in self._graphs if known == kind and at_least <= images <= at_most]
        if not found:
            return None
        self._graphs.move_to_end((kind, min(found)))
        return self._graphs[kind, min(found)]


def round_up(batch: int) -> int:
    """The next batch of 1, 2, 3, 4, 6, 8, 12, 16, 24, …, at most a half more."""
    power = 1 << (batch - 1).bit_length()
    return power // 4 * 3 if power >= 4 and batch <= power // 4 * 3 else power


def pad_batch(images: Tensor, batch: int) -> Tensor:
    """Images (B, …) with zeros behind them, (batch, …)."""
    if len(images) == batch:
        return images
    padded = images.new_zeros(batch, *images.shape[1:])
    padded[: len(images)] = images
    return padded


def first_images(output: Any, batch: int, of: int) -> Any:
    """What belongs to the first images of a batch `of` so many, in an output of tensors (of, …): views of it.

    If these are all images, it is the output itself, whatever it holds.
    """
    return output if batch == of else tree_map_only(Tensor, lambda value: value[:batch], output)


def own_memory(output: Any) -> Any:
    """A copy of every tensor in an output."""
    return tree_map_only(Tensor, torch.clone, output)


def _bound(table: OrderedDict[Any, Any]) -> None:
    if len(table) > _MAX_COUNTED:
        table.popitem(last=False)
