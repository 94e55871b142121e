"""The log of a running run: into `log.jsonl`, TensorBoard, and a bar or lines on the terminal.

Only the main process opens a `RunLog`; the others use `SilentLog`, which has the same methods.
"""

import contextlib
import importlib.util
import json
import logging
from collections.abc import Callable, Iterator, Sequence
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

logger = logging.getLogger(__name__)


class SilentLog:
    """The log of a process that writes nothing."""

    def __enter__(self) -> "SilentLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
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

    def close(self) -> None:
        """Write out everything."""


class RunLog(SilentLog):
    """The main process's log.

    Args:
        folder: of the run.
        total_steps: of the run.
        first_step: steps done where the run goes on; later lines of an earlier call are dropped.
        done_epochs: epochs that are logged where the run goes on. The checkpoint at the end of an epoch is written
            before its evaluation, so a run killed in between logs that epoch again.
        metrics: of the task, which the line that ends an epoch shows.
        tensorboard: write TensorBoard's files too.
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
        tensorboard: bool,
        progress: str,
        bar: Callable[[Console], LiveBar] | None = None,
    ) -> None:
        self._total_steps, self._folder, self._metrics = total_steps, folder, metrics
        kept = keep_until(folder / LOG, first_step, done_epochs)
        self._file: IO[str] = (folder / LOG).open("a", encoding="utf-8")
        self._board = _open_board(folder / "tensorboard", first_step) if tensorboard else None
        for entry in kept:
            if entry["step"] >= first_step > 0:
                self._show_on_board(entry["kind"], {key: value for key, value in entry.items() if key != "kind"})
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

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
        with self._writing():
            self._file.close()
        with self._writing():
            if self._board:
                self._board.close()

    def _write(self, kind: str, entry: dict[str, Any]) -> None:
        with self._writing():
            self._file.write(json.dumps({"kind": kind, **entry}, allow_nan=False) + "\n")
            self._file.flush()
            self._show_on_board(kind, entry)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # TensorBoard's thread reports here what it could not write
            raise RunError(
                f"cannot write the log in {self._folder} ({error.strerror or error}); make room, or see whether the "
                "folder is still there; then go on with --resume"
            ) from error

    def _show_on_board(self, kind: str, entry: dict[str, Any]) -> None:
        if self._board:
            for name, value in entry.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._board.add_scalar(f"{kind}/{name}", value, entry["step"])


def _open_board(folder: Path, first_step: int) -> Any:
    """A TensorBoard writer; None if tensorboard is not installed (it is an optional dependency)."""
    if importlib.util.find_spec("tensorboard") is None:
        logger.warning("tensorboard is not installed: no TensorBoard files (pip install 'sequencer2d[train]')")
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first_step or None)
