"""What a run says of itself: `log.jsonl`, TensorBoard, and a bar or lines on the terminal.

Only the main process opens a `RunLog`; the others use `SilentLog`, which has the same methods.

`log.jsonl` holds one JSON object per line. Kinds:

* `"step"`: `step` (optimizer steps done), `epoch` (fraction), `loss` (mean since the last such line, over all
  processes), `lr`, `images_per_s`, `memory_mib`, `time_s` (of the run's calls so far), `grad_norm` with clipping.
* `"epoch"`: `step`, `epoch` (epochs done), `train_loss`, `time_s`, and after an evaluation the task's metrics, null if
  not finite; for classification `top1` and `top5` (%) and `val_loss`.
"""

import contextlib
import importlib.util
import json
import logging
import math
import resource
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sequencer2d import terminal
from sequencer2d.errors import ConfigError, RunError
from sequencer2d.files import atomic_write, parse_json
from sequencer2d.tasks import CLASSIFICATION
from sequencer2d.tasks.task import Metric

logger = logging.getLogger(__name__)

LOG = "log.jsonl"
NUMBERS: dict[str, tuple[str, ...]] = {
    "step": ("step", "epoch", "loss", "lr"),
    "epoch": ("step", "epoch", "train_loss"),
}
"""Kinds of entries, and the finite numbers that each must have. Every other entry is a number, or null."""
_LONGEST_LINE = 2**16


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
            if error is None:  # else what ended the run is the better reason
                raise

    def step(self, entry: dict[str, Any]) -> None:
        """One line of kind "step"."""

    def epoch(self, entry: dict[str, Any]) -> None:
        """One line of kind "epoch"."""

    def advance(self, step: int) -> None:
        """Move the bar; called after every step."""

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
    ) -> None:
        self._total_steps, self._folder, self._metrics = total_steps, folder, metrics
        kept = _keep_until(folder / LOG, first_step, done_epochs)
        self._file: IO[str] = (folder / LOG).open("a", encoding="utf-8")
        self._board = _open_board(folder / "tensorboard", first_step) if tensorboard else None
        for entry in kept:
            if entry["step"] >= first_step > 0:
                self._show_on_board(entry["kind"], {key: value for key, value in entry.items() if key != "kind"})
        self._console = terminal.console(error=True, soft_wrap=True, highlight=False, quiet=progress == "none")
        wants_bar = progress == "bar" or (progress == "auto" and self._console.is_terminal)
        self._bar = _Bar(self._console, total_steps, first_step) if wants_bar else None

    def step(self, entry: dict[str, Any]) -> None:
        self._write("step", entry)
        text = _step_text(entry)
        if self._bar:
            self._bar.text(text)
        else:
            self.say(f"step {entry['step']}/{self._total_steps}  {text}")

    def epoch(self, entry: dict[str, Any]) -> None:
        self._write("epoch", entry)
        self.say(_epoch_text(entry, self._metrics))

    def advance(self, step: int) -> None:
        if self._bar:
            self._bar.advance(step)

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


class _Bar:
    """A bar of steps with the last numbers beside it."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        columns = (
            TextColumn("train"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, refresh_per_second=4)
        self._task = self._progress.add_task("train", total=total, completed=done, text="")
        self._progress.start()

    def text(self, text: str) -> None:
        self._progress.update(self._task, text=text)

    def advance(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def stop(self) -> None:
        self._progress.stop()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's `log.jsonl`. Lines that are no entries are left out, and a warning counts them.

    The last line is not counted: a killed process may have left it unfinished.
    """
    path = folder / LOG
    if not path.exists():
        return []
    entries, bad = _parse(path)
    if bad:
        logger.warning("%s: %d lines are no entries of a log and are left out, line %d first", path, len(bad), bad[0])
    return entries


def check_entry(kind: str, entry: dict[str, Any], name: str, required: tuple[str, ...] = ()) -> None:
    """Raise `ConfigError` unless `entry` holds the numbers of an entry of the log of this kind."""
    for key in (*NUMBERS[kind], *required):
        if not _is_number(entry.get(key)):
            raise ConfigError(f"{name}: {key} must be a finite number, got {str(entry.get(key))[:50]!r}")
    for key, value in entry.items():
        if key != "kind" and value is not None and not _is_number(value):
            raise ConfigError(f"{name}: {str(key)[:50]} must be a finite number or null, got {str(value)[:50]!r}")
    if not 0 <= entry["step"] == int(entry["step"]):
        raise ConfigError(f"{name}: step must be a whole number, got {entry['step']}")


def _parse(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The entries, and the numbers of the lines that are none, less the last line."""
    entries: list[dict[str, Any]] = []
    bad: list[int] = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_json(line) if len(line) < _LONGEST_LINE else None
            if not isinstance(entry, dict) or entry.get("kind") not in NUMBERS:
                raise ValueError
            check_entry(entry["kind"], entry, LOG)
            entries.append(entry)
        except (ValueError, TypeError):
            if line.strip() and number < len(lines):
                bad.append(number)
    return entries, bad


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def memory_mib(device: torch.device) -> float:
    """The most memory held so far, in MiB: by torch on a GPU, by the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _keep_until(path: Path, step: int, done_epochs: int | None) -> list[dict[str, Any]]:
    """Drop what the run will write again: the lines after `step`, and epochs that are not done. What stays.

    A log with damaged lines is kept beside the new one.
    """
    if not path.exists():
        return []
    entries, bad = _parse(path)
    if bad:
        copy = path.with_suffix(".damaged.jsonl")
        shutil.copyfile(path, copy)
        logger.warning("%s had %d damaged lines, line %d first; a copy is %s", path, len(bad), bad[0], copy.name)
    kept = [
        entry
        for entry in entries
        if entry["step"] <= step and (entry["kind"] != "epoch" or done_epochs is None or entry["epoch"] <= done_epochs)
    ]
    with atomic_write(path, "w") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in kept)
    return kept


def _open_board(folder: Path, first_step: int) -> Any:
    """A TensorBoard writer; None if tensorboard is not installed (it is an optional dependency)."""
    if importlib.util.find_spec("tensorboard") is None:
        logger.warning("tensorboard is not installed: no TensorBoard files (pip install 'sequencer2d[train]')")
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first_step or None)


def _step_text(entry: dict[str, Any]) -> str:
    return (
        f"loss {entry['loss']:.4f}  lr {entry['lr']:.2e}  {entry['images_per_s']:,.0f} images/s  "
        f"{entry['memory_mib']:,.0f} MiB{_eta_text(entry)}"
    )


def _eta_text(entry: dict[str, Any]) -> str:
    seconds = entry.get("eta_s")
    if seconds is None or not math.isfinite(seconds):
        return ""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"  {hours}:{minutes:02d}:{seconds:02d} left"


def _epoch_text(entry: dict[str, Any], metrics: Sequence[Metric]) -> str:
    shown = [metric for metric in metrics if metric.brief and metric.key in entry]
    parts = [
        f"epoch {entry['epoch']}",
        f"train loss {entry['train_loss']:.4f}",
        *(f"{metric.label} {metric.show(entry[metric.key])}" for metric in shown),
        f"{entry['time_s']:.0f} s",
    ]
    return "  ".join(parts)
