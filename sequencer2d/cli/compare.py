"""`sequencer2d compare RUN RUN…`: runs side by side, and whether their accuracy differs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal
from sequencer2d.cli.common import (
    add_json,
    check_device,
    console,
    need,
    present_folder,
    remark,
    resolve_device,
    writable_path,
)
from sequencer2d.cli.parsing import check_first
from sequencer2d.cli.writing import writing
from sequencer2d.errors import ConfigError, UserError, counted
from sequencer2d.precisions import autocast_dtype
from sequencer2d.terminal import plain_table, printable

if TYPE_CHECKING:
    import numpy as np

    from sequencer2d.data.sources import Source
    from sequencer2d.training.config import TrainConfig

EPILOG = """\
examples:
  sequencer2d compare runs/a runs/b
  sequencer2d compare runs/a runs/b runs/c --picture curves.png
  sequencer2d compare runs/a runs/b --no-test --json        the numbers of the logs alone

Each run is compared with the first one: both classify the validation images again with their best weights, and
McNemar's exact test counts the images on which one of them alone is right. A small p (below 0.05, say) means that the
difference is unlikely to be chance in these images; it says nothing about another seed. Where the runs have no images
in common, the reason is printed instead. Accuracy is in %, time in minutes."""


@dataclass(frozen=True)
class Run:
    """A run's folder with its configuration and its log."""

    folder: Path
    config: TrainConfig
    summary: dict[str, Any]
    log: list[dict[str, Any]]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "compare",
        help="compare runs: final numbers, curves, a paired test of accuracy",
        description="Compare runs by their final numbers, their curves, and a paired test of their accuracy.",
        epilog=EPILOG,
    )
    parser.add_argument("runs", type=present_folder, nargs="+", metavar="RUN", help="run folders, at least two")
    parser.add_argument(
        "--picture", type=writable_path, metavar="FILE", help="draw the curves of all runs in one figure, as a PNG file"
    )
    parser.add_argument("--no-test", action="store_true", help="do not classify the validation images again")
    parser.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="auto (CUDA if there is a GPU), cpu, cuda or cuda:INDEX (default: auto)",
    )
    add_json(parser)
    check_first(parser, _check_runs)
    check_first(parser, check_device)
    parser.set_defaults(run=run)


def _check_runs(arguments: argparse.Namespace) -> None:
    if len({folder.resolve() for folder in arguments.runs}) < max(2, len(arguments.runs)):
        raise ConfigError("name at least two different runs: sequencer2d compare runs/a runs/b")


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d import tasks

    if arguments.picture:
        need("matplotlib", "train", "--picture")
    runs = [_read(folder) for folder in arguments.runs]
    names = sorted({one.config.task for one in runs})
    if len(names) > 1:
        raise ConfigError(f"these runs have different tasks ({', '.join(names)}); compare runs of one task")
    task = tasks.get(names[0])
    rows = [_row(one, task.decides.key) for one in runs]
    tests = [] if arguments.no_test else _tests(runs, str(arguments.device))
    if arguments.json:
        terminal.write_json({"runs": rows, "tests": tests})
    else:
        _print(rows, task.decides)
        for test in tests:
            terminal.write(test["said"])
    if arguments.picture:
        _draw(runs, task, arguments.picture)
    return 0


def _read(folder: Path) -> Run:
    from sequencer2d.files import read_json
    from sequencer2d.training.logfile import read_log
    from sequencer2d.training.runfiles import read_config

    config = read_config(folder)
    summary = read_json(folder / "summary.json") if (folder / "summary.json").exists() else {}
    return Run(folder, config, summary, read_log(folder))


def _row(one: Run, key: str) -> dict[str, Any]:
    """The numbers of a run; None for those that it has not reached."""
    epochs = [entry for entry in one.log if entry["kind"] == "epoch"]
    evaluated = [entry for entry in epochs if entry.get(key) is not None]
    best = one.summary.get("best") or {}
    return {
        "run": str(one.folder),
        "model": one.config.model.name,
        "parameters": one.summary.get("parameters"),
        "epochs": epochs[-1]["epoch"] if epochs else 0,
        "of": one.config.run.epochs,
        f"best_{key}": best.get(key, max((entry[key] for entry in evaluated), default=None)),
        "best_epoch": best.get("epoch"),
        f"final_{key}": evaluated[-1][key] if evaluated else None,
        "train_loss": epochs[-1]["train_loss"] if epochs else None,
        "val_loss": evaluated[-1].get("val_loss") if evaluated else None,
        "minutes": round(epochs[-1]["time_s"] / 60, 1) if epochs and epochs[-1].get("time_s") else None,
        "device": one.summary.get("device"),
    }


def _tests(runs: list[Run], device: str) -> list[dict[str, Any]]:
    """McNemar's test of the first run against each of the others, or the reason why there is none."""
    from sequencer2d.evaluation.intervals import accuracy_text
    from sequencer2d.evaluation.paired import mcnemar

    first, *others = runs
    found: list[dict[str, Any]] = []
    known: dict[Path, np.ndarray | str] = {}
    try:
        source: Source | str = _source(first)
    except UserError as error:
        source = str(error)
    for one in others:
        test: dict[str, Any] = {"run": str(one.folder), "against": str(first.folder)}
        reason = source if isinstance(source, str) else _why_not(first, one, source)
        if not reason and not isinstance(source, str):
            for which in (first, one):
                if which.folder not in known:
                    known[which.folder] = _outcomes(which, source, device)
            a, b = known[first.folder], known[one.folder]
            reason = next((result for result in (a, b) if isinstance(result, str)), "")
        if reason:
            test |= {"reason": reason, "said": f"{one.folder} against {first.folder}: not tested: {reason}"}
        else:
            result = mcnemar(a, b)  # type: ignore[arg-type]
            right = [int(values.sum()) for values in (b, a)]  # type: ignore[union-attr]
            shown = [accuracy_text(count, len(a)) for count in right]
            test |= {"images": len(a), "right": right, **result._asdict()}
            test["said"] = (
                f"{one.folder} against {first.folder} on {len(a):,} images: {shown[0]} against {shown[1]}; right "
                f"alone: {result.only_second:,} against {result.only_first:,} images; McNemar's p = {result.p:.2g}"
            )
        found.append(test)
    return found


def _source(one: Run) -> Source:
    from sequencer2d.data.opening import open_split

    return open_split(one.config.data, one.config.data.val_split)


def _why_not(first: Run, other: Run, source: Source) -> str:
    """The reason why two runs cannot be tested on the same images; empty if they can."""
    if first.config.task != "classification":
        return f"task={first.config.task} has no single right answer for an image"
    try:
        theirs = _source(other)
    except UserError as error:
        return str(error)
    if theirs.class_names != source.class_names:
        return "they were trained for different classes"
    (names, targets), (other_names, other_targets) = source.identities(), theirs.identities()
    if len(source) != len(theirs) or list(names) != list(other_names) or targets.tolist() != other_targets.tolist():
        return "they were validated on different images"
    return ""


def _outcomes(one: Run, source: Source, device: str) -> np.ndarray | str:
    """Whether the run's best weights are right about each image, or why that cannot be said."""
    from sequencer2d.evaluation.paired import outcomes
    from sequencer2d.evaluation.subject import load_checkpoint

    remark(f"classifying {counted(len(source), 'image')} by {one.folder} …")
    try:
        subject = load_checkpoint(one.folder)
    except UserError as error:
        return str(error)
    return outcomes(subject, source, device=resolve_device(device), amp_dtype=autocast_dtype(one.config.precision))


def _print(rows: list[dict[str, Any]], metric: Any) -> None:
    from rich.text import Text

    table = plain_table(
        "run", "model", "parameters", "epochs", f"best {metric.label}", f"final {metric.label}", "val loss", "minutes"
    )
    for row in rows:
        table.add_row(
            Text(printable(row["run"])),
            Text(printable(row["model"])),
            "–" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M",
            f"{row['epochs']:g} of {row['of']:g}",
            *(
                "–" if row[f"{kind}_{metric.key}"] is None else metric.show(row[f"{kind}_{metric.key}"])
                for kind in ("best", "final")
            ),
            "–" if row["val_loss"] is None else f"{row['val_loss']:.4f}",
            "–" if row["minutes"] is None else f"{row['minutes']:g}",
        )
    console().print(table)


def _draw(runs: list[Run], task: Any, path: Path) -> None:
    from sequencer2d.analysis.comparison import draw_comparison

    with writing(path):
        draw_comparison({str(one.folder): one.log for one in runs}, task.decides, path, loss=task.loss_name)
    remark(f"picture: {path}")
