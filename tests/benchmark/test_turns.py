"""Processes that share a device: one claims each case, and one alone runs while it is timed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sequencer2d.benchmark import Turns

SIBLING = """
import sys, time
from pathlib import Path
from sequencer2d.benchmark import Turns
turns = Turns(Path(sys.argv[1]))
with open(sys.argv[2], "w", buffering=1) as file:
    while True:
        print(time.monotonic(), file=file)
        time.sleep(0.01)
"""


@pytest.fixture
def sibling(tmp_path: Path):
    """A process that takes part and writes the time down all the while; the file it writes."""
    path = tmp_path / "times.txt"
    process = subprocess.Popen([sys.executable, "-c", SIBLING, str(tmp_path / "turns"), str(path)])
    yield process, path
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


def test_the_others_stand_still_while_one_is_timed(sibling, tmp_path):
    process, path = sibling
    turns = Turns(tmp_path / "turns")
    wait_for(lambda: path.exists() and path.stat().st_size > 0)
    with turns.alone():
        begin = time.monotonic()
        time.sleep(0.3)
        end = time.monotonic()
    wait_for(lambda: times(path)[-1] > end)
    assert [t for t in times(path) if begin < t < end] == []
    assert [t for t in times(path) if t < begin]
    process.kill()
    process.wait()
    with turns.alone():  # whoever has ended is no obstacle
        pass


def test_the_others_go_on_after_an_error(sibling, tmp_path):
    _, path = sibling
    turns = Turns(tmp_path / "turns")
    wait_for(lambda: path.exists() and path.stat().st_size > 0)
    with pytest.raises(ZeroDivisionError), turns.alone():
        raise ZeroDivisionError
    now = time.monotonic()
    wait_for(lambda: times(path)[-1] > now)


def test_each_case_is_claimed_once(tmp_path):
    first, second = Turns(tmp_path), Turns(tmp_path)
    assert [first.claim(("a", 1)), second.claim(("a", 1)), second.claim(("a", 2))] == [True, False, True]
    assert Turns().claim("a")
    assert Turns().claim("a")


def test_algorithms_are_not_timed_beside_others(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with Turns(tmp_path).beside_others():
        assert not torch.backends.cudnn.benchmark
    with Turns().beside_others():
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark


def test_this_process_is_not_stopped(tmp_path):
    sent = []
    turns = Turns(tmp_path, kill=lambda process, number: sent.append((process, number)))
    (tmp_path / "1.process").touch()
    with turns.alone():
        assert sent == [(1, signal.SIGSTOP)]
    assert sent == [(1, signal.SIGSTOP), (1, signal.SIGCONT)]
    assert (tmp_path / f"{os.getpid()}.process").exists()


def times(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
