"""CIFAR-10 from scratch by the recipe `cifar10`: trains, then writes `benchmarks/results/cifar10.json`.

    python -m benchmarks.cifar10 /images/cifar10 --time-limit 600

The folder holds train/<class>/* and test/<class>/*. Needs no installation: from the repository's root it
runs on the sources. A run that was interrupted goes on when the command is repeated.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import command_line, origin, write_result

NAME = "cifar10"
SCRIPT = "benchmarks.cifar10"


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_intermixed_args(argv)
    from sequencer2d import recipes
    from sequencer2d.cli.common import field_values
    from sequencer2d.training.fields import with_overrides
    from sequencer2d.training.loop import train

    fields = {
        "data.root": str(arguments.folder),
        "run.output": str(arguments.output),
        "run.resume": "auto",
        "run.time_limit_s": str(arguments.time_limit),
        **field_values(arguments.fields),
    }
    summary = train(with_overrides(recipes.get(NAME), fields))
    command = command_line(SCRIPT, argv)
    path = write_result(result(summary, read_epochs(arguments.output), command), arguments.result)
    print(f"top-1 {summary['final']['top1']:.2f} % in {summary['duration_s'] / 60:.1f} min; written to {path}")
    return 0


def result(summary: dict[str, Any], epochs: list[dict[str, Any]], command: str) -> dict[str, Any]:
    """The result file's content; its accuracy is the last epoch's, as the best one would be chosen on test images."""
    row = {
        "recipe": NAME,
        "model": summary["model"],
        "parameters": summary["parameters"],
        "epochs": summary["epochs"],
        "top1_percent": summary["final"]["top1"],
        "top5_percent": summary["final"]["top5"],
        "seconds": summary["duration_s"],
        "images_per_second": summary["images_per_s"],
        "memory_mib": summary["memory_mib"],
        "seed": summary["config"]["run"]["seed"],
    }
    return {**origin(NAME, SCRIPT, command), "rows": [row], "config": summary["config"], "log": epochs}


def read_epochs(run_folder: Path) -> list[dict[str, Any]]:
    """The lines of kind "epoch" in a run's log."""
    lines = (run_folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == "epoch"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with train/<class>/* and test/<class>/*")
    parser.add_argument("fields", nargs="*", metavar="field=value", help="set a field of the recipe")
    parser.add_argument(
        "--time-limit", type=float, default=600.0, metavar="SECONDS", help="stop, saved, after this time"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/cifar10"), metavar="FOLDER", help="the run's folder")
    parser.add_argument("--result", type=Path, metavar="FILE", help="default: benchmarks/results/cifar10.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
