"""`benchmarks.recurrences` times only what passed its check, keeps to its limit, and says what "auto" misses."""

import json

import pytest
import torch

from benchmarks import recurrences
from sequencer2d.nn import LSTM

CPU = ["--device", "cpu", "--shrink", "16", "--repeats", "1", "--implementation", "reference"]


def run(tmp_path, *options):
    recurrences.main([*CPU, "--output", str(tmp_path / "out.json"), *options])
    return json.loads((tmp_path / "out.json").read_text())


def test_every_row_has_errors_times_and_ratios(tmp_path):
    result = run(tmp_path, "--shapes", "1")
    assert [(row["rows"], row["hidden"], row["dtype"]) for row in result["rows"]] == [
        (12, 12, "bfloat16"),
        (12, 12, "float32"),
    ]
    for row in result["rows"]:
        assert 0 < row["error_to_budget"] <= 1
        assert row["auto"] == {"forward": "aten", "training": "aten"}
        names = ("torch", "torch_float32") if row["dtype"] == "bfloat16" else ("torch",)
        assert ("torch_float32" in row) == (row["dtype"] == "bfloat16")
        for kind in ("forward", "training"):
            fastest = min(row[name][kind] for name in names)
            assert row["ratio"][kind] == pytest.approx(fastest / row["ours"][kind])
    assert result["dropped"] == []


def test_a_wrong_layer_has_no_time(tmp_path, monkeypatch):
    right = LSTM.forward

    def wrong(self, *arguments):
        out, last = right(self, *arguments)
        return out, tuple(1.02 * part for part in last)

    monkeypatch.setattr(LSTM, "forward", wrong)
    (row,) = run(tmp_path, "--shapes", "1", "--dtypes", "float32")["rows"]
    assert row["error_to_budget"] > 1
    assert "ours" not in row
    assert "ratio" not in row


def test_a_layer_that_cannot_run_is_named_with_the_reason(tmp_path):
    (row,) = run(tmp_path, "--shapes", "1", "--dtypes", "float32", "--implementation", "cudnn")["rows"]
    assert "it needs cuda" in row["failure"]
    assert row["torch"]["training"] > 0
    assert "ours" not in row


def test_problems_beyond_the_limit_are_listed(tmp_path, monkeypatch):
    ticks = iter([0.0, 0.0, 1.0, 120.0])
    monkeypatch.setattr(recurrences.time, "monotonic", lambda: next(ticks, 120.0))
    result = run(tmp_path, "--shapes", "2", "--dtypes", "float32")
    assert [row["who"] for row in result["rows"]] == ["TF-GridNet, time"]
    assert result["dropped"] == ["TF-GridNet, frequency, float32"]


def test_what_auto_takes_although_it_is_slower():
    row = {"who": "DPRNN", "dtype": "bfloat16", "auto": {"forward": "cudnn", "training": "triton"}}
    row |= {"torch": {"forward": 2.0, "training": 5.0}, "ours": {"forward": 1.0, "training": 5.1}}
    assert recurrences.slower_choices([row]) == ["DPRNN, bfloat16, forward: cudnn 2.00 ms, the other 1.00 ms"]
    row["ours"]["training"] = 5.2
    assert len(recurrences.slower_choices([row])) == 2


def test_weights_and_inputs_are_the_same_for_both():
    problem = recurrences.Problem(recurrences.SHAPES[14], "float32", "cpu", "reference")
    theirs, layer = problem.layers()
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), layer.parameters(), strict=True))
    assert torch.equal(problem.inputs(2)[0], problem.inputs(2)[0])
