"""The curves of several runs in one figure."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sequencer2d.analysis.figure_files import figure_bytes
from sequencer2d.files import atomic_write
from sequencer2d.tasks.task import Metric
from sequencer2d.terminal import printable

_FEW = 40
"""Up to this many points of a line are marked."""


def draw_comparison(
    logs: Mapping[str, Sequence[Mapping[str, Any]]], metric: Metric, path: str | os.PathLike[str], *, loss: str
) -> Path:
    """Draw training loss, validation loss and the deciding metric of runs over epochs, a color for each run.

    Args:
        logs: name of each run → the entries of its log.
        metric: what decides which weights are best.
        path: PNG file to write.
        loss: what the loss is, with its unit.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (("train_loss", f"training: {loss}"), ("val_loss", f"validation: {loss}"), (metric.key, metric.axis))
    for axes, (key, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for number, (name, entries) in enumerate(logs.items()):
            points = [
                (entry["epoch"], math.nan if entry[key] is None else entry[key])
                for entry in entries
                if entry["kind"] == "epoch" and key in entry
            ]
            if points:
                marker = "o" if len(points) <= _FEW else ""
                label = printable(name).replace("$", r"\$")
                axes.plot(*zip(*points, strict=True), label=label, color=f"C{number}", marker=marker, markersize=3)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    with atomic_write(path) as file:
        file.write(figure_bytes(figure))
    return Path(path)
