"""Steps: each form computes what its model computes, trains it where it trains, and is refused where it cannot run."""

import functools

import pytest
import torch
from torch import Tensor

from sequencer2d.benchmark import steps
from sequencer2d.benchmark.forms import FORMS, prepare
from sequencer2d.benchmark.gate import Gate
from sequencer2d.benchmark.session import Session
from tests.benchmark.small import CPU, PEER, TickingClock, cases, workload


@pytest.mark.parametrize("form, message", [("graph", "needs a CUDA device"), ("lean", "for training")])
def test_a_form_is_refused_where_it_cannot_run(form: str, message: str) -> None:
    with pytest.raises(steps.ImplementationError, match=message):
        prepare(workload()[1], form)


def test_training_changes_the_weights() -> None:
    _, work = workload("training")
    before = [parameter.detach().clone() for parameter in work.model.parameters()]
    assert steps.LEARNING_RATE == 1e-5
    prepare(work, "eager").run()
    for parameter, old in zip(work.model.parameters(), before, strict=True):
        # AdamW's first step moves each weight by the learning rate, up to its epsilon and the decay of weights.
        moved = (parameter.detach() - old).abs().max().item()
        assert moved == pytest.approx(steps.LEARNING_RATE, rel=0.05)


def test_training_steps_take_the_optimizer_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One fused kernel, which reads its step from the GPU only where a graph captures it; no scaler outside fp16."""
    made: dict[str, dict[str, object]] = {}
    for module, name in ((torch.optim, "AdamW"), (torch.amp, "GradScaler")):
        create = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, create=create, name=name, **o: (made.update({name: o}), create(*a, **o))[1]
        )
    prepare(workload("training")[1], "eager")
    assert made == {"AdamW": {"lr": 1e-5, "fused": True, "capturable": False}, "GradScaler": {"enabled": False}}


def test_the_optimized_form_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "optimize", functools.partial(steps.optimize, compile=False))
    contender, work = workload()
    assert Gate(contender, work).check(prepare(work, "optimized")).passed


def test_the_lean_forms_code_is_its_own_keeps_less_and_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    partitioned = torch._dynamo.lookup_backend("aot_eager_decomp_partition")  # as inductor, without its code
    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda name: partitioned)
    monkeypatch.setattr(steps, "MEMORY_BUDGET", 0.1)
    contender, work = workload("training")
    gate = Gate(contender, work)
    kept: dict[str, list[int]] = {"usual": [], "lean": []}
    for name, backend in (("usual", partitioned), ("lean", steps.compile_lean)):
        forward = torch.compile(work.model, dynamic=False, backend=backend)

        def pack(x: Tensor, sizes: list[int] = kept[name]) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            assert gate.check(steps.Step(lambda: None, forward)).passed
    assert 0 < sum(kept["lean"]) < sum(kept["usual"])


def test_the_papers_protocol_is_eager_exact_fp32_with_sgd_and_the_usual_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = cases(PEER, mode="training", form="paper")
    session = Session(case, CPU, measure_s=0.01, clock=TickingClock(0.5))
    model, images = session.work.model, session.work.images
    assert images.is_contiguous()
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    monkeypatch.setattr(steps, "LEARNING_RATE", 0.25)
    torch.backends.cudnn.allow_tf32, restore = True, torch.backends.cudnn.allow_tf32
    try:
        prepare(session.work, "paper").run()
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = restore
    assert seen == [False]
    for name, parameter in model.named_parameters():  # Nesterov's first step: the gradient and 0.9 of it
        expected = before[name] - 0.25 * 1.9 * parameter.grad
        torch.testing.assert_close(parameter.detach(), expected, msg=name)


def test_every_other_form_has_channels_last() -> None:
    assert workload()[1].images.is_contiguous(memory_format=torch.channels_last)
    assert [name for name, form in FORMS.items() if not form.channels_last] == ["paper"]
