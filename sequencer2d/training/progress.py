"""Where a run stands, as its checkpoints keep it: plain numbers, checked when they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from sequencer2d.errors import ConfigError
from sequencer2d.ranges import Checked, Range
from sequencer2d.training.fields import from_dict
from sequencer2d.training.logfile import check_entry

Count = Annotated[int, Range(at_least=0, at_most=2**53)]
Duration = Annotated[float, Range(at_least=0, at_most=1e12, unit="seconds")]


@dataclass(frozen=True)
class WindowState(Checked):
    """The losses that are not logged yet, and those of the epoch; see `LossWindow`."""

    section: ClassVar[str] = "progress.window."

    losses: tuple[float, ...] = ()
    epoch_sum: Annotated[float, Range(at_least=-1e300, at_most=1e300)] = 0.0
    epoch_count: Count = 0


@dataclass(frozen=True)
class SpeedState(Checked):
    """Steps, and the seconds they took; see `Speedometer`."""

    section: ClassVar[str] = "progress.speed."

    steps: Count = 0
    seconds: Duration = 0.0


@dataclass(frozen=True)
class Progress(Checked):
    """Everything about a run beside its weights and its optimizer. Raises `ConfigError` for what cannot be."""

    section: ClassVar[str] = "progress."

    step: Count
    """Optimizer steps done."""
    steps_per_epoch: Annotated[int, Range(at_least=1, at_most=2**53)]
    evaluated_epochs: Count
    """Epochs that are logged, with their evaluation if one was due."""
    window: WindowState = field(default_factory=WindowState)
    speed: SpeedState = field(default_factory=SpeedState)
    best: dict[str, Any] | None = None
    """The log's entry of the best epoch so far."""
    final: dict[str, Any] = field(default_factory=dict)
    """The log's entry of the last epoch so far."""
    time_s: Duration = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        first = self.evaluated_epochs * self.steps_per_epoch
        if not first <= self.step <= first + self.steps_per_epoch:
            raise ConfigError(
                f"progress.step={self.step} does not fit {self.evaluated_epochs} epochs of {self.steps_per_epoch} steps"
            )
        for name, entry in (("best", self.best), ("final", self.final)):
            if entry:
                check_entry("epoch", entry, f"progress.{name}")


def read_progress(stored: Any) -> Progress:
    """The progress that a checkpoint holds. Raises `ConfigError` for anything else."""
    if not isinstance(stored, Mapping):
        raise ConfigError(f"progress must be a dictionary, got a {type(stored).__name__}")
    missing = [name for name in ("step", "steps_per_epoch", "evaluated_epochs") if name not in stored]
    if missing:
        raise ConfigError(f"progress lacks {', '.join(missing)}")
    return from_dict(Progress, stored, "progress.")
