"""RetinaNet on BCCD with Sequencer2D-S and two peers, from scratch under one recipe: writes `results/bccd.json`.

    python -m benchmarks.bccd --data /data/bccd --epochs 60 --seconds 330

The models train side by side as processes on one device, by the recipe `bccd`, and are then measured on the split test.
Speeds and memory are those of training side by side, so they compare the models and are no model's own. A run that the
time limit stops is measured with its best weights, and the row says after how many epochs; the same command goes on
with a run of before in the same folder.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from benchmarks.columns import Column, fixed, millions
from benchmarks.record import command_line, origin, write_result

NAME, SCRIPT = "bccd", "benchmarks.bccd"
MODELS = ("sequencer2d_s", "timm:resnet50", "timm:convnext_tiny")
INTERRUPTED = 75
BCCD_COLUMNS = (
    Column("model", "backbone"),
    Column("parameters", "parameters", millions),
    Column("epochs", "epochs"),
    Column("ap", "AP, %", fixed(1)),
    Column("ap50", "AP50, %", fixed(1)),
    Column("images_per_second", "training side by side, images/s", fixed(0)),
    Column("memory_mib", "training memory, MiB", fixed(0)),
)


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    data = unpacked(arguments.data, arguments.output)
    started, fields = time.monotonic(), [f"data.root={data}", f"run.epochs={arguments.epochs}", *arguments.fields]
    runs = {model: start(model, arguments, fields) for model in arguments.models}
    wait(runs, arguments.output, started)
    rows = [row for model in arguments.models if (row := measured(model, arguments))]
    for row in rows:
        print(row, flush=True)
    path = write_result({**origin(NAME, SCRIPT, command_line(SCRIPT, argv)), "rows": rows}, arguments.result)
    print(f"written to {path}")
    return int(len(rows) < len(arguments.models))


def unpacked(data: Path, output: Path) -> Path:
    """The folder of the data set; a tar file is unpacked below `output` first."""
    output.mkdir(parents=True, exist_ok=True)
    if data.is_dir():
        return data
    with tarfile.open(data) as archive:
        archive.extractall(output / "data", filter="data")
    return output / "data"


def folder_of(model: str, output: Path) -> Path:
    """The folder of a model's run."""
    return output / model.replace(":", "_")


def start(model: str, arguments: argparse.Namespace, fields: list[str]) -> subprocess.Popen[bytes]:
    """Begin, or go on with, a model's run; what it prints goes into a file beside its folder."""
    run = folder_of(model, arguments.output)
    command = [
        sys.executable, "-m", "sequencer2d", "detect", "train", "bccd", f"model.name={model}", f"run.output={run}",
        f"run.time_limit_s={arguments.seconds}", f"run.eval_interval={max(1, arguments.epochs // 4)}",
        "run.resume=auto", "run.progress=lines", "run.tensorboard=false", "data.workers=4", *fields,
    ]  # fmt: skip
    with run.with_suffix(".txt").open("wb") as said:
        return subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)


def wait(runs: dict[str, subprocess.Popen[bytes]], output: Path, started: float) -> None:
    """Wait for all runs; say every half minute how far they are, and what a run that failed said last."""
    said = time.monotonic()
    while any(process.poll() is None for process in runs.values()):
        time.sleep(1)
        if time.monotonic() - said >= 30:
            said = time.monotonic()
            for model in runs:
                print(f"{said - started:4.0f} s  {model}: {last_line(model, output)}", flush=True)
    for model, process in runs.items():
        if process.returncode not in (0, INTERRUPTED):
            print(f"{model} failed with {process.returncode}: {last_line(model, output)}", flush=True)


def last_line(model: str, output: Path) -> str:
    """What a run said last."""
    lines = folder_of(model, output).with_suffix(".txt").read_text(errors="replace").splitlines()
    return lines[-1].strip() if lines else ""


def measured(model: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The row of a model, measured on the split test; None if its run left no weights."""
    run = folder_of(model, arguments.output)
    if not (run / "best.safetensors").is_file():
        return None
    command = [sys.executable, "-m", "sequencer2d", "detect", "eval", str(run), "--split", "test", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        return None
    result = json.loads(done.stdout)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in log if entry["kind"] == "step"]
    return {
        "model": model.removeprefix("timm:"),
        "parameters": result["parameters"],
        "epochs": max(entry["epoch"] for entry in log if entry["kind"] == "epoch"),
        **{key: result[key] for key in ("ap", "ap50", "ap75", "per_class", "class_names", "count")},
        "images_per_second": statistics.median(entry["images_per_s"] for entry in steps) if steps else None,
        "memory_mib": max((entry["memory_mib"] for entry in steps), default=None),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="BCCD: its folder, or a tar file of it"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/bccd-models"), metavar="FOLDER", help="of the runs")
    parser.add_argument("--epochs", type=int, default=60, metavar="N", help="of every model (default: 60)")
    parser.add_argument("--seconds", type=float, default=330, metavar="N", help="of training, at most (default: 330)")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--result", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    parser.add_argument("fields", nargs="*", metavar="field=value", help="more fields of the recipe, for every model")
    return parser


if __name__ == "__main__":
    sys.exit(main())
