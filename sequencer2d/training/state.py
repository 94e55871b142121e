"""Where a run stands: what its log, its checkpoints and its summary are made of."""

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

from sequencer2d.training.progress import Progress
from sequencer2d.training.speed import Speedometer
from sequencer2d.training.window import LossWindow


@dataclass
class RunState:
    """The numbers of a run that change as it trains, beside weights and optimizer.

    Attributes:
        steps_per_epoch: optimizer steps of an epoch.
        epochs: of the whole run.
        window: the losses that are not logged yet.
        speed: images/s.
        started: when this call began, as `time.monotonic` counts, in seconds.
        step: optimizer steps done.
        evaluated_epochs: epochs that are logged, with their evaluation if one was due.
        best: the log's entry of the best epoch so far.
        final: the log's entry of the last epoch so far.
        earlier_s: seconds of the calls before this one.
    """

    steps_per_epoch: int
    epochs: int
    window: LossWindow
    speed: Speedometer
    started: float
    step: int = 0
    evaluated_epochs: int = 0
    best: dict[str, Any] | None = None
    final: dict[str, Any] = field(default_factory=dict)
    earlier_s: float = 0.0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step == self.total_steps

    @property
    def time_s(self) -> float:
        """Seconds of this call and those before it."""
        return self.earlier_s + time.monotonic() - self.started

    def progress(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain numbers; `progress.Progress` names and checks them."""
        return {
            "step": self.step,
            "steps_per_epoch": self.steps_per_epoch,
            "evaluated_epochs": self.evaluated_epochs,
            "window": self.window.state_dict(),
            "best": self.best,
            "final": self.final,
            "speed": self.speed.state_dict(),
            "time_s": self.time_s,
        }

    def restore(self, progress: Progress) -> None:
        """Go on where a checkpoint stands."""
        self.step, self.evaluated_epochs = progress.step, progress.evaluated_epochs
        self.best, self.final, self.earlier_s = progress.best or None, progress.final, progress.time_s
        self.window.load_state_dict(dataclasses.asdict(progress.window))
        self.speed.load_state_dict(dataclasses.asdict(progress.speed))
