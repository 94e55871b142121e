"""What compiling costs, in seconds, and what it gives: in training, and in `optimize` for one shape after another.

    python -m benchmarks.compiling --output compiling.json

Each form runs in a process of its own with empty caches. Training: for two batches and then another image size the
first step and the rate, in bf16 on a GPU, with stochastic depth, without input. `optimize`: calls with the shapes of a
server (batches of 1 to 32), of a folder's last batch and of images in their own aspect ratios; for each the seconds of
its first calls, of which the second may capture a graph, and the memory that is held afterwards.
"""

import argparse
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import sequencer2d
from benchmarks.record import command_line, origin, write_result
from sequencer2d.benchmark import timing
from sequencer2d.models.compiled_training import compile_blocks, compile_whole

NAME, SCRIPT = "compiling", "benchmarks.compiling"
# How a model is prepared for training; `optimize` is for inference.
TRAINING: dict[str, Callable[[Any], Any]] = {
    "blocks": compile_blocks,
    "dynamic-blocks": lambda model: compile_blocks(model, dynamic=True),
    "whole": compile_whole,
    "eager": lambda model: None,
}
FORMS = ("optimize", *TRAINING)


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    timing.synchronize(device)
    start = time.perf_counter()
    call()
    timing.synchronize(device)
    return round(time.perf_counter() - start, 3)


def training(
    model_name: str, form: str, batches: list[int], size: int, device: torch.device, measure_s: float
) -> Iterator[dict[str, Any]]:
    """A row a batch: a model in a form of `TRAINING`, its first step and its rate; then another image size."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    model = sequencer2d.create_model(model_name, drop_path_rate=0.1).to(device).train()
    TRAINING[form](model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step(images: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = F.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.long, device=device))
        loss.backward()
        optimizer.step()

    smaller = size // 4 * 3 // 14 * 14
    for batch, pixels in [*((batch, size) for batch in batches), (batches[0], smaller)]:
        run = functools.partial(step, torch.randn(batch, 3, pixels, pixels, device=device))
        row: dict[str, Any] = {"form": form, "mode": "training", "batch": batch, "height": pixels, "width": pixels}
        row["first_call_seconds"] = seconds(run, device)
        timed = timing.measure(run, device, measure_s=measure_s)
        row |= {"images_per_second": round(1e3 * batch / timed.step_ms, 1), "memory_mib": held_mib(device)}
        yield row


def optimize_shapes(size: int, model_name: str, device: torch.device) -> Iterator[dict[str, Any]]:
    """A row a shape: an optimized model meets one after another."""
    torch.manual_seed(0)
    model = sequencer2d.optimize(sequencer2d.create_model(model_name).to(device))
    wide, tall = size + size // 4, size + size // 3
    shapes = [(batch, size, size) for batch in (16, 1, 32, 7, 2, 3, 5, 8, 12, 24, 31, 11)]
    shapes += [(2, size, wide), (2, tall, size), (1, size, tall), (3, wide, tall)]
    for batch, height, width in shapes:
        images = torch.randn(batch, 3, height, width, device=device)
        times = [seconds(lambda given=images: model(given), device) for _ in range(4)]
        row = {"form": "optimize", "mode": "inference", "batch": batch, "height": height, "width": width}
        names = ("first", "second", "third", "fourth")
        row |= {f"{name}_call_seconds": time for name, time in zip(names, times, strict=True)}
        yield {**row, "memory_mib": held_mib(device)}


def held_mib(device: torch.device) -> float | None:
    """What PyTorch has taken of the device's memory."""
    return round(torch.cuda.memory_reserved(device) / 2**20) if device.type == "cuda" else None


def measure_apart(form: str, args: argparse.Namespace, left_s: float) -> list[dict[str, Any]]:
    """Rows of one form, measured in a process whose compilers find nothing in their caches."""
    command = [sys.executable, "-m", SCRIPT, "--apart", "--forms", form, "--model", args.model]
    command += ["--size", str(args.size), "--device", args.device, "--measure-s", str(args.measure_s)]
    command += ["--batches", *map(str, args.batches)]
    with tempfile.TemporaryDirectory() as folder:
        caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
        printed, errors = Path(folder) / "printed", Path(folder) / "errors"
        # A session of its own, so that the compilers' processes end with it. Files keep what was done until then.
        with (
            printed.open("w") as out,
            errors.open("w") as err,
            subprocess.Popen(
                command, env={**os.environ, **caches}, stdout=out, stderr=err, start_new_session=True
            ) as started,
        ):
            try:
                code = started.wait(left_s)
                error = errors.read_text()[-2000:] or f"ended with the status {code}" if code else None
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                error = f"not done after {left_s:.0f} s"
        rows = [json.loads(line) for line in printed.read_text().splitlines() if line.startswith('{"form"')]
    return [*rows, {"form": form, "error": error}] if error else rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sequencer2d_s")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 64], help="of training")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--measure-s", type=float, default=0.7, help="seconds of timed steps of a row")
    parser.add_argument("--time-limit", type=float, default=240, help="seconds after which processes are stopped")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/compiling.json")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = torch.device(args.device)
    if args.apart:
        form = args.forms[0]
        rows_of_form = (
            optimize_shapes(args.size, args.model, device)
            if form == "optimize"
            else training(args.model, form, args.batches, args.size, device, args.measure_s)
        )
        for row in rows_of_form:
            print(json.dumps(row), flush=True)
        return
    started, rows = time.monotonic(), list[dict[str, Any]]()
    for form in args.forms:
        left_s = max(args.time_limit - (time.monotonic() - started), 1)
        found = measure_apart(form, args, left_s)
        rows += found
        print(f"{time.monotonic() - started:5.1f} s", *found, sep="\n", flush=True)
        write_result({**origin(NAME, SCRIPT, command_line(SCRIPT)), "model": args.model, "rows": rows}, args.output)


if __name__ == "__main__":
    main()
