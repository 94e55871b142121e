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

CLAIMS = """
import os, sys
from pathlib import Path
from sequencer2d.benchmark import Turns
for folder in sys.stdin:
    if not os.fork():
        print(Turns(Path(folder.strip())).claim("a"), flush=True)
        os._exit(0)
    os.wait()
"""
"""Each line is answered by a process of its own, which has ended when the next one starts."""


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


def test_only_processes_that_take_part_are_stopped(sibling, tmp_path):
    """Not this one, and not whoever has the number of a process that took part earlier."""
    process, path = sibling
    wait_for(lambda: path.exists() and path.stat().st_size > 0)
    sent = []
    turns = Turns(tmp_path / "turns", kill=lambda number, what: sent.append((number, what)))
    (tmp_path / "turns" / "1.process").touch()
    with turns.alone():
        assert sent == [(process.pid, signal.SIGSTOP)]
    assert sent == [(process.pid, signal.SIGSTOP), (process.pid, signal.SIGCONT)]


def test_claims_of_an_earlier_run_count_no_more(sibling, tmp_path):
    process, path = sibling
    wait_for(lambda: path.exists() and path.stat().st_size > 0)
    folder = tmp_path / "turns"
    (folder / f"{os.getpid()}.process").unlink(missing_ok=True)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", CLAIMS], **pipes) as others:

        def another_claims():
            print(folder, file=others.stdin, flush=True)
            return others.stdout.readline().strip()

        assert another_claims() == "True"
        assert not Turns(folder).claim("a")  # the sibling still runs, so this is the same run
        process.kill()
        process.wait()
        assert another_claims() == "False"  # this process still takes part
        (folder / f"{os.getpid()}.process").unlink()
        assert another_claims() == "True"


def times(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
