"""A small variant, cases of it, and a clock whose readings are known."""

from pathlib import Path
from typing import Any

import torch

from sequencer2d import benchmark
from sequencer2d.benchmark import Case, Contender, Plan, ResultFile, Sweep, contenders
from sequencer2d.benchmark.workload import Workload, make_workload
from sequencer2d.models import model_config

CPU = torch.device("cpu")
SIZE = 28
BATCH = 3
SMALL = "sequencer2d_small"
ROW = model_config("sequencer2d_n", depths=(1, 1), dims=(16, 32), hidden_dims=(4, 8), patch_sizes=(7, 2))
"""The row of the table of variants behind `SMALL`: two blocks."""

PEER = "test_resnet"
HEADER = {
    "name": "a",
    "date": "2030-01-01T00:00:00+00:00",
    "device": {"kind": "cpu", "name": "A CPU", "threads": 2},
    "versions": {"torch": "2.99"},
    "commit": "abc",
    "command": "sequencer2d bench",
}


class TickingClock:
    """Each reading is `tick` seconds after the one before it, whatever happened in between."""

    def __init__(self, tick: float) -> None:
        self.tick = tick
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def cases(*models: str, mode: str = "inference", dtype: str = "fp32", form: str = "eager") -> list[Case]:
    sweep = Sweep(models, modes=(mode,), batches=(BATCH,), sizes=(SIZE,))
    return Plan("?", (sweep,)).cases([dtype], [form])


def measure(wanted: list[Case], path: Path, **options: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that a run yields, each step half a second long by its clock, and what it measured for them."""
    rows: list[dict[str, Any]] = []
    started: list[str] = []
    results = ResultFile(path, HEADER, fresh=options.pop("fresh", False))
    benchmark.run(
        wanted,
        results,
        CPU,
        measure_s=0.01,
        on_start=lambda case, form: started.append(f"{case}, {form}"),
        on_row=rows.append,
        clock=TickingClock(0.5),
        **options,
    )
    return rows, started


def workload(mode: str = "inference") -> tuple[Contender, Workload]:
    contender = benchmark.parse_contender(SMALL)
    return contender, make_workload(contenders.build(contender, SIZE), mode, torch.float32, 5, SIZE, CPU)
