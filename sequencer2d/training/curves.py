"""The curves of a run, drawn from its log."""

import importlib.util
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d import tasks
from sequencer2d.errors import how_to_install
from sequencer2d.figure_text import save
from sequencer2d.files import atomic_write
from sequencer2d.tasks.task import Metric
from sequencer2d.terminal import printable
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.logfile import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

Entries = list[dict[str, Any]]
_FEW = 40
"""Lines with at most this many points have markers, so that a single point between two gaps is visible."""


def plot_curves(run_folder: Path, config: TrainConfig, path: Path | None = None) -> Path | None:
    """Draw loss, the deciding metric and learning rate over epochs to `path` (default: `curves.png` in the run folder).

    Returns the path; None if matplotlib is not installed (it is an optional dependency).
    """
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning(f"matplotlib is not installed: no curves.png ({how_to_install('train')})")
        return None
    target = path or run_folder / "curves.png"
    figure = curves_figure(read_log(run_folder), config)
    with atomic_write(target) as file:
        save(figure, file, format="png", dpi=120)
    return target


def curves_figure(entries: Entries, config: TrainConfig) -> "Figure":
    """The figure of `plot_curves` from the entries of a log."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    task = tasks.get(config.task)
    steps = [entry for entry in entries if entry["kind"] == "step"]
    epochs = [entry for entry in entries if entry["kind"] == "epoch"]
    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(printable(f"{config.run.output}: {config.model.name} on {config.data.source}"), parse_math=False)
    loss, quality, rate = figure.subplots(1, 3)
    if len(steps) > len(epochs):
        _line(loss, steps, "loss", "training, by step", color="C0", alpha=0.35, marker="")
    _line(loss, epochs, "train_loss", "training", color="C0")
    _line(loss, epochs, "val_loss", "validation", color="C1")
    _line(quality, epochs, task.decides.key, "validation", color="C1")
    _mark_best(quality, epochs, task.decides)
    _line(rate, steps, "lr", "learning rate", color="C2")
    for axes, title in ((loss, task.loss_name), (quality, task.decides.axis), (rate, "learning rate")):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="best")
    if note := loss_note(epochs, config):
        figure.supxlabel(note, fontsize="small", color="0.35")
    return figure


def loss_note(epochs: Entries, config: TrainConfig) -> str:
    """Why the training loss is higher than the validation loss; empty if it is not, or if nothing explains it."""
    last = next((entry for entry in reversed(epochs) if entry.get("val_loss") is not None), None)
    causes = [cause for cause, applies in _causes(config).items() if applies]
    if last is None or last["train_loss"] <= last["val_loss"] or not causes:
        return ""
    listed = " and ".join(filter(None, (", ".join(causes[:-1]), causes[-1])))
    return f"The training loss lies above the validation loss, which is measured without {listed}."


def _causes(config: TrainConfig) -> dict[str, bool]:
    """Settings of a run that make its training loss higher than the loss of the same images in evaluation."""
    data = config.data
    return {
        "mixup or cutmix": data.mixes,
        "label smoothing": config.regularization.label_smoothing > 0,
        "stochastic depth": config.model.drop_path_rate > 0,
        "augmentation": bool(data.auto_augment or data.batch_policy or data.erasing),
    }


def _line(axes: "Axes", entries: Entries, key: str, label: str, **look: Any) -> None:
    """A line over epochs; values that are not finite are gaps."""
    points = [(entry["epoch"], math.nan if entry[key] is None else entry[key]) for entry in entries if key in entry]
    if points:
        look = {"marker": "o" if len(points) <= _FEW else "", "markersize": 4, **look}
        axes.plot(*zip(*points, strict=True), label=label, **look)


def _mark_best(axes: "Axes", epochs: Entries, metric: Metric) -> None:
    best = None
    for entry in epochs:
        if metric.improves(entry.get(metric.key), None if best is None else best[metric.key]):
            best = entry
    if best is not None:
        label = f"best: {metric.show(best[metric.key])} after epoch {best['epoch']}"
        axes.plot(best["epoch"], best[metric.key], "*", color="C3", markersize=11, linestyle="none", label=label)
