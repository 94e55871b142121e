"""`benchmarks.kernels.cells` runs each candidate of a kernel, and compares it with float64 before it is timed."""

import json

import pytest
import torch

from benchmarks.kernels import cells
from sequencer2d.ops import devices
from sequencer2d.ops.launches import StreamedLaunch


@pytest.fixture
def interpreter(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    devices._ask.cache_clear()
    yield
    devices._ask.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter would run on tensors of the GPU")
def test_the_table_and_both_kinds_of_launch_are_checked(interpreter, monkeypatch, tmp_path):
    problem = cells.Problem("gru", torch.float32, 20, 3, 4)
    launches = (None, cells.shared(32, 4), StreamedLaunch(16, 16, 32, 4, 2))
    trials = [cells.Trial(problem, kernel, launch) for kernel in ("forward", "backward") for launch in launches]
    monkeypatch.setattr(cells, "TRIALS", trials)
    cells.main(["--device", "cpu", "--output", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["by"] for row in rows] == ["table", "shared memory", "streamed"] * 2
    assert all(row["error"] < 1e-6 for row in rows)


def test_a_launch_that_cannot_run_is_named_with_the_reason(monkeypatch):
    def fail(*_):
        raise RuntimeError("no room")

    trial = cells.TRIALS[0]
    monkeypatch.setattr(cells, "operands", lambda *_: {"gates": torch.zeros(1)})
    monkeypatch.setattr(cells, "run", lambda *_: fail)
    assert cells.check(trial, "cpu") == {"failure": "RuntimeError: no room"}


def test_every_candidate_is_a_trial_beside_the_tables_launch():
    assert len(cells.TRIALS) == sum(len(found) + 1 for found in cells.CANDIDATES.values())
    assert {trial.kernel for trial in cells.TRIALS} == {"forward", "backward"}
