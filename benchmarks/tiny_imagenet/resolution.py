"""Accuracy against resolution without fine-tuning, half to double, of every finished run (the paper's Figure 3 a, b).

    python -m benchmarks.tiny_imagenet.resolution --data /data/tiny-imagenet
    python -m benchmarks.tiny_imagenet.resolution --data /data/tiny-imagenet --plans table1 --time-limit 590

Rows are added to `benchmarks/results/tiny-imagenet-resolution.json`; those that are there are not measured again.
Expected: one minute for each run of `table1` (9 sizes of 10,000 images at 2,000 images/s, which the CPU resizes), 8
minutes a seed; half of that for 64² images.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import RESULTS, command_line, origin, write_result
from benchmarks.tiny_imagenet.rows import read_rows
from benchmarks.tiny_imagenet.runs import PLANS, is_finished, run_name
from sequencer2d.cli.main import EXIT_INTERRUPTED

SCRIPT = "benchmarks.tiny_imagenet.resolution"
DEFAULT_PLANS = ("table1", "small", "better")


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    command, end = command_line(SCRIPT, argv), time.monotonic() + (options.time_limit or float("inf"))
    rows = read_rows(options.result)
    done = {(row["plan"], row["model"], row["seed"]) for row in rows}
    finished = finished_runs(options.runs, options.plans, options.seeds)
    if not finished:
        print(f"error: {options.runs} holds no finished run of {', '.join(options.plans)}", file=sys.stderr)
        return 1
    for plan, model, seed, run in finished:
        if (plan, model, seed) in done:
            continue
        if time.monotonic() >= end:
            print("the time limit has passed; repeat the command to go on")
            return EXIT_INTERRUPTED
        row = measure(run, options.data, options.limit)
        rows.append({"plan": plan, "model": model, "seed": seed, **row, "command": command})
        write_result({**origin("tiny-imagenet-resolution", SCRIPT, command), "rows": rows}, options.result)
        print(f"{plan} {model} seed {seed}: {row['top1_percent']}", flush=True)
    return 0


def finished_runs(runs: Path, plans: list[str], seeds: list[int]) -> list[tuple[str, str, int, Path]]:
    """Plan, model, seed and folder of each finished run, in the plans' order."""
    wanted = [(plan, model, seed) for plan in plans for model in PLANS[plan].models for seed in seeds]
    found = [(*line, runs / run_name(*line)) for line in wanted]
    return [line for line in found if is_finished(line[-1])]


def measure(run: Path, data: Path, limit: int | None) -> dict[str, Any]:
    """Sizes in pixels, top-1 (%) at each, and sizes that the model refuses."""
    from sequencer2d.data.opening import open_source
    from sequencer2d.evaluation.resolution import resolution_sweep
    from sequencer2d.evaluation.subject import load_subject

    subject = load_subject(run).to("cuda" if torch.cuda.is_available() else "cpu")
    source = open_source("folder", "val", root=str(data))
    result = resolution_sweep(subject, source, limit=limit, batch_size=250)
    return {
        "native": result.native,
        "images": result.count,
        "sizes": [int(size) for size in result.sizes],
        "top1_percent": [round(100 * float(top1), 2) for top1 in result.top1],
        "refused": {str(size): why for size, why in result.refused.items()},
    }


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="val/<class>/*")
    parser.add_argument("--plans", nargs="+", choices=list(PLANS), default=list(DEFAULT_PLANS), metavar="PLAN")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--limit", type=int, metavar="N", help="a random sample of N images (default: all)")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="begin no further run after this time")
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny-imagenet"), metavar="FOLDER")
    parser.add_argument("--result", type=Path, default=RESULTS / "tiny-imagenet-resolution.json", metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
