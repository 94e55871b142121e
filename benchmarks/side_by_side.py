"""Backbones that train side by side on one device by one recipe, each in a process, and are then measured.

What is compared is a `Comparison`: a row that `benchmarks.bccd` and `benchmarks.camvid` fill.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.columns import Column, fixed, millions
from benchmarks.record import RESULTS, command_line, origin, write_result
from sequencer2d.cli.main import EXIT_INTERRUPTED
from sequencer2d.files import read_json

Row = dict[str, Any]

SIZE_COLUMNS = (Column("parameters", "parameters", millions), Column("epochs", "epochs"))
COST_COLUMNS = (Column("memory_mib", "training memory, MiB", fixed(0)),)
"""Columns of every comparison, before and after those of its own numbers."""


@dataclass(frozen=True)
class Comparison:
    """What is trained and measured.

    Attributes:
        name: of the recipe and of the result file.
        script: the module that runs it.
        about: help of the command line; its first line is shown.
        verb: of the task: "segment" or "detect".
        models: as `model.name` names them.
        epochs: of every run, unless the user says otherwise.
        seconds: of training, at most, unless the user says otherwise.
        numbers: what a row takes from `eval --json`, beside the numbers of the classes.
        fields: (model, field of the recipe that differs for it).
        finish: called at the end with the folder of the data, that of the runs, the row of each run, and the path of
            the result file; to draw something.
    """

    name: str
    script: str
    about: str
    verb: str
    models: tuple[str, ...]
    epochs: int
    seconds: float
    numbers: tuple[str, ...]
    fields: tuple[tuple[str, str], ...] = ()
    finish: "Callable[[Path, Path, Mapping[Run, Row], Path], None] | None" = None


class Run(NamedTuple):
    """A model and the seed of its run."""

    model: str
    seed: int

    @property
    def folder(self) -> str:
        """The name of its folder."""
        name = self.model.replace(":", "_")
        return f"{name}-seed{self.seed}" if self.seed else name


def run(comparison: Comparison, argv: list[str] | None = None) -> int:
    """Train the models that are not trained, measure all, write the result. Returns 1 if a run has no row."""
    arguments = parser(comparison).parse_args(argv)
    data = unpacked(arguments.data, arguments.output)
    started, runs = time.monotonic(), [Run(model, seed) for seed in arguments.seeds for model in arguments.models]
    arguments.fields = [f"data.root={data}", f"run.epochs={arguments.epochs}", *arguments.fields]
    unfinished = [one for one in runs if not is_finished(arguments.output / one.folder, arguments.epochs)]
    processes = {one: start(comparison, one, arguments) for one in unfinished}
    wait(processes, arguments.output, started)
    with ThreadPoolExecutor() as threads:
        found = threads.map(lambda one: measured(comparison, one, arguments.output), runs)
        rows = {one: row for one, row in zip(runs, found, strict=True) if row}
    for row in rows.values():
        print(row, flush=True)
    path = write(comparison, list(rows.values()), arguments.result, argv)
    print(f"written to {path}")
    if comparison.finish and rows:
        comparison.finish(data, arguments.output, rows, path)
    return int(len(rows) < len(runs))


def write(comparison: Comparison, rows: list[Row], path: Path | None, argv: list[str] | None) -> Path:
    """Write the rows; those of other models and seeds stay in the file."""
    path = path or RESULTS / f"{comparison.name}.json"
    before = read_json(path)["rows"] if path.exists() else []
    new = {(row["model"], row["seed"]) for row in rows}
    rows = sorted([row for row in before if (row["model"], row["seed"]) not in new] + rows, key=lambda row: row["seed"])
    command = command_line(comparison.script, argv)
    return write_result({**origin(comparison.name, comparison.script, command), "rows": rows}, path)


def unpacked(data: Path, output: Path) -> Path:
    """The folder of the data set; a tar file is unpacked below `output` first."""
    output.mkdir(parents=True, exist_ok=True)
    if data.is_dir():
        return data
    with tarfile.open(data) as archive:
        archive.extractall(output / "data", filter="data")
    return output / "data"


def is_finished(folder: Path, epochs: int) -> bool:
    """Whether a run has had all its epochs. A process that found this out would load PyTorch and the data first."""
    summary = folder / "summary.json"
    return summary.is_file() and read_json(summary)["final"].get("epoch") == epochs


def start(comparison: Comparison, one: Run, arguments: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Start or resume a run; its output goes into a file beside its folder."""
    folder = arguments.output / one.folder
    own = [field for model, field in comparison.fields if model == one.model]
    command = [
        sys.executable, "-m", "sequencer2d", comparison.verb, "train", comparison.name, f"model.name={one.model}",
        f"run.output={folder}", f"run.seed={one.seed}", f"run.time_limit_s={arguments.seconds}",
        f"run.eval_interval={max(1, arguments.epochs // 4)}", "run.checkpoint_interval_s=60", "run.keep=1",
        "run.resume=auto", "run.progress=lines", "run.tensorboard=false", "data.workers=4", *own, *arguments.fields,
    ]  # fmt: skip
    with _said(folder).open("wb") as said:
        return subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)


def wait(processes: dict[Run, subprocess.Popen[bytes]], output: Path, started: float) -> None:
    """Wait for all runs. Print their progress every half minute, and the last lines of a run that failed."""
    said = time.monotonic()
    while any(process.poll() is None for process in processes.values()):
        time.sleep(1)
        if time.monotonic() - said >= 30:
            said = time.monotonic()
            for one in processes:
                print(f"{said - started:4.0f} s  {one.folder}: {last_line(one, output)}", flush=True)
    for one, process in processes.items():
        if process.returncode not in (0, EXIT_INTERRUPTED):
            print(f"{one.folder} failed with {process.returncode}: {last_line(one, output)}", flush=True)


def last_line(one: Run, output: Path) -> str:
    """The last lines that a run printed."""
    lines = _said(output / one.folder).read_text(errors="replace").splitlines()
    return lines[-1].strip() if lines else ""


def measured(comparison: Comparison, one: Run, output: Path) -> Row | None:
    """The row of a run, measured on the split test; None if it left no weights."""
    folder = output / one.folder
    if not (folder / "best.safetensors").is_file():
        return None
    command = [sys.executable, "-m", "sequencer2d", comparison.verb, "eval", str(folder), "--split", "test", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        return None
    result = json.loads(done.stdout)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in log if entry["kind"] == "step"]
    return {
        "model": one.model.removeprefix("timm:"),
        "seed": one.seed,
        "parameters": result["parameters"],
        "epochs": max(entry["epoch"] for entry in log if entry["kind"] == "epoch"),
        **{key: result[key] for key in (*comparison.numbers, "per_class", "class_names", "count")},
        "images_per_second": statistics.median(entry["images_per_s"] for entry in steps) if steps else None,
        "memory_mib": max((entry["memory_mib"] for entry in steps), default=None),
    }


def _said(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.txt")


def parser(comparison: Comparison) -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=comparison.about.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="its folder, or a tar file of it")
    output = Path(f"runs/{comparison.name}-models")
    parser.add_argument("--output", type=Path, default=output, metavar="FOLDER", help="of the runs")
    for name, kind, default, text in (
        ("epochs", int, comparison.epochs, "of every run"),
        ("seconds", float, comparison.seconds, "of training, at most"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{text} (default: {default})")
    models = comparison.models
    parser.add_argument("--models", nargs="+", default=models, metavar="NAME", help=f"default: {' '.join(models)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="a run for each (default: 0)")
    result = f"default: benchmarks/results/{comparison.name}.json"
    parser.add_argument("--result", type=Path, metavar="FILE", help=result)
    parser.add_argument("fields", nargs="*", metavar="field=value", help="more fields of the recipe, for every model")
    return parser
