"""Real processes that are stopped in mid-epoch and go on: the losses are those of a run that nobody stopped."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from sequencer2d.training.checkpoint import list_checkpoints
from sequencer2d.training.loop import train
from tests.processes import Call, Child
from tests.training.conftest import configuration, logged

FIELDS = {"run__epochs": 1, "run__checkpoint_interval_steps": 3, "data__erasing": 0.5}
NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


@pytest.fixture(autouse=True)
def nothing_left_running(tmp_path):
    """A test that fails half-way would leave torchrun's workers, with sessions of their own, to run on for hours."""
    yield
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(tmp_path).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The log of a run that nobody stops. It depends neither on workers nor on how often a run is saved."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(configuration(folder, {path.replace("__", "."): value for path, value in FIELDS.items()}))
    return logged(folder)


def test_kill_9_in_mid_epoch_then_resume(tiny, tmp_path, whole, start):
    process = start(tiny("parts", **FIELDS), tmp_path, slow=0.3)
    wait_for(lambda: len(logged_if_any(tmp_path / "parts")) >= 5, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert 5 <= len(logged(tmp_path / "parts")) < 10, "killed in mid-epoch"
    assert train(tiny("parts", run__resume=True, **FIELDS))["steps"] == 10
    assert logged(tmp_path / "parts") == whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first_and_the_run_can_go_on(tiny, tmp_path, whole, start, number):
    fields = {**FIELDS, "run__checkpoint_interval_steps": None, "data__workers": 1}
    process = start(tiny("parts", **fields), tmp_path, slow=0.3)
    wait_for(lambda: len(logged_if_any(tmp_path / "parts")) >= 4, process)
    process.send_signal(number)
    assert process.wait(60) == 75, process.stderr_text()
    assert f"stopped by {NAMES[number]} after" in process.stderr_text()
    assert "Traceback" not in process.stderr_text()
    step = len(logged(tmp_path / "parts"))
    assert [path.name for path in list_checkpoints(tmp_path / "parts")] == [f"step-{step:08d}.pt"]
    assert step < 10, "stopped in mid-epoch"
    train(tiny("parts", run__resume=True, **fields))
    assert logged(tmp_path / "parts") == whole


def test_two_processes_killed_then_terminated_resume_with_the_same_losses(tiny, tmp_path, start):
    whole = start(tiny("whole", **FIELDS), tmp_path, forks=2)
    killed = start(tiny("parts", **FIELDS), tmp_path, slow=0.3, processes=2)
    wait_for(lambda: len(logged_if_any(tmp_path / "parts")) >= 4, killed)
    os.kill(children(killed.pid)[1], signal.SIGKILL)
    assert killed.wait(90) != 0
    assert [path.name for path in list_checkpoints(tmp_path / "parts")] == ["step-00000003.pt"]

    terminated = start(tiny("parts", run__resume=True, **FIELDS), tmp_path, slow=0.3, processes=2)
    wait_for(lambda: len(logged_if_any(tmp_path / "parts")) >= 7, terminated)
    terminated.send_signal(signal.SIGTERM)
    terminated.wait(90)
    assert "stopped by SIGTERM" in terminated.stderr_text()
    step = len(logged(tmp_path / "parts"))
    assert list_checkpoints(tmp_path / "parts")[-1].name == f"step-{step:08d}.pt"
    assert step < 10, "stopped in mid-epoch"

    resumed = start(tiny("parts", run__resume=True, **FIELDS), tmp_path, forks=2)
    for process in (whole, resumed):
        assert process.wait(120) == 0, process.stderr_text()
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")


def wait_for(condition, process: Child | Call, timeout_s: float = 90.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.stderr_text()
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def logged_if_any(folder: Path) -> list[str]:
    log = folder / "log.jsonl"
    return log.read_text().splitlines() if log.exists() else []


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
