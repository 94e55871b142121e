"""Kill runs with SIGKILL, again and again, and let them go on: they must end as a run that nobody killed.

    python -m tests.training.kills FOLDER --kills 100 --processes 2

Half of the kills strike after a random time, half at a random access to a file of the run (opened, renamed, linked,
removed), where a writer is easiest to catch in the middle. Compared are the log, the weights, their average, the
optimizer, the best weights and the names of all files. This process only forks: every run is a child of it, or several
that form a process group, so that torch is imported once.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from sequencer2d.training.loop import train
from tests.processes import free_port
from tests.training.conftest import configuration, equal, logged

FIELDS = {
    "run.epochs": 3,
    "run.resume": "auto",
    "run.checkpoint_interval_steps": 4,
    "run.log_interval": 3,
    "data.erasing": 0.5,
}
EVENTS = ("open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.truncate", "shutil.copyfile")


class Life:
    """One call of `train`, in `processes` forked processes; `kill_at` counts accesses to files in the first of them."""

    def __init__(self, folder: Path, processes: int, fields: dict[str, Any], kill_at: int | None = None) -> None:
        port = str(free_port())
        self.pids = [_fork(folder, rank, processes, port, fields, kill_at) for rank in range(processes)]
        self.codes: dict[int, int] = {}

    def wait(self, seconds: float) -> bool:
        """Wait until every process has ended, or one was killed, or the time is over; whether something ended."""
        end = time.monotonic() + seconds
        while True:
            for pid in set(self.pids) - set(self.codes):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
            if len(self.codes) == len(self.pids) or any(self.codes.values()):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.002)

    def kill(self, rng: random.Random) -> None:
        """Kill the processes one after the other, in a random order."""
        for pid in rng.sample(self.pids, len(self.pids)):
            if pid not in self.codes:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                self.codes[pid] = -signal.SIGKILL


def outcome(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves, less what depends on the clock."""
    last = torch.load(folder / "checkpoints/last.pt", weights_only=True)
    last["progress"] = {
        name: last["progress"][name] for name in ("step", "evaluated_epochs", "best", "final", "window")
    }
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "log": logged(folder),
        "last": last,
        "best": safetensors.torch.load_file(folder / "best.safetensors"),
        "summary": {name: summary[name] for name in ("best", "final", "steps", "epochs")},
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the runs go")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="data.workers")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    fields = {**FIELDS, "data.workers": options.workers}
    rng = random.Random(options.seed)
    started = time.monotonic()
    whole = Life(options.folder / "whole", options.processes, fields, kill_at=-1)
    assert whole.wait(300), "the run that nobody kills does not end"
    assert not any(whole.codes.values()), whole.codes
    duration = time.monotonic() - started
    accesses = int((options.folder / "whole.accesses").read_text())
    expected = outcome(options.folder / "whole")
    kills = runs = 0
    lives: list[float] = []
    while kills < options.kills:
        folder = options.folder / f"run-{runs}"
        by_time = rng.random() < 0.5
        kill_at = None if by_time else rng.randrange(1, accesses)
        begun = time.monotonic()
        life = Life(folder, options.processes, fields, kill_at)
        ended = life.wait(rng.uniform(0, duration) if by_time else 300)
        life.kill(rng)
        lives.append(time.monotonic() - begun)
        if ended and set(life.codes.values()) == {0}:
            _require_equal(outcome(folder), expected, folder)
            runs += 1
            continue
        alive = 1 if options.processes > 1 else 0  # a process whose peer was killed fails by itself
        assert all(code in (0, alive, -signal.SIGKILL) for code in life.codes.values()), (folder, life.codes)
        kills += 1
    last = Life(options.folder / f"run-{runs}", options.processes, fields)
    assert last.wait(300), f"{folder} does not end"
    assert not any(last.codes.values()), last.codes
    _require_equal(outcome(options.folder / f"run-{runs}"), expected, options.folder / f"run-{runs}")
    print(
        f"{kills} kills, {runs + 1} runs of {len(expected['log'])} log lines, {options.processes} processes, "
        f"{options.workers} workers: all equal ({time.monotonic() - started:.0f} s)"
    )
    return 0


def _fork(folder: Path, rank: int, processes: int, port: str, fields: dict[str, Any], kill_at: int | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    warnings.simplefilter("ignore")
    try:
        if processes > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        counted = _count_accesses(folder, kill_at) if rank == 0 and kill_at else [0]
        train(configuration(folder, fields))
        if kill_at == -1 and rank == 0:
            folder.with_name(f"{folder.name}.accesses").write_text(str(counted[0]))
        code = 0
    except BaseException:
        with folder.with_name(f"{folder.name}.error").open("a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(code)


def _count_accesses(folder: Path, kill_at: int) -> list[int]:
    """Count accesses to files of the run in the list that is returned; at number `kill_at` the process kills itself."""
    counted, text, own = [0], str(folder), os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and os.getpid() == own and any(text in str(argument) for argument in arguments[:2]):
            counted[0] += 1
            if counted[0] == kill_at:
                os.kill(own, signal.SIGKILL)

    sys.addaudithook(hook)
    return counted


def _require_equal(found: dict[str, Any], expected: dict[str, Any], folder: Path) -> None:
    different = [name for name in expected if not equal(found[name], expected[name])]
    assert not different, f"{folder} differs in {', '.join(different)}"


if __name__ == "__main__":
    sys.exit(main())
