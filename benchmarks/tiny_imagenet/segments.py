"""A run in pieces: processes that train until they are killed or their time is over, and what their logs say."""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.tiny_imagenet.runs import done_steps
from sequencer2d.training.logfile import read_log

PLATEAU, DECAY = "tiny_imagenet_plateau", "tiny_imagenet_decay"
_SAID_EVERY_S = 20.0

Line = dict[str, Any]


class Place(NamedTuple):
    """Where a call reads and writes, and what it sets in every recipe."""

    data: Path
    work: Path
    fields: list[str]

    def run(self, recipe: str) -> Path:
        """The folder of a recipe's run."""
        return self.work / recipe

    def log(self, recipe: str) -> list[Line]:
        """The lines of that run's log."""
        return read_log(self.run(recipe))


class Segment:
    """A process that trains a recipe's run, from its last checkpoint if there is one. What it prints goes to a file.

    Args:
        recipe: its name.
        place: where the data and the runs are.
        fields: of the recipe, for this process alone.

    Attributes:
        start_s: seconds until its first own line in the log; None while there is none.
    """

    def __init__(self, recipe: str, place: Place, fields: list[str]) -> None:
        self.recipe, self.run = recipe, place.run(recipe)
        self.start_s: float | None = None
        self._place, self._first_step, self._began = place, done_steps(self.run), time.monotonic()
        self._before = self._times()
        self._said, self._told = self.run.with_suffix(".txt"), self._began
        command = [
            sys.executable, "-m", "sequencer2d", "train", recipe, f"data.root={place.data}", f"run.output={self.run}",
            "run.resume=auto", "run.tensorboard=false", "run.progress=lines", *place.fields, *fields,
        ]  # fmt: skip
        place.work.mkdir(parents=True, exist_ok=True)
        with self._said.open("ab") as said:
            # In a session of its own, so that its workers can be killed with it.
            self._process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)

    def wait(self) -> int:
        """Wait for its end; its exit code. Says from time to time how far it is."""
        return self._watch(float("inf"))

    def kill_after(self, seconds: float, latest: float) -> int:
        """Kill it and its workers once it has trained for `seconds` and saved something; its exit code.

        At the moment `latest` (of `time.monotonic`) it is killed in any case.
        """
        while self._process.poll() is None and time.monotonic() < latest:
            self._watch(min(latest, time.monotonic() + 0.5))
            trained = 0.0 if self.start_s is None else time.monotonic() - self._began - self.start_s
            if trained >= seconds and done_steps(self.run) > self._first_step:
                break
        self._kill()
        return self._process.wait()

    def last_words(self) -> str:
        """The end of what the run's processes printed."""
        return "\n".join(self._said.read_text(errors="replace").splitlines()[-15:])

    def _watch(self, moment: float) -> int:
        while self._process.poll() is None and time.monotonic() < moment:
            time.sleep(0.2)
            now = time.monotonic()
            if self.start_s is None and not self._times() <= self._before:
                self.start_s = now - self._began
                print(f"{self.recipe}: trains after {self.start_s:.0f} s", flush=True)
            if now - self._told >= _SAID_EVERY_S:
                self._told = now
                print(f"{self.recipe}: {(self.last_words().splitlines() or ['…'])[-1]}", flush=True)
        return self._process.returncode or 0

    def _times(self) -> set[float]:
        """When the log's lines were written, which tells a process's own from those of the same steps before a kill."""
        return {line["time_s"] for line in steps_of(self._place.log(self.recipe))}

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def steps_of(lines: list[Line]) -> list[Line]:
    """The lines of kind "step"."""
    return [line for line in lines if line["kind"] == "step"]


def median_rate(lines: list[Line]) -> float:
    """Images/s in training: the median over a log's lines."""
    return statistics.median(line["images_per_s"] for line in steps_of(lines))


def repeated(before: list[Line], after: list[Line], first_step: int) -> dict[str, Any]:
    """How a run's log lines after a hard stop agree with those of the same steps that it had written before.

    Args:
        before: the log when the run was killed.
        after: the log once the run has gone on.
        first_step: the step of the checkpoint from which it went on.

    Returns:
        `goes_on_at_step`, `killed_after_step` (the last step of a log line), `lines_repeated`, and the largest
        difference of their losses, None without such lines.
    """
    losses = {line["step"]: line["loss"] for line in steps_of(after)}
    old = [line for line in steps_of(before) if line["step"] > first_step and line["step"] in losses]
    return {
        "killed_after_step": max((line["step"] for line in steps_of(before)), default=0),
        "goes_on_at_step": first_step,
        "lines_repeated": len(old),
        "largest_difference_of_loss": max((abs(line["loss"] - losses[line["step"]]) for line in old), default=None),
    }
