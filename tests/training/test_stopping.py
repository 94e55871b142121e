"""When a run is saved and when it ends, and the commands and messages that this leads to."""

import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sequencer2d.environment import Launch
from sequencer2d.errors import Interrupted, NumericalError
from sequencer2d.training import saving, stopping
from sequencer2d.training.config import RunConfig
from sequencer2d.training.distributed import Processes
from sequencer2d.training.saving import Saver
from sequencer2d.training.signals import StopSignals
from sequencer2d.training.speed import Speedometer
from sequencer2d.training.state import RunState
from sequencer2d.training.stopping import Stopper, resume_command
from sequencer2d.training.window import LossWindow

HERE = Processes(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))


def state_at(step: int) -> RunState:
    """Of 4 epochs of 10 steps, begun at 100 s."""
    return RunState(10, 4, LossWindow(lambda values: values), Speedometer(8), started=100.0, step=step)


def stopper(step: int, received: str | None = None, **run: Any) -> Stopper:
    signals = StopSignals()
    signals.received = received
    return Stopper(RunConfig(**run), HERE, signals, state_at(step), Path("my run"))


@pytest.mark.parametrize(
    ("step", "received", "limits", "stops"),
    [
        (5, None, {}, False),
        (5, "SIGTERM", {}, True),
        (40, "SIGTERM", {}, False),  # the run is over
        (5, None, {"max_steps": 5}, True),
        (5, None, {"max_steps": 6}, False),
        (6, None, {"max_steps": 5}, True),
        (40, None, {"max_steps": 40}, False),
        (5, None, {"time_limit_s": 30.0}, True),
        (5, None, {"time_limit_s": 30.5}, False),
    ],
)
@pytest.mark.parametrize("last_of_epoch", [False, True])
def test_a_run_stops_by_a_signal_or_at_a_limit_before_its_end(
    step: int,
    received: str | None,
    limits: dict[str, Any],
    stops: bool,
    last_of_epoch: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopping.time, "monotonic", lambda: 130.0)
    for save in (False, True):
        assert stopper(step, received, **limits).agree(save, last_of_epoch=last_of_epoch) == (stops, save)


def test_between_steps_processes_exchange_and_at_the_end_of_an_epoch_they_settle() -> None:
    asked: list[str] = []
    agreement: Any = SimpleNamespace(
        exchange=lambda *flags: (asked.append("exchange"), flags)[1],
        settle=lambda *flags: (asked.append("settle"), flags)[1],
    )
    run = stopper(5)
    run._agreement = agreement
    run.agree(False, last_of_epoch=False)
    run.agree(False, last_of_epoch=True)
    assert asked == ["exchange", "settle"]


@pytest.mark.parametrize(
    ("received", "limits", "by_launcher", "says"),
    [
        ("SIGINT", {}, True, "stopped by Ctrl-C after step 5 of 40, saved in my run; go on with: sequencer2d train"),
        ("SIGTERM", {}, True, "stopped by SIGTERM after"),
        ("SIGUSR1", {}, False, "stopped by SIGUSR1 after"),
        (None, {"max_steps": 5}, False, "stopped by run.max_steps after .* go on, without the limit, with: seq"),
        (None, {}, False, "stopped by run.time_limit_s or another process after"),
    ],
)
def test_why_a_run_stopped_is_said(received: str | None, limits: Any, by_launcher: bool, says: str) -> None:
    run = stopper(5, received, **limits)
    run.agree(False, last_of_epoch=True)
    error = run.interrupted()
    assert error.by_launcher == by_launcher
    with pytest.raises(Interrupted, match=says):
        raise error


def test_a_limit_that_an_earlier_call_reached_is_refused() -> None:
    for step in (4, 40):
        stopper(step, max_steps=5).refuse_old_limit()
    with pytest.raises(Interrupted, match=r"run\.max_steps=5 was reached before: the run in my run is at step 5 of 40"):
        stopper(5, max_steps=5).refuse_old_limit()


@pytest.mark.parametrize(
    ("world", "local", "start"),
    [
        (1, 1, "sequencer2d"),
        (2, 2, "torchrun --nproc-per-node 2 -m sequencer2d"),
        (8, 4, "torchrun … --nproc-per-node 4 -m sequencer2d"),
    ],
)
def test_the_command_to_go_on_starts_as_many_processes(
    world: int, local: int, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "launch", lambda: Launch(0, 0, world, local))
    assert resume_command(Path("my run")) == f"{start} train --resume 'my run'"


def test_the_first_signal_is_noted_and_the_second_does_what_it_did_before() -> None:
    got: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    try:
        with StopSignals() as signals:
            assert (signals.received, signals.by_launcher) == (None, False)
            signal.raise_signal(signal.SIGUSR1)
            assert (signals.received, signals.by_launcher, got) == ("SIGUSR1", False, [])
            assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
            signal.raise_signal(signal.SIGUSR1)
            assert got == [signal.SIGUSR1]
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGTERM)
            assert (signals.received, signals.by_launcher) == ("SIGTERM", True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_in_another_thread_signals_are_left_alone() -> None:
    found: list[bool] = []

    def enter() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with StopSignals():
            found.append(signal.getsignal(signal.SIGTERM) == before)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [True]


def saver(step: int = 6, rank: int = 0, folder: Path = Path("run"), **run: Any) -> Saver:
    here = Processes(rank=rank, local_rank=0, world_size=1, device=torch.device("cpu"))
    parts: Any = SimpleNamespace(path=folder)
    return Saver(RunConfig(**run), here, parts, parts, state_at(step), meta={}, fingerprints={})


def test_a_checkpoint_is_due_after_its_time_in_the_main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    main, other = (saver(rank=rank, checkpoint_interval_s=60.0) for rank in (0, 1))
    never = saver(checkpoint_interval_s=None)
    due = []
    for now[0] in (159.5, 160.0, 170.0):
        due.append((main.due_by_time(), other.due_by_time(), never.due_by_time()))
    assert due == [(False, False, False), (True, False, False), (True, False, False)]


def test_a_checkpoint_is_due_at_multiples_of_its_steps() -> None:
    assert [saver(step, checkpoint_interval_steps=3).due_by_steps() for step in (5, 6, 7)] == [False, True, False]
    assert not saver(6, checkpoint_interval_steps=None).due_by_steps()


def test_a_loss_that_is_not_finite_names_the_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    found = saver(6, folder=tmp_path)
    for kept, says in ((None, "there is no checkpoint before it"), (9, "the last good checkpoint is .*step-00000009")):
        found._state.window.add(torch.tensor(float("nan")), None)
        if kept:
            (tmp_path / "checkpoints").mkdir()
            for step in (3, kept):
                (tmp_path / f"checkpoints/step-{step:08d}.pt").touch()
        with pytest.raises(NumericalError, match=f"the loss of step 6 is nan; {says}"):
            found.check_losses()
