"""Eager steps: how fast they are, and where the host's time goes.

    python -m benchmarks.eager --output eager.json

Each row is a model, a mode and a batch, in bf16: images/s, the milliseconds that the host needs to launch a step while
the device waits for nothing, and per step the launches, the calls of PyTorch's operators, and the Python functions that
take most of the host's time. Ours is compared with fp64 first; a row that fails has no rate.
"""

import argparse
import cProfile
import itertools
import pstats
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.record import command_line, origin, write_result
from sequencer2d.benchmark import timing
from sequencer2d.benchmark.cases import Case
from sequencer2d.benchmark.contenders import parse_contender
from sequencer2d.benchmark.forms import prepare
from sequencer2d.benchmark.session import Session

NAME, SCRIPT = "eager", "benchmarks.eager"
MODELS = ("sequencer2d_s", "timm:sequencer2d_s@fuse", "convnext_tiny", "timm:sequencer2d_s")
# Batches by mode.
BATCHES = {"training": (64, 128), "inference": (1, 64, 128)}
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
TOP = 25


def host_ms(step: Callable[[], Any], device: torch.device, repeats: int = 10) -> float:
    """Median milliseconds from the start of a step, with an idle device, until its last launch is queued."""
    times = []
    for _ in range(repeats):
        timing.synchronize(device)
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    timing.synchronize(device)
    return statistics.median(times)


def counts(step: Callable[[], Any], device: torch.device) -> dict[str, int]:
    """Launches and calls of operators in one step. Operators that call others count with them."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        step()
        timing.synchronize(device)
    names = [event.name for event in profiler.events()]
    return {
        "launches": sum(name in LAUNCHES for name in names),
        "operators": sum(name.startswith(("aten::", "sequencer2d::")) for name in names),
        "autograd_nodes": sum(name.startswith("autograd::engine::evaluate_function") for name in names),
    }


def functions(step: Callable[[], Any], device: torch.device) -> list[dict[str, Any]]:
    """The Python functions in which a step spends most time of their own, in milliseconds under a profiler."""
    profiler = cProfile.Profile()
    timing.synchronize(device)
    profiler.enable()
    step()
    profiler.disable()
    timing.synchronize(device)
    rows = []
    for (path, line, name), (_, calls, own, cumulative, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        where = "/".join(Path(path).parts[-2:]) if line else ""
        rows.append({"function": f"{where}:{line} {name}" if line else name, "calls": calls})
        rows[-1] |= {"own_ms": round(1e3 * own, 3), "with_callees_ms": round(1e3 * cumulative, 3)}
    return sorted(rows, key=lambda row: -row["own_ms"])[:TOP]


def measure(name: str, mode: str, batch: int, size: int, device: torch.device, measure_s: float) -> dict[str, Any]:
    """One row."""
    case = Case(parse_contender(name), mode, "bf16", batch, size, ("eager",))
    session = Session(case, device, measure_s=measure_s, clock=time.perf_counter)
    row = {"model": name, "mode": mode, "batch": batch, "size": size, **session.row("eager")}
    step = prepare(session.work, "eager").run
    for _ in range(2):
        step()
    return {
        **row,
        "host_ms": round(host_ms(step, device), 3),
        **counts(step, device),
        "functions": functions(step, device),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--modes", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--batches", nargs="+", type=int, help="images; default: by mode")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--measure-s", type=float, default=0.5, help="seconds of timed steps of a row")
    parser.add_argument("--time-limit", type=float, default=85, help="seconds after which no further row begins")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/eager.json")
    args = parser.parse_args()
    started = time.monotonic()
    device = torch.device(args.device)
    torch.backends.cudnn.benchmark = True
    rows = []
    for mode, name in itertools.product(args.modes, args.models):
        for batch in args.batches or BATCHES[mode]:
            if time.monotonic() - started > args.time_limit:
                print(f"out of time, not measured: {name}, {mode}, {batch}")
                continue
            rows.append(measure(name, mode, batch, args.size, device, args.measure_s))
            shown = ("model", "mode", "batch", "images_per_s", "host_ms", "launches", "operators", "error")
            print(f"{time.monotonic() - started:5.1f} s", {key: rows[-1].get(key) for key in shown}, flush=True)
            timing.free_memory(device)
            write_result({**origin(NAME, SCRIPT, command_line(SCRIPT)), "rows": rows}, args.output)


if __name__ == "__main__":
    main()
