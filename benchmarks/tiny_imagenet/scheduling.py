"""Run what is not finished of some plans, some processes on each GPU at a time, and stop all of them in time.

A process that is told to stop saves first. Nothing is lost however the scheduler ends: a run goes on from its last
checkpoint, and a run that finished without its row gets it when the command is repeated.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from benchmarks.tiny_imagenet.rows import SCRIPT, make_row, merge_row, read_rows
from benchmarks.tiny_imagenet.runs import PLANS, configuration, done_steps, is_finished, run_name, start_of
from sequencer2d.cli.main import EXIT_INTERRUPTED
from sequencer2d.errors import UserError
from sequencer2d.files import write_json

_TOLD = (-signal.SIGTERM, -signal.SIGKILL)
"""Exit codes of a run that was told to stop before it could save, or that did not stop within the grace."""


class Job(NamedTuple):
    """One run, or one that serves two plans."""

    plan: str
    model: str
    seed: int

    def __str__(self) -> str:
        return f"{self.plan} {self.model} seed {self.seed}"


class Scheduler:
    """The runs of one call.

    Args:
        options: of the command line, see `running.parser`.
        signals: those received so far; any stops all runs.
    """

    def __init__(self, options: argparse.Namespace, signals: list[int]) -> None:
        self._options, self._signals = options, signals
        self._end = None if options.time_limit is None else time.monotonic() + options.time_limit
        self._waiting = [
            Job(plan, model, seed)
            for seed in options.seeds
            for plan in options.plans
            for model in options.models or PLANS[plan].models
        ]
        done = {Job(plan, row["model"], row["seed"]) for plan in options.plans for row in read_rows(self._result(plan))}
        self._waiting = [job for job in self._waiting if job not in done]
        self._slots = [gpu for _ in range(options.per_gpu) for gpu in range(options.gpus)]
        self._running: dict[subprocess.Popen[bytes], tuple[Job, int]] = {}
        self._told: float | None = None
        self._states: dict[str, str] = {}
        self._failed = False

    def run(self) -> int:
        """Run until all is finished or the time is over: 0, EXIT_INTERRUPTED if runs are left, or 1 if one failed."""
        self._collect_finished()
        while self._waiting or self._running:
            stopping = bool(self._signals) or self._left() <= self._options.grace
            if stopping:
                self._stop()
            else:
                self._fill_slots()
            if not self._reap() and not self._running and (stopping or not self._may_start()):
                break
            time.sleep(0.1)
        for job in self._waiting:
            self._note(job, "not started, the time limit had passed")
        if self._failed:
            return 1
        finished = all(state == "finished" for state in self._states.values())
        return 0 if finished else EXIT_INTERRUPTED

    def _left(self) -> float:
        return float("inf") if self._end is None else self._end - time.monotonic()

    def _may_start(self) -> bool:
        return bool(self._waiting) and self._left() > max(self._options.shortest, self._options.grace)

    def _result(self, plan: str) -> Path:
        file: Path = self._options.results / f"tiny-imagenet-{plan}.json"
        return file

    def _folder(self, job: Job) -> Path:
        folder: Path = self._options.runs / run_name(*job)
        return folder

    def _collect_finished(self) -> None:
        """Make the rows of runs that another plan trained, or an earlier call, which ended before it wrote them."""
        for job in [job for job in self._waiting if is_finished(self._folder(job))]:
            self._waiting.remove(job)
            try:
                self._check_same(job)
            except UserError as error:
                self._fail(job, str(error))
            else:
                self._add_row(job)

    def _check_same(self, job: Job) -> None:
        from sequencer2d.training.assemble import resolve
        from sequencer2d.training.resume import check_same_config
        from sequencer2d.training.runfiles import read_config

        options, folder = self._options, self._folder(job)
        config = configuration(*job, data=options.data, runs=options.runs, fields=options.fields)
        check_same_config(folder, resolve(config, read_config(folder).model.num_classes or 1))

    def _fill_slots(self) -> None:
        while self._slots and self._may_start() and (job := self._next()) is not None:
            gpu = self._slots.pop(0)
            self._running[self._start(job, gpu)] = (job, gpu)

    def _next(self) -> Job | None:
        """Take the first waiting run that can start now; a run whose start nobody will finish fails."""
        for job in list(self._waiting):
            start = start_of(*job, self._options.runs)
            trained_now = {self._folder(other) for other, _ in self._running.values()}
            if self._folder(job) in trained_now:
                continue  # by another plan, which shares the run: its end makes both rows
            if start is not None and not is_finished(start):
                if start not in trained_now | {self._folder(other) for other in self._waiting}:
                    self._waiting.remove(job)
                    self._fail(job, f"it starts from {start}, which holds no finished run; train that first")
                continue
            self._waiting.remove(job)
            return job
        return None

    def _fail(self, job: Job, why: str) -> None:
        self._failed = True
        self._note(job, f"failed: {why}")

    def _start(self, job: Job, gpu: int) -> "subprocess.Popen[bytes]":
        options, folder = self._options, self._folder(job)
        command = [sys.executable, "-m", SCRIPT, job.plan, "--child", "--models", job.model]
        command += ["--seeds", str(job.seed), "--data", str(options.data), "--runs", str(options.runs)]
        if self._end is not None:  # the limit holds even if this process is killed
            command += ["--time-limit", f"{self._left():.0f}"]
        environment = {"OMP_NUM_THREADS": "4"} | os.environ | {"CUDA_VISIBLE_DEVICES": str(gpu)}
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._note(job, f"on GPU {gpu} …")
        with Path(f"{folder}.out").open("ab") as output, Path(f"{folder}.err").open("ab") as errors:
            # In a session of its own, so that a signal to this process's group reaches it once, from here.
            return subprocess.Popen(
                [*command, *options.fields], env=environment, stdout=output, stderr=errors, start_new_session=True
            )

    def _stop(self) -> None:
        """Tell all runs to save and stop; end those that still run after the grace."""
        now = time.monotonic()
        if self._told is None:
            self._told = now
            self._signal(signal.SIGTERM)
        elif now - self._told > self._options.grace:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def _reap(self) -> bool:
        """Take note of the runs that ended; whether there were any."""
        ended = [process for process in self._running if process.poll() is not None]
        for process in ended:
            job, gpu = self._running.pop(process)
            self._slots.append(gpu)
            if process.returncode == 0:
                self._add_row(job)
                self._collect_finished()
            elif process.returncode == EXIT_INTERRUPTED or (self._told is not None and process.returncode in _TOLD):
                self._note(job, f"stopped at step {done_steps(self._folder(job))}; repeat the command to go on")
            else:
                self._fail(job, f"ended with code {process.returncode}, see {self._folder(job)}.err")
        return bool(ended)

    def _add_row(self, job: Job) -> None:
        options = self._options
        row = make_row(*job, self._folder(job), options.command, side_by_side=options.per_gpu)
        merge_row(self._result(job.plan), job.plan, row, options.command)
        print(f"{job}: {row['top1_percent']:.2f} % in {row['seconds']:.0f} s", flush=True)
        self._note(job, "finished", say=False)

    def _note(self, job: Job, state: str, *, say: bool = True) -> None:
        """Say how a run stands, and keep it in `states.json` beside the runs."""
        if say:
            print(f"{job}: {state}", flush=True)
        self._states[str(job)] = state
        self._options.runs.mkdir(parents=True, exist_ok=True)
        write_json(self._options.runs / "states.json", self._states)


def schedule(options: argparse.Namespace) -> int:
    """Run the plans of `options`; see `Scheduler.run`."""
    with stop_signals() as signals:
        return Scheduler(options, signals).run()


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C are added to a list.

    Further ones do no more: `timeout` sends its signal twice, to the process and to its group, and the runs end within
    the grace in any case.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
