"""The gate: a single wrong image and a wrong gradient are seen."""

import pytest
import torch
from torch import Tensor

from sequencer2d.benchmark.forms import prepare
from sequencer2d.benchmark.gate import Gate
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
