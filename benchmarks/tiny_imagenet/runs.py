"""From a line of a plan to a run: its folder, its training configuration, and how far it is."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tiny_imagenet.ablations import ABLATIONS, ABLATIONS_SHORT
from benchmarks.tiny_imagenet.comparisons import BETTER, SMALL, TABLE1
from benchmarks.tiny_imagenet.derived import FINE_TUNE, TRANSFER
from benchmarks.tiny_imagenet.plans import Plan
from benchmarks.tiny_imagenet.short import BETTER_SHORT, FINE_TUNE_SHORT, SMALL_SHORT, TRANSFER_SHIPPED

if TYPE_CHECKING:
    from sequencer2d.training.config import TrainConfig

RECIPE = "tiny_imagenet_paper"
PLANS: dict[str, Plan] = {
    "ablations": ABLATIONS,
    "ablations_short": ABLATIONS_SHORT,
    "table1": TABLE1,
    "small": SMALL,
    "better": BETTER,
    "fine_tune": FINE_TUNE,
    "transfer": TRANSFER,
    "small_short": SMALL_SHORT,
    "better_short": BETTER_SHORT,
    "fine_tune_short": FINE_TUNE_SHORT,
    "transfer_shipped": TRANSFER_SHIPPED,
}


def run_name(plan: str, model: str, seed: int) -> str:
    """Name of a run's folder."""
    same = PLANS[plan].models[model].run
    return f"{(same or f'{plan}/{model}').replace('/', '-')}-seed{seed}"


def start_of(plan: str, model: str, seed: int, runs: Path) -> Path | None:
    """The folder of the finished run whose weights a run starts from; None for a run from scratch."""
    start = PLANS[plan].models[model].start
    return None if start is None else runs / run_name(*start.split("/"), seed)


def is_finished(run: Path) -> bool:
    """Whether a run's folder holds what a run writes at its end."""
    return (run / "summary.json").is_file()


def done_steps(run: Path) -> int:
    """Optimizer steps at a run's newest checkpoint; 0 if it has none."""
    from sequencer2d.training.checkpoint import list_checkpoints

    return max((int(path.stem.removeprefix("step-")) for path in list_checkpoints(run)), default=0)


def configuration(plan: str, model: str, seed: int, *, data: Path, runs: Path, fields: list[str]) -> "TrainConfig":
    """The training configuration of one run, whose folder is one of `runs`."""
    from sequencer2d import recipes
    from sequencer2d.cli.common import field_values
    from sequencer2d.training.fields import with_overrides

    line = PLANS[plan].models[model]
    start = start_of(plan, model, seed, runs)
    config = recipes.get(RECIPE)
    spec = dataclasses.replace(
        config.model, name=line.model, overrides=dict(line.overrides), checkpoint=None if start is None else str(start)
    )
    values = {
        "data.root": str(data / line.data),
        "run.output": str(runs / run_name(plan, model, seed)),
        "run.seed": str(seed),
        "run.resume": "auto",
        "run.tensorboard": "false",
        "run.progress": "none",
    }
    given = {**PLANS[plan].fields, **line.fields, **field_values(fields)}
    return with_overrides(dataclasses.replace(config, model=spec), {**values, **given})
