"""The analysis of trained models: one part's failure, or the end of its time, keeps the others' results."""

import json
import math
import time
from argparse import Namespace

import numpy as np
import pytest

from benchmarks.analysis.parts import NAMES
from benchmarks.analysis.running import parse, run_parts
from benchmarks.analysis.writing import Run


@pytest.fixture
def run(tmp_path):
    return Run(Namespace(figures=tmp_path, results=tmp_path, command="c"), [], None)


def good(run):
    run.rows("good", [{"value": np.float64(np.nan), "count": np.int64(3)}])


def bad(run):
    raise RuntimeError("out of memory")


def after(run):
    assert (run.arguments.results / "analysis-good.json").exists(), "written before the next part begins"
    run.rows("after_it", [])


def test_a_part_that_fails_does_not_stop_the_others(run, tmp_path, capsys):
    assert run_parts([good, bad, after], run, math.inf) == 1
    assert json.loads((tmp_path / "analysis-good.json").read_text())["rows"] == [{"value": None, "count": 3}]
    assert (tmp_path / "analysis-after-it.json").exists()
    out, err = capsys.readouterr()
    assert "RuntimeError: out of memory" in err
    assert "bad FAILED after" in out
    assert "after done in" in out
    assert out.endswith("failed: bad\n")


def test_no_part_begins_after_the_time_limit(run, tmp_path, capsys):
    deadline = time.monotonic() + 0.2

    def slow(run):
        time.sleep(0.3)
        good(run)

    assert run_parts([slow, after], run, deadline) == 1
    assert (tmp_path / "analysis-good.json").exists(), "a part that has begun is finished"
    assert not (tmp_path / "analysis-after-it.json").exists()
    assert "not begun, the time limit had passed: after" in capsys.readouterr().out
    assert run_parts([good], run, math.inf) == 0


def test_parts_are_asked_for_by_name(capsys):
    assert parse(["m", "--data", "d", "--only", "erf", "cam"]).only == ["erf", "cam"]
    with pytest.raises(SystemExit):
        parse(["m", "--data", "d", "--only", "efr"])
    assert "erf" in NAMES
    assert "invalid choice: 'efr'" in capsys.readouterr().err
