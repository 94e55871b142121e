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
    """

    def __init__(self, recipe: str, place: Place, fields: list[str]) -> None:
        self.recipe, self.run = recipe, place.run(recipe)
        self._first_step = done_steps(self.run)
        self._said = self.run.with_suffix(".txt")
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

    def kill_at(self, moment: float) -> int:
        """Kill it and its workers at `moment` (of `time.monotonic`), once it has saved something; its exit code."""
        self._watch(moment)
        while self._process.poll() is None and done_steps(self.run) == self._first_step:
            time.sleep(0.1)
        self._kill()
        return self._process.wait()

    def last_words(self) -> str:
        """The end of what the run's processes printed."""
        return "\n".join(self._said.read_text(errors="replace").splitlines()[-15:])

    def _watch(self, moment: float) -> int:
        said = time.monotonic()
        while self._process.poll() is None and time.monotonic() < moment:
            time.sleep(0.1)
            if time.monotonic() - said >= _SAID_EVERY_S:
                said = time.monotonic()
                print(f"{self.recipe}: {(self.last_words().splitlines() or ['…'])[-1]}", flush=True)
        return self._process.returncode or 0

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def steps_of(lines: list[Line]) -> list[Line]:
    """The lines of kind "step"."""
    return [line for line in lines if line["kind"] == "step"]


def median_rate(lines: list[Line]) -> float:
    """Images/s in training: the median over a log's lines."""
    return statistics.median(line["images_per_s"] for line in steps_of(lines))


def start_seconds(lines: list[Line], batch: int) -> float:
    """Seconds that a run took before its first step: opening the data and compiling, from its log's first line."""
    first = steps_of(lines)[0]
    return max(0.0, first["time_s"] - first["step"] * batch / median_rate(lines))


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
