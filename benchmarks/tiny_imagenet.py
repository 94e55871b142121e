"""Do the paper's comparisons hold at small scale? Trains a plan's models on Tiny-ImageNet under one recipe.

    python -m benchmarks.tiny_imagenet ablations --data /data/tiny-imagenet
    python -m benchmarks.tiny_imagenet ablations --data /data/tiny-imagenet --gpus 2 --seeds 0 1 2

Every model and seed is a run of `tiny_imagenet_paper` in a process of its own. A run that was stopped goes on when the
command is repeated; finished runs are not repeated. Rows are added to `benchmarks/results/tiny-imagenet-PLAN.json` as
runs end, each with its own date, device and commit.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.record import RESULTS, command_line, origin, write_result

SCRIPT = "benchmarks.tiny_imagenet"
RECIPE = "tiny_imagenet_paper"


class Model(NamedTuple):
    """One line of a plan."""

    row: str
    """The paper's table and row that it stands for."""
    overrides: dict[str, Any]
    """Fields of `sequencer2d_n`'s configuration, see `sequencer2d.models.ModelConfig`."""


_WIDE = {"hidden_dims": (48, 96, 96, 96)}
_FLAT = {"axes": "flatten", "fusion": "none"}
_VANILLA = {**_FLAT, "patch_sizes": (8, 1, 1, 1), "dims": (192,) * 4, "hidden_dims": (96,) * 4}

ABLATIONS = {
    "sequencer2d_n": Model("2a: BiLSTM2D", {}),
    "vertical": Model("2a: vertical", {**_WIDE, "axes": "vertical", "fusion": "none"}),
    "horizontal": Model("2a: horizontal", {**_WIDE, "axes": "horizontal", "fusion": "none"}),
    "nofusion": Model("2a: no channel fusion", {"fusion": "none"}),
    "unidirectional": Model("2b: unidirectional", {**_WIDE, "bidirectional": False}),
    "unidirectional_narrow": Model("authors' code", {"bidirectional": False}),
    "vsequencer": Model("2c: VSequencer", _VANILLA),
    "vsequencer_h": Model("2c: VSequencer(H)", {**_WIDE, **_FLAT}),
    "vsequencer_pe": Model("2c: VSequencer(PE)", {**_VANILLA, "position_embedding": True}),
    "h2x": Model("2d: hidden 2×", _WIDE),
    "gru": Model("2e: GRU", {"cell": "gru"}),
    "rnn": Model("2e: RNN", {"cell": "rnn"}),
    "add": Model("authors' code", {"fusion": "add"}),
}

PLANS = {"ablations": ABLATIONS}


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_intermixed_args(argv)
    for model in options.models or ():
        if model not in PLANS[options.plan]:
            parser.error(f"no model {model!r} in the plan {options.plan}; it has {', '.join(PLANS[options.plan])}")
    options.command = command_line(SCRIPT, argv)
    if options.child:
        return _train(options)
    return _schedule(options)


def run_name(plan: str, model: str, seed: int) -> str:
    return f"{plan}-{model}-seed{seed}"


def configuration(plan: str, model: str, seed: int, *, data: Path, output: Path, fields: list[str]) -> Any:
    """The training configuration of one run."""
    from sequencer2d import recipes
    from sequencer2d.cli.common import field_values
    from sequencer2d.training.fields import with_overrides

    config = recipes.get(RECIPE)
    overrides = {**config.model.overrides, **PLANS[plan][model].overrides}
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, overrides=overrides))
    run = {"data.root": str(data), "run.output": str(output), "run.seed": str(seed), "run.resume": "auto"}
    return with_overrides(config, {**run, "run.tensorboard": "false", "run.progress": "none", **field_values(fields)})


def make_row(plan: str, model: str, seed: int, run: Path, command: str) -> dict[str, Any]:
    """The row of a finished run, with its curve: one list [epoch, training loss, top-1 or null] an epoch."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    epochs = [line for line in lines if line["kind"] == "epoch"]
    source = origin(plan, SCRIPT, command)
    return {
        "model": model,
        "paper": PLANS[plan][model].row,
        "seed": seed,
        "parameters": summary["parameters"],
        "top1_percent": summary["final"]["top1"],
        "top5_percent": summary["final"]["top5"],
        "seconds": summary["duration_s"],
        "images_per_second": summary["images_per_s"],
        "epochs": summary["epochs"],
        "command": command,
        "date": source["date"],
        "device": source["device"]["name"],
        "versions": source["versions"],
        "commit": source["commit"],
        "curve": [[line["epoch"], round(line["train_loss"], 4), line.get("top1")] for line in epochs],
    }


def merge_row(path: Path, name: str, row: dict[str, Any], command: str) -> None:
    """Add a row to a result file, or replace the one of the same model and seed."""
    old = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = [other for other in old if (other["model"], other["seed"]) != (row["model"], row["seed"])] + [row]
    order = {model: index for plan in PLANS.values() for index, model in enumerate(plan)}
    rows.sort(key=lambda entry: (order.get(entry["model"], len(order)), entry["seed"]))
    write_result({**origin(name, SCRIPT, command), "recipe": RECIPE, "rows": rows}, path)


def _train(options: argparse.Namespace) -> int:
    """One run, in a process of its own."""
    from sequencer2d.cli.main import EXIT_INTERRUPTED
    from sequencer2d.errors import Interrupted
    from sequencer2d.training.loop import train

    fields = [*options.fields, f"run.time_limit_s={options.time_limit}"] if options.time_limit else options.fields
    config = configuration(
        options.plan, options.models[0], options.seeds[0], data=options.data, output=options.runs, fields=fields
    )
    try:
        train(config)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _schedule(options: argparse.Namespace) -> int:
    """Run what is not finished, `per_gpu` processes on each GPU at a time; 1 if a run failed, else 0."""
    begun = time.monotonic()
    path = options.result or RESULTS / f"tiny-imagenet-{options.plan}.json"
    waiting = [(model, seed) for seed in options.seeds for model in options.models or PLANS[options.plan]]
    done = _finished(path)
    waiting = [pair for pair in waiting if pair not in done]
    slots = [gpu for _ in range(options.per_gpu) for gpu in range(options.gpus)]
    running: dict[subprocess.Popen, tuple[str, int, int]] = {}
    failed = []
    while waiting or running:
        left = None if options.time_limit is None else options.time_limit - (time.monotonic() - begun)
        while waiting and slots and (left is None or left > options.shortest):
            model, seed = waiting.pop(0)
            gpu = slots.pop(0)
            running[_start(options, model, seed, gpu, left)] = (model, seed, gpu)
        if not running:
            break
        ended = next((process for process in running if process.poll() is not None), None)
        if ended is None:
            time.sleep(0.5)
            continue
        model, seed, gpu = running.pop(ended)
        slots.append(gpu)
        run = options.runs / run_name(options.plan, model, seed)
        if ended.returncode == 0:
            row = make_row(options.plan, model, seed, run, options.command)
            merge_row(path, f"tiny-imagenet-{options.plan}", row, options.command)
            print(f"{model} seed {seed}: {row['top1_percent']:.2f} % in {row['seconds']:.0f} s", flush=True)
        else:
            print(f"{model} seed {seed}: ended with code {ended.returncode}, see {run}.err", flush=True)
            failed += [] if ended.returncode == _INTERRUPTED else [model]
    unfinished = [f"{model} seed {seed}" for model, seed in waiting]
    if unfinished:
        print(f"not started, the time limit had passed: {', '.join(unfinished)}", flush=True)
    return 1 if failed else 0


_INTERRUPTED = 75


def _start(options: argparse.Namespace, model: str, seed: int, gpu: int, left: float | None) -> subprocess.Popen:
    run = options.runs / run_name(options.plan, model, seed)
    command = [sys.executable, "-m", "benchmarks.tiny_imagenet", options.plan, "--child", "--models", model]
    command += ["--seeds", str(seed), "--data", str(options.data), "--runs", str(run)]
    if left is not None:
        command += ["--time-limit", f"{left:.0f}"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": str(gpu), "OMP_NUM_THREADS": "4"}
    run.parent.mkdir(parents=True, exist_ok=True)
    print(f"{model} seed {seed} on GPU {gpu} …", flush=True)
    with Path(f"{run}.out").open("ab") as output, Path(f"{run}.err").open("ab") as errors:
        return subprocess.Popen([*command, *options.fields], env=environment, stdout=output, stderr=errors)


def _finished(path: Path) -> set[tuple[str, int]]:
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return {(row["model"], row["seed"]) for row in rows}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", choices=list(PLANS))
    parser.add_argument("fields", nargs="*", metavar="field=value", help="set a field of the recipe, in every run")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="train/<class>/* and val/<class>/*")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="some of the plan's models (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="default: 0")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to use (default: 1)")
    parser.add_argument("--per-gpu", type=int, default=1, help="runs at a time on each GPU (default: 1)")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="stop, saved, after this time")
    parser.add_argument(
        "--shortest", type=float, default=60, metavar="SECONDS", help="start no run with less time left (default: 60)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny-imagenet"), metavar="FOLDER")
    parser.add_argument(
        "--result", type=Path, metavar="FILE", help="default: benchmarks/results/tiny-imagenet-PLAN.json"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
