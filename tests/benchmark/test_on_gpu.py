"""The benchmark on a GPU: its forms, graphs that train, and memory that is the row's own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sequencer2d import benchmark
from sequencer2d.benchmark import ResultFile, contenders, timing
from sequencer2d.benchmark.forms import prepare
from sequencer2d.benchmark.workload import make_workload
from tests.benchmark.small import HEADER, cases

pytestmark = pytest.mark.gpu


# timm's nn.LSTM: PyTorch cannot put its 16-bit weights in one chunk, and its compiler asks for gradients of copies.
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("form", ["eager", "compile", "graph", "optimized", "lean"])
def test_on_a_gpu_every_form_passes_the_gate_and_counts_memory(mode: str, form: str, tmp_path: Path) -> None:
    results = ResultFile(tmp_path / "a.json", HEADER)
    rows: list[dict[str, Any]] = []
    wanted = cases("sequencer2d_n", "timm:sequencer2d_s", mode=mode, dtype="bf16", form=form)
    benchmark.run(wanted, results, torch.device("cuda"), measure_s=0.01, on_row=rows.append)
    for row in rows:
        assert row["error"] is None, row
        assert row["peak_memory_mib"] > row["parameters"] * 2 / timing.MIB


def test_a_replayed_training_graph_changes_the_weights() -> None:
    model = contenders.build(benchmark.parse_contender("sequencer2d_n"), 56).cuda()
    step = prepare(make_workload(model, "training", torch.bfloat16, 4, 56, torch.device("cuda")), "graph")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step.run()
    assert all((a != b).any() for a, b in zip(before, model.parameters(), strict=True))


def test_on_a_gpu_memory_does_not_depend_on_what_ran_before(tmp_path: Path) -> None:
    """Matrix products keep workspaces for every stream and thread that they saw; they are no row's memory."""
    peaks = []
    for number in range(3):
        rows: list[dict[str, Any]] = []
        wanted = cases("sequencer2d_n", mode="training", dtype="bf16", form="graph")
        results = ResultFile(tmp_path / f"{number}.json", HEADER)
        benchmark.run(wanted, results, torch.device("cuda"), measure_s=0.01, on_row=rows.append)
        peaks += [row["peak_memory_mib"] for row in rows]
    assert max(peaks) - min(peaks) < 1.0, peaks
