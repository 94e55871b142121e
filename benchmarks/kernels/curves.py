"""Does training with the fused kernels follow training with cuDNN? The recipe `cifar10`, shortened, by both.

    python -m benchmarks.kernels.curves /images/cifar10 --steps 400

Each implementation runs from each seed, eagerly; a seed fixes weights, order and augmentation. Two curves of one seed
by two implementations should then differ less than two curves of two seeds by one. Writes
`benchmarks/results/curves.json`.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import command_line, origin, write_result

IMPLEMENTATIONS = ("triton", "cudnn")
INTERVAL = 20

NAME = "curves"
SCRIPT = "benchmarks.kernels.curves"
Curve = dict[int, float]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    curves: dict[tuple[str, int], Curve] = {}
    rows = []
    for seed, implementation in itertools.product(options.seeds, options.implementations):
        found = run(options, implementation, seed)
        curves[implementation, seed] = {entry["step"]: entry["loss"] for entry in found}
        memory = [entry["memory_mib"] for entry in found]
        rows.append({"implementation": implementation, "seed": seed, "steps": options.steps, "memory_mib": memory[-1]})
        rows[-1] |= {"memory_growth_mib": memory[-1] - memory[len(memory) // 2], "log": found}
    differences = compare(curves)
    for difference in differences:
        print(json.dumps(difference))
    command = command_line(SCRIPT, arguments)
    path = write_result({**origin(NAME, SCRIPT, command), "rows": rows, "differences": differences}, options.output)
    print(f"written to {path}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--steps", type=int, default=400, help="of a schedule of the recipe's length (default: 400)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--implementations", nargs="+", default=IMPLEMENTATIONS, metavar="NAME")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: benchmarks/results/curves.json")
    parser.add_argument("fields", nargs="*", metavar="field=value", help="set a field of the recipe")
    return parser.parse_intermixed_args(arguments)


def run(options: argparse.Namespace, implementation: str, seed: int) -> list[dict[str, Any]]:
    """The log's lines of kind "step" of one shortened run."""
    from sequencer2d import recipes
    from sequencer2d.cli.common import field_values
    from sequencer2d.errors import Interrupted
    from sequencer2d.training.fields import with_overrides
    from sequencer2d.training.loop import train

    with tempfile.TemporaryDirectory() as folder:
        recipe = recipes.get("cifar10")
        overrides = {**recipe.model.overrides, "implementation": implementation}
        fields = {
            "data.root": str(options.folder),
            "model.overrides": json.dumps(overrides),
            "run.output": folder,
            "run.compile": "false",
            "run.seed": str(seed),
            "run.max_steps": str(options.steps),
            "run.log_interval": str(INTERVAL),
            "run.eval_interval": "1000",
            **field_values(options.fields),
        }
        try:
            train(with_overrides(recipe, fields))
        except Interrupted:
            pass  # max_steps lies before the schedule's end
        lines = (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == "step"]


def compare(curves: dict[tuple[str, int], Curve]) -> list[dict[str, Any]]:
    """Every pair of curves that has the seed or the implementation in common, and how far apart the two are.

    `difference` is the mean over the logged intervals of the absolute difference of their mean losses, `last` the
    difference of the means over the last quarter; nats.
    """
    found = []
    for (first, one), (second, other) in itertools.combinations(curves.items(), 2):
        if first[0] != second[0] and first[1] != second[1]:
            continue
        steps = sorted(one.keys() & other.keys())
        tail = steps[-max(len(steps) // 4, 1) :]
        found.append(
            {
                "same": "seed" if first[1] == second[1] else "implementation",
                "curves": [f"{name}, seed {seed}" for name, seed in (first, second)],
                "difference": statistics.fmean(abs(one[step] - other[step]) for step in steps),
                "last": statistics.fmean(other[step] for step in tail) - statistics.fmean(one[step] for step in tail),
            }
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
