"""Batches from the loader to the device, one ahead of the step that uses them."""

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from sequencer2d.data.samples import map_tensors

Batch = tuple[Tensor, Any]
"""Images, and the targets as the task collates them."""


def to_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The (images, targets) of `batches` on `device`.

    On CUDA the next batch is copied on a stream of its own while the current one is in use; pinned batches are copied
    without the CPU waiting.
    """
    if device.type != "cuda":
        yield from (map_tensors(lambda tensor: tensor.to(device), batch) for batch in batches)
        return
    stream = _copy_stream(device)
    waiting: deque[tuple[Batch, torch.cuda.Event]] = deque()
    for batch in batches:
        with torch.cuda.stream(stream):
            copied = map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)
        waiting.append((copied, stream.record_event()))
        if len(waiting) > 1:
            yield _deliver(*waiting.popleft())
    while waiting:
        yield _deliver(*waiting.popleft())


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all epochs: PyTorch keeps freed memory for the stream that allocated it."""
    return torch.cuda.Stream(device)


class RunAhead:
    """Keeps the CPU at most `steps` steps ahead of the GPU, so that queued batches and the clock stay in bounds."""

    def __init__(self, device: torch.device, steps: int = 4) -> None:
        self._cuda = device.type == "cuda"
        self._events: deque[torch.cuda.Event] = deque()
        self._steps = steps

    def mark(self) -> None:
        """Call it after each step: it waits for the step that was launched `steps` steps earlier."""
        if not self._cuda:
            return
        event = torch.cuda.Event()
        event.record()
        self._events.append(event)
        if len(self._events) > self._steps:
            self._events.popleft().synchronize()


def _deliver(batch: Batch, copied: torch.cuda.Event) -> Batch:
    current = torch.cuda.current_stream()
    current.wait_event(copied)

    def keep(tensor: Tensor) -> Tensor:
        tensor.record_stream(current)
        return tensor

    return map_tensors(keep, batch)  # type: ignore[no-any-return]
