"""Losses between the device and the log, and where a run stands: means, rates and entries known by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sequencer2d.errors import ConfigError, NumericalError
from sequencer2d.training import messages, speed, state
from sequencer2d.training.messages import step_entry
from sequencer2d.training.progress import read_progress
from sequencer2d.training.speed import Speedometer
from sequencer2d.training.state import RunState
from sequencer2d.training.window import LossWindow, require_finite_weights

CPU = torch.device("cpu")


def window_of(*losses: float) -> LossWindow:
    window = LossWindow(lambda values: values)
    for loss in losses:
        window.add(torch.tensor(loss), None)
    return window


def test_means_are_those_since_the_last_line_and_of_each_epoch_alone() -> None:
    asked: list[Tensor] = []
    window = LossWindow(lambda values: (asked.append(values), values / 2)[1])
    window.add(torch.tensor(2.0), torch.tensor(5.0))
    window.add(torch.tensor(6.0), torch.tensor(7.0))
    window.drain(2)
    window.drain(2)  # nothing waits
    assert [values.tolist() for values in asked] == [[2.0, 6.0]]
    assert window.take_mean() == (2.0, 7.0)  # the newest norm
    window.add(torch.tensor(10.0), None)
    window.drain(3)
    assert window.take_mean() == (5.0, 7.0)
    assert window.state_dict() == {"losses": [], "epoch_sum": 9.0, "epoch_count": 3}
    assert window.take_epoch_mean() == 3.0
    assert window.take_epoch_mean() == 0.0
    window.add(torch.tensor(8.0), None)
    window.drain(4)
    assert window.state_dict() == {"losses": [4.0], "epoch_sum": 4.0, "epoch_count": 1}
    again = window_of(6.0)
    again.load_state_dict(window.state_dict())
    again.drain(5)
    assert again.take_mean() == (5.0, None)
    assert again.take_epoch_mean() == 5.0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_the_first_step_whose_loss_is_not_finite_is_named(wrong: float) -> None:
    with pytest.raises(NumericalError, match=r"the loss of step 9 is (nan|inf)"):
        window_of(1.0, wrong, wrong).drain(10)


def test_a_parameter_that_is_not_finite_is_found_wherever_it_is() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    require_finite_weights(model, 5)
    for value in (math.nan, -math.inf):
        nn.init.constant_(model[1].bias, value)
        with pytest.raises(NumericalError, match="the weights after step 5 are not finite"):
            require_finite_weights(model, 5)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    for module in (state, speed):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def run_at(step: int, clock: list[float], **fields: Any) -> RunState:
    """A run of 4 epochs of 10 steps, 8 images each, that began at 90 s."""
    meter = Speedometer(8)
    meter.start()
    return RunState(10, 4, window_of(1.0, 3.0), meter, started=90.0, step=step, **fields)


def test_an_entry_of_the_log_holds_what_a_step_tells(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "memory_mib", lambda device: 12.345)
    run = run_at(15, clock, earlier_s=7.5)
    run.window.drain(15)
    for _ in range(3):
        run.speed.count()
    clock[0] += 1.5  # 3 steps of 8 images in 1.5 s
    entry = step_entry(run, 0.25, batch=8, device=CPU)
    assert entry == {
        "step": 15, "epoch": 1.5, "loss": 2.0, "lr": 0.25, "images_per_s": 16.0, "memory_mib": 12.3,
        "time_s": 19.0, "eta_s": 12.5,
    }  # fmt: skip
    run.window.add(torch.tensor(1.0), torch.tensor(0.5))
    run.window.drain(16)
    run.speed.count()
    clock[0] += 3.0
    later = step_entry(run, 0.25, batch=8, device=CPU)
    assert (later["grad_norm"], later["images_per_s"]) == (0.5, 2.7)


def test_a_run_goes_on_where_its_checkpoint_stands(clock: list[float]) -> None:
    best = {"step": 10, "epoch": 1, "train_loss": 2.5}
    run = run_at(15, clock, evaluated_epochs=1, best=best, final=best, earlier_s=7.5)
    assert (run.total_steps, run.finished, run.time_s) == (40, False, 17.5)
    assert run_at(40, clock).finished
    run.window.drain(15)
    run.speed.count()
    clock[0] += 2.0
    kept = run.progress()
    assert kept["time_s"] == 19.5
    assert kept["speed"] == {"steps": 1, "seconds": 2.0}
    new = RunState(10, 4, window_of(), Speedometer(8), started=102.0)
    new.restore(read_progress(kept))
    assert (new.step, new.evaluated_epochs, new.best, new.final, new.time_s) == (15, 1, best, best, 19.5)
    assert new.window.take_mean() == (2.0, None)
    assert new.speed.overall() == 4.0
    new.restore(read_progress({**kept, "best": {}, "final": {}}))
    assert new.best is None


@pytest.mark.parametrize(("step", "fits"), [(9, False), (10, True), (20, True), (21, False)])
def test_a_checkpoints_step_lies_in_the_epoch_after_those_that_are_logged(step: int, fits: bool) -> None:
    stored = {"step": step, "steps_per_epoch": 10, "evaluated_epochs": 1}
    if fits:
        assert read_progress(stored).step == step
    else:
        with pytest.raises(ConfigError, match=rf"progress\.step={step} does not fit 1 epochs of 10 steps"):
            read_progress(stored)


def test_without_a_pause_speed_is_counted_from_the_first_start(clock: list[float]) -> None:
    meter = Speedometer(4)
    meter.start()
    meter.count()
    clock[0] += 2.0
    assert (meter.recent(), meter.overall()) == (2.0, 2.0)
    meter.count()
    meter.count()
    clock[0] += 1.0
    assert (meter.recent(), meter.overall()) == (8.0, 4.0)
    meter.pause()
    clock[0] += 9.0
    meter.start()
    meter.count()
    clock[0] += 1.0
    assert (meter.recent(), meter.overall()) == (4.0, 4.0)
