"""Whether a run ends before its last step: by a signal, a limit of time, or a limit of steps."""

import shlex
import time
from pathlib import Path

from sequencer2d.environment import launch
from sequencer2d.errors import Interrupted
from sequencer2d.training.config import RunConfig
from sequencer2d.training.distributed import Agreement, Processes
from sequencer2d.training.signals import StopSignals
from sequencer2d.training.state import RunState

_NAMES = {"SIGINT": "Ctrl-C"}


class Stopper:
    """Decides after each step, in all processes alike, whether to stop and whether to save.

    Args:
        run: the limits of this call.
        here: this process.
        signals: those that stop a run.
        state: where the run stands.
        folder: of the run, for messages.
    """

    def __init__(self, run: RunConfig, here: Processes, signals: StopSignals, state: RunState, folder: Path) -> None:
        self._run, self._signals, self._state, self._folder = run, signals, state, folder
        self._agreement = Agreement(here.control)
        self._by_launcher = False

    def agree(self, save: bool, *, last_of_epoch: bool) -> tuple[bool, bool]:
        """Whether the run stops here and whether a checkpoint is due, if any process says so.

        Args:
            save: whether this process wants a checkpoint.
            last_of_epoch: take every process's answer of now. Between two steps the answers are a step old, so that no
                step waits for them.
        """
        limit = self._run.time_limit_s
        told = self.told() or (limit is not None and time.monotonic() - self._state.started >= limit)
        decide = self._agreement.settle if last_of_epoch else self._agreement.exchange
        told, save, self._by_launcher = decide(told, save, self._signals.by_launcher)
        return (told or self._at_limit()) and not self._state.finished, save

    def refuse_old_limit(self) -> None:
        """Raise `Interrupted` if `run.max_steps` was reached by an earlier call."""
        state = self._state
        if self._at_limit() and not state.finished:
            raise Interrupted(
                f"run.max_steps={self._run.max_steps} was reached before: the run in {self._folder} is at step "
                f"{state.step} of {state.total_steps}; go on without run.max_steps, or with a higher one"
            )

    def told(self) -> bool:
        """Whether a signal has asked this process to stop."""
        return self._signals.received is not None

    def interrupted(self) -> Interrupted:
        """The exception to raise once the run is saved."""
        limit = "run.max_steps" if self._at_limit() else "run.time_limit_s or another process"
        received = self._signals.received
        go_on = "go on with" if received else "go on, without the limit, with"
        return Interrupted(
            f"stopped by {_NAMES.get(received, received) if received else limit} after step {self._state.step} of "
            f"{self._state.total_steps}, saved in {self._folder}; {go_on}: {resume_command(self._folder)}",
            by_launcher=self._by_launcher,
        )

    def _at_limit(self) -> bool:
        return self._run.max_steps is not None and self._state.step >= self._run.max_steps


def resume_command(folder: Path) -> str:
    """The shell command that resumes the run in `folder` with the same number of processes."""
    here = launch()
    start = "sequencer2d"
    if here.world_size > 1:
        hosts = "" if here.local_world_size == here.world_size else " …"
        start = f"torchrun{hosts} --nproc-per-node {here.local_world_size} -m sequencer2d"
    return f"{start} train --resume {shlex.quote(str(folder))}"
