"""Training steps of a recipe in one and in several processes, a GPU each, without input: what the exchange costs.

    python -m benchmarks.processes --counts 1 2 --output processes.json

Each row is a recipe, a value of `run.compile` and a number of processes, which torchrun starts: images/s of all
processes together while each trains on one batch again and again, mixing, erasing, clipping and the weight average
included, and that rate divided by the one of a single process and by their number. Images per process stay the same.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import command_line, origin, write_result
from sequencer2d import recipes
from sequencer2d.benchmark import timing
from sequencer2d.training.assemble import build_model, build_step, resolve
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.distributed import processes
from sequencer2d.training.fields import with_overrides
from sequencer2d.training.numerics import numerics

NAME, SCRIPT = "processes", "benchmarks.processes"
CLASSES = {"imagenet_s": 1000, "cifar10": 10}
BATCHES = {"imagenet_s": 256, "cifar10": 512}
WARM_UP_STEPS = 5


def configuration(args: argparse.Namespace, count: int) -> TrainConfig:
    """The recipe of one call, for a number of processes."""
    batch = args.batch or BATCHES[args.recipe]
    fields = {"data.batch_size": batch * count, "run.compile": args.compile, "optimizer.accumulation": 1}
    if args.size:
        fields["data.image_size"] = args.size
    given = dict(field.split("=", 1) for field in args.fields)
    config = with_overrides(recipes.get(args.recipe), {**fields, **given, "run.device": args.device})
    return resolve(config, CLASSES[args.recipe])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """This process's part of a row; the first one's is written."""
    with processes(configuration(args, 1).distributed, args.device) as here:
        config = configuration(args, here.world_size)
        batch, (height, width) = config.data.batch_size // here.world_size, config.data.size
        device = here.device
        with numerics(config.run, device):
            images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, device=device)
            targets = torch.randint(0, CLASSES[args.recipe], (batch,), device=device)
            started = time.perf_counter()
            step = build_step(config, build_model(config, device), here)
            numbers = itertools.count()
            for _ in range(WARM_UP_STEPS):
                step(images, targets, next(numbers), 1e-4)
            timing.synchronize(device)
            prepare_s = time.perf_counter() - started
            here.barrier()
            started, steps = time.perf_counter(), 0
            # All processes take the same number of steps, because each waits for the others in every one.
            while steps < args.steps:
                step(images, targets, next(numbers), 1e-4)
                steps += 1
            timing.synchronize(device)
            here.barrier()
            seconds = time.perf_counter() - started
        row = {"recipe": args.recipe, "compile": args.compile, "processes": here.world_size, "batch": batch}
        row |= {"height": height, "width": width, "images_per_s": round(steps * batch * here.world_size / seconds, 1)}
        if here.main:
            Path(args.part).write_text(json.dumps({**row, "prepare_s": round(prepare_s, 1)}))
        return row


def measure_apart(args: argparse.Namespace, recipe: str, compile: str, count: int, left_s: float) -> dict[str, Any]:
    """A row, measured in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "row.json"
        options = vars(args) | {"recipe": recipe, "compile": compile, "part": str(part)}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command += ["-m", SCRIPT, "--apart", json.dumps({k: v for k, v in options.items() if k != "output"})]
        named = {"recipe": recipe, "compile": compile, "processes": count}
        # A session of its own, so that the processes that torchrun started end with it.
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as started:
            try:
                printed, _ = started.communicate(timeout=left_s)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                return {**named, "error": f"not done after {left_s:.0f} s"}
        return dict(json.loads(part.read_text())) if part.exists() else {**named, "error": printed[:2000]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--compile", nargs="+", default=["blocks", "whole"], help="values of run.compile")
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2], help="processes")
    parser.add_argument("--batch", type=int, help="images of a process; default: by recipe")
    parser.add_argument("--size", type=int, help="pixels; default: the recipe's")
    parser.add_argument("--steps", type=int, default=30, help="timed steps")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--fields", nargs="+", default=[], help="further fields of the recipe, path=value")
    parser.add_argument("--time-limit", type=float, default=240, help="seconds after which what still runs is stopped")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/processes.json")
    parser.add_argument("--apart", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.apart:
        measure(argparse.Namespace(**json.loads(args.apart)))
        return
    started, rows = time.monotonic(), list[dict[str, Any]]()
    for recipe, compile, count in itertools.product(args.recipes, args.compile, args.counts):
        left_s = max(args.time_limit - (time.monotonic() - started), 1)
        row = measure_apart(args, recipe, compile, count, left_s)
        alone = next((r for r in rows if (r["recipe"], r["compile"], r["processes"]) == (recipe, compile, 1)), row)
        if "images_per_s" in row and "images_per_s" in alone and alone["processes"] == 1:
            row["efficiency"] = round(row["images_per_s"] / alone["images_per_s"] / count, 3)
        rows.append(row)
        print(f"{time.monotonic() - started:5.1f} s", row, flush=True)
        write_result({**origin(NAME, SCRIPT, command_line(SCRIPT)), "rows": rows}, args.output)


if __name__ == "__main__":
    main()
