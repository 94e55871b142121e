"""Timing, by a clock whose readings are known."""

import itertools
from collections.abc import Iterator

import pytest
import torch

from sequencer2d.benchmark import timing
from sequencer2d.benchmark.timing import ceilings
from tests.benchmark.small import CPU, TickingClock


class StepClock:
    """A clock that a step moves on by the next of its durations, in seconds."""

    def __init__(self, durations: Iterator[float]) -> None:
        self.durations = durations
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def step(self) -> None:
        self.now += next(self.durations)


def test_a_step_is_timed_by_its_median_after_a_warm_up() -> None:
    clock = StepClock(iter([9.0, 9.0, 9.0, 0.002, 0.050, 0.002, 0.003, 0.004]))
    found = timing.measure(clock.step, CPU, measure_s=0.0, warmup_s=0.0, clock=clock)
    assert found.step_ms == pytest.approx(3.0)
    assert found.latency_ms == found.step_ms
    assert found.repeats == 5
    # Quartiles of 2, 2, 3, 4, 50 ms: 2 and 27.
    assert found.spread_percent == pytest.approx(100 * (27 - 2) / 3)


@pytest.mark.parametrize(
    "step_s, measure_s, repeats",
    [(0.25, 1.0, 5), (0.125, 1.0, 8), (0.125, 1.05, 9), (0.001, 1.0, 300)],
)
def test_steps_are_repeated_for_the_time_that_is_asked_for(step_s: float, measure_s: float, repeats: int) -> None:
    clock = StepClock(itertools.repeat(step_s))
    found = timing.measure(clock.step, CPU, measure_s=measure_s, warmup_s=0.3, clock=clock)
    assert found.repeats == repeats
    assert found.step_ms == pytest.approx(1e3 * step_s)
    assert found.spread_percent == pytest.approx(0.0, abs=1e-6)


def test_the_ceilings_are_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timing.CEILINGS, "cpu", (64, torch.float32, 2**20))
    found = ceilings(CPU, clock=TickingClock(0.5))
    assert found == {
        "matmul": "64³ fp32",
        "matmul_tflop_per_s": pytest.approx(2 * 64**3 / 0.5 / 1e12),
        "copy": "1 MiB, read + write",
        "copy_tb_per_s": pytest.approx(2 * 2**20 / 0.5 / 1e12),
    }


def test_a_row_takes_a_second_after_a_third_of_one_unless_it_is_told_otherwise() -> None:
    assert (timing.MEASURE_S, timing.WARMUP_S, timing.LATENCY_REPEATS) == (1.0, 0.3, 20)
    clock = StepClock(itertools.repeat(0.1))
    assert timing.measure(clock.step, CPU, clock=clock).repeats == 10
    assert clock.now == pytest.approx((2 + 3 + 10) * 0.1)  # first steps, warm-up, what is timed


def test_the_limits_that_are_measured_are_those_that_results_name() -> None:
    assert {"cuda": (8192, torch.bfloat16, 2**30), "cpu": (2048, torch.float32, 2**27)} == timing.CEILINGS
