"""The curves of a run, drawn from its log."""

import importlib.util
import logging
import math
from pathlib import Path
from typing import Any

from sequencer2d.files import atomic_write
from sequencer2d.tasks import CLASSIFICATION, Task
from sequencer2d.training.logfile import read_log

logger = logging.getLogger(__name__)


def plot_curves(run_folder: Path, task: Task = CLASSIFICATION, path: Path | None = None) -> Path | None:
    """Draw loss, the deciding metric and learning rate over epochs to `path` (default: `curves.png` in the run folder).

    Returns the path; None if matplotlib is not installed (it is an optional dependency).
    """
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("matplotlib is not installed: no curves.png (pip install 'sequencer2d[train]')")
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target = path or run_folder / "curves.png"
    entries = read_log(run_folder)
    steps = [entry for entry in entries if entry["kind"] == "step"]
    metric = task.decides
    epochs = [entry for entry in entries if entry["kind"] == "epoch" and metric.key in entry]
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    loss, quality, rate = figure.subplots(1, 3)
    _line(loss, steps, "loss", "train")
    _line(loss, [entry for entry in epochs if "val_loss" in entry], "val_loss", "validation")
    _line(quality, epochs, metric.key, metric.label)
    _line(rate, steps, "lr", "learning rate")
    for axes, title in ((loss, task.loss_name), (quality, metric.axis), (rate, "learning rate")):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend(loc="best") if axes.lines else None
    with atomic_write(target) as file:
        figure.savefig(file, format="png", dpi=120)
    return target


def _line(axes: Any, entries: list[dict[str, Any]], key: str, label: str) -> None:
    if entries:
        axes.plot(
            [entry["epoch"] for entry in entries],
            [math.nan if entry[key] is None else entry[key] for entry in entries],
            label=label,
        )
