"""The gate: a single wrong image and a wrong gradient are seen."""

import math

import pytest
import torch
from torch import Tensor

from sequencer2d.benchmark import gate as gate_module
from sequencer2d.benchmark.forms import prepare
from sequencer2d.benchmark.gate import Gate, Verdict
from sequencer2d.benchmark.steps import Step
from tests.benchmark.small import workload


def test_the_gate_sees_a_single_wrong_image_at_either_end_of_the_batch() -> None:
    contender, work = workload()
    gate = Gate(contender, work)
    right = prepare(work, "eager")
    assert gate.check(right).passed
    for image in (0, 4):
        logits = right.run().clone()
        logits[image, 0] = torch.nan
        assert not gate.check(Step(lambda logits=logits: logits, right.forward)).passed


def test_the_gate_sees_a_wrong_gradient_also_after_steps_have_changed_the_weights() -> None:
    contender, work = workload("training")
    gate = Gate(contender, work)
    right = prepare(work, "eager")
    right.run()
    assert gate.check(right).passed

    def half(x: Tensor) -> Tensor:
        y = work.model(x)
        return y.detach() + (y - y.detach()) * 0.5

    verdict = gate.check(Step(right.run, half))
    assert not verdict.passed
    assert verdict.error == pytest.approx(0.5, rel=1e-3)


def test_the_error_may_be_twice_that_of_pytorchs_own_recurrences_and_some_rounding_steps() -> None:
    assert (gate_module.BUDGET, gate_module.FLOOR) == (2.0, 1e-6)
    contender, work = workload()
    gate = Gate(contender, work)
    assert gate.baseline == "aten"
    usual = gate._run(contender, "aten", None)["logits"]
    error = float((usual - gate.exact["logits"]).norm() / gate.exact["logits"].norm())
    assert gate.limits == {"logits": pytest.approx(max(2 * error, 1e-6))}


@pytest.mark.parametrize(
    "batch, count, rows",
    [(5, 4, [0, 1, 3, 4]), (3, 4, [0, 1, 2]), (1, 4, [0]), (5, 2, [0, 4]), (256, 4, [0, 1, 254, 255])],
)
def test_rows_at_both_ends_of_a_batch_are_compared(batch: int, count: int, rows: list[int]) -> None:
    assert gate_module._spread(batch, count).tolist() == rows


def test_a_verdict_says_what_was_wrong_and_is_json() -> None:
    verdict = Verdict("logits", 0.003, 0.001, "cudnn")
    assert str(verdict) == "logits: relative error 0.003, at most 0.001 (2 × cudnn) allowed"
    assert not verdict.passed
    assert Verdict("logits", 0.001, 0.001, "cudnn").passed
    for error in (math.nan, math.inf):
        broken = Verdict("logits", error, 0.001, "cudnn")
        assert not broken.passed
        assert broken.as_dict()["error"] is None
