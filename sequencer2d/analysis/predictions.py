"""A picture of what a classifier says of some images, beside the truth."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sequencer2d.data.images import decode
from sequencer2d.evaluation.predict import Prediction
from sequencer2d.files import atomic_write

_CHARACTERS = 18
"""Of a line above an image."""


def draw_predictions(
    predictions: Sequence[Prediction],
    truths: Sequence[str],
    path: str | os.PathLike[str],
    *,
    columns: int = 8,
) -> Path:
    """Draw images in a grid with their first guess and its probability: green if right, red with the truth if wrong.

    Args:
        predictions: of images that could be read.
        truths: the name of each image's class.
        path: PNG file to write.
        columns: images in a row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(predictions) // columns)
    figure = Figure(figsize=(1.3 * columns, 1.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, prediction, truth in zip(grid, predictions, truths, strict=False):
        guess = prediction.found.guesses[0]
        right = guess.name == truth
        axes.imshow(np.asarray(decode(prediction.path)), interpolation="nearest")
        said = [f"{guess.name} ({guess.probability:.0%})", *([] if right else [f"is {truth}"])]
        title = "\n".join(line for text in said for line in textwrap.wrap(text, _CHARACTERS))
        axes.set_title(title, fontsize=8, color="green" if right else "red")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return Path(path)
