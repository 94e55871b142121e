"""Times a recurrent layer for `benchmarks.recurrences`: called from Python, and as a CUDA graph."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d.benchmark.timing import synchronize

KINDS = ("forward", "training")


# Short calls are repeated for so long, because the host needs a while to reach its pace.
_LEAST_MS, _MOST_REPEATS = 60.0, 150


def milliseconds(call: Callable[[], Any], device: str, repeats: int) -> float:
    """Median time of a call, after two that warm it up. Short calls are repeated more often than `repeats`."""
    call()
    first = _time(call, device)
    wanted = int(_LEAST_MS / max(first, 1e-3)) if device == "cuda" else 0
    times = [_time(call, device) for _ in range(max(repeats, min(wanted, _MOST_REPEATS)))]
    return sorted(times)[len(times) // 2]


def _time(call: Callable[[], Any], device: str) -> float:
    """Milliseconds of one call on an idle device."""
    synchronize(torch.device(device))
    if device != "cuda":
        begin = time.perf_counter()
        call()
        return (time.perf_counter() - begin) * 1e3
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    synchronize(torch.device(device))
    return start.elapsed_time(end)


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """The launches of a call as one CUDA graph, for which the GPU does not wait for Python."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def time_layer(
    layer: nn.Module, x: Tensor, grad: Tensor, device: str, repeats: int, graphs: bool
) -> dict[str, float | None]:
    """Milliseconds of inference, and of a training step's forward and backward: called from Python, and as graphs.

    A time as a graph is None without `graphs`, and where the layer cannot be captured.
    """
    leaf = x.detach().requires_grad_()
    inputs = [leaf, *layer.parameters()]

    def infer() -> None:
        with torch.no_grad():
            layer(x)

    def train() -> None:
        torch.autograd.grad(layer(leaf)[0], inputs, grad)

    times: dict[str, float | None] = {}
    for kind, call in zip(KINDS, (infer, train), strict=True):
        times[kind], times[f"{kind}_graph"] = milliseconds(call, device, repeats), None
        if graphs:
            with contextlib.suppress(RuntimeError):
                times[f"{kind}_graph"] = milliseconds(captured(call), device, repeats)
    return times
