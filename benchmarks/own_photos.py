"""From a folder of photos to an exported model by README's commands alone: writes `benchmarks/results/own-photos.json`.

    python -m benchmarks.own_photos /data/flowers102

Takes the largest classes of a data set as somebody's photos, <class>/* in an empty folder, and runs there what README
says under "Your own photos", as processes of their own on `--cores` cores. The exported file must name the same classes
as the trained model for every photo, the report of mistakes must be there, and the whole must take `--minutes` at most;
the exit code is 1 otherwise. How busy other programs kept the machine stands in the result.
"""

import argparse
import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.columns import Column, fixed, minutes
from benchmarks.record import ROOT, command_line, origin, write_result

NAME = "own-photos"
SCRIPT = "benchmarks.own_photos"
HEADING = "## Your own photos"
CLOSE = 1e-4
"""By how much a probability of the exported model may differ from the trained model's."""


OWN_PHOTOS_COLUMNS = (
    Column("validation_images", "held-out photos"),
    Column("top1_percent", "right, %", fixed(1)),
    Column("finetune_seconds", "finetune", minutes),
    Column("export_seconds", "export", minutes),
    Column("seconds", "all four commands", minutes),
    Column("load_before", "load before", fixed(1)),
    Column("load_after", "after", fixed(1)),
    Column("photos_compared", "photos compared"),
    Column("same_class", "ONNX names the same class"),
)


class Step(NamedTuple):
    """A command of README's: where it stands there, and what is added to it here."""

    key: str
    begins: str
    added: tuple[str, ...] = ()


STEPS = (
    Step("finetune", "sequencer2d finetune photos/ --from sequencer2d_n_p4"),
    Step("predict", "sequencer2d predict runs/photos", ("photos/", "--json")),
    Step("export", "sequencer2d export runs/photos"),
    Step("predict_exported", "sequencer2d predict photos.onnx", ("photos/", "--json")),
)


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="own-photos-"))
    gather(arguments.data, folder / "photos", classes=arguments.classes, images=arguments.images)
    row = measure(folder, arguments.finetune)
    row |= {"classes": arguments.classes, "images_per_class": arguments.images, "cores": arguments.cores}
    path = write_result({**origin(NAME, SCRIPT, command_line(SCRIPT, argv)), "rows": [row]}, arguments.result)
    failed = what_failed(row, arguments.minutes)
    print(json.dumps(row, indent=1), f"written to {path}; the run is in {folder}", *failed, sep="\n")
    return 1 if failed else 0


def gather(data: Path, photos: Path, *, classes: int, images: int) -> None:
    """Copy the first `images` of each of the largest classes of `data` to photos/<class>/.

    A class is the name of the folder that holds an image; images of all splits count.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(data.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            found[path.parent.name].append(path)
    for name in sorted(found, key=lambda name: (-len(found[name]), name))[:classes]:
        if len(found[name]) < images:
            raise SystemExit(f"{data}: class {name} has {len(found[name])} images, not {images}")
        (photos / name).mkdir(parents=True)
        for path in found[name][:images]:
            shutil.copy(path, photos / name)


def readme_commands(readme: str) -> list[list[str]]:
    """The commands of README's section, in the order of `STEPS`, each as words without the photo that README names.

    Raises:
        ValueError: README does not say one of them.
    """
    block = readme.partition(HEADING)[2].partition("```\n")[2].partition("```")[0]
    said = [" ".join(command.split()) for command in re.findall(r"sequencer2d(?: \S+)+", block)]
    commands = []
    for step in STEPS:
        match = next((command for command in said if command.startswith(step.begins)), None)
        if match is None:
            raise ValueError(f"README does not say {step.begins!r} under {HEADING!r}")
        commands.append([word for word in match.split() if word != "photo.jpg"] + list(step.added))
    return commands


def measure(folder: Path, finetune: Sequence[str] = ()) -> dict[str, Any]:
    """Run the commands in `folder`, the first one with further arguments; the row of the result."""
    row: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    outputs = {}
    for step, command in zip(STEPS, readme_commands((ROOT / "README.md").read_text(encoding="utf-8")), strict=True):
        command = [*command, *finetune] if step.key == "finetune" else command
        print("$", *command, flush=True)
        begin, cpu = time.monotonic(), _cpu_seconds()
        outputs[step.key] = _run(command, folder, shown=step.key in ("finetune", "export"))
        row[f"{step.key}_seconds"] = round(time.monotonic() - begin, 1)
        row[f"{step.key}_cpu_seconds"] = round(_cpu_seconds() - cpu, 1)
    row["seconds"] = round(sum(row[f"{step.key}_seconds"] for step in STEPS), 1)
    row["load_after"] = os.getloadavg()[0]
    return {**row, **report(folder), **compare(outputs["predict"], outputs["predict_exported"])}


def _cpu_seconds() -> float:
    """CPU time of the processes that have run so far: what their time comes to where no other program takes a share."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(command: list[str], folder: Path, *, shown: bool) -> str:
    """Run `sequencer2d …` in `folder`, and show or return its standard output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, check=True, text=True,
        stdout=None if shown else subprocess.PIPE,
    )  # fmt: skip
    return ran.stdout or ""


def report(folder: Path) -> dict[str, Any]:
    """What the run left: the accuracy of the best weights as `eval` finds it, and the report of mistakes beside it."""
    run = folder / "runs" / "photos"
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    measured = json.loads(_run(["sequencer2d", "eval", "runs/photos", "--json"], folder, shown=False))
    with (run / "mistakes.csv").open(encoding="utf-8", newline="") as file:
        mistakes = len(list(csv.DictReader(file)))
    count, top1 = measured["count"], measured["top1"]
    return {
        "model": summary["model"],
        "image_size_pixels": summary["config"]["data"]["image_size"],
        "epochs": summary["config"]["run"]["epochs"],
        "validation_images": count,
        "top1_percent": top1,
        "mistakes_listed": mistakes,
        "mistakes_drawn": (run / "mistakes.png").is_file(),
        "report_agrees": mistakes == count - round(count * top1 / 100),
    }


def compare(trained: str, exported: str) -> dict[str, Any]:
    """Two outputs of `predict --json` for the same photos: equal first classes, largest difference of a probability."""
    pairs = list(zip(json.loads(trained), json.loads(exported), strict=True))
    largest = 0.0
    for ours, theirs in pairs:
        beside = {guess["name"]: guess["probability"] for guess in theirs["guesses"]}
        largest = max(largest, *(abs(guess["probability"] - beside[guess["name"]]) for guess in ours["guesses"]))
    equal = sum(ours["guesses"][0]["name"] == theirs["guesses"][0]["name"] for ours, theirs in pairs)
    return {"photos_compared": len(pairs), "same_class": equal, "largest_difference": largest}


def what_failed(row: dict[str, Any], minutes: float) -> list[str]:
    """What the row does not keep of what README promises."""
    promises = {
        f"took {row['seconds'] / 60:.1f} of {minutes:g} minutes": row["seconds"] <= 60 * minutes,
        "the report of mistakes does not agree with the accuracy": row["report_agrees"],
        "no picture of the mistakes": row["mistakes_drawn"] or not row["mistakes_listed"],
        f"the exported model names another class for {row['photos_compared'] - row['same_class']} photos": (
            row["same_class"] == row["photos_compared"]
        ),
        f"a probability of the exported model is off by {row['largest_difference']:.1e}": (
            row["largest_difference"] <= CLOSE
        ),
    }
    return [said for said, kept in promises.items() if not kept]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="data set whose images stand in folders named by their classes")
    parser.add_argument("--classes", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--images", type=int, default=80, metavar="N", help="of each class (default: 80)")
    parser.add_argument("--cores", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="that it may take (default: 10)")
    parser.add_argument("--finetune", nargs=argparse.REMAINDER, default=[], help="last: further arguments of finetune")
    parser.add_argument("--folder", type=Path, help="empty folder to work in (default: a new one, which is kept)")
    parser.add_argument("--result", type=Path, metavar="FILE", help="default: benchmarks/results/own-photos.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
