"""What a run says of itself: `log.jsonl`, TensorBoard, and a bar or lines on the terminal.

Only the main process opens a `RunLog`; the others use `SilentLog`, which has the same methods.

`log.jsonl` holds one JSON object per line. Kinds:

* `"step"`: `step` (optimizer steps done), `epoch` (fraction), `loss` (mean since the last such line, over all
  processes), `lr`, `images_per_s`, `memory_mib`, `time_s` (of the run's calls so far), `grad_norm` with clipping.
* `"epoch"`: `step`, `epoch` (epochs done), `train_loss`, `time_s`, and after an evaluation `top1` and `top5` (%) and
  `val_loss` (null if not finite).
"""

import importlib.util
import json
import logging
import math
import resource
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sequencer2d.files import atomic_write

logger = logging.getLogger(__name__)

LOG = "log.jsonl"


class SilentLog:
    """The log of a process that writes nothing."""

    def __enter__(self) -> "SilentLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
    """The main process's log. `first_step`: where the run goes on; later lines of an earlier call are dropped."""

    def __init__(self, folder: Path, *, total_steps: int, first_step: int, tensorboard: bool, progress: str) -> None:
        self._total_steps = total_steps
        _keep_until(folder / LOG, first_step)
        self._file: IO[str] = (folder / LOG).open("a", encoding="utf-8")
        self._board = _open_board(folder / "tensorboard", first_step) if tensorboard else None
        self._console = Console(stderr=True, soft_wrap=True, highlight=False, quiet=progress == "none")
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
        self._file.flush()
        self.say(_epoch_text(entry))

    def advance(self, step: int) -> None:
        if self._bar:
            self._bar.advance(step)

    def say(self, message: str) -> None:
        self._console.print(message, markup=False)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
        self._file.close()
        if self._board:
            self._board.close()

    def _write(self, kind: str, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps({"kind": kind, **entry}, allow_nan=False) + "\n")
        self._file.flush()
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
    """The entries of a run's `log.jsonl`; a last line that a killed process left unfinished is dropped."""
    path = folder / LOG
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def memory_mib(device: torch.device) -> float:
    """The most memory held so far, in MiB: by torch on a GPU, by the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _keep_until(path: Path, step: int) -> None:
    """Drop the lines after `step`: the run goes on from there and writes them again."""
    if not path.exists():
        return
    kept = [entry for entry in read_log(path.parent) if entry["step"] <= step]
    with atomic_write(path, "w") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in kept)


def _open_board(folder: Path, first_step: int) -> Any:
    """A TensorBoard writer; None if tensorboard is not installed (it is an optional dependency)."""
    if importlib.util.find_spec("tensorboard") is None:
        logger.warning("tensorboard is not installed: no TensorBoard files (pip install 'sequencer2d[train]')")
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first_step + 1 if first_step else None)


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


def _epoch_text(entry: dict[str, Any]) -> str:
    text = f"epoch {entry['epoch']}  train loss {entry['train_loss']:.4f}"
    if "top1" in entry:
        loss = "not finite" if entry["val_loss"] is None else f"{entry['val_loss']:.4f}"
        text += f"  top-1 {entry['top1']:.2f} %  val loss {loss}"
    return f"{text}  {entry['time_s']:.0f} s"
