"""A picture of what a classifier says of some images, beside the truth."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sequencer2d.analysis.drawing import prediction_color, prediction_text
from sequencer2d.data.images import decode
from sequencer2d.evaluation.predict import Prediction
from sequencer2d.figure_text import save
from sequencer2d.files import atomic_write
from sequencer2d.terminal import printable_lines

_CHARACTERS = 18
"""Of a line above an image."""


def draw_predictions(
    predictions: Sequence[Prediction],
    truths: Sequence[str],
    path: str | os.PathLike[str],
    *,
    columns: int = 8,
    title: str = "",
) -> Path:
    """Draw images in a grid, each with its first guess, that one's probability, and the truth; in green or in red.

    Args:
        predictions: of images that could be read.
        truths: the name of each image's class.
        path: PNG file to write.
        columns: images in a row.
        title: of the picture; it may have several lines.
    """
    figure = predictions_figure(predictions, truths, columns=columns, title=title)
    with atomic_write(path) as file:
        save(figure, file, format="png", dpi=120)
    return Path(path)


def predictions_figure(
    predictions: Sequence[Prediction], truths: Sequence[str], *, columns: int = 8, title: str = ""
) -> Any:
    """The figure of `draw_predictions`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(predictions) // columns)
    figure = Figure(figsize=(max(1.3 * columns, 3.9), 1.75 * rows + (0.4 if title else 0)), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(printable_lines(title), fontsize=8, parse_math=False)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, prediction, truth in zip(grid, predictions, truths, strict=False):
        guess = prediction.found.guesses[0]
        axes.imshow(np.asarray(decode(prediction.path)), interpolation="nearest")
        said = prediction_text(guess.name, guess.probability, truth, _CHARACTERS)
        axes.set_title(printable_lines(said), fontsize=8, color=prediction_color(guess.name, truth), parse_math=False)
    return figure
