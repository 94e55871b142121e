"""The log of a running run: into `log.jsonl`, the trackers, and a bar or lines on the terminal.

Only the main process opens a `RunLog`; the others use `SilentLog`, which has the same methods.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from torch import Tensor

from sequencer2d import terminal
from sequencer2d.errors import RunError
from sequencer2d.tasks import CLASSIFICATION
from sequencer2d.tasks.task import Metric
from sequencer2d.training.bar import LiveBar
from sequencer2d.training.logfile import LOG, keep_until
from sequencer2d.training.messages import epoch_text, step_text
from sequencer2d.training.trackers import Trackers


class SilentLog:
    """The log of a process that writes nothing."""

    def __enter__(self) -> "SilentLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(finished=kind is None)
        except RunError:
            if error is None:  # otherwise what ended the run is the better reason
                raise

    def step(self, entry: dict[str, Any]) -> None:
        """One line of kind "step"."""

    def epoch(self, entry: dict[str, Any]) -> None:
        """One line of kind "epoch"."""

    def advance(self, step: int, loss: Tensor, lr: float) -> None:
        """Move the bar; called after every step with its loss, 0-d on the device."""

    def show(self, doing: str) -> None:
        """Say in the bar what takes time beside the steps."""

    def say(self, message: str) -> None:
        """One line for the person who watches."""

    def close(self, finished: bool = True) -> None:
        """Write out everything. `finished`: the run is not interrupted and did not fail."""


class RunLog(SilentLog):
    """The main process's log.

    Args:
        folder: of the run.
        total_steps: of the run.
        first_step: steps done where the run goes on; later lines of an earlier call are dropped.
        done_epochs: epochs that are logged where the run goes on. The checkpoint at the end of an epoch is written
            before its evaluation, so a run killed in between logs that epoch again.
        metrics: of the task, which the line that ends an epoch shows.
        trackers: names of the trackers that get the entries too.
        config: the run's fields, which trackers show.
        progress: as `run.progress`.
        bar: makes the live bar on a console; none: lines in its place.
    """

    def __init__(
        self,
        folder: Path,
        *,
        total_steps: int,
        first_step: int,
        done_epochs: int | None = None,
        metrics: Sequence[Metric] = CLASSIFICATION.metrics,
        trackers: Sequence[str],
        config: Mapping[str, Any] | None = None,
        progress: str,
        bar: Callable[[Console], LiveBar] | None = None,
    ) -> None:
        self._total_steps, self._folder, self._metrics = total_steps, folder, metrics
        self._trackers = Trackers(trackers, folder, first_step, config or {})
        kept = keep_until(folder / LOG, first_step, done_epochs)
        self._file: IO[str] = (folder / LOG).open("a", encoding="utf-8")
        for entry in kept:
            self._trackers.log(entry["kind"], entry)
        self._console = terminal.console(error=True, soft_wrap=True, highlight=False, quiet=progress == "none")
        wants_bar = progress == "bar" or (progress == "auto" and self._console.is_terminal)
        self._bar = bar(self._console) if bar and wants_bar else None

    def step(self, entry: dict[str, Any]) -> None:
        self._write("step", entry)
        if not self._bar:
            self.say(f"step {entry['step']}/{self._total_steps}  {step_text(entry)}")

    def epoch(self, entry: dict[str, Any]) -> None:
        self._write("epoch", entry)
        self.say(epoch_text(entry, self._metrics))

    def advance(self, step: int, loss: Tensor, lr: float) -> None:
        if self._bar:
            self._bar.advance(step, loss, lr)

    def show(self, doing: str) -> None:
        if self._bar:
            self._bar.show(doing)

    def say(self, message: str) -> None:
        self._console.print(message, markup=False)

    def close(self, finished: bool = True) -> None:
        if self._bar:
            self._bar.stop()
        with self._writing():
            self._file.close()
        with self._writing():
            self._trackers.close(finished)

    def _write(self, kind: str, entry: dict[str, Any]) -> None:
        with self._writing():
            self._file.write(json.dumps({"kind": kind, **entry}, allow_nan=False) + "\n")
            self._file.flush()
            self._trackers.log(kind, entry)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # TensorBoard's thread reports here what it could not write
            raise RunError(
                f"cannot write the log in {self._folder} ({error.strerror or error}); make room, or see whether the "
                "folder is still there; then go on with --resume"
            ) from error
