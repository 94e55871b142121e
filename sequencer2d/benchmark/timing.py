"""How long a step takes, how much memory it needs, and what the device could do at most."""

import dataclasses
import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from sequencer2d.benchmark.workload import DTYPES

MIB = 2**20
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
Clock = Callable[[], float]
"""Seconds from any point in time, such as time.perf_counter."""
WARMUP_S = 0.3
MEASURE_S = 1.0
REPEATS = (5, 300)
LATENCY_REPEATS = 20
CEILINGS: dict[str, tuple[int, torch.dtype, int]] = {
    "cuda": (8192, torch.bfloat16, 2**30),
    "cpu": (2048, torch.float32, 2**27),
}
"""Device → side and dtype of the square matrices whose product is timed, and bytes that are copied."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """Medians over `repeats` runs, in milliseconds.

    Attributes:
        step_ms: from one step's end to the next one's, steps following each other without waiting: gives throughput.
        latency_ms: from the call until its result is there, the caller waiting each time.
        spread_percent: distance between the quartiles of the steps, as a share of the median.
        repeats: measured steps.
    """

    step_ms: float
    latency_ms: float
    spread_percent: float
    repeats: int


def measure(
    step: Callable[[], Any],
    device: torch.device,
    *,
    measure_s: float = MEASURE_S,
    warmup_s: float = WARMUP_S,
    clock: Clock = time.perf_counter,
) -> Timing:
    """Time `step`: warm up, run for about `measure_s` seconds (5 to 300 steps), take medians.

    On CUDA the steps are timed by events on the current stream, elsewhere by the clock.
    """
    estimate = _warm_up(step, device, warmup_s, clock)
    repeats = min(max(math.ceil(measure_s / estimate), REPEATS[0]), REPEATS[1])
    if device.type == "cuda":
        intervals = _cuda_intervals(step, repeats)
        waiting = _calls(step, device, min(repeats, LATENCY_REPEATS), clock)
    else:
        intervals = waiting = _calls(step, device, repeats, clock)
    step_ms = statistics.median(intervals)
    low, _, high = statistics.quantiles(intervals, n=4)
    return Timing(step_ms, statistics.median(waiting), 100 * (high - low) / step_ms, repeats)


def peak_memory_mib(step: Callable[[], Any], device: torch.device) -> float | None:
    """Most memory (MiB) that PyTorch's allocator had handed out during one step; None where it does not count (CPU).

    Weights, inputs and optimizer states are in it. Run the step once before: first runs allocate workspaces.
    """
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / MIB


def free_memory(device: torch.device) -> None:
    """Let go of what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def free_workspaces(device: torch.device) -> None:
    """Free the workspaces that matrix products keep for each stream and thread, 32 MiB each on Hopper.

    They would count as memory of whatever is measured next. No CUDA graph may be alive: it would go on writing there.
    """
    if device.type == "cuda":
        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ceilings(device: torch.device, *, clock: Clock = time.perf_counter) -> dict[str, float | str]:
    """The device's measured limits: a square matrix product of random numbers, and a copy (bytes read plus written).

    Their sizes stand in `CEILINGS`.

    Returns:
        `matmul_tflop_per_s` and `copy_tb_per_s`, and in `matmul` and `copy` what was measured, in words.
    """
    n, dtype, size = CEILINGS[device.type]
    found: dict[str, float | str] = {
        "matmul": f"{n}³ {_NAMES[dtype]}",
        "matmul_tflop_per_s": 2 * n**3 / _matmul_ms(n, dtype, device, clock) / 1e9,
        "copy": f"{size // MIB} MiB, read + write",
        "copy_tb_per_s": 2 * size / _copy_ms(size, device, clock) / 1e9,
    }
    free_memory(device)
    return found


def _matmul_ms(n: int, dtype: torch.dtype, device: torch.device, clock: Clock) -> float:
    a, b = torch.randn(n, n, device=device).to(dtype), torch.randn(n, n, device=device).to(dtype)
    product = torch.empty_like(a)
    return measure(lambda: torch.mm(a, b, out=product), device, measure_s=0.5, clock=clock).step_ms


def _copy_ms(size: int, device: torch.device, clock: Clock) -> float:
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    return measure(lambda: target.copy_(source), device, measure_s=0.5, clock=clock).step_ms


def _warm_up(step: Callable[[], Any], device: torch.device, seconds: float, clock: Clock) -> float:
    """Run the step at least three times and for `seconds`; the duration of one run, in seconds."""
    for _ in range(2):
        step()
    synchronize(device)
    start, runs = clock(), 0
    while runs == 0 or clock() - start < seconds:
        step()
        runs += 1
        synchronize(device)
    return max((clock() - start) / runs, 1e-7)


def _cuda_intervals(step: Callable[[], Any], repeats: int) -> list[float]:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    events[-1].synchronize()
    return [before.elapsed_time(after) for before, after in itertools.pairwise(events)]


def _calls(step: Callable[[], Any], device: torch.device, repeats: int, clock: Clock) -> list[float]:
    durations = []
    for _ in range(repeats):
        start = clock()
        step()
        synchronize(device)
        durations.append(1e3 * (clock() - start))
    return durations
