"""`benchmarks.recurrences` times only what passed its check, keeps to its limit, and says what "auto" misses."""

import json

import pytest
import torch

from benchmarks import recurrences
from sequencer2d.nn import LSTM
from sequencer2d.ops.precision import float32_product_precision

CPU = ["--device", "cpu", "--shrink", "16", "--repeats", "1", "--implementation", "reference"]


def run(tmp_path, *options):
    recurrences.main([*CPU, "--output", str(tmp_path / "out.json"), *options])
    return json.loads((tmp_path / "out.json").read_text())


def test_every_row_has_errors_times_and_ratios(tmp_path):
    result = run(tmp_path, "--shapes", "1")
    assert [(row["rows"], row["hidden"], row["dtype"]) for row in result["rows"]] == [
        (12, 12, "bfloat16"),
        (12, 12, "tf32"),
        (12, 12, "float32"),
    ]
    for row in result["rows"]:
        assert 0 < row["error_to_budget"] <= 1
        names = ("torch", "torch_float32") if row["dtype"] == "bfloat16" else ("torch",)
        assert (row["torch_float32_forward_ms"] is None) == (row["dtype"] != "bfloat16")
        for kind in ("forward", "training"):
            assert row[f"auto_{kind}"] == "aten"
            fastest = min(row[f"{name}_{kind}_ms"] for name in names)
            assert row[f"{kind}_ratio"] == pytest.approx(fastest / row[f"ours_{kind}_ms"])
    assert result["rows"][0].keys() == result["rows"][1].keys()
    assert result["dropped"] == []


def test_a_wrong_layer_has_no_time(tmp_path, monkeypatch):
    right = LSTM.forward

    def wrong(self, *arguments):
        out, last = right(self, *arguments)
        return out, tuple(1.02 * part for part in last)

    monkeypatch.setattr(LSTM, "forward", wrong)
    (row,) = run(tmp_path, "--shapes", "1", "--dtypes", "float32")["rows"]
    assert row["error_to_budget"] > 1
    assert row["ours_forward_ms"] is None
    assert row["training_ratio"] is None


def test_a_layer_that_cannot_run_is_named_with_the_reason(tmp_path):
    (row,) = run(tmp_path, "--shapes", "1", "--dtypes", "float32", "--implementation", "cudnn")["rows"]
    assert "it needs cuda" in row["failure"]
    assert row["torch_training_ms"] > 0
    assert row["ours_training_ms"] is None


def test_problems_beyond_the_limit_are_listed(tmp_path, monkeypatch):
    ticks = iter([0.0, 0.0, 1.0, 120.0])
    monkeypatch.setattr(recurrences.time, "monotonic", lambda: next(ticks, 120.0))
    result = run(tmp_path, "--shapes", "2", "--dtypes", "float32")
    assert [row["who"] for row in result["rows"]] == ["TF-GridNet, time"]
    assert result["dropped"] == ["TF-GridNet, frequency, float32"]


def test_what_auto_takes_although_it_is_slower():
    row = {"who": "DPRNN", "dtype": "bfloat16", "auto_forward": "cudnn", "auto_training": "triton"}
    row |= {"torch_forward_ms": 2.0, "torch_training_ms": 5.0, "ours_forward_ms": 1.0, "ours_training_ms": 5.4}
    assert recurrences.slower_choices([row]) == ["DPRNN, bfloat16, forward: cudnn 2.00 ms, the other 1.00 ms"]
    row["ours_training_ms"] = 5.6
    assert len(recurrences.slower_choices([row])) == 2
    row |= {"ours_forward_ms": None, "ours_training_ms": None}
    assert recurrences.slower_choices([row]) == []


def test_weights_and_inputs_are_the_same_for_both():
    problem = recurrences.Problem(recurrences.SHAPES[14], "float32", "cpu", "reference")
    theirs, layer = problem.layers()
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), layer.parameters(), strict=True))
    assert torch.equal(problem.inputs(2)[0], problem.inputs(2)[0])


def test_tf32_is_allowed_in_its_rows_alone():
    allowed = {}
    for dtype in ("tf32", "float32"):
        with recurrences.Problem(recurrences.SHAPES[0], dtype, "cpu", "reference").switches():
            allowed[dtype] = float32_product_precision()
    assert allowed == {"tf32": "tf32", "float32": "tf32x3"}
