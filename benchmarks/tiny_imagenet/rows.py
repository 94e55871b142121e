"""Rows of `benchmarks/results/tiny-imagenet-PLAN.json`: one for each finished run."""

import json
from pathlib import Path
from typing import Any

from benchmarks.record import origin, write_result
from benchmarks.tiny_imagenet.runs import PLANS, RECIPE, start_of
from sequencer2d.benchmark import provenance
from sequencer2d.files import read_json, write_json

SCRIPT = "benchmarks.tiny_imagenet"
ROUNDED = "rounded.json"
"""File of a run's folder: at which steps the optimizer's state was rounded when the run moved."""

COMMITS = "commits.json"
"""File of a run's folder: the commits whose code trained it, one for each change between its calls."""


def note_commit(run: Path) -> None:
    """Write down in a run's folder which code trains it from now on."""
    commits, now = _commits(run), provenance.commit()
    if commits[-1:] != [now]:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / COMMITS, [*commits, now])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a result file; none if it is not there."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return rows


def make_row(plan: str, model: str, seed: int, run: Path, command: str, *, side_by_side: int = 1) -> dict[str, Any]:
    """The row of a finished run, with its curve: one list [epoch, training loss, top-1 or null] an epoch.

    `side_by_side` runs shared the GPU.
    """
    summary = read_summary(run)
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    epochs = [line for line in lines if line["kind"] == "epoch"]
    source = origin(plan, SCRIPT, command)
    line = PLANS[plan].models[model]
    row = {
        "model": model,
        "paper": line.row,
        "seed": seed,
        "parameters": summary["parameters"],
        "macs": _macs(summary),
        "image_size": summary["config"]["data"]["image_size"],
        "top1_percent": summary["final"]["top1"],
        "top5_percent": summary["final"]["top5"],
        "seconds": summary["duration_s"],
        "side_by_side": side_by_side,
        "expected_minutes": line.minutes,
        "images_per_second": summary["images_per_s"],
        "epochs": summary["epochs"],
        "command": command,
        "date": source["date"],
        "device": summary["device"],
        "versions": {**source["versions"], **summary["versions"]},
        "commit": ", ".join(_commits(run)) or source["commit"],
        "curve": [[line["epoch"], round(line["train_loss"], 4), line.get("top1")] for line in epochs],
    }
    start = start_of(plan, model, seed, run.parent)
    if start is not None and not line.data:
        row["start_top1_percent"] = read_summary(start)["final"]["top1"]
        row["gain_points"] = row["top1_percent"] - row["start_top1_percent"]
    if (run / ROUNDED).exists():
        row["rounded_at_steps"] = json.loads((run / ROUNDED).read_text(encoding="utf-8"))["steps"]
    return row


def merge_row(path: Path, plan: str, row: dict[str, Any], command: str) -> None:
    """Add a row to a result file, or replace the one of the same model and seed.

    The file names the device that trained, also where the row is made on another machine, and the commits of all rows.
    """
    others = [other for other in read_rows(path) if (other["model"], other["seed"]) != (row["model"], row["seed"])]
    order = {model: index for index, model in enumerate(PLANS[plan].models)}
    rows = sorted([*others, row], key=lambda entry: (order.get(entry["model"], len(order)), entry["seed"]))
    commits = dict.fromkeys(commit for entry in rows for commit in entry["commit"].split(", "))
    told = {"versions": row["versions"], "commit": ", ".join(commits)}
    source = {**origin(f"tiny-imagenet-{plan}", SCRIPT, command), **told}
    if not row["device"].startswith("cpu"):
        source["device"] = {"kind": "cuda", "name": row["device"], "count": 1}
    write_result({**source, "recipe": RECIPE, "rows": rows}, path)


def read_summary(run: Path) -> dict[str, Any]:
    """What a finished run wrote at its end."""
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return summary


def _commits(run: Path) -> list[str]:
    path = run / COMMITS
    commits: list[str] = read_json(path) if path.is_file() else []
    return commits


def _macs(summary: dict[str, Any]) -> int:
    """Multiply-accumulates of a run's model on one image."""
    from sequencer2d.benchmark.cost import count_macs
    from sequencer2d.models import create_model

    spec, size = summary["config"]["model"], summary["config"]["data"]["image_size"]
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in spec["overrides"].items()}
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return count_macs(create_model(spec["name"], num_classes=spec["num_classes"], img_size=sides, **options), sides)
